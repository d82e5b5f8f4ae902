"""Names of virtual rasters: `utm31n_2023.vrt` to be opened, `utm31n_2023_*.vrt` that it is made of."""

from __future__ import annotations

import re
from pathlib import Path

from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window

_OURS = re.compile(r"utm[0-9]{2}[ns]_[0-9-]+(_codes|_scales)?(_c-?[0-9]+_r-?[0-9]+)?")
"""Without the ending; what users call otherwise is theirs."""


def product_name(tile: Tile, window: Window) -> str:
    """Return the name of the VRT to be opened for a tile's zone and window, such as `utm31n_2023.vrt`."""
    return f"{tile.id.partition('_')[0]}_{window.name}.vrt"


def part_name(product: str, part: str) -> str:
    """Return the name of a VRT that `product` is made of: `utm31n_2023_codes.vrt` for `codes`."""
    return f"{product.removesuffix('.vrt')}_{part}.vrt"


def products(folder: Path) -> list[str]:
    """Return the names of the VRTs of a folder that are to be opened, without those that they are made of."""
    return [path.name for path in vrts(folder) if path.stem.count("_") == 1]


def whole(folder: Path) -> list[str]:
    """Return the names of the VRTs of a folder that show all of a zone and window, without those of blocks."""
    return [path.name for path in vrts(folder) if not _OURS.fullmatch(path.stem)[2]]  # type: ignore[index]


def vrts(folder: Path) -> list[Path]:
    """Return all files in a folder that are called as VRTs of ours are."""
    return sorted(path for path in folder.glob("utm*.vrt") if _OURS.fullmatch(path.stem))


def of_mosaic(vrt: Path) -> list[Path]:
    """Return the VRTs of the zone and window of `vrt` that lie beside it, itself included: the one to open first."""
    zone, window = vrt.stem.split("_")[:2]
    return [path for path in vrts(vrt.parent) if path.stem.split("_")[:2] == [zone, window]]
