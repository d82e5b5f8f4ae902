"""The layers of a tile's embeddings: names, types and nodata values of their files; the names of stored d-pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS

RUN = "run.json"
"""The file that holds a folder's identity."""
RUNS = "runs"
"""The folder of what was asked for, a file per run."""
DPIXELS = "d-pixels"
"""What `content` says in the identity of folders of d-pixels; those of embeddings have no such key."""
FORMULA = "value = code * scale"

Format = Literal["geotiff", "npy", "vectors"]
"""Of tiles of embeddings: rasters, bare arrays of whole tiles, or bare arrays of the pixels asked for alone."""
AreaFormat = Literal["geotiff", "npy"]
"""What can be chosen for an area; that of points is `vectors`."""
Dtype = Literal["int8", "float32"]
"""Of stored embeddings: codes with a scale per pixel, or the numbers themselves."""
Role = Literal["emb", "scales", "counts", "uncertainty", "map"]
"""Of a layer; `map` is what `tessera map` and `tessera change` write, which is no file of a tile."""
StoreFormat = Literal["zarr", "npy"]
STORE_SUFFIX: dict[StoreFormat, str] = {"zarr": ".zarr", "npy": ""}
"""Format of stored d-pixels -> what follows the tile's name in that of the store."""


@dataclass(frozen=True)
class Layer:
    """What one file of a tile holds."""

    role: Role
    key: str
    """Its key among the assets of the tile's STAC item."""
    title: str
    dtype: str
    nodata: float | None
    """None if every value is data; another layer then says which pixels have any."""
    stac_roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Band descriptions; if empty, there is one band per dimension of the embedding."""

    def bands(self, dims: int) -> tuple[str, ...]:
        """Return the band descriptions for embeddings of `dims` values."""
        return self.names or tuple(f"Tessera_Band_{i}" for i in range(dims))


CODES = Layer("emb", "embeddings", "Embedding codes", "int8", -128, ("data",))
NPY_CODES = Layer("emb", "embeddings", "Embedding codes", "int8", None, ("data",))
"""0 where there is no embedding, as in the official files."""
VALUES = Layer("emb", "embeddings", "Embedding", "float32", math.nan, ("data",))
SCALES = Layer("scales", "scales", "Scale of the codes, per pixel", "float32", math.nan, ("data", "scale"), ("scale",))
NOT_REQUESTED = 65535
"""The nodata value of counts; a requested pixel that no sensor saw has 0."""
COUNTS = Layer(
    "counts",
    "counts",
    "Observations used, per sensor",
    "uint16",
    NOT_REQUESTED,
    ("metadata", "observation-count"),
    SENSORS,
)

UNCERTAINTY = Layer(
    "uncertainty",
    "uncertainty",
    "Cosine distance by which other dates would move the embedding, expected",
    "float32",
    math.nan,
    ("data", "uncertainty"),
    ("uncertainty",),
)
"""NaN where there is no embedding, and where a pixel has too few observations to tell."""

_LAYERS: dict[tuple[Format, Dtype], tuple[Layer, ...]] = {
    ("geotiff", "int8"): (CODES, SCALES, COUNTS),
    ("geotiff", "float32"): (VALUES, COUNTS),
    ("npy", "int8"): (NPY_CODES, SCALES),
    ("npy", "float32"): (VALUES,),
    ("vectors", "int8"): (NPY_CODES, SCALES),
    ("vectors", "float32"): (VALUES,),
}
_ENDINGS: dict[Format, dict[Role, str]] = {
    "geotiff": {
        "emb": "_emb.tif",
        "scales": "_scales.tif",
        "counts": "_counts.tif",
        "uncertainty": "_uncertainty.tif",
    },
    "npy": {"emb": ".npy", "scales": "_scales.npy", "uncertainty": "_uncertainty.npy"},
    "vectors": {
        "emb": "_vectors.npy",
        "scales": "_vectors_scales.npy",
        "uncertainty": "_vectors_uncertainty.npy",
    },
}


def layers_of(identity: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Return the layers of each tile of a folder of embeddings with this identity; the embeddings come first."""
    layers = _LAYERS[identity["format"], identity["dtype"]]
    return (*layers, UNCERTAINTY) if identity.get("uncertainty") else layers


def file_name(name: str, role: Role, format: Format) -> str:
    """Return the name of a layer's file; `name` is that of `tile_name`."""
    return name + _ENDINGS[format][role]


def file_names(name: str) -> list[str]:
    """Return the names of all files that a tile of embeddings can have, in any format."""
    return [name + ending for endings in _ENDINGS.values() for ending in endings.values()]


def tiles_of_file(file: str) -> list[str]:
    """Return the names of the tiles that a file can belong to: `a_scales.npy` to `a` or to `a_scales`."""
    endings = [ending for endings in _ENDINGS.values() for ending in endings.values()]
    return [file.removesuffix(ending) for ending in endings if file.endswith(ending)]


def requested_counts(counts: np.ndarray, requested: np.ndarray) -> np.ndarray:
    """Return `counts`, uint16 (3, H, W), with NOT_REQUESTED where `requested`, bool (H, W), is false."""
    return np.where(requested, counts, np.uint16(NOT_REQUESTED))
