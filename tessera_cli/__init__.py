"""From a polygon and a year to pixel-level embeddings of the Earth."""

from tessera_cli._version import __version__

__all__ = ["__version__"]
