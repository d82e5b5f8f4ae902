"""Samples as CSV: UTF-8, commas, a header; cells without a value are empty."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.tables.samples import Samples

ROWS = 1024
"""Formatted at a time: their text takes about 15 KB a row."""


def write(path: Path, batches: Iterable[Samples]) -> None:
    """Write a file."""
    with path.open("x", encoding="utf-8", newline="", errors="backslashreplace") as file:
        stream(file, batches)


def stream(file: TextIO, batches: Iterable[Samples]) -> None:
    """Write to an open text stream. Numbers have as many digits as it takes to read the same float32 back."""
    writer = csv.writer(file, lineterminator="\n")
    for number, samples in enumerate(batches):
        columns, bands = samples.columns(), samples.bands()
        if samples.std is None:
            columns |= {name: _whole(columns[name]) for name in SENSORS}
        if not number:
            writer.writerow([*columns, *bands])
        for start in range(0, samples.rows, ROWS):
            cut = slice(start, start + ROWS)
            found = [_texts(values[cut]) for values in (*columns.values(), *bands.values())]
            writer.writerows(zip(*found, strict=True))


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype == object:
        return ["" if value is None else str(value) for value in values.tolist()]
    texts = values.astype("U")
    if values.dtype.kind in "fM":
        texts[np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)] = ""
    return texts.tolist()


def _whole(values: np.ndarray) -> np.ndarray:
    """Return whole numbers that are float32 as object (N,), None for NaN: 12 and not 12.0."""
    found = np.full(len(values), None, object)
    there = ~np.isnan(values)
    found[there] = values[there].astype(np.int64)
    return found
