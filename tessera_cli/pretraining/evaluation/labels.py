"""Labelled pixels: the choice for the probes, and the groups that must not be split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.pretraining.config import ProbeConfig
from tessera_cli.pretraining.data.select import stratified_sample
from tessera_cli.pretraining.evaluation.classed import Known
from tessera_cli.pretraining.evaluation.known import open_known
from tessera_cli.sampling.draws import mix
from tessera_cli.sampling.ragged import RaggedPixels, concatenated

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


def label_pixels(
    parts: Sequence[RaggedPixels], config: ProbeConfig, path: Path, origins: Sequence[str] = ()
) -> Labelled:
    """Choose at most `config.pixels` pixels of several shards that the file labels, in the order of a hash.

    They are spread evenly over the classes; what a class lacks goes to the others. The choice follows from their keys
    alone, not from their division into shards. A group is a square of `config.block` pixels: that of the centroid of a
    pixel's parcel, which is its polygon, its point, or the pixels of one class of a raster that touch; or what a column
    of a table says. Classes within one group are left out, since they cannot be both learned and predicted. `origins`
    are the names of the inputs by number. Raises UsageError for labels that no probe can use.
    """
    labels = open_known(path, config, parts, origins)
    found = np.empty(0, _CANDIDATE)
    for number, part in enumerate(parts):
        found = np.concatenate([found, _candidates(part, number, labels)])
        found = found[np.lexsort((found["hash"], found["value"]))]
        rank = np.arange(len(found)) - np.searchsorted(found["value"], found["value"])
        found = found[rank < config.pixels]  # no more of a class can be chosen
    if not len(found):
        raise UsageError(labels.nothing(parts))
    labels.tell()
    found = _of_classes(found, config.classes, labels, path)
    _check_groups(found, config, labels, path)
    found = _in_several_groups(found, labels, path)
    chosen = found[stratified_sample(found["hash"], found["value"], config.pixels)]
    chosen = _in_several_groups(chosen, labels, path)  # of a class with many squares, few pixels may lie in one
    _check_groups(chosen, config, labels, path)
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


def _candidates(part: RaggedPixels, number: int, labels: Known) -> np.ndarray:
    hits = labels.of(part)
    found = np.empty(len(hits.numbers), _CANDIDATE)
    found["part"], found["number"], found["value"] = number, hits.numbers, hits.values
    found["group"], found["hash"] = hits.groups, shuffled(part.keys[hits.numbers])
    return found


def _of_classes(found: np.ndarray, names: Sequence[str], labels: Known, path: Path) -> np.ndarray:
    if not names:
        return found
    values = {labels.name(int(value)): value for value in np.unique(found["value"])}
    if missing := [name for name in names if name not in values]:
        there = ", ".join(list(values)[:20])
        raise UsageError(f"{path}: no pixel is of the class {missing[0]} of probe.classes. There are: {there}.")
    return found[np.isin(found["value"], [values[name] for name in names])]


def _in_several_groups(found: np.ndarray, labels: Known, path: Path) -> np.ndarray:
    """Leave out classes that lie in one group only; UsageError if none is left."""
    values, groups = np.unique(np.unique(found[["value", "group"]])["value"], return_counts=True)
    single = values[groups < 2]
    if len(single):
        names = ", ".join(labels.name(int(value)) for value in single)
        logger.warning("%s: classes that lie in one %s only are left out: %s", path, labels.grouping.one, names)
    kept = found[~np.isin(found["value"], single)]
    if not len(kept):
        raise UsageError(
            f"{path}: every class lies in one {labels.grouping.one} only. {labels.grouping.advice.capitalize()}."
        )
    return kept


def _check_groups(found: np.ndarray, config: ProbeConfig, labels: Known, path: Path) -> None:
    groups = len(np.unique(found["group"]))
    if groups < config.folds:
        raise UsageError(
            f"{path}: the labelled pixels lie in {groups} {labels.grouping.many}, too few for {config.folds} folds. "
            f"Make probe.folds smaller, or {labels.grouping.advice}."
        )
