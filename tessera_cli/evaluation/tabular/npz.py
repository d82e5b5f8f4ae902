"""NumPy archives (.npz), and folders of .npy, as a table: arrays whose first dimension is that of the samples.

Of one dimension they are columns; of two, (N, D), as many columns: name_0 and so on; of three they are laid out flat.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from tessera_cli.arrays import Layout, layout_of
from tessera_cli.errors import UsageError, plainly
from tessera_cli.evaluation.columns import Coded, Column
from tessera_cli.evaluation.tabular.table import ColumnKind, in_degrees, positions_named
from tessera_cli.reading import MB, open_file

CHUNK = 8 * MB
"""Bytes of rows that are read at a time."""
MAX_COLUMN = 4000 * MB
"""Bytes of an array that is read whole."""
MAX_WIDTH = 100_000
"""Columns of one array."""
POSITIONS: Mapping[str, int] = {"lonlat": 1, "latlon": -1}
"""Arrays (N, 2) of positions, and the order of longitude and latitude in them."""


@dataclass(frozen=True, eq=False)
class NpzTable:
    """An archive, or a folder."""

    path: Path
    layouts: Mapping[str, Layout]
    """Those of the arrays that have a row per sample."""
    rows: int

    @classmethod
    def open(cls, path: Path) -> NpzTable:
        """Look at the headers. The number of samples is the first dimension that most arrays have."""
        layouts = {}
        for name in _names(path):
            with _member(path, name) as (file, size):
                layouts[name] = layout_of(file, size, text=True)
        counts = Counter(layout.shape[0] for layout in layouts.values() if layout.shape)
        if not counts or not max(counts):
            raise UsageError(f"{path} holds no array with a row per sample. Give arrays (N,) and (N, D).")
        rows = max(counts, key=lambda each: (counts[each], each))
        fitting = {name: each for name, each in layouts.items() if each.shape[:1] == (rows,)}
        for name, layout in fitting.items():
            if math.prod(layout.shape[1:]) > MAX_WIDTH:
                raise UsageError(
                    f"{path}: {name} has {math.prod(layout.shape[1:]):,} numbers a row, too many for features."
                )
        return cls(path, fitting, rows)

    @property
    def origin(self) -> str:
        return str(self.path)

    @cached_property
    def flat(self) -> Mapping[str, tuple[str, int]]:
        """Columns that are made of arrays -> which, and where in its row."""
        wide = {name: math.prod(each.shape[1:]) for name, each in self.layouts.items() if len(each.shape) > 1}
        return {f"{name}_{number}": (name, number) for name, size in wide.items() for number in range(size)}

    @cached_property
    def columns(self) -> Mapping[str, ColumnKind]:
        kinds: dict[str, ColumnKind] = {
            name: "text" if each.dtype.kind == "U" else "number" for name, each in self.layouts.items()
        }
        narrow = {name: kinds[name] for name, each in self.layouts.items() if len(each.shape) == 1}
        return {**narrow, **{name: kinds[array] for name, (array, _) in self.flat.items()}}

    @cached_property
    def reserved(self) -> frozenset[str]:
        pairs = [f"{name}_{number}" for name in POSITIONS for number in (0, 1)]
        return frozenset([*(positions_named(list(self.columns)) or ()), *pairs])

    def column(self, name: str) -> Column:
        if name in self.flat:
            return self.vectors([name], np.arange(self.rows))[:, 0]
        values = self._read(name, np.arange(self.rows)).reshape(-1)
        return Coded.of(values.astype(object)) if values.dtype.kind == "U" else values

    def vectors(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        made = np.empty((len(rows), len(names)), np.float32)
        wanted: dict[str, list[tuple[int, int]]] = {}
        for number, name in enumerate(names):
            array, at = self.flat.get(name, (name, 0))
            wanted.setdefault(array, []).append((number, at))
        for array, pairs in wanted.items():
            own, theirs = np.array(pairs).T
            with np.errstate(over="ignore"):
                made[:, own] = self._read(array, rows)[:, theirs]
        made[~np.isfinite(made)] = np.nan
        return made

    def lonlat(self, rows: np.ndarray) -> np.ndarray | None:
        for name, order in POSITIONS.items():
            if name in self.layouts and self.layouts[name].shape == (self.rows, 2):
                return in_degrees(*np.asarray(self._read(name, rows), np.float64).T[::order])
        named = positions_named(list(self.columns))
        if named is None or any(self.columns[name] != "number" for name in named):
            return None
        return in_degrees(*(np.asarray(self.column(name))[rows] for name in named))

    def _read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows, rising, of an array: (M, D), a few megabytes at a time."""
        with _member(self.path, name) as (file, size):
            layout = layout_of(file, size, text=True)
            if layout != self.layouts[name]:
                raise ValueError("it was changed while it was read")
            width = math.prod(layout.shape[1:])
            if layout.fortran and len(layout.shape) > 1:
                if size > MAX_COLUMN:
                    raise ValueError("it is in Fortran order, and too large to be read so")
                whole = _values(file, layout.dtype, math.prod(layout.shape)).reshape(layout.shape, order="F")
                return np.asarray(whole.reshape(len(whole), -1)[rows])
            if len(rows) * width * layout.dtype.itemsize > MAX_COLUMN:
                raise ValueError(f"it has more than {MAX_COLUMN / MB:,.0f} MB")
            made = np.empty((len(rows), width), layout.dtype)
            step = max(1, CHUNK // max(width * layout.dtype.itemsize, 1))
            for start in range(0, self.rows, step):
                stop = min(start + step, self.rows)
                part = _values(file, layout.dtype, (stop - start) * width).reshape(-1, width)
                low, high = np.searchsorted(rows, (start, stop))
                made[low:high] = part[rows[low:high] - start]
            return made


def _values(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError("it ends early")
    return np.frombuffer(data, dtype)


def _names(path: Path) -> list[str]:
    with _reading(path):
        if path.is_dir():
            return sorted(each.stem for each in path.iterdir() if each.suffix == ".npy")
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return [each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy")]


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open an array: its bytes, and how many they are."""
    with _reading(path, name):
        if path.is_dir():
            with open_file(path / f"{name}.npy") as file:
                yield file, (path / f"{name}.npy").stat().st_size
            return
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                yield member, info.file_size


@contextmanager
def _reading(path: Path, name: str = "") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        what = f"{path}, array {name}," if name else str(path)
        raise UsageError(f"{what} cannot be read: {plainly(error)}. Write it with numpy.savez.") from error
