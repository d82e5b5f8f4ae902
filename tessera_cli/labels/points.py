"""Points with a class or value each: they label the pixel that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pyproj import CRS

from tessera_cli.extent.grid import RESOLUTION, to_utm
from tessera_cli.labels.labels import Hits
from tessera_cli.labels.places import in_utm
from tessera_cli.labels.targets import Targets
from tessera_cli.learning.task import Task


@dataclass(frozen=True, eq=False)
class PointLabels:
    """N points; each is a parcel of its own."""

    lonlat: np.ndarray
    """float64 (N, 2), degrees."""
    values: np.ndarray
    """int64 (N,), index into `names`; or float64 (N,) for regression."""
    names: tuple[str, ...]
    task: Task
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further columns that were asked for -> values (N,)."""
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, lonlat: np.ndarray, targets: Targets, origin: str, columns: Mapping[str, np.ndarray] | None = None
    ) -> PointLabels:
        """Keep the points that have a place, float64 (N, 2), NaN for none, and a target."""
        placed = np.isfinite(lonlat).all(axis=1)
        kept = np.flatnonzero(placed & targets.given)
        lines = []
        if absent := int((~placed).sum()):
            lines.append(f"{origin}: {absent:,} of {len(placed):,} points have no geometry")
        if absent := int((placed & ~targets.given).sum()):
            lines.append(f"{origin}: {absent:,} of {len(placed):,} points have no label")
        further = {name: values[kept] for name, values in (columns or {}).items()}
        return cls(lonlat[kept], targets.values[kept], targets.names, targets.task, further, tuple(lines))

    def at(self, places: np.ndarray) -> Hits:
        """Label the pixels of 10 m at (N, 3) that hold points; those that hold points of two labels have none."""
        pixels, points = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        # rasters of others may begin anywhere: pixels are counted from where those with the same remainder begin
        phases = np.concatenate([places[:, :1], places[:, 1:] % RESOLUTION], axis=1)
        for zone, *phase in np.unique(phases[places[:, 0] > 0], axis=0).tolist():
            here = np.flatnonzero((phases == (zone, *phase)).all(axis=1))
            pixel, point = _under(places[here, 1:] - phase, np.stack(to_utm(zone).transform(*self.lonlat.T), 1) - phase)
            pixels.append(here[pixel])
            points.append(point)
        pairs = np.stack([np.concatenate(pixels), np.concatenate(points)])
        numbers, held = pairs[:, np.lexsort(pairs[::-1])]
        numbers, first = np.unique(numbers, return_index=True)
        values = self.values[held]
        one = np.minimum.reduceat(values, first) == np.maximum.reduceat(values, first) if len(first) else first > 0
        return Hits(numbers[one], values[first[one]], held[first[one]])

    def name(self, value: int) -> str:
        return self.names[value]

    def places(self, parcels: np.ndarray) -> np.ndarray:
        """Return where points, int64 (M,), lie, as `Labels.places`."""
        lon, lat = self.lonlat[parcels].T
        return in_utm(lon, lat, CRS(4326))


def _under(centres: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of a pixel and a point on it: centres, multiples of 10 m (N, 2), and points (P, 2) in metres.

    On the border between two pixels a point belongs to the eastern and the southern one, as `pixels_of_points` has it.
    """
    east, north = points.T / RESOLUTION
    somewhere = np.flatnonzero(np.isfinite(east) & np.isfinite(north))
    cells = np.stack([np.floor(east[somewhere] + 0.5), np.ceil(north[somewhere] - 0.5)], axis=1).astype(np.int64)
    both = np.concatenate([centres // RESOLUTION, cells])
    numbers = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    of_pixels, of_points = numbers[: len(centres)], numbers[len(centres) :]
    order = np.argsort(of_points, kind="stable")
    low, high = (np.searchsorted(of_points[order], of_pixels, side) for side in ("left", "right"))
    pixels = np.repeat(np.arange(len(centres)), high - low)
    turns = np.arange(len(pixels)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    return pixels, somewhere[order[np.repeat(low, high - low) + turns]]
