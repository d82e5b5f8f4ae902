"""Labelled pixels: the choice for the probes, and the groups that must not be split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import RESOLUTION, from_utm
from tessera_cli.labels.labels import Labels, Options
from tessera_cli.labels.places import squares
from tessera_cli.labels.polygons import PolygonLabels
from tessera_cli.labels.raster import RasterLabels
from tessera_cli.pretraining.config import ProbeConfig
from tessera_cli.pretraining.data.select import stratified_sample
from tessera_cli.sampling.draws import mix, pixel_keys
from tessera_cli.sampling.ragged import RaggedPixels, concatenated

logger = logging.getLogger(__name__)

OPTIONS = Options("--set probe.column=NAME", "--set probe.layer=NAME")
_SALT = np.uint64(0x70726F6265)


@dataclass(frozen=True, eq=False)
class Labelled:
    """N pixels and their classes."""

    pixels: RaggedPixels
    classes: np.ndarray
    """int64 (N,): index into `names`."""
    names: tuple[str, ...]
    groups: np.ndarray
    """int64 (N,): pixels of one group lie in one parcel or near each other, and must not be split."""


def label_pixels(parts: Sequence[RaggedPixels], config: ProbeConfig, path: Path) -> Labelled:
    """Choose at most `config.pixels` pixels of several shards that the file labels, in the order of a hash.

    They are spread evenly over the classes; what a class lacks goes to the others. The choice follows from their keys
    alone, not from their division into shards. A group is a square of `config.block` pixels: that of the centroid of a
    pixel's parcel, which is its polygon, or the pixels of one class of a raster that touch. Classes within one square
    are left out, since they cannot be both learned and predicted. Raises UsageError for labels that no probe can use.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file. Give polygons or a raster of classes.")
    side = config.block * RESOLUTION
    raster = path.suffix.lower() in (".tif", ".tiff")
    labels: Labels = (
        RasterLabels.open(path, near=_bounds(parts))
        if raster
        else PolygonLabels.read(path, config.column, config.layer, OPTIONS)
    )
    found = np.empty(0, _CANDIDATE)
    for number, part in enumerate(parts):
        found = np.concatenate([found, _candidates(part, number, labels, side)])
        found = found[np.lexsort((found["hash"], found["value"]))]
        rank = np.arange(len(found)) - np.searchsorted(found["value"], found["value"])
        found = found[rank < config.pixels]  # no more of a class can be chosen
    if not len(found):
        raise UsageError(f"{path} labels no pixel of the d-pixels. {_whereabouts(parts)}")
    if isinstance(labels, PolygonLabels) and not labels.used.all():
        text = "%s: %d of %d polygons hold no pixel of the d-pixels and label nothing"
        logger.warning(text, path, (~labels.used).sum(), len(labels.used))

    found = _of_classes(found, config.classes, labels, path)
    _check_groups(found, config, path)
    found = _in_several_groups(found, labels, path)
    chosen = found[stratified_sample(found["hash"], found["value"], config.pixels)]
    chosen = _in_several_groups(chosen, labels, path)  # of a class with many squares, few pixels may lie in one
    _check_groups(chosen, config, path)
    if len(np.unique(chosen["value"])) < 2:
        name = labels.name(int(chosen["value"][0]))
        raise UsageError(f"{path}: all labelled pixels are of the class {name}. A probe takes at least 2 classes.")

    chosen = chosen[np.argsort(chosen["part"], kind="stable")]
    pixels = concatenated([parts[n].take(chosen["number"][chosen["part"] == n]) for n in np.unique(chosen["part"])])
    order = np.argsort(chosen["hash"])
    values, classes = np.unique(chosen["value"][order], return_inverse=True)
    names = tuple(labels.name(int(value)) for value in values)
    return Labelled(pixels.take(order), classes.astype(np.int64), names, chosen["group"][order].view(np.int64))


def shuffled(keys: np.ndarray) -> np.ndarray:
    """Return hashes of pixels' keys, uint64 (N,): a random sample is the pixels with the smallest ones."""
    return mix(keys ^ _SALT)


_CANDIDATE = np.dtype([("part", "i8"), ("number", "i8"), ("value", "i8"), ("group", "u8"), ("hash", "u8")])
"""A labelled pixel: number of its part, position in it, class, group, hash."""


def _candidates(part: RaggedPixels, number: int, labels: Labels, side: int) -> np.ndarray:
    hits = labels.at(np.asarray(part.places, np.int64))
    parcels, of = np.unique(hits.parcels, return_inverse=True)
    groups = pixel_keys(0, squares(labels.places(parcels), side))
    found = np.empty(len(hits.numbers), _CANDIDATE)
    found["part"], found["number"], found["value"] = number, hits.numbers, hits.values
    found["group"], found["hash"] = groups[of], shuffled(part.keys[hits.numbers])
    return found


def _of_classes(found: np.ndarray, names: Sequence[str], labels: Labels, path: Path) -> np.ndarray:
    if not names:
        return found
    values = {labels.name(int(value)): value for value in np.unique(found["value"])}
    if missing := [name for name in names if name not in values]:
        there = ", ".join(list(values)[:20])
        raise UsageError(f"{path}: no pixel is of the class {missing[0]} of probe.classes. There are: {there}.")
    return found[np.isin(found["value"], [values[name] for name in names])]


def _in_several_groups(found: np.ndarray, labels: Labels, path: Path) -> np.ndarray:
    """Leave out classes that lie in one group only; UsageError if none is left."""
    values, groups = np.unique(np.unique(found[["value", "group"]])["value"], return_counts=True)
    single = values[groups < 2]
    if len(single):
        names = ", ".join(labels.name(int(value)) for value in single)
        logger.warning("%s: classes that lie in one square of probe.block pixels only are left out: %s", path, names)
    kept = found[~np.isin(found["value"], single)]
    if not len(kept):
        raise UsageError(
            f"{path}: every class lies in one square of probe.block pixels only. Make probe.block smaller."
        )
    return kept


def _check_groups(found: np.ndarray, config: ProbeConfig, path: Path) -> None:
    groups = len(np.unique(found["group"]))
    if groups < config.folds:
        raise UsageError(
            f"{path}: the labelled pixels lie in {groups} squares of {config.block} pixels, too few for "
            f"{config.folds} folds. Make probe.block or probe.folds smaller."
        )


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
