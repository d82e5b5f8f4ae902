"""Targets geotessera and torchgeo: cells of 0.1 degrees, named and placed as theirs, with our pixels."""

from __future__ import annotations

import json
import logging
import re
import sys

import numpy as np
import pytest
import rasterio
from pyarrow import parquet
from pyproj import Transformer

import tessera_cli
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tests.exports.folders import EAST, NEXT, SEASON, WEST, YEAR, by_hand, lonlat, put

STRIPE = np.zeros((512, 512), bool)
STRIPE[100:140, 30:500] = True
TREE, MASKS = "global_0.1_degree_representation", "global_0.1_degree_tiff_all"


def grid_name(lon, lat):
    """As geotessera names the cell of a point: floor(v x 10) / 10 + 0.05."""
    return f"grid_{np.floor(lon * 10) / 10 + 0.05:.2f}_{np.floor(lat * 10) / 10 + 0.05:.2f}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "f"
    for seed, (tile, window) in enumerate(((WEST, YEAR), (EAST, YEAR), (WEST, NEXT))):
        put(folder, tile, window, seed, dims=128, requested=STRIPE)
    return folder


def cell_at(out, year, lon, lat):
    """Codes (R,) and scale of the tree at a place: the raster of the landmask tells the pixel."""
    name = grid_name(lon, lat)
    with rasterio.open(out / MASKS / f"{name}.tiff") as src:
        east, north = Transformer.from_crs(4326, src.crs, always_xy=True).transform(lon, lat)
        row, column = map(int, src.index(east, north))
        assert (src.read() == 1).all()
        shape = src.shape
    path = out / TREE / str(year) / name / name
    codes, scales = np.load(f"{path}.npy", mmap_mode="r"), np.load(f"{path}_scales.npy")
    assert codes.shape == (*shape, 128)
    assert scales.shape == shape
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        return None, np.nan
    return codes[row, column], scales[row, column]


def test_every_place_is_found_in_the_cell_of_its_name(folder, tmp_path):
    out = tessera_cli.export(folder, to="geotessera", out=tmp_path / "tree").path
    rng = np.random.default_rng(0)
    seen = set()
    for tile, window in ((WEST, YEAR), (EAST, YEAR), (WEST, NEXT)):
        codes, scales = by_hand(folder, tile, window)
        for row, column in rng.integers((100, 30), (140, 500), (60, 2)):
            within = rng.uniform(-0.49, 0.49, 2)
            lon, lat = lonlat(tile, row + within[0], column + within[1])
            got, scale = cell_at(out, window.name, lon, lat)
            if np.isnan(scales[row, column]):
                assert np.isnan(scale)
                assert got is None or (got == 0).all()
                continue
            assert scale == scales[row, column]
            assert np.array_equal(got, codes[:, row, column])
            seen.add((window.name, grid_name(lon, lat)))
    assert len(seen) > 3
    manifest = parquet.read_table(out / "manifest.parquet").to_pylist()
    assert {(str(row["year"]), f"grid_{row['lon']:.2f}_{row['lat']:.2f}") for row in manifest} >= seen
    for row in manifest:
        assert (out / row["grid_path"]).stat().st_size == row["grid_size"]
        assert (out / row["scales_path"]).stat().st_size == row["scales_size"]
    masks = parquet.read_table(out / "landmasks.parquet").to_pylist()
    assert {f"grid_{row['lon']:.2f}_{row['lat']:.2f}.tiff" for row in masks} == {
        path.name for path in (out / MASKS).iterdir()
    }
    about = json.loads((out / "tessera_metadata.json").read_text())
    assert (about["dataset_version_path"], about["dataset_variant"]) == ("v2.0-medium", "local-mpc")


def test_cells_of_a_year_without_a_tile_there_are_empty(folder, tmp_path):
    out = tessera_cli.export(folder, to="geotessera", out=tmp_path / "tree").path
    lon, lat = lonlat(EAST, 120, 400)
    assert np.isnan(cell_at(out, 2024, lon, lat)[1])


def test_rasters_for_torchgeo(folder, tmp_path):
    made = tessera_cli.export(folder, to="torchgeo", out=tmp_path / "tiffs", window=2023)
    pattern = re.compile(r"^grid_(?P<lon>[0-9.-]+)_(?P<lat>[0-9.-]+)_(?P<date>[0-9]{4}).tiff$")  # TorchGeo's
    total = 0
    full = {tile: (lambda codes, scales: codes * scales)(*by_hand(folder, tile)) for tile in (WEST, EAST)}
    for path in made.files:
        found = pattern.match(path.name)
        assert found["date"] == "2023"
        with rasterio.open(path) as src:
            assert (src.count, src.dtypes[0], src.crs.to_epsg()) == (128, "float32", 32631)
            assert np.isnan(src.nodata)
            values, transform = src.read(), src.transform
        assert transform.c % 10 == transform.f % 10 == 0
        for tile, there in full.items():
            left, top = (transform.c - tile.bounds[0]) / 10, (tile.bounds[3] - transform.f) / 10
            rows, columns = np.arange(values.shape[1]) + int(top), np.arange(values.shape[2]) + int(left)
            rows, columns = rows[(rows >= 0) & (rows < 512)], columns[(columns >= 0) & (columns < 512)]
            if not (len(rows) and len(columns)):
                continue
            mine = values[:, rows[0] - int(top) : rows[-1] - int(top) + 1]
            mine = mine[..., columns[0] - int(left) : columns[-1] - int(left) + 1]
            assert np.array_equal(mine, there[:, rows][..., columns], equal_nan=True)
            total += np.isfinite(mine[0]).sum()
    assert total >= sum(np.isfinite(there[0]).sum() for there in full.values())


@pytest.mark.parametrize("to", ["geotessera", "torchgeo"])
def test_other_windows_than_years_have_no_name_there(tmp_path, to):
    put(tmp_path / "f", WEST, SEASON, dims=128, requested=STRIPE)
    put(tmp_path / "f", WEST, YEAR, dims=128, requested=STRIPE)
    with pytest.raises(UsageError, match=r"20230301-20231031 is no calendar year.*--year"):
        tessera_cli.export(tmp_path / "f", to=to, out=tmp_path / "out")
    tessera_cli.export(tmp_path / "f", to=to, out=tmp_path / "out", window=2023)


def test_torchgeo_reads_128_bands(tmp_path):
    put(tmp_path / "f", WEST, dims=64)
    with pytest.raises(UsageError, match="have 64"):
        tessera_cli.export(tmp_path / "f", to="torchgeo", out=tmp_path / "out")


def test_south_and_west_have_a_minus(tmp_path):
    tile = Tile(32719, 60, 1500)
    put(tmp_path / "f", tile)
    made = tessera_cli.export(tmp_path / "f", to="geotessera", out=tmp_path / "out")
    lon, lat = lonlat(tile, 200, 200)
    assert lon < 0 > lat
    name = grid_name(lon, lat)
    assert re.fullmatch(r"grid_-\d\d\.\d5_-\d\d\.\d5", name)
    assert made.path / MASKS / f"{name}.tiff" in made.files


def test_a_cell_of_two_zones_goes_to_the_one_with_more_in_it(tmp_path, caplog):
    first = Tile(32631, 138, 1100)
    lon, lat = lonlat(first, 256, 256)
    east, north = Transformer.from_crs(4326, 32632, always_xy=True).transform(lon, lat)
    second = Tile(32632, int(east // 5120), int(north // 5120))
    few = np.zeros((512, 512), bool)
    few[::8, ::8] = True
    put(tmp_path / "f", first, requested=np.ones((512, 512), bool))
    put(tmp_path / "f", second, seed=1, requested=few)
    out = tessera_cli.export(tmp_path / "f", to="geotessera", out=tmp_path / "out").path
    with rasterio.open(out / MASKS / f"{grid_name(lon, lat)}.tiff") as src:
        assert src.crs.to_epsg() == 32631
    assert re.search(r"\d+ pixels are left out", caplog.text)


def test_zones_of_norway_are_kept_and_told(tmp_path, caplog):
    """At 5 degrees east and 60 north Norway is in zone 32, geotessera's names are of zone 31."""
    east, north = Transformer.from_crs(4326, 32632, always_xy=True).transform(5.05, 60.05)
    tile = Tile(32632, int(east // 5120), int(north // 5120))
    put(tmp_path / "f", tile, dims=128)
    with caplog.at_level(logging.WARNING):
        out = tessera_cli.export(tmp_path / "f", to="geotessera", out=tmp_path / "out").path
    assert "not in the zone that their longitude has" in caplog.text
    codes, scales = by_hand(tmp_path / "f", tile)
    row, column = np.argwhere(np.isfinite(scales))[5000]
    got, scale = cell_at(out, 2023, *lonlat(tile, row, column))
    assert scale == scales[row, column]
    assert np.array_equal(got, codes[:, row, column])


def test_lists_need_pyarrow(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"tessera-embed\[tables\]"):
        tessera_cli.export(folder, to="geotessera", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())
