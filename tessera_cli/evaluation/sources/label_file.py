"""A file of labels for an evaluation: polygons, points or a raster, told by what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.sources.source import Bounds
from tessera_cli.extent.features import Features
from tessera_cli.extent.vector import read_vector
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.polygons import PolygonLabels
from tessera_cli.labels.raster import RasterLabels
from tessera_cli.labels.vector import vector_labels
from tessera_cli.learning.task import Task
from tessera_cli.reading import is_there
from tessera_cli.tables.csv_places import read_csv
from tessera_cli.tables.parquet_places import read_parquet
from tessera_cli.tables.places import CSV, PARQUET

AnyLabels = PolygonLabels | RasterLabels | PointLabels


def open_labels(
    path: Path,
    *,
    column: str | None = None,
    layer: str | None = None,
    task: Task | None = None,
    near: Bounds | None = None,
    keep: Sequence[str] = (),
) -> AnyLabels:
    """Open labels.

    Args:
        path: A GeoTIFF of one band; polygons or points in any format that `--aoi` takes, GeoParquet, or a CSV with
            columns lon and lat.
        column: That of the labels; None: the one called class, label, crop or name.
        layer: One of several in a file; None: all that hold areas.
        task: What they are for; None: told by the type of the column.
        near: Of a raster only what lies around this box is used.
        keep: Further columns to keep, such as that of a split.

    Raises:
        UsageError: It cannot be read, has no such column, or labels nothing.
    """
    if not is_there(path):
        raise UsageError(f"{path}: no such file. Give polygons, points or a raster of labels.")
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        for name, option in (
            (column, "--column"),
            (layer, "--layer"),
            (keep[0] if keep else None, "--split and --group"),
        ):
            if name:
                raise UsageError(f"{path} is a raster, which has no columns or layers. Leave out {option}.")
        return RasterLabels.open(path, task, near)
    return vector_labels(_layers(path, layer, suffix), path, column or "", task, keep=keep)


def _layers(path: Path, layer: str | None, suffix: str) -> list[Features]:
    if suffix not in CSV + PARQUET:
        return read_vector(path, layer, areas=False)
    if layer is not None:
        raise UsageError(f"{path} has no layers. Leave out --layer.")
    return [read_csv(path) if suffix in CSV else read_parquet(path)]
