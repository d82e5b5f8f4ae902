"""Colours of embeddings: their first three principal components as red, green and blue, the same for all tiles."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.embeddings.tile import Box, StoredTile

SAMPLE, MOST_TILES = 40_000, 256
"""Pixels that the components are found from, and tiles that these are taken from, in all windows together."""
STRETCH = (2, 98)
"""Percentiles of a component in the sample that become the darkest and the brightest value."""
BLOCK = 1 << 24
"""Values of a tile that are read at a time: 16 MB of codes, 64 MB of numbers."""


@dataclass(frozen=True, eq=False)
class Colours:
    """A linear map from embeddings to colours."""

    axes: np.ndarray
    """float64 (3, R): orthonormal, of falling variance; of embeddings of fewer than three values the rest is 0."""
    low: np.ndarray
    """float64 (3,): the scores on the axes that become the value 1."""
    high: np.ndarray
    """float64 (3,): those that become 255."""
    explained: tuple[float, ...]
    """Share of the sample's variance along each axis."""

    @classmethod
    def of(cls, sample: np.ndarray) -> Colours:
        """Find the components of a sample, float (N, R) with N >= 1, in float64.

        An axis may as well point the other way: here its largest entry is positive, so that pictures stay as they are.
        """
        values = np.asarray(sample, np.float64)
        centred = values - values.mean(axis=0)
        variances, vectors = np.linalg.eigh(centred.T @ centred / max(len(values) - 1, 1))
        found = min(3, values.shape[1])
        axes = np.zeros((3, values.shape[1]))
        axes[:found] = vectors[:, ::-1][:, :found].T
        axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) < 0, -1, 1)
        low, high = np.percentile(values @ axes.T, STRETCH, axis=0)
        total = variances.sum()
        shares = tuple(float(max(v, 0) / total) if total > 0 else 0.0 for v in variances[::-1][:found])
        return cls(axes, low, high, shares)

    def paint(self, stored: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
        """Return uint8 (3, h, w): 1 to 255, and 0 where there is no embedding.

        Args:
            stored: What `StoredTile.stored` reads: codes int8 (R, h, w), or values float32 without scales.
            scales: float32 (h, w), NaN where there is no embedding.
        """
        dims, *shape = stored.shape
        scores = self.axes.astype(np.float32) @ stored.reshape(dims, -1).astype(np.float32, copy=False)
        if scales is not None:
            scores *= scales.reshape(-1)
        reach = (self.high - self.low)[:, None]
        with np.errstate(invalid="ignore"):
            stretched = (scores - self.low[:, None]) / np.where(reach > 0, reach, np.inf) + 0.5 * (reach <= 0)
            colours = 1 + np.rint(254 * np.clip(stretched, 0, 1))
        return np.where(np.isfinite(scores).all(axis=0), colours, 0).astype(np.uint8).reshape(3, *shape)


def sample_pixels(tiles: Sequence[StoredTile], size: int = SAMPLE, *, seed: int = 0) -> np.ndarray:
    """Return embeddings, float32 (N, R), of about `size` pixels: each of all tiles and windows is as likely as another.

    They are taken from at most MOST_TILES tiles, drawn by `seed`, since a pixel costs the reading of its tile.
    """
    drawn = sorted(np.random.default_rng(seed).permutation(len(tiles))[:MOST_TILES])
    chosen = [tiles[number] for number in drawn]
    pixels = sum(tile.record.pixels for tile in chosen)
    shares = [max(1, round(size * tile.record.pixels / max(pixels, 1))) for tile in chosen]
    found = [_of_tile(tile, share, seed) for tile, share in zip(chosen, shares, strict=True)]
    return np.concatenate(found)


def blocks(tile: StoredTile) -> Iterator[Box]:
    """Yield boxes that cover the tile, whole rows of its rasters' blocks, small enough to be read at a time."""
    height, width = tile.record.tile.shape
    rows = max(1, BLOCK // (tile.record.dims * width))
    rows = rows if rows < 256 else rows // 256 * 256
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height)), slice(0, width)


def _of_tile(tile: StoredTile, count: int, seed: int) -> np.ndarray:
    """Return the embeddings, float32 (n, R), of `count` pixels of a tile, or of all if it has fewer."""
    width = tile.record.tile.shape[1]
    there = np.flatnonzero(np.isfinite(tile.values(bands=[0])))
    rng = np.random.default_rng([seed, zlib.crc32(tile.name.encode())])
    chosen = np.sort(rng.choice(there, min(count, len(there)), replace=False))
    found = [np.empty((0, tile.record.dims), np.float32)]
    for box in blocks(tile):
        here = chosen[(chosen >= box[0].start * width) & (chosen < box[0].stop * width)] - box[0].start * width
        if len(here):
            stored, scales = tile.stored(box)
            values = stored.reshape(len(stored), -1)[:, here].T.astype(np.float32)
            found.append(values if scales is None else values * scales.reshape(-1)[here, None])
    values = np.concatenate(found)
    return values[np.isfinite(values).all(axis=1)]
