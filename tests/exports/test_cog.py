"""Target cog: rasters hold what the tiles' files hold, at the right places."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import rasterio.warp
from pyproj import Transformer
from rio_cogeo import cog_validate

import tessera_cli
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tests.exports.folders import EAST, NEXT, REQUESTED, WEST, YEAR, by_hand, put
from tests.helpers.outputs import PLACED, foreign, values

NAMES = tuple(f"Tessera_Band_{i}" for i in range(4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tiles side by side; of the next year the western alone."""
    folder = tmp_path_factory.mktemp("cog") / "f"
    for seed, (tile, window) in enumerate(((WEST, YEAR), (EAST, YEAR), (WEST, NEXT))):
        put(folder, tile, window, seed)
    return folder


def asked(west, east=None):
    """Both tiles side by side, cut to the rows and columns that were asked for; no tile: NaN, or -128."""
    gap = np.full_like(west, -128 if west.dtype == np.int8 else np.nan)
    return np.concatenate([west, gap if east is None else east], -1)[..., 100:300, 30:1012]


def truth(folder, window):
    codes, scales = by_hand(folder, WEST, window)
    if window == NEXT:
        return asked(codes), asked(scales)
    others = by_hand(folder, EAST, window)
    return asked(codes, others[0]), asked(scales, others[1])


def test_values_of_a_zone_and_window(folder, tmp_path):
    made = tessera_cli.export(folder, to="cog", out=tmp_path / "a")
    assert [path.name for path in made.files] == ["utm31n_2023.tif", "utm31n_2024.tif"]
    for window, path in zip((YEAR, NEXT), made.files, strict=True):
        codes, scales = truth(folder, window)
        with rasterio.open(path) as src:
            assert np.array_equal(src.read(), codes.astype(np.float32) * scales, equal_nan=True)
            assert (src.crs.to_epsg(), src.descriptions, src.dtypes[0]) == (32631, NAMES, "float32")
            assert np.isnan(src.nodata)
            assert src.transform.to_gdal() == (WEST.bounds[0] + 300, 10, 0, WEST.bounds[3] - 1000, 0, -10)
            assert src.tags()["TESSERA_YEAR"] == window.name
            assert src.tags()["TESSERA_DATASET_VARIANT"] == "local-mpc"


def test_overviews_of_values_are_means_of_what_is_there(folder, tmp_path):
    path = tessera_cli.export(folder, to="cog", out=tmp_path / "a", window=2023).files[0]
    codes, scales = truth(folder, YEAR)
    full = codes.astype(np.float64) * scales
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        mean = np.nanmean(full.reshape(4, 100, 2, 491, 2), axis=(2, 4))
    with rasterio.open(path, overview_level=0) as src:
        assert np.allclose(src.read(), mean, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_codes_and_scales_and_their_overviews_are_those_of_the_same_pixels(folder, tmp_path):
    made = tessera_cli.export(folder, to="cog", out=tmp_path / "a", dtype="int8", window="2023")
    assert [path.name for path in made.files] == ["utm31n_2023_codes.tif", "utm31n_2023_scales.tif"]
    codes, scales = truth(folder, YEAR)
    with rasterio.open(made.files[0]) as src:
        assert np.array_equal(src.read(), codes)
        assert (src.nodata, src.descriptions, src.dtypes[0]) == (-128, NAMES, "int8")
        assert src.tags()["TESSERA_DEQUANTIZE"] == "value = code * scale (band 1 of utm31n_2023_scales.tif)"
        assert not {"STATISTICS_MEAN", "STATISTICS_MAXIMUM"} & set(src.tags(1))
        assert src.overviews(1) == [2, 4]
    with rasterio.open(made.files[1]) as src:
        assert np.array_equal(src.read(1), scales, equal_nan=True)
    found, number, count = np.unique(scales[np.isfinite(scales)], return_index=True, return_counts=True)
    number = np.flatnonzero(np.isfinite(scales))[number]
    place = dict(zip(found[count == 1].tolist(), number[count == 1].tolist(), strict=True))
    for level in (0, 1):
        with rasterio.open(made.files[0], overview_level=level) as src:
            small = src.read()
        with rasterio.open(made.files[1], overview_level=level) as src:
            small_scales = src.read(1)
        known = np.isin(small_scales, list(place))
        assert known.sum() > 40_000 >> 2 * level
        numbers = [place[value] for value in small_scales[known].tolist()]
        assert np.array_equal(small[:, known], codes.reshape(4, -1)[:, numbers])
        assert np.array_equal((small == -128).all(axis=0), np.isnan(small_scales))


@pytest.mark.parametrize("options", [{}, {"dtype": "int8"}, {"crs": 3035}, {"compress": "zstd"}, {"compress": "none"}])
def test_they_are_cogs_interleaved_by_band(folder, tmp_path, options):
    for path in tessera_cli.export(folder, to="cog", out=tmp_path / "a", **options).files:
        valid, errors, warnings = cog_validate(path, strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(path) as src:
            assert src.interleaving == (rasterio.enums.Interleaving.band if src.count > 1 else src.interleaving)
            wanted = {"none": None, "zstd": "zstd"}.get(options.get("compress"), "deflate")
            assert src.compression is (wanted and rasterio.enums.Compression[wanted])


def source_of(crs, epsg, x, y, tile):
    """Row and column, as fractions, of places of another system in a tile: (0.5, 0.5) is the first pixel's centre."""
    east, north = Transformer.from_crs(crs, epsg, always_xy=True).transform(x, y)
    return (tile.bounds[3] - north) / 10, (east - tile.bounds[0]) / 10


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:3857"])
def test_nearest_takes_the_pixel_under_each_centre(folder, tmp_path, crs):
    path = tessera_cli.export(folder, to="cog", out=tmp_path / "a", crs=crs, window=2023).files[0]
    assert path.name == f"epsg{crs[5:]}_2023.tif"
    codes, scales = by_hand(folder, WEST)
    full = codes.astype(np.float32) * scales
    with rasterio.open(path) as src:
        assert src.crs == rasterio.CRS.from_user_input(crs)
        got, transform = src.read(), src.transform
    step = {"EPSG:4326": np.degrees(10 / 6_371_007)}.get(crs, 10)
    assert transform.a == pytest.approx(step)
    rows, columns = np.indices(got.shape[1:])
    x, y = transform.c + transform.a * (columns + 0.5), transform.f + transform.e * (rows + 0.5)
    row, column = source_of(crs, 32631, x, y, WEST)
    inside = (row > 0) & (row < 512) & (column > 0) & (column < 512)
    # what lies within a millionth of a pixel of a border may fall to either side
    sure = inside & (np.abs(row - np.round(row)) > 1e-6) & (np.abs(column - np.round(column)) > 1e-6)
    assert sure.sum() > 0.99 * inside.sum() > 100_000
    expected = full[:, row[sure].astype(int), column[sure].astype(int)]
    assert np.isfinite(expected).sum() > 100_000
    assert np.array_equal(got[:, sure], expected, equal_nan=True)


def test_bilinear_mixes_the_four_around_as_far_as_they_are_there(folder, tmp_path):
    path = tessera_cli.export(
        folder, to="cog", out=tmp_path / "a", crs="EPSG:3035", window=2024, resampling="bilinear"
    ).files[0]
    codes, scales = by_hand(folder, WEST, NEXT)
    full = codes.astype(np.float64) * scales
    with rasterio.open(path) as src:
        got, transform = src.read(), src.transform
    rng = np.random.default_rng(0)
    places = np.stack([rng.integers(0, size, 3000) for size in got.shape[1:]])
    x, y = transform.c + 10 * (places[1] + 0.5), transform.f - 10 * (places[0] + 0.5)
    seen = 0
    for row, column, r, c in zip(*places, *source_of("EPSG:3035", 32631, x, y, WEST), strict=True):
        r, c = r - 0.5, c - 0.5
        if not (0 <= r < 511 and 0 <= c < 511):
            continue
        r0, c0 = int(r), int(c)
        block = full[:, r0 : r0 + 2, c0 : c0 + 2]
        weights = np.outer([1 - (r - r0), r - r0], [1 - (c - c0), c - c0])
        there = ~np.isnan(block[0])
        if np.isnan(full[0, int(r + 0.5), int(c + 0.5)]):
            assert np.isnan(got[:, row, column]).all()
            continue
        expected = (block * weights)[:, there].sum(1) / weights[there].sum()
        assert np.allclose(got[:, row, column], expected, rtol=1e-4, atol=1e-4)
        seen += 1
    assert seen > 300


def test_nearest_is_what_gdal_gives_but_near_the_borders_of_pixels(folder, tmp_path):
    """GDAL's bilinear is no measure: where grids are rotated, it takes a wider kernel."""
    codes, scales = by_hand(folder, WEST, NEXT)
    path = tessera_cli.export(folder, to="cog", out=tmp_path / "a", crs=3035, window=2024).files[0]
    with rasterio.open(path) as src:
        got, profile = src.read(), src.profile
    there = np.full_like(got, np.nan)
    rasterio.warp.reproject(
        codes.astype(np.float32) * scales,
        there,
        src_transform=WEST.transform,
        src_crs=WEST.crs,
        src_nodata=np.nan,
        dst_transform=profile["transform"],
        dst_crs=profile["crs"],
        dst_nodata=np.nan,
    )
    assert np.isfinite(got[0]).sum() > 50_000
    assert ((got == there) | (np.isnan(got) & np.isnan(there))).all(axis=0).mean() > 0.999


def test_zones_are_merged_and_where_both_have_a_pixel_the_first_wins(tmp_path):
    """Two tiles at six degrees east, one of each zone, that overlap."""
    first = Tile(32631, 138, 1100)
    lon, lat = Transformer.from_crs(32631, 4326, always_xy=True).transform(
        first.bounds[0] + 2560, first.bounds[1] + 2560
    )
    east, north = Transformer.from_crs(4326, 32632, always_xy=True).transform(lon, lat)
    second = Tile(32632, int(east // 5120), int(north // 5120))
    folder = tmp_path / "f"
    for seed, tile in enumerate((first, second)):
        put(folder, tile, seed=seed, requested=np.ones((512, 512), bool))
    path = tessera_cli.export(folder, to="cog", out=tmp_path / "a", crs="EPSG:3035").files[0]
    with rasterio.open(path) as src:
        got, transform = src.read(), src.transform
    rows, columns = np.indices(got.shape[1:])
    x, y = transform.c + 10 * (columns + 0.5), transform.f - 10 * (rows + 0.5)
    expected, by_zone, unsure = np.full_like(got, np.nan), [], np.zeros(got.shape[1:], bool)
    for tile in (second, first):  # the first one over it
        codes, scales = by_hand(folder, tile)
        row, column = source_of("EPSG:3035", tile.epsg, x, y, tile)
        unsure |= (np.abs(row - np.round(row)) < 1e-6) | (np.abs(column - np.round(column)) < 1e-6)
        inside = (row >= 0) & (row < 512) & (column >= 0) & (column < 512)
        taken = np.full_like(got, np.nan)
        taken[:, inside] = (codes.astype(np.float32) * scales)[:, row[inside].astype(int), column[inside].astype(int)]
        by_zone.append(~np.isnan(taken[0]))
        expected = np.where(np.isnan(taken), expected, taken)
    assert (by_zone[0] & by_zone[1]).sum() > 1000
    assert (by_zone[0] ^ by_zone[1]).sum() > 1000
    assert np.array_equal(got[:, ~unsure], expected[:, ~unsure], equal_nan=True)
    apart = tessera_cli.export(folder, to="cog", out=tmp_path / "b").files
    assert [path.name for path in apart] == ["utm31n_2023.tif", "utm32n_2023.tif"]


def test_a_pixel_of_another_size(folder, tmp_path):
    path = tessera_cli.export(folder, to="cog", out=tmp_path / "a", crs=3035, resolution=25.0, window=2024).files[0]
    with rasterio.open(path) as src:
        assert (src.transform.a, src.transform.e) == (25, -25)
        assert src.transform.c % 25 == src.transform.f % 25 == 0
        assert 0.1 < np.isfinite(src.read(1)).sum() / REQUESTED.sum() / (10 / 25) ** 2 < 1


@pytest.mark.parametrize(("format", "dtype"), [("npy", "int8"), ("npy", "float32"), ("geotiff", "float32")])
def test_folders_of_any_format(tmp_path, format, dtype):
    made = put(tmp_path / "f", WEST, dtype=dtype, format=format)
    path = tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "a").files[0]
    with rasterio.open(path) as src:
        assert np.array_equal(src.read(), values(made)[:, 100:300, 30:500], equal_nan=True)


def test_values_become_codes_by_the_official_formula(tmp_path):
    made = put(tmp_path / "f", WEST, dtype="float32")
    codes, scales = tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "a", dtype="int8").files
    full = values(made)[:, 100:300, 30:500]
    with rasterio.open(codes) as src, rasterio.open(scales) as other:
        got, scale = src.read(), other.read(1)
    there = ~np.isnan(full[0])
    expected = np.abs(full[:, there]).max(axis=0) / np.float32(127)
    assert np.array_equal(scale[there], expected)
    assert np.isnan(scale[~there]).all()
    assert (got[:, ~there] == -128).all()
    assert np.array_equal(got[:, there], np.round(full[:, there] / expected))


def test_tiles_off_the_grid_keep_their_place(tmp_path):
    made = foreign(PLACED)
    put(tmp_path / "f", PLACED, dims=5, requested=made["requested"])
    path = tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "a").files[0]
    with rasterio.open(path) as src:
        assert (src.crs.to_epsg(), src.shape) == (32733, PLACED.shape)
        assert src.transform.to_gdal() == PLACED.transform.to_gdal()


def test_nothing_is_written_that_the_data_do_not_say(folder, tmp_path):
    """Two runs give the same bytes, and blocks without embeddings take no space."""
    for name in "ab":
        tessera_cli.export(folder, to="cog", out=tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    far = Tile(32631, 112, 1118)
    put(tmp_path / "f", WEST)
    put(tmp_path / "f", far, seed=1)
    made = tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "c")
    assert made.bytes < 2 * 4 * 4 * REQUESTED.sum() * 1.5
    about = json.loads((tmp_path / "c" / "export.json").read_text())
    assert (about["to"], about["windows"], about["identity"]["model"]) == ("cog", ["2023"], "v2-medium")


def test_the_antimeridian_is_no_place_for_degrees(tmp_path):
    for seed, (epsg, lon) in enumerate(((32660, 179.9), (32601, -179.9))):
        east, north = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, -17.0)
        put(tmp_path / "f", Tile(epsg + 100, int(east // 5120), int((north + 1e7) // 5120)), seed=seed)
    for crs in (4326, 3857):  # Mercator would be a raster of 4 million columns
        with pytest.raises(UsageError, match="both sides"):
            tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "a", crs=crs)
    path = tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "a", crs=3832).files[0]
    with rasterio.open(path) as src:
        assert src.width < 4000
        assert np.isfinite(src.read(1)).sum() > 2 * 0.85 * REQUESTED.sum()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"dtype": "int8", "crs": 3035}, "cannot be reprojected"),
        ({"crs": "EPSG:999999"}, "no coordinate system"),
        ({"crs": 3035, "resolution": -1.0}, "no size of a pixel"),
        ({"crs": 3035, "resolution": 0.0}, "no size of a pixel"),
        ({"crs": 3035, "resolution": float("nan")}, "no size of a pixel"),
        ({"crs": 3035, "resolution": 1e-4}, "too large"),
        ({"resolution": 5.0}, "belong to --crs"),
        ({"resampling": "bilinear"}, "belong to --crs"),
        ({"resampling": "cubic", "crs": 3035}, "cubic"),
        ({"window": 2019}, "no embeddings of 2019"),
    ],
)
def test_settings_that_do_not_go_together(folder, tmp_path, options, what):
    with pytest.raises(UsageError, match=what):
        tessera_cli.export(folder, to="cog", out=tmp_path / "a", **options)
    assert not list(tmp_path.iterdir())
