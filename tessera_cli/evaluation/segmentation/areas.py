"""Tiles of embeddings and a file of labels -> what is known of them, and scenes of any features of the same tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.dpixels import Stored
from tessera_cli.embeddings.folder import EmbeddingFolder, Windows
from tessera_cli.embeddings.grid import Grid
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.segmentation.kept import Kept
from tessera_cli.evaluation.segmentation.scene import Scene
from tessera_cli.evaluation.segmentation.truth import Truth, truth_of
from tessera_cli.evaluation.sources.folder import folder_sources
from tessera_cli.evaluation.sources.label_file import open_labels
from tessera_cli.labels.points import PointLabels


@dataclass(frozen=True, eq=False)
class Areas:
    """The tiles of one window of a folder, and their labels."""

    tiles: tuple[StoredTile, ...]
    truth: Truth
    left_out: tuple[str, ...]
    """What was left out of the labels, a line each."""

    def scenes(self, kept: Kept) -> list[Scene]:
        """Return the scenes of the embeddings; `kept` holds what was read of them."""
        return [Scene.of_tile(tile, kept, *of) for tile, of in zip(self.tiles, self._rasters(), strict=True)]

    def composites(self, stores: Sequence[Stored], kept: Kept) -> list[Scene]:
        """Return scenes of raw composites; UsageError for a tile without d-pixels, or with those of another size."""
        by_name = {stored.name: stored for stored in stores}
        scenes = []
        for tile, of in zip(self.tiles, self._rasters(), strict=True):
            stored = by_name.get(tile.name)
            if stored is None or tuple(stored.tile.shape) != of[0].shape:
                raise UsageError(
                    f"There are no d-pixels of {tile.name}, for the raw composites. Give --dpixels of all tiles, or "
                    "leave it out."
                )
            scenes.append(Scene.of_dpixels(stored.path, kept, *of))
        return scenes

    def _rasters(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return list(zip(self.truth.labels, self.truth.parcels, self.truth.blocks, strict=True))


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
        seed: of which blocks lie in which part.

    Raises:
        UsageError: there are several windows, points in place of areas, fewer than two classes, or no labelled pixel.
    """
    tiles = tiles_of(folder, windows)
    (source,) = folder_sources(folder, windows)
    labels = open_labels(labels_path, column=column, layer=layer, task="segmentation", near=source.bounds)
    if isinstance(labels, PointLabels):
        raise UsageError(f"{labels_path} holds points, and segmentation takes areas. Give polygons or a raster.")
    grids = [_grid(tile) for tile in tiles]
    there = [tile.valid() for tile in tiles]
    truth = truth_of(grids, there, labels, block=block, folds=folds, seed=seed)
    if len(truth.classes) < 2:
        raise UsageError(f"{labels_path}: all labelled pixels are of the class {truth.classes[0]}. Give two or more.")
    return Areas(tiles, truth, labels.left_out)


def tiles_of(folder: Path, windows: Windows) -> tuple[StoredTile, ...]:
    """Return the tiles of a folder of one window; UsageError where there are several."""
    tiles = EmbeddingFolder.open(folder, windows, formats=("geotiff", "npy")).tiles
    if len({tile.record.window for tile in tiles}) > 1:
        raise UsageError(f"{folder} holds several windows. Choose one with --year or --window.")
    return tiles


def _grid(tile: StoredTile) -> Grid:
    place = tile.record.tile
    if place.crs is None or place.transform is None:
        raise UsageError(f"{tile.name} of {tile.folder} has no place on Earth, so no label is known for it.")
    return Grid(place.crs, place.transform, place.shape)
