"""A column of labels -> classes or values: which task it is, told by its type, and which rows have none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError, listed, shown
from tessera_cli.labels.labels import Options
from tessera_cli.learning.task import Task

COLUMNS = ("class", "label", "crop", "name")
"""Default columns of classes, in order of preference."""
MOST_CLASSES = 100
"""Whole numbers of more distinct values are quantities, unless the task is given."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be learned of N rows."""

    task: Task
    given: np.ndarray
    """bool (N,): which rows have a target."""
    values: np.ndarray
    """int64 (N,), index into `names`, 0 of rows without; or float64 (N,), NaN of rows without, for regression."""
    names: tuple[str, ...]
    """Of the classes; empty for regression."""

    @classmethod
    def of(cls, column: np.ndarray, task: Task | None, what: str) -> Targets:
        """Tell classes from values: text and truth values are classes, as are at most 100 distinct whole numbers.

        Anything else that is a number is a value. A given task overrides. None, NaN, infinite values and empty text
        are no targets. `what` the column is called in errors. Raises UsageError for a column without any target, of
        mixed types, of dates and the like, and one that does not go with the task.
        """
        kind = column.dtype.kind
        if kind == "O":
            given = np.array([not _is_absent(each) for each in column.tolist()], bool)
            there = column[given].tolist()
            texts = sum(isinstance(each, str) for each in there)
            if 0 < texts < len(there):
                raise UsageError(f"{what} mixes text and numbers. Give one type.")
            if there and not texts:
                return cls.of(_numbers(column, given, what), task, what)
            distinct, codes = np.unique(np.array([each.strip() for each in there], object), return_inverse=True)
            found = np.full(len(column), -1, np.int64)
            found[given] = codes
            return cls.coded(distinct, found, task, what)
        if kind == "U":
            return cls.of(column.astype(object), task, what)
        if kind == "b":
            return cls.coded(np.array(["False", "True"], object), column.astype(np.int64), task, what)
        if kind not in "iuf":
            raise UsageError(f"{what} holds {column.dtype}, neither classes nor values. Give text or numbers.")
        given = np.isfinite(column)
        _check_any(given, what)
        there = column[given]
        whole = kind != "f" or bool((there == np.rint(there)).all())
        if task is None:
            few = whole and len(np.unique(there)) <= MOST_CLASSES
            task = "classification" if few else "regression"
        if task == "regression":
            return cls(task, given, np.where(given, column, np.nan).astype(np.float64), ())
        if not whole:
            raise UsageError(f"{what} holds fractions, which are no classes. Give text or whole numbers.")
        values = np.zeros(len(column), np.int64)
        names, values[given] = np.unique(there.astype(np.int64), return_inverse=True)
        return cls(task, given, values, tuple(map(str, names.tolist())))

    @classmethod
    def coded(cls, distinct: np.ndarray, codes: np.ndarray, task: Task | None, what: str) -> Targets:
        """Return classes by their distinct names, object (K,), and the number of each row's, int (N,), -1 for none."""
        _check_any(codes >= 0, what)
        used = np.unique(codes[codes >= 0])
        names = [str(distinct[code]) for code in used.tolist()]
        if task == "regression":
            raise UsageError(f"{what} holds text such as {shown(names[0])}, no values. Give a column of numbers.")
        plain = [name for name in names if _NUMBER.fullmatch(name)]
        words = [name for name in names if not _DIGIT.search(name)]
        if task is None and plain and words:
            raise UsageError(
                f"{what} mixes text and numbers, such as {shown(words[0])} and {plain[0]}. Give one type, or "
                "--task classification if both are names of classes."
            )
        order = np.argsort(np.array(names, object), kind="stable")
        number = np.zeros(len(distinct), np.int64)
        number[used[order]] = np.arange(len(used))
        given = codes >= 0
        return cls(task or "classification", given, np.where(given, number[codes], 0), tuple(names[i] for i in order))


def column_of(columns: Mapping[str, Any], wanted: str, origin: str, options: Options) -> str:
    """Return the name of the column of labels; `wanted` "": the first of `COLUMNS` that is there, in any case.

    UsageError, which names the columns there are, if there is none.
    """
    lower = {name.lower(): name for name in reversed(list(columns))}
    name = wanted if wanted else next((lower[usual] for usual in COLUMNS if usual in lower), "")
    if name not in columns:
        what = f"no column {wanted}" if wanted else f"no column called {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}"
        there = listed(columns, 40) or "none"
        raise UsageError(f"{origin} has {what}. Name that of the labels with {options.column}; there are: {there}.")
    return name


def check_column(columns: Mapping[str, Any], name: str, origin: str) -> None:
    """Raise UsageError, which names the columns there are, unless there is this one."""
    if name not in columns:
        raise UsageError(f"{origin} has no column {name}. There are: {listed(columns, 40) or 'none'}.")


def _check_any(given: np.ndarray, what: str) -> None:
    if not given.any():
        raise UsageError(f"{what} has no value in any of {len(given):,} rows (all are empty or NaN). Name another one.")


def _numbers(column: np.ndarray, given: np.ndarray, what: str) -> np.ndarray:
    """Return a column of Python objects as numbers, float64, NaN for none."""
    there = column[given].tolist()
    if not all(isinstance(each, int | float | np.number | np.bool_) for each in there):
        raise UsageError(f"{what} holds {type(there[0]).__name__}, neither classes nor values. Give text or numbers.")
    if all(isinstance(each, bool | np.bool_) for each in there):
        made = np.full(len(column), None, object)
        made[given] = [str(bool(each)) for each in there]
        return made
    numbers = np.full(len(column), np.nan)
    numbers[given] = there
    return numbers


def _is_absent(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
