"""One virtual raster per zone and window, and the folder that says what is in it."""

from __future__ import annotations

import datetime as dt
import glob
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from tessera_cli import files as atomic
from tessera_cli.errors import IdentityError, TileError
from tessera_cli.extent.grid import AnyTile, ForeignTile, Tile, TileRequest, pack_mask, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs import formats, vrt
from tessera_cli.outputs.layers import vrt_name
from tessera_cli.outputs.tags import window_tags
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.mosaic import write_mosaics
from tessera_cli.runs.results import TileResult
from tests.helpers.outputs import (
    NAME,
    NOWHERE,
    PLACED,
    TILE,
    WINDOW,
    arrays,
    encoded,
    foreign,
    identity,
    record,
    tags,
    values,
    write,
    write_record,
)

# --- the virtual raster -----------------------------------------------------------------------------------------------

GAP = [Tile(32631, 112, 1098), Tile(32631, 113, 1098), Tile(32631, 113, 1097)]  # the south-western one is missing


def around(tiles: list[Tile]) -> vrt.Bounds:
    west, south, east, north = zip(*(tile.bounds for tile in tiles), strict=True)
    return (min(west), min(south), max(east), max(north))


def make_vrt(
    folder: Path, tiles: list[Tile], bounds: vrt.Bounds | None = None, dims: int = 3, dtype: Any = "int8"
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
    path = folder / vrt_name(tiles[0], WINDOW)
    bounds = bounds or around(tiles)
    xml = vrt.embedding_vrt(tiles, WINDOW, dims=dims, dtype=dtype, tags=tags(dims), bounds=bounds)
    atomic.write_bytes(path, xml.encode())
    return path, expected


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
    found = vrt.describe_vrt(path.read_text())
    with rasterio.open(path) as dataset:
        assert (found.crs, found.transform, found.shape) == (str(dataset.crs), dataset.transform, dataset.shape)
        assert (found.bounds, found.tags) == (tuple(dataset.bounds), dataset.tags())
        assert (found.bands, found.dtype, found.nodata) == (3, dataset.dtypes[0], str(dataset.nodata))


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><VRTDataset>&b;</VRTDataset>'


@pytest.mark.parametrize("xml", ["", "<", "<a/>", "<VRTDataset/>", "x", ENTITIES])
def test_xml_that_is_no_vrt_of_ours(xml: str) -> None:
    with pytest.raises(ValueError, match=r"no VRT of ours|types of its own"):
        vrt.describe_vrt(xml)


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


def test_vrt_of_sixteen_tiles_opens_at_once() -> None:
    """No file is touched before pixels are read, so none need exist."""
    tiles = [Tile(32631, 112 + i % 4, 1098 + i // 4) for i in range(16)]
    xml = vrt.embedding_vrt(tiles, WINDOW, dims=128, dtype="int8", tags=tags(dims=128), bounds=around(tiles))
    assert len(xml) < 2_000_000
    start = dt.datetime.now()
    with rasterio.open(xml) as dataset:
        assert (dataset.count, dataset.shape) == (128, (2048, 2048))
    assert (dt.datetime.now() - start).total_seconds() < 1


def test_vrt_takes_one_zone() -> None:
    with pytest.raises(ValueError, match="one zone"):
        vrt.embedding_vrt([TILE, Tile(32632, 112, 1098)], WINDOW, dims=1, dtype="int8", tags={}, bounds=TILE.bounds)
    with pytest.raises(ValueError, match="at least one"):
        vrt.embedding_vrt([], WINDOW, dims=1, dtype="int8", tags={}, bounds=TILE.bounds)


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


# --- mosaics of a folder ----------------------------------------------------------------------------------------------


def folder_of(path: Path, tiles: list[Tile], *runs: dict[str, Any], dtype: str = "int8") -> TileFolder:
    """An output folder with finished tiles, and with runs that asked for what is said."""
    folder = TileFolder(path, identity(3, dtype))
    for number, run in enumerate(runs):
        folder.start_run(f"{number}", run, None)
    for seed, tile in enumerate(tiles):
        made = arrays(seed, 3)
        assets = formats.write(path, encoded(made, tile, dtype))
        pixels = int((~np.isnan(made["scales"])).sum())
        write_record(folder, record(tile=tile, identity=folder.identity, assets=assets, pixels=pixels))
    return folder


def asks(tiles: list[Tile], window: Window = WINDOW, **more: Any) -> dict[str, Any]:
    return {"names": [tile_name(tile, window) for tile in tiles], **more}


def mosaics(folder: TileFolder, *windows: Window, **more: Any) -> list[str]:
    return [path.name for path in write_mosaics(folder, windows or [WINDOW], **more)]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_mosaic_shows_what_all_runs_asked_for(tmp_path: Path, dtype: str) -> None:
    west, _, _, north = TILE.bounds
    folder = folder_of(
        tmp_path,
        GAP,
        asks(GAP[:2], areas={"32631": [west + 3000, north - 300, west + 6000, north - 100]}),
        asks(GAP[:1], areas={"32631": [west + 2000, north - 700, west + 2500, north - 690], "32632": [0, 0, 1, 1]}),
        {"names": [tile_name(GAP[2], Window.from_name("2022")), "field"]},
        dtype=dtype,
    )
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    with rasterio.open(tmp_path / "utm31n_2023.vrt") as dataset:
        assert tuple(dataset.bounds) == (west + 2000, north - 700, west + 6000, north - 100)
        found = dataset.read()
    both = np.concatenate([values(arrays(0, 3)), values(arrays(1, 3))], axis=2)
    np.testing.assert_array_equal(found, both[:, 10:70, 200:600])
    assert mosaics(folder, Window.from_name("2022")) == []  # its only tile is not done


def test_a_mosaic_of_tiles_that_were_asked_for_as_they_are(tmp_path: Path) -> None:
    """Stored d-pixels have no AOI."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    with rasterio.open(tmp_path / "utm31n_2023.vrt") as dataset:
        assert tuple(dataset.bounds) == around(GAP)


def test_only_finished_tiles_are_in_a_mosaic(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, GAP[:2], asks(GAP))
    mosaics(folder)
    text = (tmp_path / "utm31n_2023.vrt").read_text()
    assert [tile.id in text for tile in GAP] == [True, True, False]
    folder.item_path(tile_name(GAP[0], WINDOW)).unlink()
    mosaics(folder)
    assert GAP[0].id not in (tmp_path / "utm31n_2023.vrt").read_text()
    mosaics(folder, known=[tile_name(GAP[0], WINDOW)])  # the caller knows better
    assert (tmp_path / "utm31n_2023.vrt").read_text() == text
    folder.item_path(tile_name(GAP[0], WINDOW)).unlink(missing_ok=True)
    folder.item_path(tile_name(GAP[1], WINDOW)).unlink()
    assert mosaics(folder) == []
    assert not (tmp_path / "utm31n_2023.vrt").exists()


def test_pyramids_of_a_mosaic_go_when_a_tile_is_replaced(tmp_path: Path) -> None:
    """The VRT itself stays as it is: it only names the tiles."""
    folder = folder_of(tmp_path, GAP[:2], asks(GAP[:2]))
    mosaics(folder)
    path, pyramids = tmp_path / "utm31n_2023.vrt", tmp_path / "utm31n_2023.vrt.ovr"
    text = path.read_bytes()
    pyramids.touch()
    mosaics(folder)
    assert pyramids.exists()
    os.utime(tmp_path / f"{tile_name(GAP[1], WINDOW)}_emb.tif", ns=(0, pyramids.stat().st_mtime_ns + 1))
    mosaics(folder)
    assert not pyramids.exists()
    assert path.read_bytes() == text


def test_an_official_tile_is_in_no_mosaic(tmp_path: Path) -> None:
    """Even if it is called as a tile of the grid is."""
    folder = folder_of(tmp_path, [], asks([TILE]))
    made = foreign(PLACED, dims=3)
    tile = replace(PLACED, id=NAME)
    assets = formats.write(tmp_path, encoded(made, tile))
    own = record(tile=tile, window=None, identity=folder.identity, assets=assets, requested=made["requested"])
    write_record(folder, own)
    assert folder.record(NAME) is not None
    assert mosaics(folder) == []


def test_arrays_have_no_mosaic(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, GAP[:1], asks(GAP[:1]))
    assert mosaics(replace(folder, identity=identity(3, format="npy"))) == []


def test_a_mosaic_of_too_much_is_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    folder = folder_of(tmp_path, GAP, asks(GAP))
    monkeypatch.setattr("tessera_cli.runs.mosaic.MAX_SOURCES", 3 * 3 * 2 - 1)
    assert mosaics(folder) == []
    assert "utm31n_2023.vrt is not written: 3 tiles are too many for one VRT" in caplog.text
    monkeypatch.setattr("tessera_cli.runs.mosaic.MAX_SOURCES", 3 * 3 * 2)
    assert mosaics(folder) == ["utm31n_2023.vrt"]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_another_identity_is_refused_by_name(tmp_path: Path) -> None:
    ours = identity(model_config={"sizes": (1, 2)})
    TileFolder(tmp_path / "new", ours).check_identity()
    folder = TileFolder(tmp_path, ours)
    folder.start_run("a", {"names": []}, None)
    folder.check_identity()
    with pytest.raises(IdentityError, match="dtype is 'int8' there and 'float32' here; format is 'geotiff' there"):
        TileFolder(tmp_path, ours | {"dtype": "float32", "format": "npy"}).check_identity()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "runs"]  # no list of scenes


@pytest.mark.parametrize("tile", [TILE, PLACED, NOWHERE], ids=["grid", "placed", "nowhere"])
def test_a_tile_is_finished_for_what_it_covers(tmp_path: Path, tile: AnyTile) -> None:
    made = arrays(0) if tile is TILE else foreign(tile)
    own = identity(len(made["codes"]), format="npy")
    folder = TileFolder(tmp_path, own)
    ready = encoded(made, tile, format="npy", identity=own, pixels=int((~np.isnan(made["scales"])).sum()))
    name, requested = ready.record.name, made["requested"]
    folder.start_run("a", {"names": [name]}, None)
    assert folder.requested_names() == {name}
    request = TileRequest(tile, ready.record.window, pack_mask(requested))

    def finished(pixels: np.ndarray = requested, *, allow_missing: int = 1, inputs: str | None = None) -> Any:
        asked = replace(request, packed=pack_mask(pixels))
        return folder.finished(asked, allow_missing=allow_missing, inputs=inputs)

    assert finished() is None
    folder.end_run(
        "a", {"names": [name]}, [TileResult(request, "failed", error=TileError("no network"))], allow_missing=1
    )
    assert folder.failures() == {name: "no network"}

    assets = formats.write(tmp_path, ready)
    written = replace(ready.record, assets=assets, counts=made["counts"])
    write_record(folder, written)
    found = finished()
    assert found is not None
    assert found.to_item() == written.to_item()
    formats.read_back(tmp_path, found)
    assert folder.failures() == {}
    assert finished(inputs="ab" * 32)
    np.testing.assert_array_equal(folder.previously_requested(request), requested)
    smaller = requested.copy()
    smaller[np.argwhere(requested)[0][0]] = False
    assert finished(smaller)

    assert finished(allow_missing=0) is None  # it lacks a scene
    assert finished(inputs="cd" * 32) is None
    assert finished(np.ones(tile.shape, bool)) is None
    cut = TileRequest(ForeignTile(name, requested[:-1].shape), None, pack_mask(requested[:-1]))
    assert folder.finished(cut, allow_missing=1) is None  # the folder it is made of has changed
    assert folder.previously_requested(cut) is None
    copy = tmp_path / "copy.json"
    copy.write_bytes(folder.item_path(name).read_bytes())
    assert folder.record("copy") is None
    assert folder.previously_requested(replace(request, tile=ForeignTile("copy", tile.shape), window=None)) is None
    path = tmp_path / assets[0].name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert folder.record(name)  # of the same size
    assert finished() is None
    folder.item_path(name).rename(tmp_path / f"{name}.json.stale")  # as earlier versions did before they replaced files
    assert folder.record(name) is None
    np.testing.assert_array_equal(folder.previously_requested(request), requested)
