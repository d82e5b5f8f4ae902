"""Virtual rasters over tiles: their pixels, names and place are those of the tiles."""

from __future__ import annotations

import datetime as dt
import glob
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from tessera_cli.extent.grid import Tile
from tessera_cli.outputs.tags import window_tags
from tessera_cli.outputs.vrt import describe_vrt, product_name, vrt_files
from tests.helpers.outputs import GAP, TILE, WINDOW, around, arrays, tags, values, write


def make_vrt(
    folder: Path, tiles: list[Tile], bounds: tuple[float, ...] | None = None, dims: int = 3, dtype: Any = "int8"
) -> tuple[Path, np.ndarray]:
    """Files of some tiles and their VRT; its path and what the box around the tiles should hold, (R, H, W)."""
    west, north = min(tile.column for tile in tiles), max(tile.row for tile in tiles)
    height = 512 * (north - min(tile.row for tile in tiles) + 1)
    width = 512 * (max(tile.column for tile in tiles) - west + 1)
    expected = np.full((dims, height, width), np.nan, np.float32)
    for seed, tile in enumerate(tiles):
        requested = np.random.default_rng(seed).random((512, 512)) < 0.8
        made = arrays(seed, dims, requested)
        write(folder, tile, dtype=dtype, **made)
        row, column = (north - tile.row) * 512, (tile.column - west) * 512
        expected[:, row : row + 512, column : column + 512] = values(made)
    written = []
    for name, xml in vrt_files(tiles, WINDOW, dims=dims, dtype=dtype, tags=tags(dims), bounds=bounds or around(tiles)):
        (folder / name).write_text(xml)
        written.append(name)
    assert written[-1] == product_name(tiles[0], WINDOW) == "utm31n_2023.vrt"
    return folder / written[-1], expected


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrt_of_one_tile(tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str) -> None:
    west, _, _, north = TILE.bounds
    path, expected = make_vrt(
        tmp_path, [TILE], (west + 503, north - 4001, west + 2500, north - 100.0000001), dims=128, dtype=dtype
    )
    assert path.name == "utm31n_2023.vrt"
    assert ("mul" in path.read_text()) == (dtype == "int8")
    with rasterio.open(path) as dataset:
        assert (dataset.count, set(dataset.dtypes)) == (128, {"float32"})
        assert all(np.isnan(nodata) for nodata in dataset.nodatavals)
        assert dataset.descriptions == tuple(f"Tessera_Band_{i}" for i in range(128))
        assert dataset.crs.to_epsg() == 32631
        assert tuple(dataset.bounds) == (west + 500, north - 4010, west + 2500, north - 100)
        assert dataset.tags() == tags(dims=128) | window_tags(WINDOW) | {"AREA_OR_POINT": "Area"}
        np.testing.assert_array_equal(dataset.read(), expected[:, 10:401, 50:250])
    assert not caplog.records


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_what_a_vrt_says_of_itself_is_what_gdal_says_of_it(tmp_path: Path, dtype: str) -> None:
    path, _ = make_vrt(tmp_path, [TILE], dims=3, dtype=dtype)
    found = describe_vrt(path.read_text())
    with rasterio.open(path) as dataset:
        assert (found.crs, found.transform, found.shape) == (str(dataset.crs), dataset.transform, dataset.shape)
        assert (found.bounds, found.tags) == (tuple(dataset.bounds), dataset.tags())
        assert (found.bands, found.dtype, found.nodata) == (3, dataset.dtypes[0], str(dataset.nodata))


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><VRTDataset>&b;</VRTDataset>'


@pytest.mark.parametrize("xml", ["", "<", "<a/>", "<VRTDataset/>", "x", ENTITIES])
def test_xml_that_is_no_vrt_of_ours(xml: str) -> None:
    with pytest.raises(ValueError, match=r"no VRT of ours|types of its own"):
        describe_vrt(xml)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrt_of_three_tiles_and_a_gap(tmp_path: Path, monkeypatch: Any, dtype: str) -> None:
    (tmp_path / "made").mkdir()
    path, expected = make_vrt(tmp_path / "made", GAP, dtype=dtype)
    path = (tmp_path / "made").rename(tmp_path / 'moved & "quoted"') / path.name
    monkeypatch.chdir("/")
    with rasterio.open(path) as dataset:
        assert dataset.shape == (1024, 1024)
        np.testing.assert_array_equal(dataset.read(), expected)
        for part in ((500, 20, 500, 20), (0, 1, 0, 1024), (700, 100, 100, 300), (511, 2, 511, 2)):
            row, height, column, width = part
            np.testing.assert_array_equal(
                dataset.read(window=PixelWindow(column, row, width, height)),
                expected[:, row : row + height, column : column + width],
            )
        assert np.isnan(dataset.read(1, window=PixelWindow(0, 512, 512, 512))).all()  # between the tiles
        np.testing.assert_array_equal(dataset.read(2, masked=True).mask, np.isnan(expected[1]))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrt_bounds_beyond_and_within_tiles(tmp_path: Path, dtype: str) -> None:
    west, _, _, north = TILE.bounds
    path, expected = make_vrt(tmp_path, GAP[:2], (west - 1000, north - 200, west + 5200, north + 300), dtype=dtype)
    with rasterio.open(path) as dataset:
        assert dataset.shape == (50, 620)
        found = dataset.read()
    assert np.isnan(found[:, :30]).all()
    assert np.isnan(found[:, :, :100]).all()
    np.testing.assert_array_equal(found[:, 30:, 100:], expected[:, :20, :520])


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrt_through_a_warp_and_at_low_resolution(tmp_path: Path, dtype: str) -> None:
    path, expected = make_vrt(tmp_path, GAP, dtype=dtype)
    with rasterio.open(path) as dataset:
        same = WarpedVRT(dataset, crs=dataset.crs, transform=dataset.transform, width=1024, height=1024)
        np.testing.assert_allclose(same.read(), expected, rtol=2.0**-23)  # older GDAL warps in another precision
        with WarpedVRT(dataset, crs="EPSG:3857") as warped:
            found = warped.read(1)
        small = dataset.read(1, out_shape=(256, 256))
    nearest = expected[0][np.isfinite(expected[0])]
    gaps = [np.abs(nearest - value).min() for value in np.unique(found[np.isfinite(found)])[::997]]
    assert max(gaps) < 1e-5
    assert 0.3 < np.isnan(found).mean() < 0.6
    assert np.isin(small[~np.isnan(small)], expected).all()
    assert np.isnan(small[128:, :128]).all()


def test_vrts_of_sixty_four_tiles_open_at_once(tmp_path: Path) -> None:
    """No file of a tile is touched before pixels are read, so none need exist."""
    tiles = [Tile(32631, 112 + i % 8, 1098 + i // 8) for i in range(64)]
    files = dict(vrt_files(tiles, WINDOW, dims=128, dtype="int8", tags=tags(dims=128), bounds=around(tiles)))
    assert [len(xml) < most for xml, most in zip(files.values(), (4_000_000, 40_000, 200_000), strict=True)] == [
        True
    ] * 3
    for name, bands in zip(files, (128, 1, 128), strict=True):
        (tmp_path / name).write_text(files[name])
        start = dt.datetime.now()
        with rasterio.open(tmp_path / name) as dataset:
            assert (dataset.count, dataset.shape) == (bands, (4096, 4096))
        assert (dt.datetime.now() - start).total_seconds() < 1


def test_vrt_takes_one_zone() -> None:
    own: Any = {"dims": 1, "dtype": "int8", "tags": {}, "bounds": TILE.bounds}
    with pytest.raises(ValueError, match="one zone"):
        list(vrt_files([TILE, Tile(32632, 112, 1098)], WINDOW, **own))
    with pytest.raises(ValueError, match="at least one"):
        list(vrt_files([], WINDOW, **own))


def test_every_code_passes_the_table(tmp_path: Path) -> None:
    """All 256 of them, -128 being that of the gaps."""
    made = arrays(0, 2, np.ones((512, 512), bool))
    made["scales"][:] = 0.1
    made["codes"][0] = np.arange(512 * 512).reshape(512, 512) % 255 - 127
    made["codes"][1] = -made["codes"][0]
    write(tmp_path, **made)
    for name, xml in vrt_files([TILE], WINDOW, dims=2, dtype="int8", tags={}, bounds=TILE.bounds):
        (tmp_path / name).write_text(xml)
    with rasterio.open(tmp_path / "utm31n_2023_codes.vrt") as dataset:
        assert set(dataset.dtypes) == {"int16"}
        assert set(dataset.nodatavals) == {-128}
        np.testing.assert_array_equal(dataset.read(), made["codes"])


def test_what_the_product_is_made_of(tmp_path: Path) -> None:
    """Codes and scales have mosaics of their own, in the same frame."""
    west, _, _, north = TILE.bounds
    path, expected = make_vrt(tmp_path, GAP, (west + 500, north - 7000, west + 9000, north - 100))
    with (
        rasterio.open(path) as product,
        rasterio.open(path.with_name("utm31n_2023_codes.vrt")) as codes,
        rasterio.open(path.with_name("utm31n_2023_scales.vrt")) as scales,
    ):
        assert codes.bounds == scales.bounds == product.bounds
        assert codes.crs == scales.crs == product.crs
        assert (codes.descriptions, scales.descriptions) == (product.descriptions, ("scale",))
        assert codes.tags()["TESSERA_DEQUANTIZE"] == "value = code * scale (band 1 of utm31n_2023_scales.vrt)"
        codes_there, scales_there = codes.read(), scales.read(1)
        assert (codes_there[:, np.isnan(scales_there)] == -128).all()
        assert (codes_there[:, ~np.isnan(scales_there)] != -128).all()
        np.testing.assert_array_equal(codes_there * scales_there, expected[:, 10:700, 50:900])


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrts_of_blocks_of_tiles_show_the_same(tmp_path: Path, monkeypatch: Any, dtype: str) -> None:
    """More tiles than one VRT names, in blocks of 2 x 2 at multiples of two: these lie in three of them."""
    tiles = [*GAP, Tile(32631, 114, 1098)]
    west, _, _, north = TILE.bounds
    monkeypatch.setattr("tessera_cli.outputs.vrt.files.MAX_TILES", 3)
    monkeypatch.setattr("tessera_cli.outputs.vrt.files.SIDE", 2)
    path, expected = make_vrt(tmp_path, tiles, (west + 500, north - 7000, west + 12000, north - 100), dtype=dtype)
    parts = ["_codes", "_scales"] if dtype == "int8" else [""]
    ends = ["", "_c0112_r1096", "_c0112_r1098", "_c0114_r1098"]
    names = {f"utm31n_2023{part}{end}.vrt" for part in parts for end in ends} | {path.name}
    assert {each.name for each in tmp_path.glob("*.vrt")} == names
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), expected[:, 10:700, 50:1200])
        np.testing.assert_array_equal(
            dataset.read(window=PixelWindow(900, 400, 200, 200)), expected[:, 410:610, 950:1150]
        )


def test_a_vrt_of_codes_is_never_averaged(tmp_path: Path) -> None:
    """The mean of codes times the mean of scales is no embedding; every pixel that is shown is one of the tiles'."""
    path, expected = make_vrt(tmp_path, GAP)
    for resampling in (Resampling.nearest, Resampling.average, Resampling.bilinear, Resampling.cubic):
        with rasterio.open(path) as dataset:
            found = dataset.read(out_shape=(3, 256, 256), resampling=resampling)
        np.testing.assert_array_equal(found, expected[:, 2::4, 2::4])


NEWER_GDAL = """
import ctypes as c, sys
import numpy as np, pyogrio
gdal = c.CDLL(sys.argv[1])
gdal.GDALVersionInfo.restype = c.c_char_p
if int(gdal.GDALVersionInfo(b"VERSION_NUM")) < 3120000:
    sys.exit(77)
gdal.GDALAllRegister()
gdal.GDALOpen.restype = gdal.GDALGetRasterBand.restype = c.c_void_p
gdal.GDALGetRasterBand.argtypes = [c.c_void_p, c.c_int]
gdal.GDALRasterIO.argtypes = [c.c_void_p] + [c.c_int] * 5 + [c.c_void_p] + [c.c_int] * 5
band = gdal.GDALGetRasterBand(gdal.GDALOpen(sys.argv[2].encode(), 0), 2)
found = np.zeros((1024, 1024), np.float32)
assert gdal.GDALRasterIO(band, 0, 0, 0, 1024, 1024, found.ctypes.data, 1024, 1024, 6, 0, 0) == 0
np.save(sys.argv[3], found)
"""


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_vrt_in_newer_gdal(tmp_path: Path, dtype: str) -> None:
    """GDAL 3.12 leaves nodata factors out of a product unless told otherwise; pyogrio brings such a GDAL along."""
    spec = importlib.util.find_spec("pyogrio")
    assert spec
    assert spec.origin
    libraries = glob.glob(str(Path(spec.origin).parents[1] / "pyogrio.libs" / "libgdal*"))  # noqa: PTH207
    if not libraries:
        pytest.skip("pyogrio has no GDAL of its own here")
    path, expected = make_vrt(tmp_path, GAP, dtype=dtype)
    command = [sys.executable, "-c", NEWER_GDAL, libraries[0], path, tmp_path / "found.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("pyogrio's GDAL is older than 3.12")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected[1])
