"""What is asked -> labelled samples, and the observations that their raw features were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError, counted
from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.baselines import raw_features
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.encoded import embedded
from tessera_cli.evaluation.labelled import from_labels, with_prefixes
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.sources.open import open_sources
from tessera_cli.evaluation.table import read_vectors
from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import RaggedPixels

TABLES = (".parquet", ".geoparquet", ".csv", ".tsv", ".txt", ".npz")
VECTORS = "Tessera_Band_"
"""How the columns of vectors begin in tables of `tessera sample` and `tessera embed --table`."""
BESIDE = " of d-pixels"
"""What follows the name of a model's embeddings that are made here, where a folder of the same model is compared."""


@dataclass(frozen=True, eq=False)
class Observed:
    """The observations of N samples: those that the embedding had."""

    pixels: RaggedPixels
    window: Window
    later: Callable[[int], tuple[RaggedPixels, Window] | None] = lambda days: None
    """Days -> the same samples in a window that begins so much later; None where nothing is known of it."""


@dataclass(frozen=True, eq=False)
class Read:
    """What was read."""

    samples: LabelledSamples
    observed: Observed | None = None
    """None: no d-pixels and no time series were given."""


def read(asked: Asked, advance: Callable[[int], None] | None = None) -> Read:
    """Read samples with all sets of features; UsageError for inputs that do not belong together."""
    tables = [path for path in asked.inputs if path.suffix.lower() in TABLES]
    if tables and (len(asked.inputs) > 1 or asked.labels is not None):
        beside = "a file of labels" if asked.labels is not None else "other inputs"
        raise UsageError(f"{tables[0]} is a table, which holds its labels. It cannot be read beside {beside}.")
    if not tables:
        return _of_area(asked, advance)
    if asked.dpixels:
        raise UsageError(f"{tables[0]} is a table. --dpixels goes with folders and --labels. Leave it out.")
    if asked.unit == "parcel":
        raise UsageError(f"{tables[0]} is a table, whose rows are the samples. Leave out --unit parcel.")
    found = _of_table(asked, tables[0])
    if asked.test:
        if len(asked.test) > 1:
            raise UsageError(f"--test is given {len(asked.test)} times for one table. Give one table.")
        if asked.split:
            raise UsageError("--split and --test are two ways to say what is tested. Give one.")
        found = _joined(found, _of_table(asked, asked.test[0]), asked.test[0])
    return found


def _of_table(asked: Asked, path: Path) -> Read:
    """Read a table of vectors, or of time series where its columns are such."""
    named: dict[str, Any] = {"column": asked.column, "task": asked.task, "split": asked.split, "group": asked.group}
    if not _is_series(asked, path):
        if asked.models:
            raise UsageError(f"{path} holds vectors, which no model encodes. Leave out --model.")
        samples = read_vectors(path, features=asked.features, samples=asked.samples, seed=asked.seed, **named)
        return Read(samples)
    from tessera_cli.evaluation.from_series import read_series

    found = read_series(
        path,
        asked.columns or None,
        **named,
        window=_one_window(asked),
        samples=asked.samples,
        seed=asked.seed,
        models=asked.models,
        beside=asked.beside,
        threads=asked.threads,
    )
    return Read(found.samples, Observed(found.pixels, found.window, found.shifted))


def _one_window(asked: Asked) -> Window | None:
    """Return the window of time series or d-pixels; UsageError for several."""
    windows = [Window.from_name(each) if isinstance(each, str) else each for each in asked.windows or ()]
    if len(windows) > 1:
        raise UsageError(f"Time series and d-pixels have one window, and {len(windows)} are given. Give one.")
    return windows[0] if windows else None


def _is_series(asked: Asked, path: Path) -> bool:
    from tessera_cli.evaluation.tabular.open import open_table
    from tessera_cli.series.names import USUAL

    if asked.columns:
        return True
    if asked.features or path.suffix.lower() == ".npz":
        return False
    there = [name.lower() for name in open_table(path).columns]
    if any(name.startswith(VECTORS.lower()) for name in there):
        return False
    return all(any(name in there for name in USUAL[what]) for what in ("sample", "date"))


def _of_area(asked: Asked, advance: Callable[[int], None] | None) -> Read:
    """Read folders and rasters at the places of a file of labels."""
    if asked.labels is None:
        raise UsageError("Labels are missing. Give --labels FILE: polygons, points or a raster. Tables hold their own.")
    if asked.features:
        raise UsageError("--features names columns of a table, and none is given. Leave it out.")
    if asked.models and not asked.dpixels:
        raise UsageError("--model encodes d-pixels or time series. Give --dpixels, or leave it out.")
    sources = open_sources(asked.inputs, asked.windows)
    samples = from_labels(
        sources,
        asked.labels,
        column=asked.column,
        layer=asked.layer,
        task=asked.task,
        unit=asked.unit,
        split=asked.split,
        group=asked.group,
        samples=asked.samples,
        seed=asked.seed,
        advance=advance,
    )
    if (asked.test or asked.dpixels) and samples.unit == "parcel":
        raise UsageError(
            "--unit parcel takes the mean of many pixels, which --test and --dpixels do not read. Predict pixels: the "
            "votes of their parcels are reported beside."
        )
    if asked.test:
        samples = _tested_elsewhere(asked, samples)
    if asked.beside:
        samples = with_prefixes(samples)
    return _with_baselines(asked, samples) if asked.dpixels else Read(samples)


def _tested_elsewhere(asked: Asked, samples: LabelledSamples) -> LabelledSamples:
    """Return samples whose features are tested on other inputs, such as those of another year."""
    others = open_sources(asked.test)
    if len(others) != len(samples.features):
        raise UsageError(
            f"--test holds {counted(len(others), 'set')} of embeddings, for {len(samples.features)} to compare. Give "
            "one for each, in the same order; --year chooses windows of the first."
        )
    made, there = [], np.ones(len(samples), bool)
    for features, other in zip(samples.features, others, strict=True):
        if other.dims != features.values.shape[1]:
            raise UsageError(
                f"{other.origin} has {other.dims} dimensions, {features.origin} {features.values.shape[1]}. Give "
                "embeddings of the same model."
            )
        values = other.at(samples.lonlat)
        there &= np.isfinite(values).all(axis=1)
        made.append(replace(features, test_values=values, origin=f"{features.origin}; tested on {other.origin}"))
    if not there.any():
        raise UsageError(f"No labelled place has an embedding in {others[0].origin}. Do they overlap?")
    line = f"{counted(int((~there).sum()), samples.unit)} without an embedding in what --test names"
    lines = samples.left_out if there.all() else (*samples.left_out, line)
    return checked(replace(samples, features=tuple(made), left_out=lines).take(there), str(asked.labels))


def _with_baselines(asked: Asked, samples: LabelledSamples) -> Read:
    """Return samples with raw features of stored d-pixels, and embeddings of them by the models asked for."""
    from tessera_cli.dpixels import find_stores
    from tessera_cli.evaluation.stores import read_places

    pixels, window, found = read_places(find_stores(asked.dpixels), samples.lonlat, _one_window(asked))
    there = np.flatnonzero(found & (pixels.s2.counts + pixels.s1.counts > 0))
    made, whole = embedded(
        pixels.take(there), window, asked.models, seed=asked.seed, beside=asked.beside, threads=asked.threads
    )
    rows = there[whole]
    line = f"{counted(len(samples) - len(rows), samples.unit)} without observations in the d-pixels"
    lines = samples.left_out if len(rows) == len(samples) else (*samples.left_out, line)
    if not len(rows):
        raise UsageError(f"No labelled place has enough observations in {asked.dpixels[0]} to be embedded.")
    pixels = pixels.take(rows)
    samples = replace(samples, left_out=lines).take(rows)
    features = (*samples.features, *_distinct(made, samples), *raw_features(pixels, window, seed=asked.seed))
    samples = replace(samples, features=features, keys=pixels.keys)
    final = checked(samples, str(asked.labels))
    if len(final) < len(samples):  # a class has lost all its groups but one
        assert final.keys is not None
        pixels = pixels.take(np.flatnonzero(np.isin(pixels.keys, final.keys)))
    return Read(final, Observed(pixels, window))


def _distinct(made: tuple[FeatureSet, ...], samples: LabelledSamples) -> list[FeatureSet]:
    """Return sets that are called otherwise than those of the samples."""
    taken = {each.name for each in samples.features}
    return [replace(each, name=f"{each.name}{BESIDE}") if each.name in taken else each for each in made]


def _joined(train: Read, test: Read, path: Path) -> Read:
    """Return the samples of two tables as one, those of the second to be tested."""
    one, other = train.samples, test.samples
    if one.task != other.task:
        raise UsageError(f"{path} is for {other.task}, the other table for {one.task}. Give --task.")
    names = {each.name: each for each in other.features}
    if missing := [each.name for each in one.features if each.name not in names]:
        raise UsageError(f"{path} has no features {missing[0]}. Both tables must have the same.")
    features = []
    for each in one.features:
        beside = names[each.name]
        if beside.values.shape[1] != each.values.shape[1]:
            raise UsageError(f"{path}: {each.name} has {beside.values.shape[1]} columns, not {each.values.shape[1]}.")
        values = np.concatenate([each.values, beside.values])
        features.append(replace(each, values=values, origin=f"{each.origin}; tested on {beside.origin}"))
    classes = tuple(dict.fromkeys((*one.classes, *other.classes)))
    targets = other.targets
    if classes:
        targets = np.array([classes.index(name) for name in other.classes], np.int64)[other.targets]
    samples = LabelledSamples(
        task=one.task,
        unit=one.unit,
        features=tuple(features),
        targets=np.concatenate([one.targets, targets]),
        classes=classes,
        lonlat=np.concatenate([one.lonlat, other.lonlat]),
        parcels=np.concatenate([one.parcels, one.parcels.max() + 1 + other.parcels]),
        groups=np.concatenate([one.groups, one.groups.max() + 1 + other.groups]),
        test=np.arange(len(one) + len(other)) >= len(one),
        left_out=(*one.left_out, *other.left_out),
    )
    if train.observed is None or test.observed is None:
        return Read(samples)
    from tessera_cli.sampling.ragged import concatenated

    return Read(samples, Observed(concatenated([train.observed.pixels, test.observed.pixels]), train.observed.window))
