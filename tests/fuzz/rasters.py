"""GeoTIFFs on disk and as a server sends them: blocks of every kind, to the pixels of a tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.promises import UnfitError
from tessera_cli.imagery.reader import Reader
from tessera_cli.imagery.warp import on_tile
from tessera_cli.net import Client, Response
from tests.fuzz.target import Target

TILE = Tile(32631, 112, 1098)
TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128}
WANTED = np.zeros(TILE.shape, bool)
WANTED[100:140, 60:90] = True


def build(folder: Path) -> None:
    rng = np.random.default_rng(0)
    west, _, _, north = TILE.bounds
    integers = rng.integers(0, 4000, (256, 256)).astype("uint16")
    floats = rng.gamma(4, 0.02, (256, 256)).astype("float32")
    made: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "deflate": (integers, {**TILED, "compress": "deflate", "predictor": 2, "nodata": 0}),
        "float": (floats, {**TILED, "compress": "deflate", "predictor": 3, "nodata": -32768}),
        "lzw": (integers, {**TILED, "compress": "lzw", "predictor": 2}),
        "zstd": (integers, {**TILED, "compress": "zstd"}),
        "strips": (integers.astype("uint8"), {"blockysize": 32, "nodata": 0}),
        "bigtiff": (integers, {**TILED, "compress": "deflate", "BIGTIFF": "YES"}),
        "mask": (integers, {**TILED, "compress": "deflate"}),
    }
    for name, (values, options) in made.items():
        options |= {"crs": "EPSG:32631", "transform": Affine(10, 0, west, 0, -10, north), "count": 1}
        shape = dict(zip(("height", "width"), values.shape, strict=True))
        path = folder / f"{name}.tif"
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, **shape, **options) as dst,
        ):
            dst.write(values, 1)
            dst.update_tags(ORBIT_PASS_DIRECTION="ASCENDING")
            if name == "mask":
                dst.write_mask(values > 100)


class Server(Client):
    """A client of which every address is this file, sent as it is asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def fetch_parts(
        self, url: str, parts: Sequence[tuple[tuple[int, int], Mapping[str, str]]]
    ) -> list[Response | Exception]:
        found: list[Response | Exception] = []
        for (first, length), _ in parts:
            part = self._data[first : first + length]
            told = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(self._data)}"}
            found.append(Response(part, told, 206))
        return found


def use(folder: Path, changed: Path) -> None:
    reader = Reader(Server(changed.read_bytes()))
    floats = changed.stem == "float"
    warp = ("bilinear", "float32") if floats else ("nearest", "uint16")
    errors = []
    for href in ("https://x.test/x.tif", str(changed)):
        try:
            reader.read(href, lambda file: on_tile(file, TILE, *warp, WANTED))  # type: ignore[arg-type]
            reader.read(href, lambda file: dict(file.header.tags))
        except (TesseraError, UnfitError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


TARGETS = (Target("tiff", build, use, allowed=(UnfitError, BrokenError)),)
