"""The range of dates observed, and the only place where a date becomes a day of year."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import re
from dataclasses import dataclass

import numpy as np

from tessera_cli.errors import UsageError

FIRST_YEAR = 2015
MAX_DAYS = 366
_YEARS = re.compile(r"(\d{4})(?:-(\d{4}))?")
_WINDOW = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?/(\d{4})-(\d{2})(?:-(\d{2}))?")


@dataclass(frozen=True, order=True)
class Window:
    """A closed range of UTC dates."""

    start: dt.date
    end: dt.date

    @classmethod
    def of_year(cls, year: int, *, today: dt.date | None = None) -> Window:
        """Return the calendar year; UsageError before 2015, for the running year and for the future."""
        today = today or dt.datetime.now(dt.timezone.utc).date()
        if year < FIRST_YEAR:
            raise UsageError(f"--year {year}: Sentinel-2 starts in {FIRST_YEAR}. Choose {FIRST_YEAR} or later.")
        if year > today.year:
            raise UsageError(f"--year {year} lies in the future. Choose a year up to {today.year - 1}.")
        if year == today.year:
            raise UsageError(
                f"--year {year} is not over yet. Give the months you want, for instance "
                f"--window {year - 1}-{today.month:02d}/{_month_before(today):%Y-%m}."
            )
        return cls(dt.date(year, 1, 1), dt.date(year, 12, 31))

    @classmethod
    def of_years(cls, text: str) -> list[Window]:
        """Return the calendar years of `2023`, `2023,2024` or `2017-2024`, the last included; UsageError for others."""
        windows = []
        for part in text.split(","):
            match = _YEARS.fullmatch(part.strip())
            if not match:
                raise UsageError(f"--year {text!r} is no year. Write 2023, several as 2023,2024, or 2017-2024.")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise UsageError(f"--year {text!r} ends before it starts. Write {last}-{first}.")
            windows += [cls.of_year(year) for year in range(first, last + 1)]
        return windows

    @classmethod
    def parse(cls, text: str, *, today: dt.date | None = None) -> Window:
        """Return the window `2023-07/2024-06` or `2023-07-01/2024-06-30`, both ends included; UsageError for others."""
        today = today or dt.datetime.now(dt.timezone.utc).date()
        match = _WINDOW.fullmatch(text.strip())
        if not match:
            raise UsageError(f"--window {text!r} is not a range. Write 2023-07/2024-06 or 2023-07-01/2024-06-30.")
        y0, m0, d0, y1, m1, d1 = (int(g or 0) for g in match.groups())
        try:
            start = dt.date(y0, m0, d0 or 1)
            end = dt.date(y1, m1, d1 or calendar.monthrange(y1, m1)[1])
        except (ValueError, calendar.IllegalMonthError) as error:
            raise UsageError(f"--window {text!r} names a day that does not exist: {error}.") from error
        window = cls(start, end)
        if end < start:
            raise UsageError(f"--window {text!r} ends before it starts. Write START/END.")
        if start.year < FIRST_YEAR:
            raise UsageError(f"--window {text!r}: Sentinel-2 starts in {FIRST_YEAR}. Choose a later start.")
        if start > today:
            raise UsageError(f"--window {text!r} lies in the future. Choose a range that has begun.")
        if window.days > MAX_DAYS:
            raise UsageError(
                f"--window {text!r} spans {window.days} days; at most {MAX_DAYS} are allowed, "
                "since a day of year must name one day. Give several windows instead."
            )
        return window

    @classmethod
    @functools.lru_cache(maxsize=1024)  # of ten thousand tiles most have the same
    def from_name(cls, name: str) -> Window:
        """Return the window of this `name`; ValueError if it is that of none."""
        ends = (f"{name}0101", f"{name}1231") if len(name) == 4 else name.split("-")
        window = cls(*(dt.datetime.strptime(end, "%Y%m%d").date() for end in ends))
        if window.name != name or not 1 <= window.days <= MAX_DAYS:
            raise ValueError(f"{name!r} is not the name of a window")
        return window

    @property
    def days(self) -> int:
        return (self.end - self.start).days + 1

    @property
    def name(self) -> str:
        """Return `2023` or `20230701-20240630`, as used in file names."""
        if self.is_year:
            return str(self.start.year)
        return f"{self.start:%Y%m%d}-{self.end:%Y%m%d}"

    @property
    def is_year(self) -> bool:
        year = self.start.year
        return (self.start, self.end) == (dt.date(year, 1, 1), dt.date(year, 12, 31))

    @property
    def is_twelve_months(self) -> bool:
        """Whether the window has the length the models were trained on."""
        return 365 <= self.days <= 366

    def __contains__(self, date: dt.date) -> bool:
        return self.start <= date <= self.end

    def __str__(self) -> str:
        return self.name


def _month_before(day: dt.date) -> dt.date:
    return (day.replace(day=1) - dt.timedelta(days=1)).replace(day=1)


def day_of_year(dates: np.ndarray) -> np.ndarray:
    """Return the day of year 1..366 of each date: datetime64 (...,) -> uint16 (...,)."""
    days = np.asarray(dates).astype("datetime64[D]")
    return (days - days.astype("datetime64[Y]") + 1).astype(np.uint16)
