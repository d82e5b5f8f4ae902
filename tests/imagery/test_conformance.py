"""The conformance cases of the official preprocessing, through real small GeoTIFFs and STAC items.

Case names (C1, S3, P2 ...) are those of the project's specification of the official code; the expected values were
produced by running that code.
"""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tessera_cli.imagery import sentinel1, sentinel2
from tests.helpers.builders import ORIGIN, block, mask_block, read, s1_item, s2_item, tile_at

NOON = "2021-07-01T11:00:00Z"
AFTER_OFFSET = "2022-07-01T11:00:00Z"
VV, VH = 0, 1


def radar_block(frames: np.ndarray, size: int = 4) -> np.ndarray:
    _, row, column = tile_at()
    return frames[:, row : row + size, column : column + size]


def test_c1_band_order_mask_and_day(tmp_path):
    dpixels = read([s2_item(tmp_path, "A", NOON)])
    _, row, column = tile_at()
    assert dpixels.s2[0, row, column].tolist() == [4000, 2000, 3000, 8000, 8500, 5000, 6000, 7000, 9000, 9500]
    assert dpixels.s2.dtype == np.uint16
    assert mask_block(dpixels).all()
    assert dpixels.s2_mask.sum() == 16  # nothing outside the scene
    assert dpixels.s2_doy.tolist() == [182]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2022-01-25", [4000, 2000, 3000, 8000, 8500, 5000, 6000, 7000, 9000, 9500]),
        ("2022-01-26", [3000, 1000, 2000, 7000, 7500, 4000, 5000, 6000, 8000, 8500]),
    ],
)
def test_c2_offset_starts_after_25_january_2022(tmp_path, day, expected):
    dpixels = read([s2_item(tmp_path, "A", f"{day}T11:00:00Z")])
    _, row, column = tile_at()
    assert dpixels.s2[0, row, column].tolist() == expected


def test_c3_offset_at_its_edge(tmp_path):
    dn = np.array([[1, 500, 999, 1000], [1001, 1500, 2000, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    dpixels = read([s2_item(tmp_path, "A", AFTER_OFFSET, {"B02": dn})])
    assert block(dpixels, "B02")[:2].tolist() == [[1, 500, 999, 0], [1, 500, 1000, 0]]


def test_c4_bilinear(tmp_path):
    dpixels = read([s2_item(tmp_path, "A", NOON, {"B05": [[1000, 2000], [3000, 4000]]})])
    assert block(dpixels, "B05").tolist() == [
        [1000, 1250, 1750, 2000],
        [1500, 1750, 2250, 2500],
        [2500, 2750, 3250, 3500],
        [3000, 3250, 3750, 4000],
    ]


def test_c5_rounding(tmp_path):
    dpixels = read([s2_item(tmp_path, "A", NOON, {"B05": [[2000, 2010], [2000, 2010]]})])
    assert block(dpixels, "B05")[0].tolist() == [2000, 2003, 2008, 2010]


def test_c6_offset_acts_after_the_warp(tmp_path):
    dpixels = read([s2_item(tmp_path, "A", AFTER_OFFSET, {"B05": [[500, 1500], [500, 1500]]})])
    assert block(dpixels, "B05")[0].tolist() == [500, 750, 250, 500]


@pytest.mark.parametrize(("nodata", "expected"), [(None, [0, 500, 1500, 2000]), (0, [0, 0, 2000, 2000])])
def test_c7_the_nodata_tag_of_the_file_decides(tmp_path, nodata, expected):
    dpixels = read([s2_item(tmp_path, "A", NOON, {"B05": [[0, 2000], [0, 2000]]}, nodata=nodata)])
    assert block(dpixels, "B05")[0].tolist() == expected


def test_c8_classes_of_the_scene_classification(tmp_path):
    scl = np.zeros((6, 6), int)
    scl[:2] = np.arange(12).reshape(2, 6)
    dpixels = read([s2_item(tmp_path, "A", NOON, scl=scl, size=12)])
    got = mask_block(dpixels, size=12)[:4:2, ::2].ravel()
    assert got.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1]
    assert sentinel2.clear(np.arange(12, 256, dtype=np.uint8)).all()


def overlapping(tmp_path, first, second):
    a = s2_item(tmp_path, first, NOON, {"B02": 1100}, scl=[[4, 9], [9, 9]])
    b = s2_item(tmp_path, second, NOON, {"B02": 1200}, scl=[[5, 5], [8, 3]])
    return [a, b]


def test_c9_first_clear_scene_wins_and_later_ids_come_first(tmp_path):
    for order in (1, -1):
        dpixels = read(overlapping(tmp_path, "A", "B")[::order])  # whatever the order of the file: B precedes A
        assert mask_block(dpixels)[::2, ::2].tolist() == [[1, 1], [0, 0]]
        assert block(dpixels, "B02")[0].tolist() == [1200, 1200, 1200, 1200]
    dpixels = read(overlapping(tmp_path / "swapped", "B", "A"))
    assert block(dpixels, "B02")[0].tolist() == [1100, 1100, 1200, 1200]
    assert block(dpixels, "B02")[2].tolist() == [0, 0, 0, 0]  # masked observations are stored as 0


def test_c10_time_decides_before_id(tmp_path):
    earlier = s2_item(tmp_path, "C", "2021-07-01T10:59:00Z", {"B02": 1300}, scl=[[0, 0], [6, 9]])
    dpixels = read([*overlapping(tmp_path, "B", "A"), earlier])
    assert mask_block(dpixels)[::2, ::2].tolist() == [[1, 1], [1, 0]]
    assert block(dpixels, "B02")[0].tolist() == [1100, 1100, 1200, 1200]
    assert block(dpixels, "B02")[2].tolist() == [1300, 1300, 0, 0]


def test_c11_the_order_is_that_of_the_strings(tmp_path):
    half = s2_item(tmp_path, "A", "2021-07-01T11:00:00.500Z", {"B02": 1100})
    full = s2_item(tmp_path, "B", "2021-07-01T11:00:00Z", {"B02": 1200})
    assert (block(read([full, half]), "B02") == 1100).all()


def test_c13_an_unaligned_area_lies_on_the_grid(tmp_path):
    dn = 3000 + 8 * np.arange(8)[:, None] + np.arange(8)
    dpixels = read([s2_item(tmp_path, "A", NOON, {"B02": dn}, size=8)])
    _, row, column = tile_at((ORIGIN[0] + 13 - 3, ORIGIN[1] - 17 + 7))  # snapped outward to multiples of 10 m
    got = dpixels.s2[0, row : row + 4, column : column + 4, 1]
    assert got[0].tolist() == [3009, 3010, 3011, 3012]
    assert got[:, 0].tolist() == [3009, 3017, 3025, 3033]


@pytest.mark.parametrize(
    ("when", "year", "doy"), [("2021-12-31T23:59:59Z", 2021, 365), ("2024-12-31T23:59:59.999999Z", 2024, 366)]
)
def test_c16_frames_go_by_utc_date(tmp_path, when, year, doy):
    origin, epsg = (700000.0, 5800020.0), 32660  # longitude 179.9, where the local day is another
    dpixels = read([s2_item(tmp_path, "A", when, origin=origin, epsg=epsg)], tile=tile_at(origin, epsg)[0])
    assert dpixels.window.start.year == year
    assert dpixels.s2_doy.tolist() == [doy]
    assert str(dpixels.s2_dates[0]) == when[:10]


SCALE_CASES = [
    (0, 0),
    (-1, 0),
    (np.nan, 0),
    (np.inf, 0),
    (0.0031622776, 0),
    (0.0031641, 1),
    (0.00317, 4),
    (0.01, 1999),
    (0.0178, 3001),
    (0.02, 3204),
    (0.04, 4408),
    (0.0743, 5483),
    (0.1, 6000),
    (0.2, 7204),
    (0.5, 8795),
    (1, 10000),
    (3.1622777, 12000),
    (100, 18000),
    (1e6, 32767),
]


def test_s1_scale():
    power, expected = (np.array(column) for column in zip(*SCALE_CASES, strict=True))
    assert sentinel1.scale(power.astype(np.float32)).tolist() == expected.tolist()


def test_s1_scale_through_files(tmp_path):
    power = np.array([v for v, _ in SCALE_CASES[3:]], np.float32).reshape(4, 4)
    dpixels = read([s1_item(tmp_path, "A", NOON, {"vv": power, "vh": 0.02})])
    got = radar_block(dpixels.s1_asc)[0]
    assert got[..., VV].ravel().tolist() == [e for _, e in SCALE_CASES[3:]]
    assert (got[..., VH] == 3204).all()


def test_s2p_planetary_computer_is_scaled_in_float64():
    assert sentinel1.scale(np.array([0.5188], np.float32)).tolist() == [8859]


@pytest.mark.parametrize("vv", [-32768, 0, 0.001])
def test_s3_missing_vv_keeps_the_frame(tmp_path, vv):
    dpixels = read([s1_item(tmp_path, "A", NOON, {"vv": vv, "vh": 0.02})])
    assert (radar_block(dpixels.s1_asc)[0] == [0, 3204]).all()
    assert radar_block(dpixels.s1_asc_valid[..., None]).all()


def test_s4_first_nonzero_wins_per_polarisation(tmp_path):
    vv = np.full((4, 4), 0.1)
    vv[0, :3] = (-32768, 0, 0.001)
    later = {"vv": vv, "vh": 0.02}
    earlier = {"vv": 0.2, "vh": np.where(vv == 0.1, 0.04, 0.1)}
    # the later pass comes first: within a date radar is ordered by time descending
    a = s1_item(tmp_path, "A", "2021-07-01T18:00:25Z", later)
    b = s1_item(tmp_path, "B", "2021-07-01T18:00:00Z", earlier)
    got = radar_block(read([b, a]).s1_asc)[0]
    assert got[0, :, VV].tolist() == [7204, 7204, 7204, 6000]
    assert (got[..., VH] == 3204).all()  # VH of A is complete, so VV and VH of a pixel differ in origin
    a["properties"]["datetime"] = "2021-07-01T17:00:00Z"
    got = radar_block(read([b, a]).s1_asc)[0]
    assert (got[..., VV] == 7204).all()


def test_s5_polarisations_that_give_nothing(tmp_path):
    both = s2_item(tmp_path, "O", NOON)
    hh = s1_item(tmp_path, "H", NOON, {"hh": 0.1, "hv": 0.02})
    vv = s1_item(tmp_path, "V", NOON, {"vv": 0.1})
    dpixels = read([both, hh, vv])
    assert dpixels.s1_asc.shape == (0, 512, 512, 2)
    empty_vh = s1_item(tmp_path, "E", NOON, {"vv": 0.1, "vh": -32768})
    assert (radar_block(read([empty_vh]).s1_asc)[0] == [6000, 0]).all()


@pytest.mark.parametrize(("shift", "column"), [(0, 10), (6, 9), (-4, 10), (-6, 11)])
def test_s6_radar_is_nearest(tmp_path, shift, column):
    """A source grid shifted east by `shift` metres: which of its columns the fixture's first pixel takes."""
    size = 24
    power = np.broadcast_to(10 ** (np.arange(size) / 20), (size, size)).astype(np.float32)
    origin = (ORIGIN[0] - 100 + shift, ORIGIN[1] + 100)
    item = s1_item(tmp_path, "A", NOON, {"vv": power, "vh": power}, size=size, origin=origin)
    got = radar_block(read([item]).s1_asc)[0, 0, 0, VV]
    assert got == sentinel1.scale(power)[0, column]


def test_k1_frames_are_stacked_by_date_and_an_absent_orbit_is_empty(tmp_path):
    late = s1_item(tmp_path, "L", "2021-08-01T05:00:00Z", {"vv": 0.2, "vh": -32768})
    early = s1_item(tmp_path, "E", "2021-02-01T05:00:00Z", {"vv": 0.1, "vh": 0.02})
    dpixels = read([late, early])
    assert dpixels.s1_asc.shape == (2, 512, 512, 2)
    assert dpixels.s1_asc.dtype == np.int16
    assert dpixels.s1_asc_doy.tolist() == [32, 213]
    assert radar_block(dpixels.s1_asc)[:, 0, 0].tolist() == [[6000, 3204], [7204, 0]]
    assert dpixels.s1_desc.shape == (0, 512, 512, 2)
    assert dpixels.s1_desc_doy.shape == (0,)


def closed_form(coarse: np.ndarray, tagged: bool) -> np.ndarray:
    """20 m -> 10 m in the same zone: weights 9, 3, 3, 1, neighbours outside (or 0 if tagged) dropped, half up."""
    height, width = coarse.shape
    fine = np.zeros((2 * height, 2 * width), np.int64)
    for y in range(2 * height):
        for x in range(2 * width):
            row, column = y // 2, x // 2
            dy, dx = (-1 if y % 2 == 0 else 1), (-1 if x % 2 == 0 else 1)
            total = weights = 0
            for r, c, weight in (
                (row, column, 9),
                (row + dy, column, 3),
                (row, column + dx, 3),
                (row + dy, column + dx, 1),
            ):
                if 0 <= r < height and 0 <= c < width and not (tagged and coarse[r, c] == 0):
                    total += weight * int(coarse[r, c])
                    weights += weight
            own_is_nodata = tagged and coarse[row, column] == 0
            fine[y, x] = 0 if own_is_nodata or not weights else int(np.floor(total / weights + 0.5))
    return fine


@pytest.mark.parametrize("tagged", [False, True])
def test_p1_closed_form_of_the_20_m_bands(tmp_path, tagged):
    rng = np.random.default_rng(7)
    coarse = rng.integers(1, 9000, (60, 60)) * (rng.random((60, 60)) > 0.15)
    item = s2_item(tmp_path, "A", NOON, {"B11": coarse}, size=120, nodata=0 if tagged else None)
    np.testing.assert_array_equal(block(read([item]), "B11", size=120), closed_form(coarse, tagged))


def smooth(rng: np.random.Generator, size: int, step: float) -> np.ndarray:
    """A smooth texture: waves of 100 m to 2 km, standard deviation about 600 DN."""
    y, x = np.mgrid[:size, :size] * step
    waves = np.zeros((size, size))
    for _ in range(12):
        angle, length, phase = rng.uniform(0, np.pi), rng.uniform(600, 4000), rng.uniform(0, 2 * np.pi)
        waves += np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return np.round(4000 + 600 * waves / waves.std()).astype(np.uint16)


@pytest.mark.parametrize(("epsg", "limit"), [(32630, 0), (32631, 0)])
def test_p2_reader_against_warped_vrt(tmp_path, epsg, limit):
    """No difference on the same window, in the neighbour zone either, where the warp is approximate."""
    tile = tile_at()[0]
    rng = np.random.default_rng(3)
    west, south, east, north = tile.bounds
    if epsg == 32630:
        origin = (west - 400.0, north + 400.0)
    else:
        from tessera_cli.extent.grid import from_utm, to_utm

        centre = from_utm(32630).transform((west + east) / 2, (south + north) / 2)
        x, y = to_utm(epsg).transform(*centre)
        origin = (np.floor(x / 20) * 20 - 4000, np.floor(y / 20) * 20 + 4000)
    size = 800
    bands = {"B02": smooth(rng, size, 10), "B05": smooth(rng, size // 2, 20)}
    item = s2_item(tmp_path, "A", NOON, bands, size=size, nodata=0, origin=origin, epsg=epsg)
    dpixels = read([item], tile=tile)
    mask = dpixels.s2_mask[0].astype(bool)
    assert mask.mean() > 0.9
    for index, band in ((1, "B02"), (5, "B05")):
        with (
            rasterio.open(tmp_path / "A" / f"{band}.tif") as src,
            WarpedVRT(
                src,
                crs=tile.crs,
                transform=tile.transform,
                width=512,
                height=512,
                resampling=Resampling.bilinear,
                nodata=0,
            ) as vrt,
        ):
            expected = vrt.read(1)
        difference = np.abs(dpixels.s2[0, ..., index].astype(int) - expected)[mask]
        assert difference.max() <= limit


def test_a_request_limits_what_is_defined_but_not_its_values(tmp_path):
    items = [s2_item(tmp_path, "A", NOON), s1_item(tmp_path, "R", NOON, {"vv": 0.1, "vh": 0.02})]
    tile, row, column = tile_at()
    pixels = np.zeros(tile.shape, bool)
    pixels[row + 1, column + 2] = True
    part, full = read(items, pixels=pixels), read(items)
    assert part.counts[:, pixels].tolist() == [[1], [1], [0]]
    assert part.counts[:, ~pixels].max() == 0
    np.testing.assert_array_equal(part.s2[:, pixels], full.s2[:, pixels])
    np.testing.assert_array_equal(part.s1_asc[:, pixels], full.s1_asc[:, pixels])


def test_only_scenes_that_win_a_pixel_are_read(tmp_path):
    """The bands of a cloudy scene and of one that is covered by another are never opened."""
    items = overlapping(tmp_path, "A", "B")
    cloudy = s2_item(tmp_path, "C", "2021-07-03T11:00:00Z", scl=9)
    covered = s2_item(tmp_path, "AA", NOON, scl=[[0, 4], [0, 0]])  # B precedes it and is clear there
    for item in (cloudy, covered):
        for key, asset in item["assets"].items():
            if key != "SCL":
                write_tif_broken(asset["href"])
    dpixels = read([*items, cloudy, covered])
    assert dpixels.s2.shape[0] == 1
    assert not dpixels.missing_scenes


def write_tif_broken(path):
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"not a raster")
