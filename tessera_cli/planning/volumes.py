"""How much a run reads and writes, from what the catalogue lists: no file is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.catalog import Scene, Scenes, Sensor, Source
from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.extent.grid import TILE_SIZE
from tessera_cli.net.address import AddressError, local_path

FINE_BANDS = ("B02", "B03", "B04", "B08")
S2_TILE_BYTES = {band: 2 * (TILE_SIZE if band in FINE_BANDS else TILE_SIZE // 2) ** 2 for band in S2_BANDS}
SCL_TILE_BYTES = (TILE_SIZE // 2) ** 2
S1_TILE_BYTES = TILE_SIZE**2 * 4
"""Of one band, on one tile."""
PACKED = 0.9
"""Size of rasters of embeddings against the codes in them."""
S2_PACKED, S1_PACKED = 0.65, 0.8
"""Typical size of compressed blocks against raw pixels."""


@dataclass(frozen=True, eq=False)
class Volumes:
    """The files of scenes that a run may read."""

    scene: np.ndarray
    """Number of the scene of each file."""
    of_tile: np.ndarray
    """Bytes of a file that reading one tile takes."""
    size: np.ndarray
    """Bytes of a file; infinite if it is not known."""

    @classmethod
    def of(cls, scenes: Scenes) -> Volumes:
        rows = [(n, *file) for n, scene in enumerate(scenes.scenes) for file in scene_files(scene, scenes.source)]
        scene, of_tile, size = np.array(rows, float).reshape(-1, 3).T
        return cls(scene.astype(np.int64), of_tile, size)

    def bytes(self, tiles: np.ndarray) -> int:
        """Return what reading the scenes takes, of each file at most its size; `tiles`: on how many, per scene."""
        return round(float(np.minimum(tiles[self.scene] * self.of_tile, self.size)[tiles[self.scene] > 0].sum()))


def scene_files(scene: Scene, source: Source) -> Iterator[tuple[float, float]]:
    """Yield of each file of a scene that is read the bytes that one tile takes, and its size."""
    if scene.sensor is not Sensor.S2:
        one = S1_PACKED * S1_TILE_BYTES / (9 if source.granules else 1)  # 30 m
        expected = dict.fromkeys(source.s1_assets.values(), one)
    else:
        expected = {source.scl_asset: S2_PACKED * SCL_TILE_BYTES}
        if (scene.cloud_cover or 0) < 99:
            expected |= {source.s2_assets[band]: S2_PACKED * size for band, size in S2_TILE_BYTES.items()}
    assets = scene.item["assets"]
    yield from ((one, file_size(assets[key])) for key, one in expected.items() if key in assets)


def file_size(asset: Mapping[str, Any]) -> float:
    """Return the size of a file that the catalogue tells or this machine holds; infinity if it is not known."""
    if isinstance(size := asset.get("file:size"), int) and size > 0:
        return size
    with suppress(OSError, AddressError):
        return Path(local_path(asset["href"])).stat().st_size
    return math.inf


def embeddings_bytes(pixels: int, dims: int, itemsize: int = 1) -> float:
    """Return the bytes of the rasters of so many pixels."""
    return pixels * (dims * itemsize * PACKED + 10)
