"""What is asked -> labelled samples, and the observations that their raw features were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError, counted, listed
from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.baselines import raw_features
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.encoded import embedded
from tessera_cli.evaluation.labelled import from_labels, with_prefixes
from tessera_cli.evaluation.reading import Observed, Read
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.sources.open import AnySource, open_sources
from tessera_cli.evaluation.sources.raster import TIFF
from tessera_cli.evaluation.stores import read_places
from tessera_cli.evaluation.table import read_vectors
from tessera_cli.evaluation.tabular.open import is_table
from tessera_cli.evaluation.tested import joined, tested_elsewhere
from tessera_cli.evaluation.together import with_raw
from tessera_cli.extent.window import Window
from tessera_cli.reading import is_there

VECTORS = "Tessera_Band_"
"""How the columns of vectors begin in tables of `tessera sample` and `tessera embed --table`."""
BESIDE = " of d-pixels"
"""What follows the name of a model's embeddings that are made here, where a folder of the same model is compared."""


def read(asked: Asked, advance: Callable[[int], None] | None = None) -> Read:
    """Read samples with all sets of features; UsageError for inputs that do not belong together."""
    found = _read(asked, advance)
    return replace(found, samples=with_raw(found.samples))


def _read(asked: Asked, advance: Callable[[int], None] | None) -> Read:
    if not asked.inputs:
        raise UsageError("Nothing is given. Give folders of embeddings, GeoTIFFs, or a table.")
    for path in (*asked.inputs, *asked.test):
        if not is_there(path):
            raise UsageError(f"{path}: no such file or folder. Give embeddings or a table.")
    tables = [path for path in asked.inputs if is_table(path)]
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
        if not is_table(asked.test[0]):
            raise UsageError(f"--test {asked.test[0]} is no table, and {tables[0]} is one. Give a table.")
        found = joined(found, _of_table(asked, asked.test[0]), asked.test[0], asked.seed)
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
        for path in asked.inputs:
            if not path.is_dir() and path.suffix.lower() not in TIFF:
                raise UsageError(
                    f"{path} is neither embeddings nor a table. Give a folder of `tessera embed`, a GeoTIFF, Parquet, "
                    "CSV or .npz."
                )
        raise UsageError("Labels are missing. Give --labels FILE: polygons, points or a raster. Tables hold their own.")
    if asked.features:
        raise UsageError("--features names columns of a table, and none is given. Leave it out.")
    if asked.models and not asked.dpixels:
        raise UsageError("--model encodes d-pixels or time series. Give --dpixels, or leave it out.")
    if asked.columns:
        raise UsageError("--columns says how to read time series, and none are given. Leave it out.")
    if asked.test and asked.dpixels:
        raise UsageError(
            "--dpixels are of one window and --test is of another, so raw baselines would be tested on the window they "
            "learned from. Leave one out."
        )
    if tables := [path for path in asked.test if is_table(path)]:
        raise UsageError(f"--test {tables[0]} is a table, and {asked.inputs[0]} is none. Give embeddings of the area.")
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
        samples = tested_elsewhere(samples, sources, open_sources(asked.test), asked.labels)
    if asked.beside:
        samples = with_prefixes(samples)
    return _with_baselines(asked, samples, sources) if asked.dpixels else Read(samples)


def _with_baselines(asked: Asked, samples: LabelledSamples, sources: Sequence[AnySource]) -> Read:
    """Return samples with raw features of stored d-pixels, and embeddings of them by the models asked for."""
    from tessera_cli.dpixels import find_stores

    stores = find_stores(asked.dpixels)
    pixels, window, found = read_places(stores, samples.lonlat, _one_window(asked))
    if any(each.window == window for each in stores):  # official tile folders know days of year alone
        _check_window(sources, window, asked.dpixels[0])
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
    # several points may lie on one pixel: what is left is told by numbers, not by keys
    keys = samples.keys
    numbered = replace(samples, features=features, keys=np.arange(len(samples), dtype=np.uint64))
    final = checked(numbered, str(asked.labels))  # a class may have lost all its groups but one
    assert final.keys is not None
    left = final.keys.astype(np.int64)
    return Read(replace(final, keys=None if keys is None else keys[left]), Observed(pixels.take(left), window))


def _check_window(sources: Sequence[AnySource], window: Window, path: Path) -> None:
    """Raise UsageError unless d-pixels are of the window of one of the folders, where both are known."""
    of_folders = {each.window for each in sources if each.window is not None}
    if of_folders and window not in of_folders:
        names = listed(sorted(each.name for each in of_folders))
        raise UsageError(
            f"{path} holds d-pixels of {window}, and the embeddings are of {names}: baselines get what the embedding "
            "had. Give d-pixels of the same window."
        )


def _distinct(made: tuple[FeatureSet, ...], samples: LabelledSamples) -> list[FeatureSet]:
    """Return sets that are called otherwise than those of the samples."""
    taken = {each.name for each in samples.features}
    return [replace(each, name=f"{each.name}{BESIDE}") if each.name in taken else each for each in made]
