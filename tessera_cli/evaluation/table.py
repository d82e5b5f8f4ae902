"""A table of vectors with labels -> labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError, counted, listed
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.choice import choose
from tessera_cli.evaluation.columns import group_numbers, split_rows, targets_of
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.tabular.features import feature_columns
from tessera_cli.evaluation.tabular.open import open_table
from tessera_cli.evaluation.tabular.table import Table
from tessera_cli.labels.labels import OPTIONS
from tessera_cli.labels.targets import check_column, column_of
from tessera_cli.learning.task import Task
from tessera_cli.sampling.draws import hashed


def read_vectors(
    path: Path,
    *,
    features: Sequence[str] = (),
    column: str | None = None,
    task: Task | None = None,
    split: str | None = None,
    group: str | None = None,
    samples: int = 50_000,
    seed: int = 0,
) -> LabelledSamples:
    """Read a table whose rows are samples.

    Columns of labels, splits and groups are read first, then the vectors of the rows that are used.

    Args:
        path: Parquet, GeoParquet, CSV, TSV or .npz (`tabular/npz.py`). Positions come from geometries or from columns
            lon and lat, longitude and latitude, or x and y; a table may have none.
        features: Prefixes of names of columns; each makes one set. None: Tessera_Band_0 and so on.
        column: That of the labels; None: the one called class, label, crop or name.
        task: None: told by the type of the column.
        split: Column that says test or train.
        group: Column that says what must not be split; None: rows at one position, or each row by itself.
        samples: Most rows that are used, spread over classes as these are.
        seed: Of that choice.

    Raises:
        UsageError: The table cannot be read or used, or leaves nothing to be told apart.
    """
    table = open_table(path)
    label = column_of(table.columns, column or "", str(path), OPTIONS)
    for name in (split, group):
        if name:
            check_column(table.columns, name, str(path))
    used = {label, *(name for name in (split, group) if name)}
    sets = feature_columns(table.columns, features, used | table.reserved, str(path))
    targets = targets_of(table.column(label), task, f"{path}: the column {label}")
    lines: list[str] = []
    kept, test = targets.given.copy(), None
    if without := int((~kept).sum()):
        lines.append(f"{path}: {counted(without, 'row')} of {table.rows:,} have no {label}")
    if split:
        test, said = split_rows(table.column(split), f"{path}: the column {split}")
        if without := int((kept & ~said).sum()):
            lines.append(f"{path}: {counted(without, 'row')} of {table.rows:,} have no {split}")
        kept &= said
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise UsageError(f"{path}: no row has both a label and a value of {split}. Check the columns.")
    strata = np.zeros(len(rows), np.int64) if targets.task == "regression" else 2 * targets.values[rows]
    strata = strata if test is None else strata + test[rows]
    chosen = rows[choose(hashed(seed, rows), strata, samples)]
    if len(chosen) < len(rows):
        lines.append(f"{path}: {len(chosen):,} of {counted(len(rows), 'row')} are used, chosen by a hash")
    values, there = _vectors(table, sets, chosen, lines)
    rows = chosen[there]
    lonlat = table.lonlat(rows)
    groups = rows if lonlat is None else _places(lonlat)
    if group:
        groups = group_numbers(table.column(group), f"{path}: the column {group}")[rows]
    result = LabelledSamples(
        task=targets.task,
        unit="point",
        features=tuple(
            FeatureSet(name, "embedding", each[there], f"{path}, {counted(each.shape[1], 'column')} {name}")
            for name, each in values.items()
        ),
        targets=targets.values[rows],
        classes=targets.names,
        lonlat=np.full((len(rows), 2), np.nan) if lonlat is None else lonlat,
        parcels=np.arange(len(rows)),
        groups=groups,
        test=None if test is None else test[rows],
        left_out=tuple(lines),
        keys=hashed(0, rows),
    )
    return checked(result, str(path))


def _vectors(
    table: Table, sets: dict[str, list[str]], rows: np.ndarray, lines: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return each set at rows, float32 (M, D), without columns that have no value; and the rows that all sets know.

    What is left out is added to `lines`; UsageError for a set without any value.
    """
    every = list(dict.fromkeys(name for names in sets.values() for name in names))
    number = {name: at for at, name in enumerate(every)}
    whole = table.vectors(every, rows)
    empty = np.isnan(whole).all(axis=0)
    found, there = {}, np.ones(len(rows), bool)
    for name, names in sets.items():
        at = np.array([number[each] for each in names])
        if empty[at].all():
            raise UsageError(f"{table.origin}: the features {name} have no value in any row that has a label.")
        if empty[at].any():
            without = [each for each in names if empty[number[each]]]
            lines.append(f"{table.origin}: columns of {name} without any value: {listed(without)}")
        values = whole[:, at[~empty[at]]]
        has = ~np.isnan(values).all(axis=1)
        if not has.all():
            lines.append(f"{table.origin}: {counted(int((~has).sum()), 'row')} without any value of {name}")
        if lacking := int((has & np.isnan(values).any(axis=1)).sum()):
            lines.append(
                f"{table.origin}: {counted(lacking, 'row')} without some of the values of {name} (empty or infinite), "
                "for which the mean of the training rows stands"
            )
        found[name], there = values, there & has
    if not there.any():
        raise UsageError(f"{table.origin}: no row has values of all of {listed(sets)}. Evaluate them by themselves.")
    return found, there


def _places(lonlat: np.ndarray) -> np.ndarray:
    """Return the number of the position of each row, to a millionth of a degree; without one a row is by itself."""
    known = np.isfinite(lonlat).all(axis=1)
    numbers = np.arange(len(lonlat)) + len(lonlat)
    rounded = np.rint(lonlat[known] * 1e6).astype(np.int64)
    numbers[known] = np.unique(rounded, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers
