"""Samples as they were found -> samples that can be evaluated, or the one line that says why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tessera_cli.errors import UsageError, counted, listed
from tessera_cli.evaluation.samples import LabelledSamples


def checked(samples: LabelledSamples, origin: str) -> LabelledSamples:
    """Leave out classes that lie in one group alone, unless the data bring a split, and number what is left from 0.

    Raises UsageError where nothing is left to be told apart: one class, one value, no class in two groups, or a given
    split with all samples on one side.
    """
    if samples.task == "regression":
        if len(samples) < 2 or samples.targets.min() == samples.targets.max():
            what = f"{samples.targets[0]:g}" if len(samples) else "none"
            raise UsageError(f"{origin}: all {counted(len(samples), 'target')} are {what}. Give values that differ.")
    else:
        samples = _of_several_groups(samples, origin)
    if samples.test is not None and (samples.test.all() or not samples.test.any()):
        side = "test" if samples.test.any() else "train"
        raise UsageError(f"{origin}: all samples that have features lie in {side} of the given split.")
    parcels, groups = (np.unique(each, return_inverse=True)[1] for each in (samples.parcels, samples.groups))
    return replace(samples, parcels=parcels.reshape(-1), groups=groups.reshape(-1))


def _of_several_groups(samples: LabelledSamples, origin: str) -> LabelledSamples:
    counts = np.bincount(samples.targets, minlength=len(samples.classes))
    present = np.flatnonzero(counts)
    if len(present) == 1:
        name = samples.classes[present[0]]
        raise UsageError(
            f"{origin}: all {len(samples):,} labelled samples are of the class {name}. Give labels of two classes at "
            "least."
        )
    lines = samples.left_out
    if samples.test is None:
        pairs = np.unique(np.stack([samples.targets, samples.groups]), axis=1)
        groups = np.bincount(pairs[0], minlength=len(samples.classes))
        small = present[groups[present] < 2]
        if len(small):
            names = [f"{samples.classes[each]} ({counts[each]:,})" for each in small]
            what = "parcel" if np.array_equal(samples.parcels, samples.groups) else "group"
            lines = (
                *lines,
                f"{origin}: classes that lie in one {what} only, and cannot be tested: {listed(names, 20)}",
            )
            samples = samples.take(np.isin(samples.targets, small, invert=True))
            present = np.setdiff1d(present, small)
        if len(present) < 2:
            left = f"only {samples.classes[present[0]]} lies in several" if len(present) else "each lies in one alone"
            raise UsageError(
                f"{origin}: its classes are too small to be learned and tested on different parcels or groups: {left}. "
                "Give more labels, or merge classes."
            )
    number = np.zeros(len(samples.classes), np.int64)
    number[present] = np.arange(len(present))
    names_left = tuple(samples.classes[each] for each in present.tolist())
    return replace(samples, targets=number[samples.targets], classes=names_left, left_out=lines)
