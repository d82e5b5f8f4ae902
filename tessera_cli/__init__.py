"""From a polygon and a year to pixel-level embeddings of the Earth.

    import tessera_cli as tessera

    summary = tessera.embed("field.geojson", year=2023, out="field")
    dataset = tessera.open_embeddings("field")

The public names are listed in `__init__.pyi`; each is imported when it is first used, so that `import tessera_cli`
takes a moment and no torch.
"""

import lazy_loader

from tessera_cli import environment

__version__ = "0.1.0"

environment.settle()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
