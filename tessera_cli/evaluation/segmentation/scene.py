"""What networks learn from and are tested on: rasters of features with labels, and who may learn from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.embeddings.grid import clipped, is_empty
from tessera_cli.embeddings.tile import Box, StoredTile
from tessera_cli.evaluation.segmentation import composite
from tessera_cli.evaluation.segmentation.kept import Kept

NONE = -1
"""No class, no parcel, no block."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One raster of features, read a box at a time, and the labels of its H x W pixels."""

    name: str
    dims: int
    read: Callable[[Box], np.ndarray]
    """Given rows and columns within the raster: float32 (dims, h, w), NaN where there is nothing."""
    labels: np.ndarray
    """int16 (H, W): class, or NONE."""
    parcels: np.ndarray
    """int32 (H, W): what one label covers, numbered over all scenes; NONE where there is no label."""
    blocks: np.ndarray
    """int32 (H, W): what a split keeps together, numbered over all scenes; also of pixels without a label."""

    @classmethod
    def of_tile(
        cls, tile: StoredTile, kept: Kept, labels: np.ndarray, parcels: np.ndarray, blocks: np.ndarray
    ) -> Scene:
        """Return a scene of a finished tile of embeddings; what is stored of it is read when it is asked for."""

        def whole() -> tuple[np.ndarray, ...]:
            values, scales = tile.stored()
            return (values,) if scales is None else (values, scales)

        def read(box: Box) -> np.ndarray:
            values, *scales = kept.get((tile.folder, tile.name), whole)
            found = values[:, *box].astype(np.float32)
            return found * scales[0][box] if scales else found

        return cls(tile.name, tile.record.dims, read, *_typed(tile.record.tile.shape, labels, parcels, blocks))

    @classmethod
    def of_dpixels(cls, path: Path, kept: Kept, labels: np.ndarray, parcels: np.ndarray, blocks: np.ndarray) -> Scene:
        """Return a scene of the raw composite of stored d-pixels, which is made when it is asked for."""

        def read(box: Box) -> np.ndarray:
            return composite.values(kept.get(path, lambda: (composite.composite(path),))[0], box)

        return cls(path.stem, composite.DIMS, read, *_typed(labels.shape, labels, parcels, blocks))

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.labels.shape
        return height, width

    def around(self, box: Box) -> np.ndarray:
        """Read a box that may reach beyond the raster: float32 (dims, h, w), NaN there."""
        rows, columns = box
        out = np.full((self.dims, rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        inner = clipped(box, self.shape)
        if not is_empty(inner):
            place = (
                slice(inner[0].start - rows.start, inner[0].stop - rows.start),
                slice(inner[1].start - columns.start, inner[1].stop - columns.start),
            )
            out[:, *place] = self.read(inner)
        return out


@dataclass(frozen=True, eq=False)
class Draw:
    """Which labels are learned from, and which blocks are the test: the same for all features and networks."""

    name: str
    """Of the budget, such as `0.01`."""
    number: int
    train: np.ndarray
    """int64: parcels whose labels may be learned from; those in blocks of the test are left out all the same."""
    test: np.ndarray
    """int64: blocks. All their labelled pixels are predicted, and none of their pixels is seen in training."""

    def hidden(self, scene: Scene) -> np.ndarray:
        """Return bool (H, W): pixels of the test."""
        return member(scene.blocks, self.test)

    def learned(self, scene: Scene) -> np.ndarray:
        """Return bool (H, W): pixels whose labels may be learned from."""
        return member(scene.parcels, self.train) & (scene.labels >= 0) & ~self.hidden(scene)


def member(numbers: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return where whole numbers, NONE or from 0, are among others; NONE never is."""
    table = np.zeros(max(numbers.max(initial=0), of.max(initial=0)) + 2, bool)
    table[of] = True
    table[NONE] = False  # the last one
    return table[numbers]


def _typed(
    shape: tuple[int, ...], labels: np.ndarray, parcels: np.ndarray, blocks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    for name, array in (("labels", labels), ("parcels", parcels), ("blocks", blocks)):
        if array.shape != shape:
            raise ValueError(f"{name} are {array.shape}, features {shape}")
    return labels.astype(np.int16), parcels.astype(np.int32), blocks.astype(np.int32)
