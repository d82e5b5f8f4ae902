"""Predict the classes of pixels with a trained network, box by box."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tessera_cli.embeddings.tile import Box
from tessera_cli.evaluation.segmentation.network import REACH, STEP
from tessera_cli.evaluation.segmentation.scene import Scene
from tessera_cli.evaluation.segmentation.training import Trained

SIDE = 128
"""Rows and columns that are predicted at a time; as many more are read around them as can matter."""


def predict(trained: Trained, scene: Scene, wanted: np.ndarray) -> np.ndarray:
    """Return the classes, int16 (N,), of the pixels that are wanted, bool (H, W), in row-major order."""
    out = np.full(scene.shape, -1, np.int16)
    for box in _boxes(wanted):
        out[box] = probabilities(trained, scene, box).argmax(axis=0)
    return out[wanted]


@torch.no_grad()
def probabilities(trained: Trained, scene: Scene, box: Box) -> np.ndarray:
    """Return float32 (classes, h, w) of a box, which begins at multiples of STEP.

    What lies around the box is seen as it is, also where it is training: its pixels have no labels here.
    """
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    around = tuple(
        slice(each.start - REACH, each.start + -(-(each.stop - each.start) // STEP) * STEP + REACH) for each in box
    )
    x = trained.standardised(scene.around((around[0], around[1]))[None])
    found = torch.softmax(trained.network(x)[0], dim=0).numpy()
    return np.asarray(found[:, REACH : REACH + height, REACH : REACH + width])


def _boxes(wanted: np.ndarray) -> Iterator[Box]:
    height, width = wanted.shape
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            box = slice(top, min(top + SIDE, height)), slice(left, min(left + SIDE, width))
            if wanted[box].any():
                yield box
