"""d-pixels in memory: their dates and counts, the xarray dataset of them, and coverage of a window."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np

from tessera_cli.catalog import Sensor
from tessera_cli.dpixels.coverage import Coverage, gap_warnings
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, SENSORS, missing_scenes_text
from tessera_cli.extent.window import Window
from tests.helpers.tiles import made_up

YEAR = Window.from_name("2023")


def days(*dates: str) -> np.ndarray:
    return np.array(dates, "datetime64[D]")


def test_sensors_have_one_name_each() -> None:
    assert tuple(sensor.value for sensor in Sensor if sensor is not Sensor.S1) == SENSORS
    dpixels = made_up(np.array([[5, 3, 2]]), seed=0)
    assert {sensor: len(dates) for sensor, dates in dpixels.dates.items()} == {"s2": 5, "s1_asc": 3, "s1_desc": 2}
    assert dpixels.counts[:, 0, 0].tolist() == [5, 3, 2]


def test_many_missing_scenes_make_one_line_that_can_be_read() -> None:
    assert missing_scenes_text({"b": "VV is absent", "a": "SCL is broken"}) == "a: SCL is broken; b: VV is absent"
    assert missing_scenes_text({str(n): "gone" for n in range(3)}) == "0: gone; 1: gone; 2: gone"
    assert missing_scenes_text({str(n): "gone" for n in range(9)}) == "0: gone; 1: gone; 2: gone; and 6 more"


def test_xarray_has_the_same_values_with_names() -> None:
    dpixels = made_up(np.full((12, 3), 4), seed=1, shape=(3, 4))
    dataset = dpixels.to_xarray()
    west, _, _, north = dpixels.tile.bounds
    assert dict(dataset.s2.sizes) == {"s2_time": 4, "y": 3, "x": 4, "band": 10}
    assert dict(dataset.s1_desc.sizes) == {"s1_desc_time": 4, "y": 3, "x": 4, "pol": 2}
    assert dataset.x.values.tolist() == [west + 5, west + 15, west + 25, west + 35]  # pixel centres
    assert dataset.y.values.tolist() == [north - 5, north - 15, north - 25]
    assert (tuple(dataset.band.values), tuple(dataset.pol.values)) == (S2_BANDS, S1_BANDS)
    assert (dataset.s2_time.dt.dayofyear.values == dpixels.s2_doy).all()
    assert dataset.s1_asc_time.dtype == "datetime64[ns]"
    for name in ("s2", "s2_mask", "s1_asc", "s1_desc"):
        assert dataset[name].dtype == getattr(dpixels, name).dtype
        np.testing.assert_array_equal(dataset[name], getattr(dpixels, name))
    np.testing.assert_array_equal(dataset.roi, dpixels.requested)
    red = dataset.s2.sel(band="B04").isel(s2_time=2, y=1, x=3)
    assert int(red) == dpixels.s2[2, 1, 3, S2_BANDS.index("B04")]
    assert dataset.attrs == {
        "tile": "utm31n_c0112_r1098",
        "crs": "EPSG:32631",
        "transform": [10.0, 0.0, west, 0.0, -10.0, north],
        "window": "2024",
        "source": "mpc",
        "preprocessing": "official",
        "scenes": [],
        "holes": {},
        "input_digest": "",
    }


# --- how a sensor covers a window ------------------------------------------------------------------------------------


def test_the_longest_gap_counts_the_ends_of_the_window() -> None:
    dates = days("2023-02-01", "2023-05-12", "2023-05-12", "2023-12-30")
    assert Coverage.of(dates, YEAR) == Coverage(4, dt.date(2023, 2, 1), dt.date(2023, 12, 30), 232)
    assert Coverage.of(days("2023-09-01", "2023-08-02"), YEAR) == Coverage(
        2, dt.date(2023, 8, 2), dt.date(2023, 9, 1), 213
    )
    assert Coverage.of([dt.date(2023, 7, 1)], YEAR) == Coverage.of(days("2023-07-01"), YEAR)
    assert Coverage.of([], YEAR) == Coverage.of(days(), YEAR) == Coverage(0, None, None, 365)


def test_coverage_as_json() -> None:
    seen = Coverage.of(days("2023-02-01", "2023-05-12"), YEAR)
    assert seen.to_dict() == {"frames": 2, "first": "2023-02-01", "last": "2023-05-12", "longest_gap_days": 233}
    for made in (seen, Coverage.of([], YEAR)):
        assert Coverage.from_dict(made.to_dict()) == made


def test_gaps_are_named_per_satellite() -> None:
    """The two orbits of Sentinel-1 fill each other's gaps."""
    at = np.arange("2024-01-20", "2025-01-01", 40, "datetime64[D]")
    dates = {"s2_dates": at[:5], "s1_asc_dates": at[::2], "s1_desc_dates": at[1::2]}
    dpixels = replace(made_up(np.array([[9, 9, 9]]), seed=0), **dates)
    assert gap_warnings(dpixels) == ("s2-gap: 186 days without a usable observation",)
