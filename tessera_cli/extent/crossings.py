"""Polygons that cross themselves so often that to repair them would take minutes, and could only give a guess."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError
from tessera_cli.extent.features import polygons

MAX_CROSSINGS = 1000
"""Of one geometry; the repair takes a second then, and minutes for ten times as many."""
_FIRST, _PAIRS = 16, 20_000_000
"""Edges that are compared with all at first, and edges times edges at most at once: it bounds time and memory."""


def check_crossings(geometry: BaseGeometry, origin: str) -> None:
    """Raise UsageError for a geometry whose edges cross or overlap each other more than MAX_CROSSINGS times."""
    rings = [ring for polygon in polygons(geometry) for ring in (polygon.exterior, *polygon.interiors)]
    ends = [np.stack([points[:-1], points[1:]], axis=1) for points in map(shapely.get_coordinates, rings)]
    edges = shapely.linestrings(np.concatenate(ends)) if ends else np.empty(0, object)
    edges = edges[shapely.length(edges) > 0]
    tree, count = shapely.STRtree(edges), 0
    start, step = 0, _FIRST
    while start < len(edges):
        for predicate in ("crosses", "overlaps"):  # corners that touch, as of polygons from rasters, do no harm
            one, other = tree.query(edges[start : start + step], predicate=predicate)
            count += int((other > one + start).sum())
        if count > MAX_CROSSINGS:
            raise UsageError(
                f"{origin} holds a polygon whose edges cross each other more than {MAX_CROSSINGS:,} times; what it "
                "encloses is anybody's guess. Correct or remove it."
            )
        start, step = start + step, min(2 * step, max(_FIRST, _PAIRS // len(edges)))
