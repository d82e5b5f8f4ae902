"""Rows of observations in any order -> ragged series: sorted by sample, stream and date, one per date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.extent.window import day_of_year
from tessera_cli.sampling.ragged import RaggedSeries, starts_of
from tessera_cli.sampling.series import BAND_COUNTS, Modality


@dataclass(frozen=True, eq=False)
class Rows:
    """R valid observations of one sensor, in any order."""

    samples: np.ndarray
    """int32 (R,): number of the sample."""
    days: np.ndarray
    """int32 (R,): days since 1970."""
    streams: np.ndarray
    """uint8 (R,)"""
    values: np.ndarray
    """uint16 (R, 10) or int16 (R, 2)"""

    def take(self, which: np.ndarray) -> Rows:
        """Return these rows, int or bool (R,)."""
        return Rows(self.samples[which], self.days[which], self.streams[which], self.values[which])


def joined(parts: Sequence[Rows], modality: Modality) -> Rows:
    """Return the rows of all parts."""
    if parts:
        samples, days, streams, values = (
            np.concatenate([getattr(one, name) for one in parts]) for name in ("samples", "days", "streams", "values")
        )
        return Rows(samples, days, streams, values)
    values = np.empty((0, BAND_COUNTS[modality]), np.uint16 if modality == "s2" else np.int16)
    return Rows(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8), values)


def to_series(rows: Rows, count: int) -> tuple[RaggedSeries, int]:
    """Return the series of `count` samples, and how many rows were left out that repeat a date of a sample and stream.

    The first row of a date is kept, as the first clear scene of a date is.
    """
    first = int(rows.days.min(initial=np.iinfo(np.int32).max))
    order = ((rows.samples.astype(np.int64) << 2 | rows.streams) << 32) + (rows.days - first)
    sorted_rows = np.argsort(order, kind="stable")
    keys = order[sorted_rows]
    fresh = np.ones(len(keys), bool)
    fresh[1:] = keys[1:] != keys[:-1]
    kept = rows.take(sorted_rows[fresh])
    starts = starts_of(np.bincount(kept.samples, minlength=count))
    doy = day_of_year(kept.days.astype("datetime64[D]"))
    return RaggedSeries(kept.values, doy, kept.streams, starts), int((~fresh).sum())
