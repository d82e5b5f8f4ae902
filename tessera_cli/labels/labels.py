"""What a file of labels answers: which pixels have which class or value, and what is labelled together."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from tessera_cli.learning.task import Task


class Hits(NamedTuple):
    """The M labelled pixels among N."""

    numbers: np.ndarray
    """int64 (M,): their positions among the N, rising."""
    values: np.ndarray
    """int64 (M,): their classes, in the numbers of the file; or float64 (M,), finite, for regression."""
    parcels: np.ndarray
    """int64 (M,): what one label covers, by its number: a polygon, or the pixels of one value of a raster that touch
    along edges."""


class Labels(Protocol):
    """A file of labels of areas."""

    @property
    def task(self) -> Task: ...

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return what was left out of the file and why, a line each."""

    def at(self, places: np.ndarray) -> Hits:
        """Label the pixels at (N, 3): EPSG code, easting, northing. An unknown place, code 0, has no label."""

    def name(self, value: int) -> str:
        """Return the name of a class."""

    def places(self, parcels: np.ndarray) -> np.ndarray:
        """Return where parcels, int64 (M,), lie: their centroids, float64 (M, 3), EPSG code of the UTM zone, easting
        and northing; code 0 outside of UTM."""


class Options(NamedTuple):
    """What users call the options that choose in a file of labels, for errors."""

    column: str = "--column NAME"
    layer: str = "--layer NAME"


OPTIONS = Options()
"""Those of commands."""
