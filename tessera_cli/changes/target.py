"""The files of a comparison: per zone two rasters, patches and a STAC item; a page, and a record."""

from __future__ import annotations

import re

from tessera_cli.exports.results import Kind
from tessera_cli.outputs.layers import Layer

PAGE = "change.html"
KIND = Kind(
    "change",
    "change.json",
    re.compile(r"change\.html|[a-z0-9-]+_(scores\.tif|changed\.tif|patches\.gpkg|change\.json)"),
)
SCORES = Layer(
    "map",
    "scores",
    "Change",
    "float32",
    float("nan"),
    ("data",),
    ("cosine_distance", "euclidean_distance", "noise", "residual_distance", "z_score", "p_value"),
)
CHANGED = Layer("map", "changed", "Changed", "uint8", 255, ("data",), ("changed",))
COLOURS = {0: (230, 230, 230, 255), 1: (213, 62, 79, 255), 255: (0, 0, 0, 0)}
