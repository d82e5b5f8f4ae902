"""Layers of features -> labels: polygons where there are areas, else points."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from tessera_cli.errors import UsageError, listed
from tessera_cli.extent.features import Features, kinds, polygons
from tessera_cli.extent.point_features import points_in_degrees, points_or_polygons
from tessera_cli.extent.vector import read_vector
from tessera_cli.labels.labels import OPTIONS, Options
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.polygons import PolygonLabels
from tessera_cli.labels.targets import Targets, check_column, column_of
from tessera_cli.learning.task import Task

logger = logging.getLogger(__name__)


def read_labels(
    path: Path, column: str = "", layer: str = "", options: Options = OPTIONS
) -> PolygonLabels | PointLabels:
    """Read a vector file of classes, `layer` alone or all; UsageError as `read_vector` and `vector_labels`."""
    return vector_labels(read_vector(path, layer or None, areas=False), path, column, "classification", options)


def vector_labels(
    layers: Sequence[Features],
    path: Path,
    column: str = "",
    task: Task | None = None,
    options: Options = OPTIONS,
    keep: Sequence[str] = (),
) -> PolygonLabels | PointLabels:
    """Make labels of the layers of a file; arguments are those of `PolygonLabels.of`.

    Where several layers are given, those with areas are used. Raises UsageError for several layers of points, and as
    `PolygonLabels.of`.
    """
    if not layers:
        raise UsageError(f"{path} holds no geometry. Give polygons or points with labels.")
    if any(_has_areas(each) for each in layers):
        areas = [each for each in layers if _has_areas(each) or len(layers) == 1]
        if len(areas) > 1:
            names = listed(each.origin.removeprefix(f"{path}, layer ") for each in areas)
            logger.info("%s: all layers with areas are used: %s", path, names)
        for each in layers:
            if each not in areas:
                logger.warning("%s holds %s, no area, and is left out", each.origin, kinds(each.geometries))
        return PolygonLabels.of(areas, path, column, task, options, keep)
    if len(layers) > 1:
        names = ", ".join(each.origin.removeprefix(f"{path}, layer ") for each in layers)
        raise UsageError(f"{path} has several layers of points: {names}. Choose one with {options.layer}.")
    return _points(layers[0], column, task, options, keep)


def _has_areas(features: Features) -> bool:
    return any(next(polygons(each), None) is not None for each in features.geometries if each is not None)


def _points(features: Features, column: str, task: Task | None, options: Options, keep: Sequence[str]) -> PointLabels:
    name = column_of(features.columns, column, features.origin, options)
    for other in keep:
        check_column(features.columns, other, features.origin)
    absent = shapely.is_missing(features.geometries) | shapely.is_empty(features.geometries)
    if absent.all():
        raise UsageError(f"{features.origin}: no row has a geometry. Give polygons or points with labels.")
    _, geometries = points_or_polygons(features)
    targets = Targets.of(np.asarray(features.columns[name]), task, f"{features.origin}: the column {name}")
    columns = {other: np.asarray(features.columns[other]) for other in keep}
    lonlat = points_in_degrees(features, geometries)
    found = PointLabels.of(lonlat, targets, features.origin, columns)
    if not len(found.values):
        raise UsageError(f"{features.origin}: no row has both a place and a label. Give points with labels.")
    return found
