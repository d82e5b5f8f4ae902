"""CSV and TSV as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tessera_cli.evaluation.columns import Coded, Column
from tessera_cli.evaluation.tabular.table import ColumnKind, in_degrees, positions_named
from tessera_cli.tables.csv_places import NO_NUMBER, read_csv_columns


@dataclass(frozen=True, eq=False)
class CsvTable:
    """A file, read whole."""

    path: Path
    values: Mapping[str, np.ndarray]
    """Column -> numbers, or text, object, (N,)."""

    @classmethod
    def open(cls, path: Path) -> CsvTable:
        return cls(path, read_csv_columns(path))

    @property
    def origin(self) -> str:
        return str(self.path)

    @property
    def rows(self) -> int:
        return len(next(iter(self.values.values())))

    @cached_property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {name: "text" if values.dtype == object else "number" for name, values in self.values.items()}

    @cached_property
    def reserved(self) -> frozenset[str]:
        return frozenset(positions_named(list(self.columns)) or ())

    def column(self, name: str) -> Column:
        values = self.values[name]
        if values.dtype != object:
            return values
        return Coded.of(np.array([None if text.strip().lower() in NO_NUMBER else text for text in values], object))

    def vectors(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            made = np.stack([self.values[name][rows].astype(np.float32) for name in names], axis=-1)
        made[~np.isfinite(made)] = np.nan
        return made

    def lonlat(self, rows: np.ndarray) -> np.ndarray | None:
        named = positions_named(list(self.columns))
        if named is None or any(self.columns[name] != "number" for name in named):
            return None
        return in_degrees(*(self.values[name][rows] for name in named))
