"""What embeddings of an area answer: the vector at a position, and where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from tessera_cli.evaluation.samples import FeatureKind

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees; east exceeds 180 across the antimeridian."""


class Centres(NamedTuple):
    """Some pixels that have an embedding."""

    places: np.ndarray
    """float64 (N, 3): EPSG code of the pixels' own coordinate system, x and y of their centres in it. In degrees (EPSG
    4326, longitude first) where it has no code."""


class Source(Protocol):
    """One set of embeddings of an area."""

    @property
    def name(self) -> str:
        """Return what reports call it."""

    @property
    def origin(self) -> str:
        """Return what it was made from: a path, a window, a model."""

    @property
    def kind(self) -> FeatureKind: ...

    @property
    def dims(self) -> int: ...

    @property
    def bounds(self) -> Bounds: ...

    def at(self, lonlat: np.ndarray) -> np.ndarray:
        """Return the vectors at positions in degrees, float64 (N, 2): float32 (N, D), rows of NaN where there is none.

        The pixel that holds the position is taken, as it is stored: codes times scales. Positions near each other
        should come together, since blocks are read.
        """

    def centres(self) -> Iterator[Centres]:
        """Yield the pixels that have an embedding, each once, some 100,000 at a time, in the order of blocks."""


def joined_bounds(boxes: list[Bounds]) -> Bounds:
    """Return the box around boxes; across the antimeridian its east exceeds 180."""
    west, south, east, north = (np.array(each) for each in zip(*boxes, strict=True))
    east = np.where(east < west, east + 360, east)
    if east.max() - west.min() > 180:  # of pieces on both sides of the antimeridian
        turned = west < 0
        west, east = np.where(turned, west + 360, west), np.where(turned, east + 360, east)
    return float(west.min()), float(south.min()), float(east.max()), float(north.max())
