"""From a polygon and a year to pixel-level embeddings of the Earth."""

__version__ = "0.1.0"
