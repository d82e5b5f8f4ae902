"""The layers of a tile: what their files are called, what they hold and how they store it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window

RUN = "run.json"
"""The file that says whose folder it is."""
FORMULA = "value = code * scale"

Format = Literal["geotiff", "npy"]
Dtype = Literal["int8", "float32"]
"""Of stored embeddings: codes with a scale per pixel, or the numbers themselves."""
Role = Literal["emb", "scales", "counts"]


@dataclass(frozen=True)
class Layer:
    """One file of a tile."""

    role: Role
    key: str
    """Its key among the assets of the tile's STAC item."""
    title: str
    dtype: str
    nodata: float | None
    """None: every value means something, another layer says where there is data."""
    stac_roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Band descriptions; none given: one band per dimension of the embedding."""

    def bands(self, dims: int) -> tuple[str, ...]:
        """Band descriptions, for embeddings of this length."""
        return self.names or tuple(f"Tessera_Band_{i}" for i in range(dims))


CODES = Layer("emb", "embedding", "Embedding codes", "int8", -128, ("data",))
NPY_CODES = Layer("emb", "embedding", "Embedding codes", "int8", None, ("data",))
"""0 where there is no embedding, as in the official files."""
VALUES = Layer("emb", "embedding", "Embedding", "float32", math.nan, ("data",))
SCALES = Layer("scales", "scales", "Scale of the codes, per pixel", "float32", math.nan, ("data", "scale"), ("scale",))
NOT_ASKED = 65535
"""The nodata value of counts: "not asked for" is not "never seen", which is 0."""
COUNTS = Layer(
    "counts", "counts", "Observations used, per sensor", "uint16", NOT_ASKED, ("metadata", "observation-count"), SENSORS
)

LAYERS: dict[tuple[Format, Dtype], tuple[Layer, ...]] = {
    ("geotiff", "int8"): (CODES, SCALES, COUNTS),
    ("geotiff", "float32"): (VALUES, COUNTS),
    ("npy", "int8"): (NPY_CODES, SCALES),
    ("npy", "float32"): (VALUES,),
}
"""Format and type of a folder -> the layers of each of its tiles."""

_ENDINGS: dict[Format, dict[Role, str]] = {
    "geotiff": {"emb": "_emb.tif", "scales": "_scales.tif", "counts": "_counts.tif"},
    "npy": {"emb": ".npy", "scales": "_scales.npy"},
}


def file_name(name: str, role: Role, format: Format) -> str:
    """`name` as `tile_name` gives it."""
    return name + _ENDINGS[format][role]


def file_names(name: str) -> list[str]:
    """The files that a tile can have, of all formats."""
    return [name + ending for endings in _ENDINGS.values() for ending in endings.values()]


def tiles_of_file(file: str) -> list[str]:
    """The names of the tiles that a file of this name can belong to: `a_scales.npy` is of `a`, or all of `a_scales`."""
    endings = [ending for endings in _ENDINGS.values() for ending in endings.values()]
    return [file.removesuffix(ending) for ending in endings if file.endswith(ending)]


def parse_tile_name(name: str) -> tuple[Tile, Window] | None:
    """`<tile>_<window>` -> the tile of the grid and the window; None for the name of anything else."""
    tile_id, _, window = name.rpartition("_")
    try:
        return Tile.from_id(tile_id), Window.from_name(window)
    except ValueError:
        return None


def vrt_name(tile: Tile, window: Window) -> str:
    """`utm31n_2023.vrt` for every tile of the zone."""
    return f"{tile.id.partition('_')[0]}_{window.name}.vrt"
