"""Dates of long tables, and days since the start of a window."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.errors import UsageError, shown
from tessera_cli.extent.window import Window, day_of_year
from tessera_cli.sampling.ragged import RaggedSeries
from tessera_cli.series.coded import encoded

if TYPE_CHECKING:
    import pyarrow as pa


def days_of(values: pa.Array, origin: str) -> np.ndarray:
    """Return days since 1970, int32 (R,), of dates, timestamps, ISO text or whole numbers such as 20230714.

    UsageError for a row without a date, and for what is none.
    """
    import pyarrow as pa

    if values.null_count:
        raise UsageError(f"{origin} has rows without a date. Remove them, or name the column with --columns date=NAME.")
    if pa.types.is_temporal(values.type):
        days = values.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        return days.astype("datetime64[D]").astype(np.int32)
    coded = encoded(values)
    table = np.array([_day(value, origin) for value in coded.dictionary.to_pylist()], np.int32)
    return table[coded.indices.to_numpy(zero_copy_only=False)]


def _day(value: object, origin: str) -> int:
    text = str(value).strip()
    if text.isdigit() and len(text) == 8:
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    try:
        return int(np.datetime64(text[:10].replace("/", "-"), "D").astype(np.int64))
    except ValueError as error:
        raise UsageError(f"{origin}: {shown(value)} is no date. Write 2023-07-14.") from error


def day_number(window: Window) -> int:
    """Return the first day of a window in days since 1970."""
    return int(np.datetime64(window.start, "D").astype(np.int64))


def days_in_window(series: RaggedSeries, window: Window) -> np.ndarray:
    """Return days since the window's start, int64 (S,), of observations that know days of year alone.

    In a window of 366 days that ends on the day of year on which it began, such an observation that others of its pixel
    and stream precede is one of the last day.
    """
    start = window.start
    first = int(day_of_year(np.array(start, "datetime64[D]")))
    year = 366 if calendar.isleap(start.year) else 365
    doy = np.asarray(series.doy).astype(np.int64)
    days = np.where(doy >= first, doy - first, doy - first + year)
    if window.days > year and len(days):
        pixel = np.repeat(np.arange(len(series.counts)), series.counts)
        stream = np.asarray(series.streams)
        preceded = np.zeros(len(days), bool)
        preceded[1:] = (pixel[1:] == pixel[:-1]) & (stream[1:] == stream[:-1])
        days[preceded & (doy == first)] = year
    return days
