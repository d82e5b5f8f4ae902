import datetime as dt

import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.extent.window import Window, day_of_year

TODAY = dt.date(2026, 11, 23)


def test_a_year_is_its_calendar_year():
    window = Window.of_year(2023, today=TODAY)
    assert (window.start, window.end, window.name) == (dt.date(2023, 1, 1), dt.date(2023, 12, 31), "2023")
    assert window.is_twelve_months


@pytest.mark.parametrize("year", [2014, 2026, 2027, 0, -5])
def test_years_that_cannot_be_embedded(year):
    with pytest.raises(UsageError):
        Window.of_year(year, today=TODAY)


@pytest.mark.parametrize(
    ("text", "start", "end", "name"),
    [
        ("2023-07/2024-06", dt.date(2023, 7, 1), dt.date(2024, 6, 30), "20230701-20240630"),
        ("2024-02/2024-02", dt.date(2024, 2, 1), dt.date(2024, 2, 29), "20240201-20240229"),
        ("2023-05-03/2023-09-10", dt.date(2023, 5, 3), dt.date(2023, 9, 10), "20230503-20230910"),
        ("2023-01/2023-12", dt.date(2023, 1, 1), dt.date(2023, 12, 31), "2023"),
        ("2024-01/2024-12", dt.date(2024, 1, 1), dt.date(2024, 12, 31), "2024"),
    ],
)
def test_windows_include_both_ends(text, start, end, name):
    window = Window.parse(text, today=TODAY)
    assert (window.start, window.end, window.name) == (start, end, name)
    assert Window.from_name(name) == window


@pytest.mark.parametrize(
    "text",
    [
        "2023",
        "2023-13/2024-01",
        "2023-02-30/2023-05",
        "2024-06/2023-07",
        "2023-01/2024-02",
        "2014-01/2014-12",
        "2027-01/2027-06",
        "2023-07-2024-06",
        "",
        "2023-00/2023-05",
    ],
)
def test_windows_that_are_refused(text):
    with pytest.raises(UsageError, match="--window"):
        Window.parse(text, today=TODAY)


def test_day_of_year_against_the_standard_library():
    days = [dt.date(2019, 1, 1) + dt.timedelta(days=n) for n in range(0, 3000, 7)] + [dt.date(2024, 12, 31)]
    got = day_of_year(np.array(days, "datetime64[ns]"))
    assert got.tolist() == [day.timetuple().tm_yday for day in days]
    assert got.dtype == np.uint16
    assert got.max() == 366
