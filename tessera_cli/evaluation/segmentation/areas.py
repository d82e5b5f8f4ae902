"""Tiles of embeddings and a file of labels -> scenes, with the blocks of ground that a split keeps together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.dpixels import Stored
from tessera_cli.embeddings.folder import EmbeddingFolder, Windows
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.segmentation.kept import Kept
from tessera_cli.evaluation.segmentation.scene import NONE, Scene
from tessera_cli.evaluation.sources.folder import folder_sources
from tessera_cli.evaluation.sources.label_file import open_labels
from tessera_cli.evaluation.sources.tiled import places_of
from tessera_cli.labels.labels import Labels
from tessera_cli.labels.points import PointLabels
from tessera_cli.learning.ground import squares
from tessera_cli.learning.variogram import block_size

ROWS = 128
"""Rows of a tile that are labelled at a time."""
MOST = 5000
"""Labelled pixels from which the side of the blocks is told."""


@dataclass(frozen=True, eq=False)
class Areas:
    """The labels of all tiles of a window, once for all features."""

    tiles: tuple[StoredTile, ...]
    labels: tuple[np.ndarray, ...]
    """int16 (H, W) of each tile: class, or NONE."""
    parcels: tuple[np.ndarray, ...]
    """int32 (H, W): numbers of parcels, or NONE."""
    blocks: tuple[np.ndarray, ...]
    """int32 (H, W): numbers of blocks, also of pixels without a label."""
    classes: tuple[str, ...]
    size: float
    """Side of the blocks in metres."""
    left_out: tuple[str, ...]

    def scenes(self, kept: Kept) -> list[Scene]:
        """Return the scenes of the embeddings; `kept` holds what was read of them."""
        truths = zip(self.labels, self.parcels, self.blocks, strict=True)
        return [Scene.of_tile(tile, kept, *truth) for tile, truth in zip(self.tiles, truths, strict=True)]

    def composites(self, stores: Sequence[Stored], kept: Kept) -> list[Scene]:
        """Return scenes of raw composites; UsageError for a tile without d-pixels, or with those of another size."""
        by_name = {stored.name: stored for stored in stores}
        scenes = []
        truths = zip(self.labels, self.parcels, self.blocks, strict=True)
        for tile, truth in zip(self.tiles, truths, strict=True):
            stored = by_name.get(tile.name)
            if stored is None or tuple(stored.tile.shape) != truth[0].shape:
                raise UsageError(
                    f"There are no d-pixels of {tile.name}, for the raw composites. Give --dpixels of all tiles, or "
                    "leave it out."
                )
            scenes.append(Scene.of_dpixels(stored.path, kept, *truth))
        return scenes


def read_areas(
    folder: Path,
    labels_path: Path,
    *,
    windows: Windows = None,
    column: str | None = None,
    layer: str | None = None,
    block: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Areas:
    """Label the pixels of a folder of `embed`, of one window of it.

    Args:
        folder: what `embed` wrote.
        labels_path: polygons, or a raster of classes.
        windows: the one to take; None: the only one there is.
        column: of the classes.
        layer: one of several in the file.
        block: side of the blocks in metres; None: from the variogram of the labels.
        folds: how many parts blocks are to be divided into.
        seed: of what the variogram looks at.

    Raises:
        UsageError: there are several windows, points in place of areas, fewer than two classes, or no labelled pixel.
    """
    opened = EmbeddingFolder.open(folder, windows, formats=("geotiff", "npy"))
    if len({tile.record.window for tile in opened.tiles}) > 1:
        raise UsageError(f"{folder} holds several windows. Choose one with --year or --window.")
    (source,) = folder_sources(folder, windows)
    labels = open_labels(labels_path, column=column, layer=layer, task="segmentation", near=source.bounds)
    if isinstance(labels, PointLabels):
        raise UsageError(f"{labels_path} holds points, and segmentation takes areas. Give polygons or a raster.")
    found = [_labelled(tile, labels) for tile in opened.tiles]
    values = np.unique(np.concatenate([each[each != NONE] for each, _, _ in found]))
    if len(values) < 2:
        raise UsageError(
            f"{labels_path} labels {'no pixel' if not len(values) else 'pixels of one class only'} of {folder}. Give "
            "labels of two classes within its tiles."
        )
    size = block or _block_size(found, folds, seed)
    corners = [squares(lonlat, size).reshape(each.shape) for each, _, lonlat in found]
    numbers = np.unique(np.concatenate([each.ravel() for each in corners]), return_inverse=True)[1]
    ends = np.cumsum([each.size for each in corners])[:-1]
    blocks = [part.reshape(each.shape) for part, each in zip(np.split(numbers, ends), corners, strict=True)]
    classes = [np.where(each == NONE, NONE, np.searchsorted(values, each)).astype(np.int16) for each, _, _ in found]
    return Areas(
        opened.tiles,
        tuple(classes),
        tuple(parcels for _, parcels, _ in found),
        tuple(each.astype(np.int32) for each in blocks),
        tuple(labels.name(int(value)) for value in values),
        float(size),
        labels.left_out,
    )


def _labelled(tile: StoredTile, labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return value and parcel of each pixel that has an embedding, int32 (H, W), and its place, (H * W, 2) degrees."""
    place = tile.record.tile
    assert place.crs is not None
    assert place.transform is not None
    height, width = place.shape
    values, parcels = np.full((2, height, width), NONE, np.int32)
    lonlat = np.empty((height, width, 2))
    for top in range(0, height, ROWS):
        rows = slice(top, min(top + ROWS, height))
        down, right = np.mgrid[rows.start : rows.stop, 0:width]
        a, _, c, _, e, f = place.transform[:6]
        x, y = a * (right.ravel() + 0.5) + c, e * (down.ravel() + 0.5) + f
        places, degrees = places_of(place.crs, x, y)
        lonlat[rows] = degrees.reshape(-1, width, 2)
        hits = labels.at(places)
        values[rows].reshape(-1)[hits.numbers] = hits.values
        parcels[rows].reshape(-1)[hits.numbers] = hits.parcels
    there = tile.valid()
    values[~there], parcels[~there] = NONE, NONE
    return values, parcels, lonlat.reshape(-1, 2)


def _block_size(found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], folds: int, seed: int) -> float:
    """Return the side of the blocks, told from a part of the labelled pixels."""
    lonlat = np.concatenate([places[values.ravel() != NONE] for values, _, places in found])
    values = np.concatenate([values[values != NONE] for values, _, _ in found])
    chosen = np.random.default_rng(seed).permutation(len(values))[:MOST]
    return block_size(lonlat[chosen], values[chosen].astype(np.int64), classes=True, folds=folds, seed=seed)
