"""Which satellite passes when."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple


class Overpass(NamedTuple):
    satellite: str
    relative: int
    state: str
    when: dt.datetime
    absolute: int
    """Orbit number since launch."""

    @property
    def day(self) -> int:
        """Of the year."""
        return self.when.timetuple().tm_yday


# One pass of each satellite on each ground track over Brussels.
SENTINEL_2 = (
    Overpass("S2A", 94, "descending", dt.datetime(2023, 1, 8, 10, 56, 31), 39416),
    Overpass("S2B", 94, "descending", dt.datetime(2023, 1, 3, 10, 56, 29), 30436),
    Overpass("S2A", 51, "descending", dt.datetime(2023, 1, 5, 10, 46, 21), 39373),
    Overpass("S2B", 51, "descending", dt.datetime(2022, 12, 31, 10, 46, 19), 30393),
)
SENTINEL_1 = (
    Overpass("S1A", 88, "ascending", dt.datetime(2024, 4, 21, 17, 33, 12), 53535),
    Overpass("S1A", 161, "ascending", dt.datetime(2024, 4, 27, 17, 41, 20), 53608),  # a day late, to be 6 days apart
    Overpass("S1A", 37, "descending", dt.datetime(2024, 4, 18, 5, 58, 4), 53484),
)


def overpasses(known: tuple[Overpass, ...], year: int, *, days: int, orbits: int) -> list[Overpass]:
    """All passes of a year (UTC) in time order, given one of each track and the repeat cycle in days and orbits."""
    first = {one: (dt.datetime(year, 1, 1) - one.when).days // days for one in known}
    passes = [
        one._replace(when=one.when + dt.timedelta(days=cycle * days), absolute=one.absolute + cycle * orbits)
        for one in known
        for cycle in range(first[one], first[one] + 366 // days + 2)
    ]
    return sorted((one for one in passes if one.when.year == year), key=lambda one: one.when)
