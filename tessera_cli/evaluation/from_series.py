"""A long table of time series with labels -> labelled samples with embeddings and baselines of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.errors import NothingToEmbedError, UsageError, counted
from tessera_cli.evaluation.baselines import raw_features
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.choice import choose
from tessera_cli.evaluation.columns import group_numbers, split_rows, targets_of
from tessera_cli.evaluation.encoded import embedded
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.extent.window import Window
from tessera_cli.labels.labels import OPTIONS
from tessera_cli.labels.targets import Targets, column_of
from tessera_cli.learning.task import Task
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.mapping import AnyColumns, Columns
from tessera_cli.series.read import read_table
from tessera_cli.series.table import SeriesTable

if TYPE_CHECKING:
    from tessera_cli.models.load import Model

SPARE = 4
"""Samples that are read for each one that may be used: labels are known when they are read."""


@dataclass(frozen=True, eq=False)
class LabelledSeries:
    """N labelled samples, and the observations behind them."""

    samples: LabelledSamples
    pixels: RaggedPixels
    """Of the same N samples, in the same order."""
    window: Window
    ids: np.ndarray
    """object (N,): names of the samples."""
    path: Path
    mapping: Columns

    def shifted(self, days: int) -> tuple[RaggedPixels, Window] | None:
        """Return the samples in a window that begins and ends so many days later; None if there is nothing in it."""
        start, end = (each + dt.timedelta(days) for each in (self.window.start, self.window.end))
        window = Window(start, end)
        try:
            table = read_table(self.path, self.mapping, window=window)
        except NothingToEmbedError:
            return None
        number = {name: row for row, name in enumerate(table.ids.tolist())}
        return table.pixels.take(np.array([number[name] for name in self.ids.tolist()], np.int64)), window


def read_series(
    path: Path,
    mapping: AnyColumns = None,
    *,
    column: str | None = None,
    task: Task | None = None,
    split: str | None = None,
    group: str | None = None,
    window: Window | None = None,
    samples: int = 50_000,
    seed: int = 0,
    models: Sequence[Model] = (),
    min_s2: int = 1,
    min_s1: int = 0,
    beside: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> LabelledSeries:
    """Read a long table, and describe its samples by embeddings, random weights and raw features.

    Args:
        path: Parquet, GeoParquet or CSV, a row per sample and date.
        mapping: What its columns are called and mean, as `Columns.of` takes it.
        column: That of the labels; None: the one called class, label, crop or name.
        task: None: told by the type of the column.
        split: Column that says test or train.
        group: Column that says what must not be split; None: samples in one pixel of 10 m, or each by itself.
        window: Which dates to take; None: all, 366 days at the most.
        samples: Most samples that are used, spread over classes as these are.
        seed: Of that choice, and of random weights.
        models: Loaded models with statistics; each gives a set of embeddings, the first one's architecture with random
            weights one more.
        min_s2: Samples with fewer observations of Sentinel-2 are left out.
        min_s1: The same of Sentinel-1.
        beside: Score float32 and shorter prefixes, too.
        threads: Cores to compute with.
        progress: Called with the samples encoded and in all.

    Raises:
        UsageError: The table cannot be read or used, or leaves nothing to be told apart.
        NothingToEmbedError: No sample has enough observations.
    """
    columns = Columns.of(mapping)
    table = read_table(path, columns, window=window, most=SPARE * samples, seed=seed)
    told, lines = _told(table, column, task, split, group)
    rows = np.flatnonzero(told.kept)
    if not len(rows):
        raise UsageError(f"{path}: no sample has both a label and a value of {split}. Check the columns.")
    strata = np.zeros(len(rows), np.int64) if told.targets.task == "regression" else 2 * told.targets.values[rows]
    strata = strata if told.test is None else strata + told.test[rows]
    chosen = rows[choose(hashed(seed, table.pixels.keys[rows].view(np.int64)), strata, samples)]
    if len(chosen) < len(rows):
        lines.append(f"{path}: {len(chosen):,} of {counted(len(rows), 'sample')} are used, chosen by a hash")
    enough = (table.pixels.s2.counts >= min_s2) & (table.pixels.s1.counts >= min_s1)
    enough &= (table.pixels.s2.counts + table.pixels.s1.counts) > 0
    embeddings, there = embedded(
        table.pixels.take(chosen[enough[chosen]]),
        table.window,
        models,
        min_s2=min_s2,
        min_s1=min_s1,
        seed=seed,
        beside=beside,
        threads=threads,
        progress=progress,
    )
    rows = chosen[enough[chosen]][there]
    if len(rows) < len(chosen):
        lacking = counted(len(chosen) - len(rows), "sample")
        lines.append(f"{path}: {lacking} of {len(chosen):,} have too few observations in {table.window}")
    if not len(rows):
        raise NothingToEmbedError(
            f"{path}: no labelled sample has {min_s2} or more observations of Sentinel-2 and {min_s1} or more of "
            f"Sentinel-1 in {table.window}. Lower --min-s2 or --min-s1, or choose another window."
        )
    some = table.take(rows)
    raw = raw_features(some.pixels, table.window, seed=seed)
    result = LabelledSamples(
        task=told.targets.task,
        unit="point",
        features=(*embeddings, *raw),
        targets=told.targets.values[rows],
        classes=told.targets.names,
        lonlat=some.lonlat,
        parcels=rows,
        groups=told.groups[rows],
        test=None if told.test is None else told.test[rows],
        left_out=(*lines, *(f"{path}: {note}" for note in table.notes)),
        keys=some.pixels.keys,
    )
    made = checked(result, str(path))
    assert made.keys is not None
    order = np.argsort(some.pixels.keys, kind="stable")
    at = order[np.searchsorted(some.pixels.keys[order], made.keys)]
    return LabelledSeries(made, some.pixels.take(at), table.window, some.ids[at], Path(path), columns)


@dataclass(frozen=True, eq=False)
class _Told:
    """What columns say of each sample."""

    targets: Targets
    kept: np.ndarray
    """bool (N,): whether they say all that is needed."""
    test: np.ndarray | None
    groups: np.ndarray


def _told(
    table: SeriesTable, column: str | None, task: Task | None, split: str | None, group: str | None
) -> tuple[_Told, list[str]]:
    origin, lines = table.origin, []
    names = {**table.columns, **table.conflicts}
    label = column_of(names, column or "", origin, OPTIONS)
    targets = targets_of(table.column(label), task, f"{origin}: the column {label}")
    kept, test = targets.given.copy(), None
    if without := int((~kept).sum()):
        lines.append(f"{origin}: {counted(without, 'sample')} of {len(table):,} have no {label}")
    if split:
        test, said = split_rows(table.column(split), f"{origin}: the column {split}")
        if without := int((kept & ~said).sum()):
            lines.append(f"{origin}: {counted(without, 'sample')} of {len(table):,} have no {split}")
        kept &= said
    group = group or table.mapping.names.get("group")
    if group:
        groups = group_numbers(table.column(group), f"{origin}: the column {group}")
    else:
        _, first, inverse = np.unique(table.pixels.places, axis=0, return_index=True, return_inverse=True)
        groups = first[inverse.reshape(-1)]
    return _Told(targets, kept, test, groups), lines
