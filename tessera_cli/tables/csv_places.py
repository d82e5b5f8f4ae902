"""Points from CSV: columns of longitude and latitude, as spreadsheets, GIS and R write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS

from tessera_cli.errors import UsageError, listed, plainly, shown
from tessera_cli.extent.features import Features
from tessera_cli.reading import MB, read_file

MAX_CSV = 500 * MB
"""Bytes of a CSV file: it is read whole, and takes about ten times as much memory then."""
PAIRS = (("lon", "lat"), ("longitude", "latitude"), ("long", "lat"), ("lng", "lat"), ("x", "y"))
"""Names of the columns of a position, in order of preference, in lower case."""
DELIMITERS = ",;\t|"
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?\d+,\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
"""Not all that float() takes: 12_3 is the name of a plot."""
_LONG = re.compile(r"-?\d{16,}")
"""A whole number of more digits than float64 keeps."""
NO_NUMBER = ("", "na", "nan", "null", "none")
"""Cells, in lower case, that say that there is no number."""


def read_csv(path: Path) -> Features:
    """Return the rows of a CSV file as points in WGS84; None where a row has no position.

    Commas, semicolons (then with decimal commas, too), tabs or bars divide the cells; UTF-8, UTF-16 and cp1252 are
    read. Columns of numbers become int64 or float64, others text, as are names of plots that look like numbers. Raises
    UsageError, with the number of the line, for a position that is no number and for rows of another length.
    """
    names, rows, lines, delimiter = _cells(path)
    x, y = position_columns(names, str(path))
    commas = delimiter != ","
    numbers = [[_number(path, line, cell, commas) for line, cell in zip(lines, rows[i], strict=True)] for i in (x, y)]
    columns = {
        name: _typed(cells, commas) for i, (name, cells) in enumerate(zip(names, rows, strict=True)) if i not in (x, y)
    }
    return Features(str(path), CRS(4326), points_or_none(*np.array(numbers, np.float64).reshape(2, -1)), columns)


def read_csv_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a CSV file, (N,) each; types and errors are those of `read_csv`, without positions."""
    names, rows, _, delimiter = _cells(path)
    return {name: _typed(cells, delimiter != ",") for name, cells in zip(names, rows, strict=True)}


def position_columns(names: Sequence[str], origin: str) -> tuple[int, int]:
    """Return the positions of the columns of longitude and latitude; UsageError if there are none."""
    lower = [name.strip().lower() for name in names]
    for lon, lat in PAIRS:
        if lon in lower and lat in lower:
            return lower.index(lon), lower.index(lat)
    raise UsageError(
        f"{origin} has no columns lon and lat (nor longitude and latitude, nor x and y), in degrees. "
        f"It has: {listed(names) or 'none'}."
    )


def points_or_none(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return points, object (N,), None where a coordinate is NaN."""
    points = np.full(len(x), None, object)
    there = ~(np.isnan(x) | np.isnan(y))
    points[there] = shapely.points(x[there], y[there])
    return points


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # names may be broken, numbers are not
        return data.decode("cp1252", errors="replace")


def _cells(path: Path) -> tuple[list[str], list[list[str]], list[int], str]:
    """Return what `_table` does of a file, and what divides its cells."""
    try:
        text = _decoded(read_file(path, MAX_CSV))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {plainly(error)}. Check the file.") from error
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    return *_table(path, text, delimiter), delimiter


def _table(path: Path, text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the names of the columns, the cells of each, and the line in the file of each row."""
    # strict: a quote that nothing closes would take in the rows that follow
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        names = _distinct([name.strip() for name in next((row for row in reader if row), [])])
        if not names:
            raise UsageError(f"{path} is empty. Give a CSV file with columns lon and lat.")
        columns: list[list[str]] = [[] for _ in names]
        lines = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(names) and not any(row[len(names) :]):
                row = row[: len(names)]
            if len(row) != len(names):
                raise UsageError(f"{path}, line {reader.line_num}: {len(row)} cells, and the header has {len(names)}.")
            lines.append(reader.line_num)
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: it is no CSV: {error}.") from error
    if not lines:
        raise UsageError(f"{path} has a header and no rows. Give a row for each point.")
    return names, columns, lines


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, those that are empty (R writes one over the names of rows) or there before as `column_3`."""
    return [name if name and name not in names[:at] else f"column_{at + 1}" for at, name in enumerate(names)]


def _number(path: Path, line: int, cell: str, commas: bool) -> float:
    """Return a coordinate; NaN of an empty cell."""
    text = cell.strip()
    if text.lower() in NO_NUMBER:
        return np.nan
    text = text.replace(",", ".") if commas and _DECIMAL.fullmatch(text) else text
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{path}, line {line}: {shown(text)} is no number of degrees. Write 5.0123.")
    return float(text)


def _typed(cells: list[str], commas: bool) -> np.ndarray:
    """Return int64 where all are whole numbers, float64 where all are numbers or empty, else text.

    Names of plots stay what they are: 007, 12_3 and whole numbers of too many digits are text.
    """
    if all(_WHOLE.fullmatch(cell) for cell in cells):
        return np.array(cells, np.int64)
    texts = [cell.strip() for cell in cells]
    texts = [text.replace(",", ".") if commas and _DECIMAL.fullmatch(text) else text for text in texts]
    absent = [text.lower() in NO_NUMBER for text in texts]
    if not all(none or _is_number(text) for text, none in zip(texts, absent, strict=True)):
        return np.array(cells, object)
    numbers = np.array([np.nan if none else float(text) for text, none in zip(texts, absent, strict=True)])
    return numbers if np.isfinite(numbers).any() else np.array(cells, object)


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and not re.match(r"-?0\d", text) and not _LONG.fullmatch(text)
