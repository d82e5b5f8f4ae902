"""Select the pixels of a tile for the shards, and those that are held out of training.

Every choice is a hash of the pixel's identity, so it does not depend on the other tiles, their order or the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels
from tessera_cli.extent.grid import RESOLUTION, ForeignTile, pixel_positions
from tessera_cli.pretraining.config import DataConfig
from tessera_cli.sampling.draws import hashed, mix, uniform
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.from_dpixels import ragged_series

MEAN_EDGES, SPREAD_EDGES = (0.2, 0.4, 0.6), (0.1, 0.2)
"""Edges of the classes of a pixel's NDVI, by mean (water, bare or built, sparse, dense green) and standard deviation
over the year (evergreen, seasonal, cropped). They are fixed, so that rare classes of a tile are still classes."""
CAP = np.uint64(0xA0761D6478BD642F)
"""Salt that makes the choice under the cap independent of the order of the shards, which hash the same keys."""
_HOLDOUT = 0x48454C44
_RED, _NIR = S2_BANDS.index("B04"), S2_BANDS.index("B08")


def select_pixels(dpixels: DPixels, config: DataConfig, tile_index: int) -> RaggedPixels:
    """Return the requested pixels with enough observations, in row-major order, at most `pixels_per_tile`.

    Observations are in the order of the frames: by date, ascending passes before descending ones.
    """
    enough = dpixels.embeddable(min_s2=config.min_s2, min_s1=config.min_s1) & dpixels.counts.any(axis=0)
    numbers = np.flatnonzero(enough)
    keys = _keys(dpixels.name, numbers)
    if config.pixels_per_tile and len(numbers) > config.pixels_per_tile:
        strata = _greenness(dpixels, numbers) if config.stratify == "greenness" else np.zeros(len(numbers), np.int64)
        chosen = stratified_sample(mix(keys ^ CAP), strata, config.pixels_per_tile)
        numbers, keys = numbers[chosen], keys[chosen]
    index = np.full(len(numbers), tile_index, np.int32)
    return RaggedPixels(*ragged_series(dpixels, numbers), keys, _places(dpixels, numbers), index)


def stratified_sample(order: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of N positions, rising, evenly from all strata: uint64 (N,) and int (N,) -> int64 (count,).

    Strata take turns, each with its remaining pixel of the smallest `order`, until they have no more.
    """
    by_stratum = np.lexsort((order, strata))
    first = np.searchsorted(strata[by_stratum], strata[by_stratum])
    turn = np.empty(len(order), np.int64)
    turn[by_stratum] = np.arange(len(order)) - first
    return np.sort(np.lexsort((order, turn))[:count])


def holdout_mask(ragged: RaggedPixels, share: float, block: int) -> np.ndarray:
    """Return bool (N,): the pixels in this share of all squares of ground, `block` pixels wide, which are held out.

    A square is held out by its place, whatever the tile and the year. Pixels without a UTM zone have squares of their
    tile, since their columns and rows do not say where they lie. What is known by name alone (code -1) is held out by
    its name, whatever the table.
    """
    zone, *place = ragged.places.astype(np.int64).T
    side = np.select([zone > 0, zone == 0], [block * RESOLUTION, block], 1)
    apart = np.where(zone != 0, 0, ragged.tile_index.astype(np.int64) + 1)
    squares = hashed(_HOLDOUT, zone, *(along // side for along in place), apart)
    return uniform(squares) < share


def _keys(name: str, numbers: np.ndarray) -> np.ndarray:
    """Return hashes, uint64 (N,), of the d-pixels' name and flat pixel numbers; no two of a tile are equal."""
    return mix(named_keys(name) ^ mix(numbers.astype(np.uint64) + np.uint64(1)))


def named_keys(name: str) -> np.uint64:
    """Return the hash of a name that tells the pixels of one input from those of others."""
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def _places(dpixels: DPixels, numbers: np.ndarray) -> np.ndarray:
    """Return int32 (N, 3) as `pixel_positions`; 0, column and row also if the tile's CRS has no EPSG code."""
    tile = dpixels.tile
    places = pixel_positions(tile, numbers)
    if isinstance(tile, ForeignTile) and not places[:, 0].any():
        places = pixel_positions(dataclasses.replace(tile, crs=None, transform=None), numbers)
    return places.astype(np.int32)


def _greenness(dpixels: DPixels, numbers: np.ndarray) -> np.ndarray:
    """Return the stratum of each pixel, int64 (N,), by mean and standard deviation of its clear NDVI, 0 if none is."""
    total, squares, count = (np.zeros(len(numbers)) for _ in range(3))
    pixels = dpixels.requested.size
    for frame, mask in zip(dpixels.s2, dpixels.s2_mask, strict=True):
        bands = frame.reshape(pixels, -1)[numbers].astype(np.float64)
        red, nir = bands[:, _RED], bands[:, _NIR]
        clear = mask.reshape(-1)[numbers] != 0
        ndvi = np.where(clear, (nir - red) / np.maximum(nir + red, 1), 0)
        total += ndvi
        squares += ndvi**2
        count += clear
    return stratum_of(total, squares, count)


def stratum_of(total: np.ndarray, squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return strata, int64 (N,), from the sums of NDVI, of its squares and its number, (N,) each."""
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    return np.searchsorted(MEAN_EDGES, mean) * (len(SPREAD_EDGES) + 1) + np.searchsorted(SPREAD_EDGES, spread)
