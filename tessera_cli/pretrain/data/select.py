"""d-pixels of one tile -> the pixels of it that count, with their valid observations; and which stay out of training.

Every choice is made by hashes of who a pixel is, so it does not depend on the other tiles, their order or the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels
from tessera_cli.extent.grid import RESOLUTION, ForeignTile, pixel_positions
from tessera_cli.pretrain.config import DataSettings
from tessera_cli.pretrain.data.ragged import Ragged, Series
from tessera_cli.sampling import V2_RULE, Modality
from tessera_cli.sampling.draws import hashed, mix, uniform
from tessera_cli.sampling.statistics import V2_STUDENT

MEAN_EDGES, SPREAD_EDGES = (0.2, 0.4, 0.6), (0.1, 0.2)
"""Between the classes of a pixel's NDVI, by mean (water, bare or built, sparse, dense green) and standard deviation
over the year (evergreen, seasonal, cropped). Fixed, so that rare classes of a tile are still classes."""
_CAP = np.uint64(0xA0761D6478BD642F)
"""Makes the order in which the cap chooses independent of the order of the shards, which hash the same keys."""
_HELD = 0x48454C44
_RED, _NIR = S2_BANDS.index("B04"), S2_BANDS.index("B08")


def collected(dpixels: DPixels, settings: DataSettings, origin: int) -> Ragged:
    """The pixels that were asked for and seen often enough, in row-major order: at most `pixels_per_tile`.

    Observations are in the order of the frames, which is that of their dates, ascending passes before descending ones.
    `origin` is the number of these d-pixels.
    """
    enough = dpixels.embeddable(min_s2=settings.min_s2, min_s1=settings.min_s1) & dpixels.counts.any(axis=0)
    numbers = np.flatnonzero(enough)
    keys = _keys(dpixels.name, numbers)
    if settings.pixels_per_tile and len(numbers) > settings.pixels_per_tile:
        strata = _greenness(dpixels, numbers) if settings.stratify == "greenness" else np.zeros(len(numbers), np.int64)
        chosen = stratified_sample(mix(keys ^ _CAP), strata, settings.pixels_per_tile)
        numbers, keys = numbers[chosen], keys[chosen]
    see = V2_RULE.sampler(dpixels, V2_STUDENT, numbers, 0)  # all valid observations; raw, so any statistics will do

    def series(modality: Modality) -> Series:
        seen = see(modality, slice(None), 0)
        starts = np.append(seen.starts, len(seen.doy)).astype(np.int64)
        return Series(seen.values, seen.doy.astype(np.uint16), seen.series_index, starts)

    origins = np.full(len(numbers), origin, np.int32)
    return Ragged(series("s2"), series("s1"), keys, _places(dpixels, numbers), origins)


def stratified_sample(order: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """Positions, rising, of `count` of N pixels, evenly from all strata: uint64 (N,) and int (N,) -> int64 (count,).

    Strata take turns, each with its pixel of the smallest `order` that is left, until they have no more.
    """
    by_stratum = np.lexsort((order, strata))
    first = np.searchsorted(strata[by_stratum], strata[by_stratum])
    turn = np.empty(len(order), np.int64)
    turn[by_stratum] = np.arange(len(order)) - first
    return np.sort(np.lexsort((order, turn))[:count])


def held_out(ragged: Ragged, share: float, block: int) -> np.ndarray:
    """bool (N,): the pixels in this share of the squares of the ground, `block` pixels wide, that stay out of training.

    A square is in or out by its place, whatever tiles and years show it. Pixels without a zone are told apart by the
    number of their d-pixels, since their columns and rows say nothing of where they lie.
    """
    zone, *place = ragged.places.astype(np.int64).T
    side = np.where(zone != 0, block * RESOLUTION, block)
    apart = np.where(zone != 0, 0, ragged.origins.astype(np.int64) + 1)
    squares = hashed(_HELD, zone, *(along // side for along in place), apart)
    return uniform(squares) < share


def _keys(name: str, numbers: np.ndarray) -> np.ndarray:
    """uint64 (N,): of the d-pixels' name and flat pixel numbers; no two of a tile are equal."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return mix(np.uint64(seed) ^ mix(numbers.astype(np.uint64) + np.uint64(1)))


def _places(dpixels: DPixels, numbers: np.ndarray) -> np.ndarray:
    """int32 (N, 3): as `pixel_positions`; 0, column and row also where the tile's system has no EPSG code."""
    tile = dpixels.tile
    places = pixel_positions(tile, numbers)
    if isinstance(tile, ForeignTile) and not places[:, 0].any():
        places = pixel_positions(dataclasses.replace(tile, crs=None, transform=None), numbers)
    return places.astype(np.int32)


def _greenness(dpixels: DPixels, numbers: np.ndarray) -> np.ndarray:
    """int64 (N,): the stratum of each pixel by mean and standard deviation of its clear NDVI; 0 both if never clear."""
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
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    return np.searchsorted(MEAN_EDGES, mean) * (len(SPREAD_EDGES) + 1) + np.searchsorted(SPREAD_EDGES, spread)
