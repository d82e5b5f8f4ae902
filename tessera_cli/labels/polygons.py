"""Polygons with a class or value each as labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS

from tessera_cli.errors import UsageError, counted
from tessera_cli.extent.antimeridian import rejoin, split, unwrap_edges
from tessera_cli.extent.crossings import check_crossings
from tessera_cli.extent.features import Features, bounds_with_holes, check_lonlat, polygons
from tessera_cli.labels.labels import OPTIONS, Hits, Options
from tessera_cli.labels.places import in_utm, projected
from tessera_cli.labels.targets import Targets, column_of
from tessera_cli.learning.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """Parcels. A pixel is labelled if its centre lies within polygons of one class, or of one value."""

    crs: CRS
    tree: shapely.STRtree
    values: np.ndarray
    """int64 (P,): index into `names` of each polygon; or float64 (P,) for regression."""
    names: tuple[str, ...]
    task: Task
    centroids: np.ndarray
    """float64 (P, 3): place of each polygon's centroid."""
    used: np.ndarray
    """bool (P,): polygons that have held a pixel so far; `at` notes them."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further columns that were asked for -> values (P,)."""
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        layers: Sequence[Features],
        path: Path,
        column: str = "",
        task: Task | None = None,
        options: Options = OPTIONS,
        keep: Sequence[str] = (),
    ) -> PolygonLabels:
        """Make labels of features; `column` "": the first of `COLUMNS` that is there; `keep` further columns.

        Raises UsageError without any polygon or column of labels, for layers that differ in CRS or in the type of their
        labels, and for a column that is none of labels.
        """
        named = [column_of(each.columns, column, each.origin, options) for each in layers]
        found = [each.columns[name] for each, name in zip(layers, named, strict=True)]
        if len({(each.crs, _is_text(values)) for each, values in zip(layers, found, strict=True)}) > 1:
            raise UsageError(
                f"{path}: its layers differ in CRS or in the type of their labels. Choose one with {options.layer}."
            )
        if not sum(map(len, found)):
            raise UsageError(f"{path} holds no polygon with a label. Give polygons with a column of labels.")
        targets = Targets.of(_joined(found), task, f"{path}: the column {named[0]}")
        starts = np.cumsum([0, *map(len, found)])
        cuts = list(zip(layers, starts[:-1], strict=True))
        kept = [at + each.with_area(targets.given[at : at + len(each.geometries)]) for each, at in cuts]
        rows = np.concatenate(kept)
        lines = _lines(path, targets, len(rows))
        _check_any(path, len(rows))
        crs = layers[0].crs
        geometries = np.concatenate([each.geometries for each in layers])[rows]
        _merge(geometries)
        if crs.is_geographic:
            _unroll(path, geometries)
        _repair(path, geometries)
        enclosing = ~shapely.is_empty(geometries)
        if not enclosing.all():
            text = f"{path}: left out since nothing is enclosed: {counted(int((~enclosing).sum()), 'feature')}"
            logger.warning("%s", text)
            lines.append(text)
            geometries, rows = geometries[enclosing], rows[enclosing]
        _check_any(path, len(geometries))
        centroids = shapely.centroid(geometries)
        places = in_utm(shapely.get_x(centroids), shapely.get_y(centroids), crs)
        if crs.is_geographic:
            _cut(geometries)
        shapely.prepare(geometries)
        columns = {name: _joined([_column(each, name) for each in layers])[rows] for name in keep}
        return cls(
            crs=crs,
            tree=shapely.STRtree(geometries),
            values=targets.values[rows],
            names=targets.names,
            task=targets.task,
            centroids=places,
            used=np.zeros(len(geometries), bool),
            columns=columns,
            left_out=tuple(lines),
        )

    def at(self, places: np.ndarray) -> Hits:
        # in the CRS of the polygons, where their edges are straight as drawn
        x, y = projected(places, self.crs)
        somewhere = np.flatnonzero(np.isfinite(x))
        points, polygons = self.tree.query(shapely.points(x[somewhere], y[somewhere]))
        numbers = somewhere[points]
        inside = shapely.contains_xy(self.tree.geometries[polygons], x[numbers], y[numbers])
        pairs = np.stack([numbers, polygons])[:, inside]
        numbers, polygons = pairs[:, np.lexsort(pairs[::-1])]
        self.used[polygons] = True
        numbers, first = np.unique(numbers, return_index=True)
        values = self.values[polygons]
        one = np.minimum.reduceat(values, first) == np.maximum.reduceat(values, first) if len(first) else first > 0
        if not one.all():
            logger.debug("%d pixels lie in polygons of two labels and are left out", (~one).sum())
        return Hits(numbers[one], values[first[one]], polygons[first[one]])

    def name(self, value: int) -> str:
        return self.names[value]

    def places(self, parcels: np.ndarray) -> np.ndarray:
        return np.asarray(self.centroids[parcels])


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind not in "biuf"


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    if len({each.dtype.kind in "iuf" for each in columns}) > 1 or any(each.dtype.kind == "O" for each in columns):
        columns = [each.astype(object) for each in columns]
    return np.concatenate(columns)


def _column(features: Features, name: str) -> np.ndarray:
    if name not in features.columns:
        there = ", ".join(features.columns) or "none"
        raise UsageError(f"{features.origin} has no column {name}. There are: {there}.")
    return np.asarray(features.columns[name])


def _lines(path: Path, targets: Targets, kept: int) -> list[str]:
    """Return what is left out, a line each."""
    lines, total = [], len(targets.given)
    if without := int((~targets.given).sum()):
        lines.append(f"{path}: {without:,} of {counted(total, 'polygon')} have no label")
    if absent := total - without - kept:
        lines.append(f"{path}: {absent:,} of {counted(total, 'polygon')} have no geometry")
    return lines


def _check_any(path: Path, count: int) -> None:
    if not count:
        raise UsageError(f"{path} holds no polygon with a label: none has a geometry. Give polygons with labels.")


def _unroll(path: Path, geometries: np.ndarray) -> None:
    """Make longitudes continuous across the antimeridian, in place; UsageError for numbers that are no degrees."""
    check_lonlat(str(path), bounds_with_holes(geometries))
    bounds = shapely.bounds(geometries)
    for number in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        try:
            parts = [unwrap_edges(part) for part in shapely.get_parts(geometries[number])]
        except ValueError as error:
            raise UsageError(f"{path}: {error}. Clip the polygon.") from error
        geometries[number] = rejoin(shapely.union_all(parts))


def _merge(geometries: np.ndarray) -> None:
    """Replace collections by the areas in them, in place."""
    for number in np.flatnonzero(shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION):
        geometries[number] = shapely.union_all(list(polygons(geometries[number])))


def _repair(path: Path, geometries: np.ndarray) -> None:
    """Replace bow ties and the like by the areas they enclose, in place."""
    broken = ~shapely.is_valid(geometries)
    for geometry in geometries[broken]:
        check_crossings(geometry, str(path))
    geometries[broken] = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)


def _cut(geometries: np.ndarray) -> None:
    """Bring longitudes within -180..180, as those of pixels are, in place."""
    bounds = shapely.bounds(geometries)
    for number in np.flatnonzero((bounds[:, 0] < -180) | (bounds[:, 2] > 180)):
        geometries[number] = shapely.union_all(split(geometries[number]))
