"""Segment: train on the labels of each draw, predict the blocks of its test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
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
    """The labelled pixels of a draw's test, M in all, scene by scene and row by row."""

    kind: Kind
    draw: Draw
    truth: np.ndarray
    """int16 (M,): class."""
    predicted: np.ndarray
    """int16 (M,): class."""
    blocks: np.ndarray
    """int32 (M,)"""
    parcels: np.ndarray
    """int32 (M,)"""
    labelled: int
    """Pixels that were learned from."""
    parameters: int


def segment(
    scenes: Sequence[Scene],
    draws: Sequence[Draw],
    kind: Kind,
    *,
    classes: int,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> list[Segmented]:
    """Train and test a network per draw; all scenes hold the same kind of features.

    Args:
        scenes: those of one set of features.
        draws: what is learned from, and what is the test.
        kind: `decoder` of embeddings, `unet` of raw composites.
        classes: how many there are.
        seed: of the networks and of the order of patches.
        threads: of torch; results may differ in their last bits between numbers of threads.
        progress: told of draws that are done, and of all.

    Returns:
        One result per draw. Pixels of the test without any feature are predicted all the same: all features answer for
        the same pixels.
    """
    found = []
    with _threads(threads):
        for number, draw in enumerate(draws, start=1):
            trained = train(scenes, draw, kind, classes=classes, seed=seed)
            wanted = [draw.hidden(scene) & (scene.labels >= 0) for scene in scenes]
            found.append(
                Segmented(
                    kind,
                    draw,
                    _joined([scene.labels[mask] for scene, mask in zip(scenes, wanted, strict=True)], np.int16),
                    _joined([predict(trained, *each) for each in zip(scenes, wanted, strict=True)], np.int16),
                    _joined([scene.blocks[mask] for scene, mask in zip(scenes, wanted, strict=True)], np.int32),
                    _joined([scene.parcels[mask] for scene, mask in zip(scenes, wanted, strict=True)], np.int32),
                    sum(int(draw.learned(scene).sum()) for scene in scenes),
                    parameters(trained.network),
                )
            )
            logger.debug("%s, labels %s, draw %d: %d patches", kind, draw.name, draw.number, trained.patches)
            if progress:
                progress(number, len(draws))
    return found


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)
