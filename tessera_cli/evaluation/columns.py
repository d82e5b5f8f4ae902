"""Columns that say how samples are to be split: which are the test, and which belong together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tessera_cli.errors import UsageError, listed, shown
from tessera_cli.labels.targets import Targets
from tessera_cli.learning.task import Task

TEST, TRAIN = ("test", "true", "1"), ("train", "training", "false", "0")


class Coded(NamedTuple):
    """A column of text: what it holds, each once, and which row has which."""

    distinct: np.ndarray
    """object (K,): str."""
    codes: np.ndarray
    """int64 (N,), -1 for none."""

    @classmethod
    def of(cls, texts: np.ndarray) -> Coded:
        """Code text, object (N,), None for none."""
        number: dict[str, int] = {}
        codes = [-1 if text is None else number.setdefault(str(text), len(number)) for text in texts.tolist()]
        return cls(np.array(list(number), object), np.array(codes, np.int64)).tidied()

    def tidied(self) -> Coded:
        """Return the column without space around text, which is none where it is empty."""
        distinct, inverse = np.unique(np.array([text.strip() for text in self.distinct], object), return_inverse=True)
        number = np.append(inverse.reshape(-1), -1)
        if len(distinct) and distinct[0] == "":
            distinct, number = distinct[1:], np.where(number >= 0, number - 1, -1)
        return Coded(distinct, number[self.codes])


Column = np.ndarray | Coded
"""(N,) of numbers, truth values or dates; or text, which may also be object (N,)."""


def targets_of(column: Column, task: Task | None, what: str) -> Targets:
    """Return what is to be learned of a column, as `Targets.of`."""
    if isinstance(column, Coded):
        return Targets.coded(*column, task, what)
    return Targets.of(column, task, what)


def split_rows(column: Column, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are the test, bool (N,), and which rows say either, bool (N,).

    Truth values, 1 and 0, or text: test and train. UsageError for anything else, and where all rows are on one side.
    """
    texts, numbers = _coded(column)
    lower = [text.lower() for text in texts]
    for low, text in zip(lower, texts, strict=True):
        if low not in TEST + TRAIN:
            raise UsageError(
                f"{what} holds {shown(text)}, and should say test (true, 1) or train (false, 0). It holds: "
                f"{listed(map(shown, texts), 6)}."
            )
    said = np.asarray(numbers >= 0)
    of_test = np.array([low in TEST for low in lower] + [False], bool)
    test = np.asarray(of_test[numbers] & said)
    if not test.any() or not (said & ~test).any():
        raise UsageError(f"{what} puts every row into {'test' if test.any() else 'train'}. Both are needed.")
    return test, said


def group_numbers(column: Column, what: str) -> np.ndarray:
    """Return the number of each row's group, int64 (N,); rows without a value are groups of their own."""
    texts, numbers = _coded(column)
    if not texts:
        raise UsageError(f"{what} has no value in any row. Name another one.")
    without = np.flatnonzero(numbers < 0)
    numbers[without] = len(texts) + np.arange(len(without))
    return numbers


def _coded(column: Column) -> tuple[list[str], np.ndarray]:
    """Return the distinct values of a column as text, and the number of each row's, int64 (N,), -1 for none."""
    if not isinstance(column, Coded) and column.dtype.kind in "OU":
        column = Coded.of(np.array([None if _is_nan(each) else each for each in column.tolist()], object))
    if isinstance(column, Coded):
        return column.distinct.tolist(), column.codes.copy()
    absent = np.zeros(len(column), bool)
    if column.dtype.kind in "fM":
        absent = np.isnan(column) if column.dtype.kind == "f" else np.isnat(column)
    distinct, found = np.unique(column[~absent], return_inverse=True)
    numbers = np.full(len(column), -1, np.int64)
    numbers[~absent] = found
    return [f"{each:g}" if isinstance(each, float) else str(each) for each in distinct.tolist()], numbers


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value
