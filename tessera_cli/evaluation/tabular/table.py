"""What a table answers, whatever its file is: names, single columns whole, and vectors of the rows that are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from tessera_cli.evaluation.columns import Column
from tessera_cli.tables.csv_places import PAIRS

ColumnKind = Literal["number", "text", "other"]


class Table(Protocol):
    """N rows."""

    @property
    def origin(self) -> str: ...

    @property
    def columns(self) -> Mapping[str, ColumnKind]: ...

    @property
    def rows(self) -> int: ...

    @property
    def reserved(self) -> frozenset[str]:
        """Return the columns of positions, which are no features."""

    def column(self, name: str) -> Column:
        """Return one column, (N,)."""

    def vectors(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Return columns of numbers at rows, rising, int64 (M,): float32 (M, D), NaN for none."""

    def lonlat(self, rows: np.ndarray) -> np.ndarray | None:
        """Return positions in degrees at rows, float64 (M, 2); None if the table has none."""


def positions_named(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the names of the columns of longitude and latitude, if there are any."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next(((lower[lon], lower[lat]) for lon, lat in PAIRS if lon in lower and lat in lower), None)


def in_degrees(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return positions float64 (N, 2); NaN for what is none on Earth."""
    found = np.stack([np.asarray(lon, np.float64), np.asarray(lat, np.float64)], axis=-1)
    with np.errstate(invalid="ignore"):
        found[~((np.abs(found[:, 0]) <= 360) & (np.abs(found[:, 1]) <= 90))] = np.nan
        return np.where(np.abs(found) > (180, 90), (found + 180) % 360 - 180, found)
