"""GeoTIFFs on disk and as a server sends them: blocks of every kind, to the pixels of a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.promises import UnfitError
from tessera_cli.imagery.reader import Reader
from tessera_cli.imagery.warp import on_tile
from tessera_cli.net import Client
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


@dataclass(frozen=True)
class Sent:
    """A file on a server, which sends what it is asked for."""

    data: bytes = field(repr=False)
    name: str = "https://x.test/x.tif"

    def first(self, length: int) -> tuple[bytes, int | None]:
        return self.data[:length], len(self.data)

    def read(self, ranges: Sequence[tuple[int, int]], size: int | None) -> list[bytes]:
        return [self.data[start : start + length] for start, length in ranges]


class Opener(Files):
    """Opener of files: those on the web are one, of these bytes."""

    def __init__(self, client: Client, data: bytes) -> None:
        super().__init__(client)
        self._data = data

    def open(self, href: str, *, anew: bool = False) -> GeoTiffFile:
        if not href.startswith("https:"):
            return super().open(href, anew=anew)
        return GeoTiffFile.open(Sent(self._data), self._headers, self._nothing)  # type: ignore[arg-type]


def use(folder: Path, changed: Path) -> None:
    client = Client()
    reader = Reader(client, files=Opener(client, changed.read_bytes()))
    floats = changed.stem == "float"
    warp = ("bilinear", "float32") if floats else ("nearest", "uint16")
    errors = []
    for href in (Sent.name, str(changed)):
        try:
            reader.read(href, lambda file: on_tile(file, TILE, *warp, WANTED))  # type: ignore[arg-type]
            reader.read(href, lambda file: dict(file.header.tags))
        except (TesseraError, UnfitError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


TARGETS = (Target("tiff", build, use, allowed=(UnfitError, BrokenError)),)
