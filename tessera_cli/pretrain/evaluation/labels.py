"""Pixels whose classes are known: which ones the probes take, and which of them belong together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import RESOLUTION, from_utm
from tessera_cli.pretrain.config import ProbeSettings
from tessera_cli.pretrain.data.ragged import Ragged, concatenated
from tessera_cli.pretrain.data.select import stratified_sample
from tessera_cli.pretrain.evaluation.label_files import Labels, Polygons, Raster
from tessera_cli.sampling.draws import mix, pixel_keys

logger = logging.getLogger(__name__)

_SALT = np.uint64(0x70726F6265)


@dataclass(frozen=True, eq=False)
class Labelled:
    """N pixels and their classes."""

    pixels: Ragged
    classes: np.ndarray
    """int64 (N,): numbers into `names`."""
    names: tuple[str, ...]
    groups: np.ndarray
    """int64 (N,): pixels of one group must not be split, since they lie in one parcel or near each other."""


def labelled(parts: Sequence[Ragged], settings: ProbeSettings, path: Path) -> Labelled:
    """At most `settings.pixels` pixels of several shards that the file gives a class, in an order that hashes decide.

    They are dealt evenly over the classes; what a class has too few of goes to the others. Which ones follows from
    their keys alone, not from how they are divided into shards. A group is a square of `settings.block` pixels: the one
    around the centroid of a pixel's polygon, or around the pixel itself if the labels are a raster. Classes within one
    square are left out: they cannot be both learned and asked for. Raises UsageError for labels that no probe can use.
    """
    side = settings.block * RESOLUTION
    raster = path.suffix.lower() in (".tif", ".tiff")
    labels: Labels = Raster.open(path, side) if raster else Polygons.read(path, settings.column, side)
    found = _NONE
    for number, part in enumerate(parts):
        found = _Candidates(*map(np.concatenate, zip(found, _candidates(part, number, labels), strict=True)))
        found = _first_of_each(found, settings.pixels)
    if not len(found.values):
        raise UsageError(f"{path} labels no pixel of the d-pixels. {_whereabouts(parts)}")

    found = _asked_for(found, settings.classes, labels, path)
    _check_groups(found, settings, path)
    found = _without_lonely(found, labels, path)
    chosen = _rows(found, stratified_sample(found.hashes, found.values, settings.pixels))
    chosen = _without_lonely(chosen, labels, path)  # of a class with many squares, few pixels may lie in one
    _check_groups(chosen, settings, path)
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
    """Pixels' keys uint64 (N,) -> hashes uint64 (N,): a sample is those with the smallest ones."""
    return mix(keys ^ _SALT)


class _Candidates(NamedTuple):
    """Labelled pixels: arrays of equal length."""

    parts: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    hashes: np.ndarray


_NONE = _Candidates(*(np.empty(0, np.int64),) * 3, *(np.empty(0, np.uint64),) * 2)


def _candidates(part: Ragged, number: int, labels: Labels) -> _Candidates:
    hits = labels.at(np.asarray(part.places, np.int64))
    parts = np.full(len(hits.numbers), number, np.int64)
    return _Candidates(parts, hits.numbers, hits.values, pixel_keys(0, hits.squares), shuffled(part.keys[hits.numbers]))


def _rows(found: _Candidates, which: np.ndarray) -> _Candidates:
    return _Candidates(*(column[which] for column in found))


def _first_of_each(found: _Candidates, count: int) -> _Candidates:
    """The `count` first ones of each class, by hash: no more can be chosen."""
    found = _rows(found, np.lexsort((found.hashes, found.values)))
    return _rows(found, np.arange(len(found.values)) - np.searchsorted(found.values, found.values) < count)


def _asked_for(found: _Candidates, names: Sequence[str], labels: Labels, path: Path) -> _Candidates:
    if not names:
        return found
    values = {labels.name(int(value)): value for value in np.unique(found.values)}
    if missing := [name for name in names if name not in values]:
        there = ", ".join(list(values)[:20])
        raise UsageError(f"{path}: no pixel is of the class {missing[0]} of probe.classes. There are: {there}.")
    return _rows(found, np.isin(found.values, [values[name] for name in names]))


def _without_lonely(found: _Candidates, labels: Labels, path: Path) -> _Candidates:
    pairs = np.unique(np.stack([found.values.view(np.uint64), found.groups]), axis=1)
    values, groups = np.unique(pairs[0].view(np.int64), return_counts=True)
    lonely = values[groups < 2]
    if len(lonely):
        names = ", ".join(labels.name(int(value)) for value in lonely)
        logger.warning("%s: classes that lie in one square of probe.block pixels only are left out: %s", path, names)
    kept = _rows(found, ~np.isin(found.values, lonely))
    if not len(kept.values):
        raise UsageError(
            f"{path}: every class lies in one square of probe.block pixels only. Make probe.block smaller."
        )
    return kept


def _check_groups(found: _Candidates, settings: ProbeSettings, path: Path) -> None:
    groups = len(np.unique(found.groups))
    if groups < settings.folds:
        raise UsageError(
            f"{path}: the labelled pixels lie in {groups} squares of {settings.block} pixels, too few for "
            f"{settings.folds} folds. Make probe.block or probe.folds smaller."
        )


def _whereabouts(parts: Sequence[Ragged]) -> str:
    """Where to look for labels."""
    for part in parts:
        for epsg, east, north in np.asarray(part.places[part.places[:, 0] > 0][:1], np.int64).tolist():
            lon, lat = from_utm(epsg).transform(east, north)
            return f"Give labels of the same place, around longitude {lon:.2f}, latitude {lat:.2f}."
    return "They do not say where they lie; only d-pixels with a place can be labelled."
