"""Labelled pixels: the choice for the probes, and the groups that must not be split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import RESOLUTION, from_utm
from tessera_cli.pretrain.config import ProbeConfig
from tessera_cli.pretrain.data.ragged import RaggedPixels, concatenated
from tessera_cli.pretrain.data.select import stratified_sample
from tessera_cli.pretrain.evaluation.label_files import Labels, PolygonLabels, RasterLabels
from tessera_cli.sampling.draws import mix, pixel_keys

logger = logging.getLogger(__name__)

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
    pixel's polygon, or of the pixel itself if the labels are a raster. Classes within one square are left out, since
    they cannot be both learned and predicted. Raises UsageError for labels that no probe can use.
    """
    side = config.block * RESOLUTION
    raster = path.suffix.lower() in (".tif", ".tiff")
    labels: Labels = RasterLabels.open(path, side) if raster else PolygonLabels.read(path, config.column, side)
    found = _NONE
    for number, part in enumerate(parts):
        found = _Candidates(*map(np.concatenate, zip(found, _candidates(part, number, labels), strict=True)))
        found = _first_of_each(found, config.pixels)
    if not len(found.values):
        raise UsageError(f"{path} labels no pixel of the d-pixels. {_whereabouts(parts)}")

    found = _of_classes(found, config.classes, labels, path)
    _check_groups(found, config, path)
    found = _in_several_groups(found, labels, path)
    chosen = _rows(found, stratified_sample(found.hashes, found.values, config.pixels))
    chosen = _in_several_groups(chosen, labels, path)  # of a class with many squares, few pixels may lie in one
    _check_groups(chosen, config, path)
    if len(np.unique(chosen.values)) < 2:
        name = labels.name(int(chosen.values[0]))
        raise UsageError(f"{path}: all labelled pixels are of the class {name}. A probe takes at least 2 classes.")

    chosen = _rows(chosen, np.argsort(chosen.parts, kind="stable"))
    pixels = concatenated([parts[n].take(chosen.numbers[chosen.parts == n]) for n in np.unique(chosen.parts)])
    order = np.argsort(chosen.hashes)
    values, classes = np.unique(chosen.values[order], return_inverse=True)
    names = tuple(labels.name(int(value)) for value in values)
    return Labelled(pixels.take(order), classes.astype(np.int64), names, chosen.groups[order].view(np.int64))


def shuffled(keys: np.ndarray) -> np.ndarray:
    """Return hashes of pixels' keys, uint64 (N,): a random sample is the pixels with the smallest ones."""
    return mix(keys ^ _SALT)


class _Candidates(NamedTuple):
    """Labelled pixels, arrays of equal length: number of the part, position in it, class, group, hash."""

    parts: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    hashes: np.ndarray


_NONE = _Candidates(*(np.empty(0, np.int64),) * 3, *(np.empty(0, np.uint64),) * 2)


def _candidates(part: RaggedPixels, number: int, labels: Labels) -> _Candidates:
    hits = labels.at(np.asarray(part.places, np.int64))
    parts = np.full(len(hits.numbers), number, np.int64)
    return _Candidates(parts, hits.numbers, hits.values, pixel_keys(0, hits.squares), shuffled(part.keys[hits.numbers]))


def _rows(found: _Candidates, which: np.ndarray) -> _Candidates:
    return _Candidates(*(column[which] for column in found))


def _first_of_each(found: _Candidates, count: int) -> _Candidates:
    """Keep the `count` smallest hashes of each class: no more can be chosen."""
    found = _rows(found, np.lexsort((found.hashes, found.values)))
    return _rows(found, np.arange(len(found.values)) - np.searchsorted(found.values, found.values) < count)


def _of_classes(found: _Candidates, names: Sequence[str], labels: Labels, path: Path) -> _Candidates:
    if not names:
        return found
    values = {labels.name(int(value)): value for value in np.unique(found.values)}
    if missing := [name for name in names if name not in values]:
        there = ", ".join(list(values)[:20])
        raise UsageError(f"{path}: no pixel is of the class {missing[0]} of probe.classes. There are: {there}.")
    return _rows(found, np.isin(found.values, [values[name] for name in names]))


def _in_several_groups(found: _Candidates, labels: Labels, path: Path) -> _Candidates:
    pairs = np.unique(np.stack([found.values.view(np.uint64), found.groups]), axis=1)
    values, groups = np.unique(pairs[0].view(np.int64), return_counts=True)
    single = values[groups < 2]
    if len(single):
        names = ", ".join(labels.name(int(value)) for value in single)
        logger.warning("%s: classes that lie in one square of probe.block pixels only are left out: %s", path, names)
    kept = _rows(found, ~np.isin(found.values, single))
    if not len(kept.values):
        raise UsageError(
            f"{path}: every class lies in one square of probe.block pixels only. Make probe.block smaller."
        )
    return kept


def _check_groups(found: _Candidates, config: ProbeConfig, path: Path) -> None:
    groups = len(np.unique(found.groups))
    if groups < config.folds:
        raise UsageError(
            f"{path}: the labelled pixels lie in {groups} squares of {config.block} pixels, too few for "
            f"{config.folds} folds. Make probe.block or probe.folds smaller."
        )


def _whereabouts(parts: Sequence[RaggedPixels]) -> str:
    """Return a hint where the labels should lie."""
    for part in parts:
        for epsg, east, north in np.asarray(part.places[part.places[:, 0] > 0][:1], np.int64).tolist():
            lon, lat = from_utm(epsg).transform(east, north)
            return f"Give labels of the same place, around longitude {lon:.2f}, latitude {lat:.2f}."
    return "They do not say where they lie; only d-pixels with a place can be labelled."
