"""Raw features against closed forms, numpy and scikit-learn."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.evaluation.raw.components import principal_components
from tessera_cli.evaluation.raw.gapfill import gap_filled, grid_days
from tessera_cli.evaluation.raw.observed import CHUNK, Observed, decibels, observed
from tessera_cli.evaluation.raw.spread import INDICES, metrics, season_of, seasonal_medians, with_indices
from tessera_cli.extent.window import Window
from tessera_cli.imagery.sentinel1 import scale
from tests.helpers.ragged import pixels_of, random_pixels

YEAR = Window.from_name("2023")
ACROSS = Window(dt.date(2022, 10, 1), dt.date(2023, 9, 30))


def days_and_values(stream: Observed, pixel: int, column: int):
    rows = slice(stream.starts[pixel], stream.starts[pixel + 1])
    values = stream.values[rows, column].astype(float)
    return stream.days[rows][np.isfinite(values)], values[np.isfinite(values)]


def test_a_line_in_time_comes_out_as_a_line():
    days = [3, 50, 51, 200, 330]
    pixels = pixels_of([[(day, 20 * day) for day in days], [(100, 700)], []])
    grid = np.array([1.0, 2, 49.5, 100, 250, 329, 364])  # days since 1 January, which is day of year 1
    made = gap_filled(observed(pixels, YEAR), grid).reshape(3, 7, 10)
    due = 20 * np.clip(grid + 1, 3, 330) / 10000
    np.testing.assert_allclose(made[0], np.repeat(due[:, None], 10, axis=1), atol=1e-6)
    np.testing.assert_allclose(made[1], 0.07, atol=1e-6)
    assert np.isnan(made[2]).all()


def test_gaps_are_filled_as_numpy_interpolates():
    streams = observed(random_pixels(40), YEAR)
    assert [each.names[0] for each in streams] == ["B04", "VV asc", "VV desc"]
    grid = grid_days(YEAR, 24)
    made = gap_filled(streams, grid)
    assert made.shape == (40, 24 * 14)
    first = 0
    for stream in streams:
        size = len(stream.names)
        block = made[:, first : first + 24 * size].reshape(40, 24, size)
        first += 24 * size
        for pixel in range(40):
            for column in range(size):
                days, values = days_and_values(stream, pixel, column)
                due = np.interp(grid, days, values) if len(days) else np.full(24, np.nan)
                np.testing.assert_allclose(block[pixel, :, column], due, rtol=1e-5, atol=1e-6)


def test_the_grid_is_half_months_in_the_order_of_the_window():
    grid = grid_days(YEAR, 365)
    np.testing.assert_allclose(grid, np.arange(365))
    pixels = pixels_of([[(280, 1000), (360, 2000), (10, 3000), (200, 4000)]])  # from October on
    (stream,) = observed(pixels, ACROSS)
    assert stream.days.tolist() == [6, 86, 101, 291]
    made = gap_filled([stream], np.array([86.0, 93.5, 101.0]))[0].reshape(3, 10)[:, 0]
    np.testing.assert_allclose(made, [0.2, 0.25, 0.3], atol=1e-6)


@pytest.mark.parametrize("count", [30, CHUNK + 3])
def test_seasons_and_percentiles_are_numpys(count):
    streams = observed(random_pixels(30) if count == 30 else random_pixels(60).take(np.arange(count) % 60), YEAR)
    checked = range(30) if count == 30 else (0, CHUNK - 1, CHUNK, count - 1)
    seasonal, spread = seasonal_medians(streams, YEAR), metrics(streams)
    at_s, at_m = 0, 0
    for stream in streams:
        size = len(stream.names)
        months = (np.datetime64("2023-01-01") + stream.days).astype("datetime64[M]").astype(int) % 12 + 1
        for number, of_season in enumerate([(12, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]):
            inside = np.isin(months, of_season)
            for pixel in checked:
                rows = np.arange(stream.starts[pixel], stream.starts[pixel + 1])
                values = stream.values[rows[inside[rows]]]
                for column in range(size):
                    some = values[:, column][np.isfinite(values[:, column])]
                    due = np.median(some.astype(float)) if len(some) else np.nan
                    np.testing.assert_allclose(seasonal[pixel, at_s + column], due, rtol=1e-6)
            at_s += size
            assert number < 4
        full = with_indices(stream)
        size = len(full.names)
        for pixel in checked:
            for column in range(size):
                _, some = days_and_values(full, pixel, column)
                found = spread[pixel, at_m + column + size * np.arange(6)]
                due = [*np.percentile(some, (10, 25, 50, 75, 90)), np.std(some)] if len(some) else [np.nan] * 6
                np.testing.assert_allclose(found, due, rtol=2e-5, atol=1e-6)
        at_m += 6 * size
    assert (at_s, at_m) == (seasonal.shape[1], spread.shape[1])


def test_indices_are_normalised_differences():
    values = np.linspace(100, 5000, 10).astype(int)
    (stream,) = observed(pixels_of([[(10, values), (20, 0)]]), YEAR)
    full = with_indices(stream)
    bands = dict(zip(S2_BANDS, values / 10000, strict=True))
    assert full.names[10:] == tuple(INDICES) == ("NDVI", "NDWI", "NDMI", "NBR")
    due = [
        (bands[one] - bands[other]) / (bands[one] + bands[other])
        for one, other in (("B08", "B04"), ("B03", "B08"), ("B08", "B11"), ("B08", "B12"))
    ]
    np.testing.assert_allclose(full.values[0, 10:], due, rtol=1e-5)
    assert np.isnan(full.values[1, 10:]).all()


def test_seasons_of_a_window_across_years():
    dates = [
        dt.date(2022, 10, 1),
        dt.date(2022, 11, 30),
        dt.date(2022, 12, 1),
        dt.date(2023, 2, 28),
        dt.date(2023, 9, 1),
    ]
    days = np.array([(each - ACROSS.start).days for each in dates])
    assert season_of(days, ACROSS).tolist() == [3, 3, 0, 0, 3]


def test_decibels_are_the_inverse_of_the_scale():
    power = np.array([0.01, 0.1, 1.0, 30.0])
    np.testing.assert_allclose(decibels(scale(power)), 10 * np.log10(power), atol=0.003)
    assert np.isnan(decibels(np.zeros(2, np.int16))).all()


def test_components_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 40)) * 3 + 7).astype(np.float32)
    values[:, 5] = 4  # says nothing
    made = principal_components(values, most=5)
    kept = np.delete(values, 5, axis=1).astype(float)
    due = PCA(5, svd_solver="full").fit_transform((kept - kept.mean(axis=0)) / kept.std(axis=0))
    np.testing.assert_allclose(np.abs(made), np.abs(due), rtol=1e-3, atol=1e-3)
    few = values.copy()
    few[3, :] = np.nan
    filled = few.astype(float)
    filled[3] = np.nanmean(few.astype(float), axis=0)
    np.testing.assert_allclose(principal_components(few), principal_components(filled.astype(np.float32)), atol=0.05)
    assert principal_components(values[:4]).shape == (4, 4)
    assert principal_components(np.ones((5, 3), np.float32)).shape == (5, 1)
