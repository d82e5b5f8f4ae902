"""Source aws, from files to d-pixels: OPERA bursts at 30 m, and Sentinel-2 without an offset."""

import numpy as np
import pytest

from tessera_cli.catalog import AWS
from tessera_cli.errors import TileError
from tessera_cli.imagery import sentinel1
from tests.helpers.builders import block, on_aws, opera_item, read, s2_item, tile_at

NOON = "2021-07-01T11:00:00Z"
_, ROW, COLUMN = tile_at()


def radar(items, orbit="s1_asc", size=12, **more):
    """int16 (T, size, size, 2) of the fixture's pixels."""
    dpixels = read(items, source=AWS, **more)
    return getattr(dpixels, orbit)[:, ROW : ROW + size, COLUMN : COLUMN + size]


def bilinear_30_to_10(coarse):
    """float64 (3H, 3W): the middle of three has its cell alone, the outer ones a third of the neighbour; what is NaN
    or outside has no weight, and a target inside a NaN cell is missing."""
    size = 3 * coarse.shape[0]
    fine = np.full((size, size), np.nan)
    for y in range(size):
        for x in range(size):
            if np.isnan(coarse[y // 3, x // 3]):
                continue
            total = weights = 0.0
            for r, wy in ((y // 3, 1 if y % 3 == 1 else 2 / 3), (y // 3 + y % 3 - 1, 0 if y % 3 == 1 else 1 / 3)):
                for c, wx in ((x // 3, 1 if x % 3 == 1 else 2 / 3), (x // 3 + x % 3 - 1, 0 if x % 3 == 1 else 1 / 3)):
                    if 0 <= r < coarse.shape[0] and 0 <= c < coarse.shape[1] and not np.isnan(coarse[r, c]):
                        total += wy * wx * coarse[r, c]
                        weights += wy * wx
            fine[y, x] = total / weights
    return fine


def scaled(power):
    """The formula in float64; 0 where missing."""
    with np.errstate(invalid="ignore"):
        value = np.trunc(np.clip((20 * np.log10(power) + 50) * 200, 0, 32767))
    return np.where(np.isfinite(power), value, 0)


def test_s2p_precision():
    power = np.array([0.5188], np.float32)
    assert sentinel1.scale(power, "float64") == 8859
    assert sentinel1.scale(power, AWS.s1_arithmetic) == 8860


def test_s2p_through_files(tmp_path):
    (frame,) = radar([opera_item(tmp_path, "A", NOON, {"VV": 0.5188, "VH": 0.01})])
    assert np.unique(frame.reshape(-1, 2), axis=0).tolist() == [[8860, 1999]]


@pytest.mark.parametrize("nodata", [np.nan, None])
def test_s7_bilinear_on_power_with_a_ragged_edge(tmp_path, nodata):
    rng = np.random.default_rng(5)
    power = rng.gamma(4, 0.05, (2, 20, 20)).astype(np.float32)
    power[:, rng.random((20, 20)) < 0.2] = np.nan
    power[:, :, :3] = np.nan
    item = opera_item(tmp_path, "A", NOON, {"VV": power[0], "VH": power[1]}, size=20, nodata=nodata)
    (frame,) = radar([item], size=60)
    for pol in range(2):
        expected = scaled(bilinear_30_to_10(power[pol].astype(np.float64)))
        assert ((frame[..., pol] == 0) == (expected == 0)).all()
        assert np.abs(frame[..., pol] - expected).max() <= 1  # float32 against float64
        assert (frame[..., pol] == expected).mean() > 0.98


def test_bursts_of_a_utc_day_and_orbit_are_one_frame_earliest_first(tmp_path):
    first = np.full((4, 4), 0.1, np.float32)
    first[:, 2:] = np.nan
    items = [
        opera_item(tmp_path, "B", "2021-07-01T05:58:04Z", {"VV": 0.2, "VH": 0.02}),
        opera_item(tmp_path, "A", "2021-07-01T05:58:01Z", {"VV": first, "VH": 0.01}),
        opera_item(tmp_path, "C", "2021-07-01T17:30:00Z", {"VV": 0.5, "VH": 0.05}, "descending"),
        opera_item(tmp_path, "D", "2021-07-02T00:00:00Z", {"VV": 1.0, "VH": 0.1}),
    ]
    ascending = radar(items)
    assert [np.unique(frame[..., 0]).tolist() for frame in ascending] == [[6000, 7204], [10000]]
    assert np.unique(ascending[0][..., 1]).tolist() == [1999]
    (descending,) = radar(items, "s1_desc")
    assert np.unique(descending[..., 0]).tolist() == [8795]


@pytest.mark.parametrize("orbit", [None, "", "sideways"])
def test_a_burst_that_does_not_tell_its_orbit_is_a_hole(tmp_path, orbit):
    items = [
        opera_item(tmp_path, "A", NOON, {"VV": 0.1, "VH": 0.01}, orbit),
        opera_item(tmp_path, "B", NOON, {"VV": 0.2, "VH": 0.02}),
    ]
    with pytest.raises(TileError, match="A: does not say its orbit direction"):
        read(items, source=AWS)
    (frame,) = radar(items, allow_missing=1)
    assert np.unique(frame[..., 0]).tolist() == [7204]


def test_vh_without_data_leaves_the_frame(tmp_path):
    (frame,) = radar([opera_item(tmp_path, "A", NOON, {"VV": 0.1, "VH": np.nan})])
    assert np.unique(frame.reshape(-1, 2), axis=0).tolist() == [[6000, 0]]


def test_c2_aws_has_no_offset_ever(tmp_path):
    items = [
        on_aws(s2_item(tmp_path, name, when))
        for name, when in (("A", "2022-01-25T11:00:00Z"), ("B", "2022-01-26T11:00:00Z"), ("C", "2022-07-01T11:00:00Z"))
    ]
    dpixels = read(items, source=AWS)
    for frame in range(3):
        assert np.unique(block(dpixels, "B02", frame=frame)).tolist() == [2000]
        assert np.unique(block(dpixels, "B12", frame=frame)).tolist() == [9500]


def test_c4_c9_bands_and_overlaps_as_with_the_other_source(tmp_path):
    bands = {"B05": np.array([[1000, 2000], [3000, 4000]]), "B02": 1100}
    first = s2_item(tmp_path, "A", "2021-07-01T11:00:00.500Z", bands, [[4, 9], [9, 9]])
    second = s2_item(tmp_path, "B", "2021-07-01T11:00:00Z", {"B02": 1200}, [[5, 5], [8, 3]])
    dpixels = read([on_aws(first), on_aws(second)], source=AWS)
    assert block(dpixels, "B02")[0].tolist() == [1100, 1100, 1200, 1200]  # ".500Z" sorts before "Z": C11
    assert block(dpixels, "B05")[0].tolist() == [1000, 1250, 5000, 5000]
