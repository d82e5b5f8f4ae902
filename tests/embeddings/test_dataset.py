"""open_embeddings: what rasterio reads of the files, as one lazy Dataset."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import xarray
from pyproj import Transformer

from tessera_cli.dpixels.dpixel import tile_name
from tessera_cli.embeddings.dataset import open_embeddings
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.grid import Tile, to_utm
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tests.helpers.listener import Listener
from tests.helpers.outputs import PLACED, arrays, encoded, foreign, identity, record, values, write_record

DIMS = 4
WEST, EAST = Tile(32631, 112, 1098), Tile(32631, 113, 1098)
YEAR, SEASON = Window.from_name("2023"), Window.from_name("20230301-20231031")
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[100:300, 30:500] = True


def put(folder, tile, window=YEAR, seed=0, dtype="int8", format="geotiff", made=None):
    """Write a tile with its record, as `embed` does; its arrays."""
    folder.mkdir(exist_ok=True)
    made = made or arrays(seed, DIMS, REQUESTED)
    requested = made["requested"]
    made["counts"] = np.where(requested, made["counts"], 65535).astype(np.uint16)
    about = encoded(made, tile, dtype, format)
    about = replace(about, record=replace(about.record, window=window, note=record().note))
    assets = formats.write(folder, about, compress="deflate")
    told = replace(about.record, assets=assets)
    write_record(TileFolder(folder, {}), told)
    return made


def by_rasterio(folder, tile, window):
    """Embeddings and counts from the files, and nothing else."""
    name = tile_name(tile, window)
    with rasterio.open(folder / f"{name}_emb.tif") as codes, rasterio.open(folder / f"{name}_scales.tif") as scales:
        embedding = codes.read().astype(np.float32) * scales.read()
    with rasterio.open(folder / f"{name}_counts.tif") as counts:
        return embedding, counts.read()


@pytest.fixture
def folder(tmp_path):
    """Two tiles side by side; of the second window the western alone."""
    for n, (tile, window) in enumerate(((WEST, YEAR), (EAST, YEAR), (WEST, SEASON))):
        put(tmp_path / "out", tile, window, seed=n)
    return tmp_path / "out"


def test_all_values_are_rasterio_s(folder):
    data = open_embeddings(folder)
    assert data["embedding"].chunks is not None
    assert data["embedding"].dims == ("time", "band", "y", "x")
    assert data["embedding"].dtype == np.float32
    assert data["counts"].dims == ("time", "sensor", "y", "x")
    assert data.sizes == {"time": 2, "band": DIMS, "sensor": 3, "y": 512, "x": 1024}
    assert list(data["band"].values) == [f"Tessera_Band_{i}" for i in range(DIMS)]
    assert list(data["sensor"].values) == ["s2", "s1_asc", "s1_desc"]
    assert list(data["time"].values) == [np.datetime64("2023-01-01"), np.datetime64("2023-03-01")]
    assert list(data["window"].values) == ["2023", "20230301-20231031"]
    west, south, _, north = WEST.bounds
    assert (data["x"][0], data["y"][0], data["y"][-1]) == (west + 5, north - 5, south + 5)
    assert data["spatial_ref"].item() == 32631
    for name in data.data_vars:
        assert data[name].encoding["grid_mapping"] == "spatial_ref"
    data = data.compute(scheduler="threads", num_workers=2)
    for n, window in enumerate((YEAR, SEASON)):
        for tile, columns in ((WEST, slice(0, 512)), (EAST, slice(512, 1024))):
            here = data.isel(time=n, x=columns)
            if (tile, window) == (EAST, SEASON):
                assert np.isnan(here["embedding"]).all()
                assert (here["counts"] == 65535).all()
                continue
            embedding, counts = by_rasterio(folder, tile, window)
            assert 10_000 < np.isfinite(embedding[0]).sum() < REQUESTED.sum()
            assert np.array_equal(here["embedding"], embedding, equal_nan=True)
            assert np.array_equal(here["counts"], counts)


def test_what_made_them_stands_in_the_attributes(folder, tmp_path):
    data = open_embeddings(folder, windows=2023)
    assert data.attrs["model"] == "v2-medium"
    assert data.attrs["weights_sha256"] == "ab" * 32
    assert (data.attrs["source"], data.attrs["preprocessing"], data.attrs["windows"]) == ("mpc", "official", "2023")
    assert data.attrs["software"].startswith("tessera-embed ")
    assert data.attrs["note"] == "for demonstration only"
    assert "reprojected" not in data.attrs
    small = data.isel(y=slice(110, 120), x=slice(40, 50))
    small.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_coords="all") as again:
        assert again.attrs == data.attrs
        assert np.array_equal(again["embedding"], small["embedding"], equal_nan=True)
        assert "spatial_ref" in again.coords


@pytest.mark.parametrize(
    ("windows", "names"),
    [
        (None, ["2023", "20230301-20231031"]),
        (2023, ["2023"]),
        ("2023", ["2023"]),
        (SEASON, ["20230301-20231031"]),
        ("2023-03/2023-10", ["20230301-20231031"]),
        (["20230301-20231031", 2023], ["2023", "20230301-20231031"]),
    ],
)
def test_windows(folder, windows, names):
    assert list(open_embeddings(folder, windows=windows)["window"].values) == names


def test_codes_as_they_are_stored(folder):
    lazy = open_embeddings(folder, windows=2023, dequantise=False)
    now = open_embeddings(folder, windows=2023, dequantise=False, chunks=None)
    assert now["embedding"].chunks is None
    assert lazy.identical(now)
    assert (now["embedding"].dtype, now["scales"].dims) == (np.int8, ("time", "y", "x"))
    with rasterio.open(folder / f"{tile_name(EAST, YEAR)}_emb.tif") as src:
        assert np.array_equal(now["embedding"][0, ..., 512:], src.read())
    with rasterio.open(folder / f"{tile_name(EAST, YEAR)}_scales.tif") as src:
        assert np.array_equal(now["scales"][0, :, 512:], src.read(1), equal_nan=True)


def test_chunks_along_bands(folder):
    lazy = open_embeddings(folder, windows=2023, chunks={"band": 3, "y": 200, "x": 300})
    assert lazy["embedding"].chunks[1:] == ((3, 1), (200, 200, 112), (300, 300, 300, 124))
    assert lazy.identical(open_embeddings(folder, windows=2023))


@pytest.mark.parametrize("dequantise", [True, False])
def test_folders_of_float32(tmp_path, dequantise):
    made = put(tmp_path / "out", WEST, dtype="float32")
    data = open_embeddings(tmp_path / "out", dequantise=dequantise)
    assert set(data.data_vars) == {"embedding", "counts"}
    assert np.array_equal(data["embedding"][0], values(made), equal_nan=True)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_pixels_with_few_observations_are_left_out(tmp_path, dtype):
    made = put(tmp_path / "out", WEST, dtype=dtype)
    expected = np.where(made["counts"][0] >= 40, values(made), np.float32(np.nan))
    data = open_embeddings(tmp_path / "out", min_s2=40)
    assert data["embedding"].dtype == np.float32
    assert np.array_equal(data["embedding"][0], expected, equal_nan=True)
    assert np.array_equal(data["counts"][0], made["counts"])
    if dtype == "int8":
        data = open_embeddings(tmp_path / "out", min_s2=40, dequantise=False)
        assert data["embedding"].dtype == np.int8
        assert np.array_equal(np.isnan(data["scales"][0]), np.isnan(expected[0]))
        assert np.array_equal((data["embedding"][0] == -128).all("band"), np.isnan(expected[0]))


def test_a_box_in_degrees(folder):
    whole = open_embeddings(folder, windows=2023).compute()
    to_lonlat = Transformer.from_crs(32631, 4326, always_xy=True).transform
    west, south, _, north = WEST.bounds
    a, b = to_lonlat(west + 4003, south + 2507), to_lonlat(west + 6001, north - 1502)
    data = open_embeddings(folder, windows=2023, bbox=(*a, *b))
    assert np.array_equal(data["embedding"], whole["embedding"].sel(x=data["x"], y=data["y"]), equal_nan=True)
    assert np.isfinite(data["embedding"]).any()
    lon, lat = to_lonlat(*np.meshgrid(data["x"], data["y"]))
    for edge, (low, high) in ((lon, (a[0], b[0])), (lat, (a[1], b[1]))):  # every pixel of the box, few around it
        inside = (edge >= low) & (edge <= high)
        assert inside.any()
        assert not inside[:, 0].all() or not inside[0].all()
        assert edge.min() < low < high < edge.max()


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_two_zones_meet_in_the_one_that_is_named(tmp_path, caplog, dtype):
    """Every value comes from one pixel of a file: the one under the centre, up to GDAL's eighth of a pixel."""
    out, made = tmp_path / "out", {}
    rows, columns = np.indices((512, 512))
    for zone, lon in ((32631, 5.97), (32632, 6.03)):
        x, y = to_utm(zone).transform(lon, 50.02)
        tile = Tile(zone, int(x // 5120), int(y // 5120))
        of_tile = arrays(zone, DIMS, np.ones((512, 512), bool))
        of_tile["counts"] = np.stack([rows, columns, np.full_like(rows, zone % 100)]).astype(np.uint16)
        made[zone % 100] = tile, put(out, tile, dtype=dtype, made=of_tile)
    with pytest.raises(UsageError, match=r"EPSG:32631, EPSG:32632.*epsg=32631, or crs="):
        open_embeddings(out)
    assert not caplog.records
    data = open_embeddings(out, epsg=32632, chunks={"y": 300, "x": 300})
    assert "EPSG:32631, EPSG:32632 to EPSG:32632 by nearest" in caplog.text
    assert data.attrs["reprojected"] == "EPSG:32631, EPSG:32632 to EPSG:32632 by nearest neighbour"
    assert data["spatial_ref"].item() == 32632
    data = data.compute(scheduler="threads", num_workers=2)
    counts, embedding = data["counts"].values[0], data["embedding"].values[0]
    x, y = np.meshgrid(data["x"], data["y"])
    for zone, (tile, of_tile) in made.items():
        here = counts[2] == zone
        assert here.sum() > 100_000
        row, column = counts[0][here], counts[1][here]
        xs, ys = Transformer.from_crs(32632, 32600 + zone, always_xy=True).transform(x[here], y[here])
        at = ~tile.transform * (xs, ys)
        assert abs(at[0] - column - 0.5).max() < 0.5 + 0.15
        assert abs(at[1] - row - 0.5).max() < 0.5 + 0.15
        expected = values(of_tile)[:, row, column]
        known = np.isfinite(expected[0])  # else the other zone may know more
        assert np.array_equal(embedding[:, here][:, known], expected[:, known])
    home, of_home = made[32]
    own = data.sel(x=home.bounds[0] + 5 + 10 * np.arange(512), y=home.bounds[3] - 5 - 10 * np.arange(512))
    mine = own["counts"].values[0, 2] == 32
    assert np.array_equal(own["embedding"].values[0][:, mine], values(of_home)[:, mine], equal_nan=True)


@pytest.mark.parametrize(("crs", "step"), [("EPSG:3035", 10), ("EPSG:4326", 8.99e-5), (32631, 10)])
def test_other_coordinate_systems(tmp_path, caplog, crs, step):
    put(tmp_path / "out", WEST)
    data = open_embeddings(tmp_path / "out", crs=crs)
    assert float(data[data["embedding"].dims[3]][1] - data[data["embedding"].dims[3]][0]) == pytest.approx(
        step, rel=0.01
    )
    assert ("reprojected" in data.attrs) == bool(caplog.records) == (crs != 32631)


def test_what_embed_writes(tmp_path, catalog, tessera):
    """From the command to the Dataset, two windows."""
    code, _, err = tessera("embed", *catalog.options(tmp_path / "out"), "--window", "2021-01/2021-06")
    assert code == 0, err
    data = open_embeddings(tmp_path / "out").compute(scheduler="threads", num_workers=2)
    assert list(data["window"].values) == ["20210101-20210630", "2021"]
    assert data.attrs["model"] == "null"
    found = 0
    for path in (tmp_path / "out").glob("*_emb.tif"):
        tile, window = Tile.from_id(path.name[:-8].rsplit("_", 1)[0]), path.name[:-8].rsplit("_", 1)[1]
        embedding, counts = by_rasterio(tmp_path / "out", tile, Window.from_name(window))
        here = data.isel(time=list(data["window"]).index(window)).sel(
            x=slice(tile.bounds[0], tile.bounds[2]), y=slice(tile.bounds[3], tile.bounds[1])
        )
        assert np.array_equal(here["embedding"], embedding, equal_nan=True)
        assert np.array_equal(here["counts"], counts)
        found += np.isfinite(embedding[0]).sum()
    assert found == np.isfinite(data["embedding"][:, 0]).sum() > 1000


def test_official_tiles_with_a_place_and_without_a_year(tmp_path):
    made = put(tmp_path / "out", PLACED, None, made=foreign(PLACED))
    data = open_embeddings(tmp_path / "out")
    assert np.array_equal(data["embedding"][0], values(made), equal_nan=True)
    assert (data["x"][0], data["y"][0]) == (300015, 6200015)
    assert np.isnat(data["time"].values).all()
    assert list(data["window"].values) == [""]


# --- what cannot be opened --------------------------------------------------------------------------------------------


def empty(folder):
    folder.mkdir()
    write_record(TileFolder(folder, {}), record(status="empty", assets=(), pixels=0))


def begun(folder):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"identity": identity()}))


def mixed(folder):
    put(folder, WEST)
    put(folder, EAST, dtype="float32")


def without_a_file(folder):
    put(folder, WEST)
    (folder / f"{tile_name(WEST, YEAR)}_scales.tif").unlink()


def without_a_layer(folder):
    put(folder, WEST)
    path = folder / f"{tile_name(WEST, YEAR)}.json"
    item = json.loads(path.read_text())
    del item["assets"]["embeddings"]
    path.write_text(json.dumps(item))


def damaged(folder):
    put(folder, WEST)
    (folder / f"{tile_name(WEST, YEAR)}.json").write_text("{")


def of_something_else(folder):
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"type": "Feature", "id": "a_2023", "properties": {}}))


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda folder: None, {}, UsageError, "is no folder"),
        (lambda folder: folder.mkdir(), {}, UsageError, "holds no embeddings"),
        (empty, {}, NothingToEmbedError, "all tiles are empty"),
        (begun, {}, NothingToEmbedError, "no tile is finished"),
        (mixed, {}, UsageError, "mixes tiles of 2 settings"),
        (without_a_file, {}, UsageError, "_scales.tif is absent or incomplete"),
        (without_a_layer, {}, UsageError, "lists no file of emb"),
        (damaged, {}, UsageError, "cannot be read"),
        (of_something_else, {}, UsageError, "no record of embeddings"),
        (lambda folder: put(folder, WEST, format="npy"), {}, UsageError, "holds arrays"),
        (lambda folder: put(folder, WEST), {"windows": 2022}, UsageError, "no embeddings of 2022. Its windows: 2023"),
        (lambda folder: put(folder, WEST), {"windows": "last"}, UsageError, "is no window"),
        (lambda folder: put(folder, WEST), {"crs": "EPSG:1"}, UsageError, "no coordinate system"),
        (lambda folder: put(folder, WEST), {"crs": 3035, "epsg": 3035}, UsageError, "not both"),
        (lambda folder: put(folder, WEST), {"bbox": (8, 50, 9, 51)}, NothingToEmbedError, "no tile in bbox"),
        (lambda folder: put(folder, WEST), {"bbox": (8, 50, 8, 51)}, UsageError, "west equals east"),
    ],
)
def test_one_clear_line_for_what_cannot_be_opened(tmp_path, make, options, error, words):
    make(tmp_path / "out")
    with pytest.raises(error, match=words) as caught:
        open_embeddings(tmp_path / "out", **options)
    assert "\n" not in str(caught.value)


def test_a_folder_of_dpixels_says_who_opens_it(tmp_path, catalog, tessera):
    where = ["--aoi", str(catalog.aoi), "--year", "2021", "--catalog", str(catalog.items)]
    code, _, err = tessera("fetch", *where, "--model", "null", "--out", str(tmp_path / "out"))
    assert code == 0, err
    with pytest.raises(UsageError, match="open_dpixels"):
        open_embeddings(tmp_path / "out")


def test_a_raster_that_was_exchanged_for_a_vrt_is_not_opened(folder):
    with Listener() as listener:
        path = folder / f"{tile_name(EAST, YEAR)}_emb.tif"
        vrt = f"<VRTDataset><VRTRasterBand><SourceFilename>/vsicurl/{listener.url}/x.tif</SourceFilename>".encode()
        path.write_bytes(vrt.ljust(path.stat().st_size))
        with pytest.raises(UsageError, match=r"_emb.tif is no GeoTIFF"):
            open_embeddings(folder)
    assert listener.connections == 0
