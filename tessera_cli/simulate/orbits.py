"""Dates and times of Sentinel-1 and Sentinel-2 overpasses over Brussels."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple


class Overpass(NamedTuple):
    """One pass; `when` in UTC without time zone, `number` within the mission and the year."""

    satellite: str
    relative: int
    state: str
    when: dt.datetime
    number: int = 0

    @property
    def day(self) -> int:
        """Day of year, 1..366."""
        return self.when.timetuple().tm_yday


# One pass of each satellite on each ground track.
SENTINEL_2 = (
    Overpass("S2A", 94, "descending", dt.datetime(2023, 1, 8, 10, 56, 31, 24000)),
    Overpass("S2B", 94, "descending", dt.datetime(2023, 1, 3, 10, 56, 29, 24000)),
    Overpass("S2A", 51, "descending", dt.datetime(2023, 1, 5, 10, 46, 21, 24000)),
    Overpass("S2B", 51, "descending", dt.datetime(2022, 12, 31, 10, 46, 19, 24000)),
)
SENTINEL_1 = (
    Overpass("S1A", 88, "ascending", dt.datetime(2024, 4, 21, 17, 33, 12)),
    Overpass("S1A", 161, "ascending", dt.datetime(2024, 4, 27, 17, 41, 20)),  # a day late, to be 6 days apart
    Overpass("S1A", 37, "descending", dt.datetime(2024, 4, 18, 5, 58, 4)),
)


def overpasses(known: tuple[Overpass, ...], year: int, *, days: int) -> list[Overpass]:
    """Return all passes of a UTC year in time order, given one of each track and the repeat cycle in days."""
    new_year, cycle = dt.datetime(year, 1, 1), dt.timedelta(days=days)
    first = [one._replace(when=one.when + ((new_year - one.when) // cycle + 1) * cycle) for one in known]
    passes = [one._replace(when=one.when + i * cycle) for one in first for i in range(366 // days + 1)]
    passes = sorted((one for one in passes if one.when.year == year), key=lambda one: one.when)
    return [one._replace(number=i) for i, one in enumerate(passes)]
