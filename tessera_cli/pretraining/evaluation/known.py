"""Where the classes of a probe come from: polygons, points, a raster, or a table of samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import RESOLUTION, from_utm
from tessera_cli.labels.labels import Labels
from tessera_cli.labels.places import squares
from tessera_cli.labels.polygons import PolygonLabels
from tessera_cli.labels.raster import RasterLabels
from tessera_cli.labels.vector import read_labels
from tessera_cli.pretraining.config import ProbeConfig
from tessera_cli.pretraining.evaluation.class_table import TableOfClasses
from tessera_cli.pretraining.evaluation.classed import OPTIONS, Classed, Grouping, Known
from tessera_cli.sampling.draws import pixel_keys
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.files import CSV, PARQUET

logger = logging.getLogger(__name__)


def open_known(path: Path, config: ProbeConfig, parts: Sequence[RaggedPixels], origins: Sequence[str]) -> Known:
    """Open the labels of a probe; `origins` are the names of the inputs by number (`RaggedPixels.tile_index`).

    Raises UsageError for what cannot be read, has no classes, or is asked for what it has not.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file. Give polygons, points, a raster of classes, or a table of samples.")
    suffix = path.suffix.lower()
    if suffix in CSV + PARQUET:
        if config.layer:
            raise UsageError(f"{path} is a table, which has no layers. Leave out probe.layer.")
        return TableOfClasses.open(path, config, origins)
    if config.sample or config.group:
        what = "probe.sample" if config.sample else "probe.group"
        raise UsageError(f"{path} is no table, and {what} names a column of one. Leave it out.")
    if suffix in (".tif", ".tiff"):
        return OnGround(RasterLabels.open(path, near=_bounds(parts)), path, config.block)
    return OnGround(read_labels(path, config.column, config.layer, OPTIONS), path, config.block)


@dataclass(frozen=True, eq=False)
class OnGround:
    """Labels with a place. A group is the square of ground around the centroid of a pixel's parcel."""

    labels: Labels
    path: Path
    block: int

    @property
    def grouping(self) -> Grouping:
        return Grouping("square of probe.block pixels", f"squares of {self.block} pixels", "make probe.block smaller")

    def of(self, part: RaggedPixels) -> Classed:
        hits = self.labels.at(np.asarray(part.places, np.int64))
        parcels, of = np.unique(hits.parcels, return_inverse=True)
        groups = pixel_keys(0, squares(self.labels.places(parcels), self.block * RESOLUTION))
        return Classed(hits.numbers, hits.values, groups[of])

    def name(self, value: int) -> str:
        return self.labels.name(value)

    def nothing(self, parts: Sequence[RaggedPixels]) -> str:
        return f"{self.path} labels no pixel of the d-pixels. {_whereabouts(parts)}"

    def tell(self) -> None:
        if isinstance(self.labels, PolygonLabels) and not self.labels.used.all():
            used = self.labels.used
            text = "%s: %d of %d polygons hold no pixel of the d-pixels and label nothing"
            logger.warning(text, self.path, (~used).sum(), len(used))


def _bounds(parts: Sequence[RaggedPixels]) -> tuple[float, float, float, float] | None:
    """Return the box around all places in degrees; None where there are none, or around the antimeridian."""
    boxes = []
    for part in parts:
        places = np.asarray(part.places, np.int64)
        for zone in np.unique(places[places[:, 0] > 0, 0]).tolist():
            x, y = places[places[:, 0] == zone, 1:].T
            bounds = (int(x.min()), int(y.min()), int(x.max()), int(y.max()))
            boxes.append(from_utm(zone).transform_bounds(*bounds))
    if not boxes or any(west > east for west, _, east, _ in boxes):
        return None
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


def _whereabouts(parts: Sequence[RaggedPixels]) -> str:
    """Return a hint where the labels should lie."""
    for part in parts:
        for epsg, east, north in np.asarray(part.places[part.places[:, 0] > 0][:1], np.int64).tolist():
            lon, lat = from_utm(epsg).transform(east, north)
            return f"Give labels of the same place, around longitude {lon:.2f}, latitude {lat:.2f}."
    return "They do not say where they lie; only d-pixels with a place can be labelled."
