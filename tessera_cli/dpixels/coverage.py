"""How a sensor covers a window: how many frames, from when to when, and for how long it saw nothing."""

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
    """Days: between neighbouring frames, or from a frame to the window's first or last day; the window if no frame."""

    @classmethod
    def of(cls, dates: Sequence[dt.date] | np.ndarray, window: Window | None) -> Coverage:
        """Of the frames' dates (T,) in any order, a date for each frame; a window of None leaves only their number."""
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
    """Named warnings, logged as well, for Sentinel-2 or Sentinel-1 that saw nothing of the tile for over 60 days."""
    radar = np.concatenate([dpixels.s1_asc_dates, dpixels.s1_desc_dates])
    warnings = []
    for name, dates in (("s2-gap", dpixels.s2_dates), ("s1-gap", radar)):
        gap = Coverage.of(dates, dpixels.window).longest_gap
        if gap is not None and gap > LONG_GAP_DAYS:
            warnings.append(f"{name}: {gap} days without a usable observation")
            logger.warning("%s: %s", dpixels.name, warnings[-1])
    return tuple(warnings)
