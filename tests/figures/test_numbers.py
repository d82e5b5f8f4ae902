"""How numbers are written."""

import math

import pytest

from tessera_cli.figures.numbers import number, percent, tick


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (math.nan, "\u2013"),
        (0, "0"),
        (0.0625, "0.0625"),
        (41.234, "41.2"),
        (999.4, "999"),
        (999.7, "1,000"),
        (1234567.8, "1,234,568"),
        (2e-05, "2e-5"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_places_on_axes():
    assert [tick(value) for value in (0, 0.25, -3, 12000, 1e-05, 2e7)] == [
        "0",
        "0.25",
        "\u22123",
        "12,000",
        "1e\u22125",
        "2e7",
    ]


def test_shares():
    assert [percent(share) for share in (0.005, 0.01, 0.3, 1.0)] == ["0.5 %", "1 %", "30 %", "100 %"]
