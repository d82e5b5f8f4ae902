"""Segment: train on the labels of a draw, predict the blocks of its test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tessera_cli.evaluation.segmentation.network import Kind, parameters
from tessera_cli.evaluation.segmentation.predict import predict
from tessera_cli.evaluation.segmentation.scene import Draw, Scene
from tessera_cli.evaluation.segmentation.training import train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Segmented:
    """What a network says of the labelled pixels of a draw's test, M in all."""

    predicted: np.ndarray
    """int16 (M,): class, scene by scene and row by row."""
    parameters: int


def segment(
    scenes: Sequence[Scene], draw: Draw, kind: Kind, *, classes: int, seed: int = 0, threads: int = 1
) -> Segmented:
    """Train and test a network; all scenes hold the same kind of features.

    Pixels of the test without any feature are predicted all the same: all features answer for the same pixels.

    Args:
        scenes: those of one set of features.
        draw: what is learned from, and what is the test.
        kind: `decoder` of embeddings, `unet` of raw composites.
        classes: how many there are.
        seed: of the network and of the order of patches.
        threads: of torch; results may differ in their last bits between numbers of threads.
    """
    with _threads(threads):
        trained = train(scenes, draw, kind, classes=classes, seed=seed)
        said = [predict(trained, scene, draw.hidden(scene) & (scene.labels >= 0)) for scene in scenes]
    logger.debug("%s, labels %s, draw %d: %d patches", kind, draw.name, draw.number, trained.patches)
    return Segmented(np.concatenate(said), parameters(trained.network))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
