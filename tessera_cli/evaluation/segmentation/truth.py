"""The labels of tiles as rasters, the split of their parcels into folds, and the draws of labels to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyproj import CRS, Transformer

from tessera_cli.embeddings.grid import Grid
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.segmentation.scene import NONE, Draw
from tessera_cli.labels.labels import Labels
from tessera_cli.learning.budgets import Budget, NotPossible, draw_labels
from tessera_cli.learning.ground import squares
from tessera_cli.learning.splits import Split, blocked

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of all tiles. P parcels hold a pixel of theirs."""

    classes: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    """int16 (H, W) of each tile: class, or NONE."""
    parcels: tuple[np.ndarray, ...]
    """int32 (H, W) of each tile: 0..P-1, or NONE."""
    blocks: tuple[np.ndarray, ...]
    """int32 (H, W) of each tile: block of the parcel or, without a label, of the pixel; NONE where no parcel's is."""
    of_parcel: np.ndarray
    """int64 (P,): class."""
    block_of_parcel: np.ndarray
    """int64 (P,)"""
    split: Split
    """Of parcels."""

    def draws(self, budget: Budget, count: int, seed: int) -> list[Draw] | NotPossible:
        """Return `count` draws of a budget of parcels; of all parcels, one per fold."""
        found = []
        numbers = np.arange(len(self.of_parcel))
        for draw in range(self.split.count if budget.whole else count):
            train = draw_labels(
                budget,
                numbers,
                self.of_parcel,
                self.split.train(draw),
                task="classification",
                seed=seed,
                draw=draw,
            )
            if isinstance(train, NotPossible):
                return train
            test = np.unique(self.block_of_parcel[self.split.test(draw)])
            found.append(Draw(budget.name, draw, train, test))
        return found


def truth_of(
    grids: Sequence[Grid],
    there: Sequence[np.ndarray],
    labels: Labels,
    *,
    block: float | None,
    seed: int,
    folds: int = FOLDS,
) -> Truth:
    """Label the pixels of tiles, bool (H, W) `there`, and split their parcels into folds of blocks.

    A parcel lies in the block of its middle, with all its pixels. `block`: side of the blocks in metres; None: from
    the variogram of the labels.
    """
    values: list[np.ndarray] = []
    parcels: list[np.ndarray] = []
    for grid, known in zip(grids, there, strict=True):
        rows, columns = np.nonzero(known)
        epsg = CRS(grid.crs).to_epsg() or 0
        places = np.stack([np.full(len(rows), epsg, np.float64), *grid.centres(rows, columns)], axis=1)
        hits = labels.at(places)
        for found, given in ((values, hits.values), (parcels, hits.parcels)):
            raster = np.full(grid.shape, NONE, np.int64)
            raster[rows[hits.numbers], columns[hits.numbers]] = given
            found.append(raster)
    marked = [raster >= 0 for raster in parcels]
    flat = np.concatenate([raster[mask] for raster, mask in zip(parcels, marked, strict=True)])
    if not len(flat):
        raise UsageError("No pixel with an embedding has a label. Do the labels lie elsewhere?")
    names, first, of = np.unique(flat, return_index=True, return_inverse=True)
    kinds, numbers = np.unique(
        np.concatenate([raster[mask] for raster, mask in zip(values, marked, strict=True)]), return_inverse=True
    )
    of_parcel = numbers.reshape(-1)[first]
    lonlat = _lonlat(labels.places(names))
    split = blocked(lonlat, np.arange(len(names)), of_parcel, size=block, folds=folds, seed=seed)
    squared = split.blocks if split.size is None else squares(lonlat, split.size)
    known_squares, block_of = np.unique(squared, return_inverse=True)
    ends = np.cumsum([mask.sum() for mask in marked])[:-1]
    label_rasters, parcel_rasters, block_rasters = [], [], []
    for grid, mask, own, kind in zip(
        grids, marked, np.split(of.reshape(-1), ends), np.split(numbers.reshape(-1), ends), strict=True
    ):
        label_rasters.append(_filled(mask, kind, np.int16))
        parcel_rasters.append(_filled(mask, own, np.int32))
        around = _blocks_around(grid, split.size, known_squares)
        around[mask] = block_of[own]
        block_rasters.append(around)
    return Truth(
        tuple(labels.name(int(kind)) for kind in kinds),
        tuple(label_rasters),
        tuple(parcel_rasters),
        tuple(block_rasters),
        of_parcel.astype(np.int64),
        block_of.astype(np.int64),
        split,
    )


def _filled(mask: np.ndarray, values: np.ndarray, dtype: type) -> np.ndarray:
    raster: np.ndarray = np.full(mask.shape, NONE, dtype)
    raster[mask] = values
    return raster


def _blocks_around(grid: Grid, size: float | None, known: np.ndarray) -> np.ndarray:
    """Return the block that each pixel lies in, int32 (H, W); NONE where it holds no parcel."""
    out = np.full(grid.shape, NONE, np.int32)
    if size is None:
        return out
    x, y = grid.centres(*np.indices(grid.shape))
    lonlat = np.stack(Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x.ravel(), y.ravel()), axis=1)
    found = squares(lonlat, size)
    at = np.searchsorted(known, found).clip(0, len(known) - 1)
    out[:] = np.where(known[at] == found, at, NONE).reshape(grid.shape)
    return out


def _lonlat(places: np.ndarray) -> np.ndarray:
    """Return places (N, 3) in degrees, float64 (N, 2); NaN of unknown ones."""
    out = np.full((len(places), 2), np.nan)
    for code in np.unique(places[:, 0]).astype(int).tolist():
        here = places[:, 0] == code
        if code:
            to_lonlat = Transformer.from_crs(code, 4326, always_xy=True)
            out[here] = np.stack(to_lonlat.transform(*places[here, 1:].T), axis=1)
    return out
