"""The layers of a tile: what their files are called, what they hold and how they store it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tessera_cli.dpixel import SENSORS
from tessera_cli.grid import Tile
from tessera_cli.window import Window

FORMULA = "value = code * scale"

Role = Literal["emb", "scales", "counts"]


@dataclass(frozen=True)
class Layer:
    """One raster of a tile."""

    role: Role
    """The last part of the file's name."""
    key: str
    """Its key among the assets of the tile's STAC item."""
    title: str
    dtype: str
    nodata: float
    stac_roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Band descriptions; none given: one band per dimension of the embedding."""

    def bands(self, dims: int) -> tuple[str, ...]:
        """Band descriptions, for embeddings of this length."""
        return self.names or tuple(f"Tessera_Band_{i}" for i in range(dims))


EMB = Layer("emb", "embedding", "Embedding codes", "int8", -128, ("data",))
SCALES = Layer("scales", "scales", "Scale of the codes, per pixel", "float32", math.nan, ("data", "scale"), ("scale",))
COUNTS = Layer(
    "counts", "counts", "Observations used, per sensor", "uint16", 65535, ("metadata", "observation-count"), SENSORS
)
LAYERS: Mapping[Role, Layer] = {layer.role: layer for layer in (EMB, SCALES, COUNTS)}


def tile_name(tile: Tile, window: Window) -> str:
    """`<tile>_<window>`: the name of a tile's record and the start of the names of its rasters."""
    return f"{tile.id}_{window.name}"


def raster_name(tile: Tile, window: Window, role: Role) -> str:
    return f"{tile_name(tile, window)}_{role}.tif"


def vrt_name(tile: Tile, window: Window) -> str:
    """`utm31n_2023.vrt` for every tile of the zone."""
    return f"{tile.id.partition('_')[0]}_{window.name}.vrt"
