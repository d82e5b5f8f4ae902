"""The boxes that a search asks a server for: few requests, and few items that no tile needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from tessera_cli.extent.antimeridian import Box, split
from tessera_cli.extent.grid import Tile, outlines

SCENE = 150.0
"""Kilometres by which what a box lists reaches beyond it: between the sides of scenes of Sentinel-2 and Sentinel-1."""
SEARCH = 5000.0
"""Square kilometres whose listing takes as long as a search that lists nothing."""
DEGREE = 111.2
"""Kilometres."""


def search_boxes(tiles: Sequence[Tile]) -> list[Box]:
    """Return one box in degrees per group of neighbouring tiles, cut at the antimeridian."""
    groups = shapely.get_parts(shapely.unary_union(shapely.buffer(outlines(tiles), 1e-6, quad_segs=16)))
    return [piece.bounds for group in groups for piece in split(group)]


def joined(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes (degrees) that cover `boxes` and whose search takes less: fewer requests, and fewer items in all.

    Scattered places, such as plots in a country, would else take a search each, and each would list the scenes of its
    neighbours again. What a box lists grows with its area, widened by the size of a scene. The box around all is cut in
    two along a line that crosses none, and the halves likewise; then halves are joined again unless they take less.
    """
    groups, halves = [np.array(boxes, float).reshape(-1, 4)], list[tuple[int, int] | None]()
    for group in groups:  # grows
        cut = _cut(group)
        halves.append(None if cut is None else (len(groups), len(groups) + 1))
        groups += cut or ()
    best: dict[int, tuple[float, list[Box]]] = {}
    for number in reversed(range(len(groups))):
        whole = _around(groups[number])
        best[number] = float(_effort(np.array(whole))), [whole]
        if pair := halves[number]:
            (first, some), (second, others) = best.pop(pair[0]), best.pop(pair[1])
            if first + second < best[number][0]:
                best[number] = first + second, some + others
    return sorted(best[0][1])


def _cut(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the two halves of boxes (N, 4) whose searches take least; None if there is nothing to gain.

    If no cut gains anything, cuts of the halves may: then neither half is small, so that there are few cuts.
    """
    whole = np.array(_around(boxes))
    if len(boxes) < 2 or _effort(whole) < 2 * (SCENE**2 + SEARCH):
        return None
    found = []
    for axis in (0, 1):
        ordered = boxes[np.argsort(boxes[:, axis], kind="stable")]
        before, after = _running(ordered)[:-1], _running(ordered[::-1])[::-1][1:]
        cost = _effort(before) + _effort(after)
        cost[before[:, axis + 2] >= after[:, axis]] = np.inf
        if cost.min() >= _effort(whole):
            cost[: (len(boxes) - 1) // 4] = cost[len(boxes) - 1 - (len(boxes) - 1) // 4 :] = np.inf
        found.append((float(cost.min()), axis, int(cost.argmin()) + 1, ordered))
    cost, _, position, ordered = min(found, key=lambda each: each[:2])
    return None if np.isinf(cost) else (ordered[:position], ordered[position:])


def _running(boxes: np.ndarray) -> np.ndarray:
    """Return for each position the box around all up to it: (N, 4)."""
    low, high = np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def _effort(boxes: np.ndarray) -> np.ndarray:
    """Return what the search of boxes (..., 4) takes, in square kilometres that are listed."""
    west, south, east, north = np.moveaxis(boxes, -1, 0)
    nearest = np.maximum(np.maximum(south, -north), 0)  # the latitude at which a degree is widest
    wide = (east - west) * DEGREE * np.cos(np.radians(nearest)) + SCENE
    return np.asarray(wide * ((north - south) * DEGREE + SCENE) + SEARCH)


def _around(boxes: np.ndarray) -> Box:
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return (float(west), float(south), float(east), float(north))
