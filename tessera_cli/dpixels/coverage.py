"""How a sensor covers a window: number of frames, first and last date, longest gap."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.window import Window

logger = logging.getLogger(__name__)

LONG_GAP_DAYS = 60


@dataclass(frozen=True)
class Coverage:
    """The dates on which one sensor saw an area within a window."""

    frames: int
    first: dt.date | None
    last: dt.date | None
    longest_gap: int | None
    """Days between neighbouring frames, or from a frame to an end of the window; without frames, its length."""

    @classmethod
    def of(cls, dates: Sequence[dt.date] | np.ndarray, window: Window | None) -> Coverage:
        """Return the coverage by frames of these dates (T,), in any order; without a window, only their number."""
        if window is None:
            return cls(len(dates), None, None, None)
        days: list[dt.date] = np.sort(np.asarray(dates, "datetime64[D]")).tolist()
        if not days:
            return cls(0, None, None, window.days)
        ends = [window.start, *days, window.end]
        gap = max((b - a).days for a, b in itertools.pairwise(ends))
        return cls(len(days), days[0], days[-1], gap)

    def to_dict(self) -> dict[str, Any]:
        first, last = (day.isoformat() if day else None for day in (self.first, self.last))
        return {"frames": self.frames, "first": first, "last": last, "longest_gap_days": self.longest_gap}

    @classmethod
    def from_dict(cls, obj: Mapping[str, Any]) -> Coverage:
        first, last = (dt.date.fromisoformat(obj[key]) if obj[key] else None for key in ("first", "last"))
        return cls(obj["frames"], first, last, obj["longest_gap_days"])


def gap_warnings(dpixels: DPixels) -> tuple[str, ...]:
    """Return and log a named warning for each of Sentinel-2 and Sentinel-1 that has a gap of over 60 days."""
    radar = np.concatenate([dpixels.s1_asc_dates, dpixels.s1_desc_dates])
    warnings = []
    for name, dates in (("s2-gap", dpixels.s2_dates), ("s1-gap", radar)):
        gap = Coverage.of(dates, dpixels.window).longest_gap
        if gap is not None and gap > LONG_GAP_DAYS:
            warnings.append(f"{name}: {gap} days without a usable observation")
            logger.warning("%s: %s", dpixels.name, warnings[-1])
    return tuple(warnings)
