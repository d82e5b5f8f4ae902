"""One tile's embeddings, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import UNCERTAINTY, layers_of

CACHE_LINE = 64
"""Bytes that a CPU loads at once: columns of values that share them are taken out together."""


@dataclass(frozen=True, eq=False)
class EncodedTile:
    """One tile's embeddings, ready to be written. H, W are the tile's size."""

    record: TileRecord
    """Still without files."""
    pixels: np.ndarray
    """bool (H, W): pixels that have an embedding."""
    values: np.ndarray
    """int8 codes or float32 values (N, R), in row-major order of `pixels`."""
    scales: np.ndarray | None
    """float32 (N,) with int8, else None."""
    counts: np.ndarray
    """uint16 (3, H, W): observations used, in the order of SENSORS."""
    tokens: int = 0
    """Observations that went through the encoder."""
    uncertainty: np.ndarray | None = None
    """float32 (N,) where the identity asks for it."""

    def __post_init__(self) -> None:
        shape, n = self.record.tile.shape, int(self.pixels.sum())
        due = {
            "pixels": (self.pixels, bool, shape),
            "requested": (self.record.requested, bool, shape),
            "counts": (self.counts, np.uint16, (3, *shape)),
            "values": (self.values, np.float32 if self.scales is None else np.int8, (n, self.record.dims)),
            **({} if self.scales is None else {"scales": (self.scales, np.float32, (n,))}),
            **({} if self.uncertainty is None else {"uncertainty": (self.uncertainty, np.float32, (n,))}),
        }
        if UNCERTAINTY in layers_of(self.record.identity) and self.uncertainty is None:
            raise ValueError("uncertainty: the identity asks for it")
        for what, (array, dtype, size) in due.items():
            if array.dtype != dtype or array.shape != size:
                raise ValueError(f"{what}: {array.dtype} {array.shape} given, {np.dtype(dtype)} {size} due")

    def bands(self) -> Iterator[np.ndarray]:
        """Yield the values dimension by dimension, (N,) each."""
        step = max(1, CACHE_LINE // self.values.itemsize)
        for start in range(0, self.record.dims, step):
            yield from np.ascontiguousarray(self.values[:, start : start + step].T)
