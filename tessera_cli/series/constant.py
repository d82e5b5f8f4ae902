"""Columns of a long table that say one thing of each sample: labels, splits, groups, places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.series.coded import encoded

if TYPE_CHECKING:
    import pyarrow as pa

_NEW = -1


@dataclass(eq=False)
class SampleColumn:
    """Gathers one column batch by batch: what each sample says first, until one of them says something else."""

    name: str
    type: pa.DataType | None = None
    numbers: dict[Any, int] = field(default_factory=dict)
    """Distinct value -> its number, in order of appearance; None stands for a cell without a value."""
    first: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 (samples,): number of the value that each sample said first."""
    conflict: tuple[int, Any, Any] | None = None
    """A sample and two values that it has."""

    def add(self, values: pa.Array, samples: np.ndarray, count: int) -> None:
        """Take a batch of rows, whose samples are int (R,) below `count`; nothing more after a conflict."""
        if self.conflict is not None:
            return
        self.type = values.type
        found = self._numbered(values)
        if count > len(self.first):
            grown = np.full(max(count, 2 * len(self.first)), _NEW, np.int32)
            grown[: len(self.first)] = self.first
            self.first = grown
        new, at = np.unique(samples, return_index=True)
        new, at = new[unset := self.first[new] == _NEW], at[unset]
        self.first[new] = found[at]
        differs = self.first[samples] != found
        if differs.any():
            row = int(np.argmax(differs))
            every = list(self.numbers)
            self.conflict = (int(samples[row]), every[self.first[samples[row]]], every[found[row]])

    def _numbered(self, values: pa.Array) -> np.ndarray:
        coded = encoded(values)
        numbers = self.numbers
        distinct = [None if value != value else value for value in coded.dictionary.to_pylist()]
        table = np.array([numbers.setdefault(value, len(numbers)) for value in distinct] or [0], np.int32)
        if not coded.null_count:
            return table[coded.indices.to_numpy(zero_copy_only=False)]
        none = np.int32(numbers.setdefault(None, len(numbers)))
        indices = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return np.where(coded.indices.is_null().to_numpy(zero_copy_only=False), none, table[indices])

    def values(self, count: int) -> np.ndarray:
        """Return what each sample says (count,): numbers, truth values, datetime64, or text as object, None if absent.

        Text that is numbers throughout, as all of CSV is read, becomes numbers.
        """
        import pyarrow as pa

        assert self.type is not None
        of_type = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        distinct = pa.array(list(self.numbers), of_type)
        if pa.types.is_string(of_type) or pa.types.is_large_string(of_type):
            distinct = _told_numbers(distinct)
        plain = _to_numpy(distinct)
        return plain[self.first[:count]]


def _told_numbers(texts: pa.Array) -> pa.Array:
    """Return text as int64, float64 or bool where all of it is such; names such as 007 stay text."""
    import pyarrow as pa

    there = [text for text in texts.to_pylist() if text is not None]
    if not there or any(text.lstrip("+-")[:1] == "0" and text.lstrip("+-")[1:2].isdigit() for text in there):
        return texts
    if {text.lower() for text in there} <= {"true", "false"}:
        return pa.array([None if text is None else text.lower() == "true" for text in texts.to_pylist()])
    for kind in (pa.int64(), pa.float64()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return texts


def _to_numpy(values: pa.Array) -> np.ndarray:
    import pyarrow as pa

    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_boolean(kind) and not values.null_count:
        return np.array(values.to_pylist(), bool)
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        return np.array(values.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False))
    made = np.full(len(values), None, object)
    made[:] = [None if value is None else str(value) for value in values.to_pylist()]
    return made
