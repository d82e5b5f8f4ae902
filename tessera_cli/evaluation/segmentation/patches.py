"""Patches: squares of features and labels, drawn from the scenes. They bound what a training holds in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.embeddings.grid import clipped
from tessera_cli.embeddings.tile import Box
from tessera_cli.evaluation.segmentation.scene import NONE, Scene

SIDE = 32
"""Rows and columns of a patch: labelled fields are small, and what lies between them teaches nothing."""


@dataclass(frozen=True, eq=False)
class Place:
    """A square of a scene that holds labels to learn from."""

    scene: int
    box: Box
    """It may reach beyond the scene."""
    classes: np.ndarray
    """int64: those whose labels it holds."""


@dataclass(frozen=True, eq=False)
class Patches:
    """N patches."""

    features: np.ndarray
    """float32 (N, dims, SIDE, SIDE), NaN where there is nothing, and in blocks of the test."""
    labels: np.ndarray
    """int64 (N, SIDE, SIDE): class, NONE where there is nothing to learn."""

    def __len__(self) -> int:
        return len(self.labels)


def choose(scenes: Sequence[Scene], learned: Sequence[np.ndarray], most: int, rng: np.random.Generator) -> list[Place]:
    """Choose at most `most` squares with labels to learn from, bool (H, W) of each scene, at random.

    Squares lie side by side, the first of a scene at a random offset. If they are too many, the first ones taken are
    those that add a class.
    """
    places = []
    for number, (scene, mask) in enumerate(zip(scenes, learned, strict=True)):
        rows, columns = np.nonzero(mask)
        if not len(rows):
            continue
        top, left = (-int(each) for each in rng.integers(0, SIDE, 2))
        cells = np.stack([(rows - top) // SIDE, (columns - left) // SIDE, scene.labels[rows, columns]])
        squares, of = np.unique(cells[:2], axis=1, return_inverse=True)
        pairs = np.unique(np.stack([of.ravel(), cells[2]]), axis=1)
        for index, (row, column) in enumerate(squares.T.tolist()):
            down, right = top + row * SIDE, left + column * SIDE
            box = slice(down, down + SIDE), slice(right, right + SIDE)
            places.append(Place(number, box, pairs[1, pairs[0] == index]))
    shuffled = [places[number] for number in rng.permutation(len(places))]
    if len(shuffled) <= most:
        return shuffled
    seen: set[int] = set()
    first: list[Place] = []
    rest: list[Place] = []
    for place in shuffled:
        new = set(place.classes.tolist()) - seen
        (first if new else rest).append(place)
        seen |= new
    return (first + rest)[:most]


def read(
    scenes: Sequence[Scene], places: Sequence[Place], learned: Sequence[np.ndarray], hidden: Sequence[np.ndarray]
) -> Patches:
    """Read the patches: labels where they may be learned from, features where they are not hidden."""
    features = np.empty((len(places), scenes[0].dims, SIDE, SIDE), np.float32)
    labels = np.full((len(places), SIDE, SIDE), NONE, np.int64)
    for number, place in enumerate(places):
        scene = scenes[place.scene]
        features[number] = scene.around(place.box)
        inner = clipped(place.box, scene.shape)
        at = tuple(
            slice(within.start - whole.start, within.stop - whole.start)
            for within, whole in zip(inner, place.box, strict=True)
        )
        features[number][:, *at][:, hidden[place.scene][inner]] = np.nan
        labels[number][at] = np.where(learned[place.scene][inner], scene.labels[inner], NONE)
        labels[number][np.isnan(features[number]).all(axis=0)] = NONE  # what has no features teaches nothing
    return Patches(features, labels)
