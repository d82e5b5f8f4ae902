"""What is tested on other inputs: the same places in another year, or the rows of another table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError, counted
from tessera_cli.evaluation.baselines import raw_of_parts
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.reading import Observed, Read
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.sources.open import AnySource
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import concatenated


def tested_elsewhere(
    samples: LabelledSamples, sources: tuple[AnySource, ...], others: tuple[AnySource, ...], labels: Path
) -> LabelledSamples:
    """Return samples whose features, read from `sources`, are tested on `others`, such as those of another year.

    UsageError unless there is another of the same model for each source, at any of the places.
    """
    if len(others) != len(sources):
        raise UsageError(
            f"--test holds {counted(len(others), 'set')} of embeddings, for {len(sources)} to compare. Give one for "
            "each, in the same order; --year chooses windows of the first."
        )
    made, there = [], np.ones(len(samples), bool)
    for features, source, other in zip(samples.features, sources, others, strict=True):
        if other.dims != source.dims:
            raise UsageError(
                f"{other.origin} has {other.dims} dimensions, {source.origin} {source.dims}. Give embeddings of the "
                "same model."
            )
        for what, own, theirs in (
            ("model", source.model, other.model),
            ("weights", source.weights[:12], other.weights[:12]),
        ):
            if own and theirs and own != theirs:
                raise UsageError(
                    f"{other.origin} is of the {what} {theirs}, and {source.origin} of {own}: their dimensions mean "
                    "different things. Give embeddings of the same model."
                )
        values = other.at(samples.lonlat)
        there &= np.isfinite(values).all(axis=1)
        made.append(replace(features, test_values=values, origin=f"{features.origin}; tested on {other.origin}"))
    if not there.any():
        raise UsageError(f"No labelled place has an embedding in {others[0].origin}. Do they overlap?")
    line = f"{counted(int((~there).sum()), samples.unit)} without an embedding in what --test names"
    lines = samples.left_out if there.all() else (*samples.left_out, line)
    return checked(replace(samples, features=tuple(made), left_out=lines).take(there), str(labels))


def joined(train: Read, test: Read, path: Path, seed: int = 0) -> Read:
    """Return the samples of two tables as one, those of the second, at `path`, to be tested.

    Raw features of time series are made of both tables at once, so that their columns mean the same.
    """
    one, other = train.samples, test.samples
    if one.task != other.task:
        raise UsageError(f"{path} is for {other.task}, the other table for {one.task}. Give --task.")
    seen = (train.observed, test.observed)
    features = _features(one, other, path, without_raw=None not in seen)
    both = None
    if train.observed is not None and test.observed is not None:
        pairs = [(each.pixels, each.window) for each in (train.observed, test.observed)]
        features += raw_of_parts(pairs, seed=seed)
        # what is thinned out for robustness are samples of the test
        both = Observed(concatenated([pixels for pixels, _ in pairs]), test.observed.window)
    classes = tuple(dict.fromkeys((*one.classes, *other.classes)))
    targets = other.targets
    if classes:
        targets = np.array([classes.index(name) for name in other.classes], np.int64)[other.targets]
    count = len(one) + len(other)
    own = [np.arange(len(each), dtype=np.uint64) if each.keys is None else each.keys for each in (one, other)]
    samples = LabelledSamples(
        task=one.task,
        unit=one.unit,
        features=features,
        targets=np.concatenate([one.targets, targets]),
        classes=classes,
        lonlat=np.concatenate([one.lonlat, other.lonlat]),
        parcels=np.concatenate([one.parcels, one.parcels.max() + 1 + other.parcels]),
        groups=np.concatenate([one.groups, one.groups.max() + 1 + other.groups]),
        test=np.arange(count) >= len(one),
        left_out=tuple(dict.fromkeys((*one.left_out, *other.left_out))),
        keys=np.concatenate([own[0], hashed(1, own[1].view(np.int64))]),
    )
    return Read(checked(samples, str(path)), both)  # a given split leaves all samples in


def _features(one: LabelledSamples, other: LabelledSamples, path: Path, without_raw: bool) -> tuple[FeatureSet, ...]:
    names = {each.name: each for each in other.features}
    features = []
    for each in one.features:
        if without_raw and each.kind == "raw":
            continue
        if each.name not in names:
            raise UsageError(f"{path} has no features {each.name}. Both tables must have the same.")
        beside = names[each.name]
        if beside.values.shape[1] != each.values.shape[1]:
            raise UsageError(f"{path}: {each.name} has {beside.values.shape[1]} columns, not {each.values.shape[1]}.")
        values = np.concatenate([each.values, beside.values])
        features.append(replace(each, values=values, origin=f"{each.origin}; tested on {beside.origin}"))
    return tuple(features)
