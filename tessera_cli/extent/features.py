"""The features of one layer: geometries with a CRS, and columns; what is no area is refused by name or counted."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError, counted

logger = logging.getLogger(__name__)

MAX_POSITIONS = 3_000_000
"""Of one area whose edges are cut into short ones, so that they can bend: the outline of a continent has thousands."""


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one layer of a file, in the file's order."""

    origin: str
    """The file, and its layer if it has several: what messages say."""
    crs: CRS
    geometries: np.ndarray
    """object (N,): None where a feature has no geometry."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Column -> values (N,)."""

    def with_area(self, among: np.ndarray | None = None) -> np.ndarray:
        """Return the positions of the features that have an area, int64 (P,), of those where `among` (N,) is true.

        Warns of features without a geometry. Raises UsageError, with the number of the feature, for coordinates that
        are not finite and for points, lines and whatever else encloses nothing.
        """
        asked = np.arange(len(self.geometries)) if among is None else np.flatnonzero(among)
        given = self.geometries[asked]
        absent = shapely.is_missing(given) | shapely.is_empty(given)
        if absent.any():
            text = "%s: left out without a geometry: %d of %s"
            logger.warning(text, self.origin, absent.sum(), counted(len(asked), "feature"))
        kept, given = asked[~absent], given[~absent]
        coordinates, owners = shapely.get_coordinates(given, return_index=True)
        infinite = ~np.isfinite(coordinates).all(axis=1)
        if infinite.any():
            first = int(np.argmax(infinite))
            x, y = coordinates[first]
            raise UsageError(
                f"{self.origin}: feature {kept[owners[first]] + 1} has the position {x:g} {y:g}, which is nowhere. "
                "Correct or remove it."
            )
        for position, geometry in zip(kept, given, strict=True):
            if next(polygons(geometry), None) is None:
                raise self.no_area(geometry.geom_type, int(position))
        mixed = sum(any(part.geom_type != "Polygon" for part in _leaves(geometry)) for geometry in given)
        if mixed:
            text = "%s: left out are points and lines, which are no areas, of %s beside polygons"
            logger.warning(text, self.origin, counted(mixed, "collection"))
        return kept

    def no_area(self, kind: str, position: int) -> UsageError:
        """Return the error for a feature whose geometry is none that can be used."""
        return UsageError(
            f"{self.origin} holds a {kind} (feature {position + 1}); an area is needed. Give polygons, or buffer the "
            f"{kind}."
        )


def polygons(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield every polygon within a geometry, whatever it is nested in."""
    return (part for part in _leaves(geometry) if part.geom_type == "Polygon")


def _leaves(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield the parts of a geometry that have no parts themselves; none of what is empty."""
    if geometry.geom_type in ("MultiPolygon", "MultiPoint", "MultiLineString", "GeometryCollection"):
        for part in shapely.get_parts(geometry):
            yield from _leaves(part)
    elif not geometry.is_empty:
        yield geometry


def kinds(geometries: np.ndarray) -> str:
    """Return how many geometries there are of each kind: "12 Point, 3 LineString"; "" if there are none."""
    counts = Counter(geometry.geom_type for geometry in geometries if geometry is not None)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def bounds_with_holes(geometries: BaseGeometry | np.ndarray) -> tuple[float, float, float, float]:
    """Return the bounds of all positions, NaN of none.

    Those of shapely leave out holes, which a repair may turn into areas.
    """
    positions = shapely.get_coordinates(geometries)
    if not len(positions):
        return math.nan, math.nan, math.nan, math.nan
    (west, south), (east, north) = positions.min(axis=0), positions.max(axis=0)
    return float(west), float(south), float(east), float(north)


def densified(geometry: BaseGeometry, step: float, origin: str) -> BaseGeometry:
    """Return the geometry with edges no longer than `step`; UsageError where that would take millions of positions."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = shapely.length(geometry)
    if not length / step <= MAX_POSITIONS:  # also of one that is no number
        raise UsageError(f"{origin}: the edges of an area are longer together than any on Earth. Check its CRS.")
    return shapely.segmentize(geometry, step)


def check_lonlat(origin: str, bounds: Iterable[float]) -> None:
    """Raise UsageError for bounds that are no longitudes and latitudes."""
    west, south, east, north = bounds
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        hint = "Use a file with a CRS, or convert it to WGS84."
        if max(abs(west), abs(east)) <= 90 and max(abs(south), abs(north)) <= 180:
            hint = "Longitude and latitude look swapped: longitude comes first."
        raise UsageError(f"{origin}: {west:g} {south:g} {east:g} {north:g} are not longitudes and latitudes. {hint}")
