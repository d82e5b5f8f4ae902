"""One tile's embeddings, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from tessera_cli.extent.grid import AnyTile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import NOT_REQUESTED, Dtype

CACHE_LINE = 64
"""Bytes that a CPU loads at once: columns of values that share them are taken out together."""


@dataclass(frozen=True, eq=False)
class EncodedTile:
    """One tile's embeddings, ready to be written. H, W are the tile's size."""

    tile: AnyTile
    window: Window | None
    pixels: np.ndarray
    """bool (H, W): pixels that have an embedding."""
    values: np.ndarray
    """int8 codes or float32 values (N, R), in row-major order of `pixels`."""
    scales: np.ndarray | None
    """float32 (N,) with int8, else None."""
    counts: np.ndarray
    """uint16 (3, H, W): observations used, in the order of SENSORS."""
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    tags: Mapping[str, str]
    """The model's."""

    def __post_init__(self) -> None:
        shape, n = self.tile.shape, int(self.pixels.sum())
        due = {
            "pixels": (self.pixels, bool, shape),
            "requested": (self.requested, bool, shape),
            "counts": (self.counts, np.uint16, (3, *shape)),
            "values": (self.values, np.float32 if self.scales is None else np.int8, (n, *self.values.shape[-1:])),
            **({} if self.scales is None else {"scales": (self.scales, np.float32, (n,))}),
        }
        for what, (array, dtype, size) in due.items():
            if array.dtype != dtype or array.shape != size:
                raise ValueError(f"{what}: {array.dtype} {array.shape} given, {np.dtype(dtype)} {size} due")

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def dims(self) -> int:
        return self.values.shape[1]

    @property
    def dtype(self) -> Dtype:
        return cast(Dtype, self.values.dtype.name)

    def bands(self) -> Iterator[np.ndarray]:
        """Yield the values dimension by dimension, (N,) each."""
        step = max(1, CACHE_LINE // self.values.itemsize)
        for start in range(0, self.dims, step):
            yield from np.ascontiguousarray(self.values[:, start : start + step].T)


def requested_counts(counts: np.ndarray, requested: np.ndarray) -> np.ndarray:
    """Return `counts`, uint16 (3, H, W), with NOT_REQUESTED where `requested`, bool (H, W), is false."""
    return np.where(requested, counts, np.uint16(NOT_REQUESTED))
