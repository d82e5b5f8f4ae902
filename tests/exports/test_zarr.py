"""Target zarr: what xarray opens is what the tiles' files hold; the layout is the embeddings convention's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
import zarr
from affine import Affine

import tessera_cli
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import ForeignTile, Tile
from tests.exports.folders import EAST, NEXT, SEASON, WEST, YEAR, by_hand, put


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zarr") / "f"
    for seed, (tile, window) in enumerate(((WEST, YEAR), (EAST, YEAR), (WEST, NEXT))):
        put(folder, tile, window, seed)
    return folder


def check(data, index, tile, codes, scales, shift=0):
    """Compare what was asked for of a tile with its files; `shift` is added to northings."""
    west, _, east, north = tile.bounds
    here = data.isel(time=index).sel(x=slice(west, east), y=slice(north - 1000 + shift, north - 3000 + shift))
    codes, scales = codes[:, 100:300], scales[100:300]
    assert here.sizes == {"band": 4, "y": 200, "x": 512}
    assert np.array_equal(here["scales"], scales, equal_nan=True)
    assert np.array_equal(here["embeddings"], np.where(np.isnan(scales), 0, codes))


def test_xarray_reads_it(folder, tmp_path):
    made = tessera_cli.export(folder, to="zarr", out=tmp_path / "f.zarr")
    assert made.files == (tmp_path / "f.zarr" / "utm31",)
    with xarray.open_zarr(made.path, group="utm31", consolidated=True, chunks=None) as data:
        assert data["embeddings"].dims == ("time", "band", "y", "x")
        assert data["embeddings"].dtype == np.int8
        assert data["time"].values.tolist() == [2023, 2024]
        check(data, 0, WEST, *by_hand(folder, WEST))
        check(data, 0, EAST, *by_hand(folder, EAST))
        check(data, 1, WEST, *by_hand(folder, WEST, NEXT))
        assert np.isnan(data["scales"][1, :, 512:]).all()
        assert float(data["x"][0]) == WEST.bounds[0] + 5
        assert data["spatial_ref"].attrs["crs_wkt"].startswith("PROJCRS")
        assert "spatial_ref" in data.coords


def test_the_layout_is_that_of_the_published_store(folder, tmp_path):
    made = tessera_cli.export(folder, to="zarr", out=tmp_path / "f.zarr")
    root = json.loads((made.path / "zarr.json").read_text())
    assert root["attributes"]["geoemb:type"] == "pixel"
    assert root["attributes"]["geoemb:dimensions"] == 4
    assert root["attributes"]["geoemb:quantization"]["scale"]["array_name"] == "scales"
    assert root["attributes"]["geoemb:model"] == "https://geotessera.org/model/2.0"
    contents = root["consolidated_metadata"]["metadata"]
    assert {"utm31", "utm31/embeddings", "utm31/scales", "utm31/x", "utm31/y", "utm31/time"} <= set(contents)
    zone = contents["utm31"]["attributes"]
    assert zone["proj:code"] == "EPSG:32631"
    assert zone["spatial:transform"] == [10, 0, WEST.bounds[0], 0, -10, WEST.bounds[3]]
    assert zone["spatial:bbox"] == [WEST.bounds[0], WEST.bounds[1], EAST.bounds[2], EAST.bounds[3]]
    assert zone["geotessera:mask_source"] == "source_nodata"
    for name, shape, dtype, fill in (
        ("embeddings", [2, 4, 512, 1024], "int8", 0),
        ("scales", [2, 512, 1024], "float32", "NaN"),
    ):
        array = contents[f"utm31/{name}"]
        assert (array["shape"], array["data_type"], array["fill_value"]) == (shape, dtype, fill)
        assert array["codecs"][0]["name"] == "sharding_indexed"
    files = [path for path in (made.path / "utm31" / "embeddings" / "c").rglob("*") if path.is_file()]
    assert len(files) == 3  # one per tile


def test_windows_that_are_no_years_have_dates(folder, tmp_path):
    put(tmp_path / "f", WEST, SEASON, seed=5)
    put(tmp_path / "f", WEST, YEAR, seed=6)
    made = tessera_cli.export(tmp_path / "f", to="zarr", out=tmp_path / "f.zarr")
    with xarray.open_zarr(made.path, group="utm31", chunks=None) as data:
        assert data["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2023-01-01", "2023-03-01"]
        assert data.attrs["tessera:windows"] == ["2023", "20230301-20231031"]
        check(data, 1, WEST, *by_hand(tmp_path / "f", WEST, SEASON))


def test_both_hemispheres_of_a_zone(tmp_path):
    """The south keeps its own system where it is alone, else gets northings below zero, as in the published store."""
    south, north = Tile(32731, 112, 1952), Tile(32631, 112, 0)
    put(tmp_path / "f", south)
    made = tessera_cli.export(tmp_path / "f", to="zarr", out=tmp_path / "a.zarr")
    with xarray.open_zarr(made.path, group="utm31", chunks=None) as data:
        assert data.attrs["proj:code"] == "EPSG:32731"
        check(data, 0, south, *by_hand(tmp_path / "f", south))
    put(tmp_path / "f", north, seed=1)
    made = tessera_cli.export(tmp_path / "f", to="zarr", out=tmp_path / "b.zarr")
    with xarray.open_zarr(made.path, group="utm31", chunks=None) as data:
        assert data.attrs["proj:code"] == "EPSG:32631"
        check(data, 0, south, *by_hand(tmp_path / "f", south), shift=-10_000_000)
        check(data, 0, north, *by_hand(tmp_path / "f", north))


def test_grids_of_pixels_that_do_not_fit_are_refused(tmp_path):
    shifted = ForeignTile("field", (512, 512), "EPSG:32731", Affine(10, 0, 500003, 0, -10, 9999000))
    put(tmp_path / "f", shifted)
    put(tmp_path / "f", Tile(32631, 112, 0), seed=1, window=YEAR)
    with pytest.raises(UsageError, match="different grids"):
        tessera_cli.export(tmp_path / "f", to="zarr", out=tmp_path / "f.zarr")


def test_each_zone_is_a_group_and_bytes_are_the_same_again(folder, tmp_path):
    other = Tile(32632, 60, 1098)
    put(tmp_path / "f", WEST)
    put(tmp_path / "f", other, seed=1)
    for name in ("a.zarr", "b.zarr"):
        tessera_cli.export(tmp_path / "f", to="zarr", out=tmp_path / name)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert sorted(group.group_keys()) == ["utm31", "utm32"]
    for path in (tmp_path / "a.zarr").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b.zarr" / path.relative_to(tmp_path / "a.zarr")).read_bytes()
