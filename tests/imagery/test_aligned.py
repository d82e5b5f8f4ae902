"""What is read without GDAL: blocks, grids and headers give what GDAL gives."""

import json
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from tessera_cli.bench.assemble import measure
from tessera_cli.errors import UsageError
from tessera_cli.imagery import decode as decoding
from tessera_cli.imagery import geotiff, sentinel1
from tessera_cli.imagery.aligned import Alignment
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.lazy_zeros import lazy_zeros
from tessera_cli.imagery.tiff import find_blocks
from tessera_cli.imagery.warp import on_tile
from tessera_cli.net import Client
from tests.conftest import make_catalog
from tests.helpers.builders import EPSG, tile_at

TILE, _, _ = tile_at()
WEST, SOUTH, EAST, NORTH = TILE.bounds


def local(path, files=None):
    return (files or Files(Client())).open(str(path))


def write(path, values, transform=Affine(10, 0, WEST, 0, -10, NORTH), crs=f"EPSG:{EPSG}", **options):  # noqa: B008
    values = values[None] if values.ndim == 2 else values
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", **options}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        **options,
    ) as dst:
        dst.write(values)
    return path


# --- the tile's grid --------------------------------------------------------------------------------------------------


def by_gdal(path, resampling, dtype):
    """A WarpedVRT over the whole file."""
    with rasterio.open(path) as src:
        nodata = np.nan if src.nodata is None and dtype == "float32" else src.nodata
        with WarpedVRT(
            src,
            src_nodata=nodata,
            nodata=nodata,
            crs=TILE.crs,
            transform=TILE.transform,
            width=512,
            height=512,
            resampling=Resampling[resampling],
            add_alpha=nodata is None,
        ) as vrt:
            return vrt.read(1) if dtype == "float32" else vrt.read(1, masked=True).filled(0)


def scattered(rng, shape, dtype):
    """Values of any size, with zeros in clumps and alone."""
    if dtype == "float32":
        values = rng.normal(0, 1, shape).astype(dtype)
        values[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -32768, 0])
        return values
    values = rng.integers(0, rng.choice([3, 200, np.iinfo(dtype).max + 1]), shape).astype(dtype)
    values[rng.random(shape) < rng.choice([0, 0.1, 0.9])] = 0
    values[: shape[0] // 3, : shape[1] // 2] *= rng.integers(2, dtype=dtype)
    return values


@pytest.mark.parametrize(
    ("step", "resampling", "dtype", "nodata"),
    [
        *((10, how, "uint16", nodata) for how in ("nearest", "bilinear") for nodata in (None, 0)),
        *((20, how, "uint16", nodata) for how in ("nearest", "bilinear") for nodata in (None, 0)),
        *((20, how, "uint8", nodata) for how in ("nearest", "bilinear") for nodata in (None, 0)),
        *((10, "nearest", "float32", nodata) for nodata in (None, np.nan, -32768)),
    ],
)
def test_on_multiples_of_the_grid_integers_give_what_gdal_gives(tmp_path, step, resampling, dtype, nodata):
    """Bit by bit, wherever the file lies: inside, around and across the tile's edges, on odd and even tens."""
    rng = np.random.default_rng([step, len(resampling), len(dtype)])
    for _ in range(6):
        shape = rng.integers(1, rng.choice([4, 60, 700]), 2)
        reach = shape * step // 10
        row, column = (int(rng.integers(1 - n, 512)) for n in reach)
        place = Affine(step, 0, WEST + 10 * column, 0, -step, NORTH - 10 * row)
        path = write(tmp_path / "a.tif", scattered(rng, shape, dtype), place, nodata=nodata)
        file, expected = local(path), by_gdal(path, resampling, dtype)
        assert Alignment.of(TILE, file.header, resampling) is not None
        found = on_tile(file, TILE, resampling, dtype)
        assert np.array_equal(found, expected, equal_nan=dtype == "float32"), (shape, row, column)


@pytest.mark.parametrize(
    "other",
    [
        {"transform": Affine(10, 0, WEST + 5, 0, -10, NORTH)},
        {"transform": Affine(20, 0, WEST, 0, -20, NORTH + 0.001)},
        {"transform": Affine(30, 0, WEST, 0, -30, NORTH)},
        {"transform": Affine(10, 0, WEST, 0, 10, SOUTH)},
        {"transform": Affine(10, 1, WEST, 0, -10, NORTH)},
        {"crs": f"EPSG:{EPSG + 1}"},
        {"crs": "EPSG:25830"},
        {"nodata": 7},
    ],
)
def test_other_grids_and_other_tags_are_for_gdal(tmp_path, other):
    path = write(tmp_path / "a.tif", np.ones((64, 64), "uint16"), **other)
    assert Alignment.of(TILE, local(path).header, "bilinear") is None


def test_floats_are_not_weighted_here(tmp_path):
    header = local(write(tmp_path / "a.tif", np.ones((64, 64), "float32"))).header
    assert Alignment.of(TILE, header, "bilinear") is None


# --- blocks -----------------------------------------------------------------------------------------------------------


def values_of(dtype, shape=(150, 200)):
    rng = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def decoded(path, window):
    data = path.read_bytes()
    blocks = find_blocks(lambda start, length: data[start : start + length])
    numbers = blocks.under(*window.toranges())
    streams = {n: data[int(blocks.starts[n]) : int(blocks.starts[n] + blocks.lengths[n])] for n in numbers}
    return decoding.decode(blocks, streams, window, [window])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize(
    "layout",
    [{}, {"tiled": False, "blockysize": 7}, {"ENDIANNESS": "BIG"}, {"BIGTIFF": "YES"}, {"interleave": "band"}],
)
def test_deflated_blocks_hold_what_gdal_finds(tmp_path, dtype, predictor, layout):
    values = values_of(dtype)
    if "interleave" in layout:
        values = np.stack([values, values[::-1]])
    path = write(tmp_path / "a.tif", values, predictor=predictor, **layout)
    for window in (PixelWindow(0, 0, 200, 150), PixelWindow(70, 61, 100, 89)):
        with rasterio.open(path) as src:
            expected = src.read(1, window=window)
        found = decoded(path, window)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint16", {"compress": "lzw"}),
        ("uint16", {"compress": "none"}),
        ("uint16", {"nbits": 12}),
        ("int16", {}),
        ("float64", {}),
        ("float32", {"predictor": 3}),
        ("uint16", {"photometric": "miniswhite"}),
    ],
)
def test_unusual_blocks_are_for_gdal(tmp_path, dtype, options):
    values = values_of(dtype) // 16 if "nbits" in options else values_of(dtype)
    path = write(tmp_path / "a.tif", values, **options)
    assert decoded(path, PixelWindow(0, 0, 200, 150)) is None
    with rasterio.open(path) as src:
        assert np.array_equal(local(path).pixels(PixelWindow(0, 0, 200, 150)), src.read(1))


def test_bands_side_by_side_are_for_gdal(tmp_path):
    values = values_of("uint16", (3, 150, 200))
    path = write(tmp_path / "a.tif", values, interleave="pixel")
    data = path.read_bytes()
    assert find_blocks(lambda start, length: data[start : start + length]).values is None
    assert np.array_equal(local(path).pixels(PixelWindow(0, 0, 200, 150)), values[0])


def test_blocks_that_were_never_written_are_for_gdal(tmp_path):
    values = values_of("uint16")
    values[64:128, :64] = 5
    path = write(tmp_path / "a.tif", values, SPARSE_OK=True, nodata=5)
    assert np.array_equal(local(path).pixels(PixelWindow(0, 0, 200, 150)), values)
    assert np.array_equal(local(path).pixels(PixelWindow(64, 0, 100, 150)), values[:, 64:164])


def test_a_block_beyond_the_end_is_broken(tmp_path):
    path = write(tmp_path / "a.tif", values_of("uint16"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenError, match="ends after"):
        local(path).pixels(PixelWindow(0, 0, 200, 150))


# --- headers ----------------------------------------------------------------------------------------------------------


def test_files_that_describe_themselves_alike_are_opened_once(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{n}.tif", values_of("uint16") // n) for n in (1, 2, 3)]
    opened, real = [], rasterio.open
    monkeypatch.setattr(geotiff.rasterio, "open", lambda path, **more: opened.append(path) or real(path, **more))
    together = Files(Client())
    files = [local(path, together) for path in paths]
    assert len({id(file.header) for file in files}) == 1
    for n, file in enumerate(files, 1):
        assert np.array_equal(file.pixels(PixelWindow(0, 0, 200, 150)), values_of("uint16") // n)
    assert len(opened) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"nodata": 2},
        {"nodata": None},
        {"transform": Affine(10, 0, WEST, 0, -10, NORTH + 10)},
        {"crs": "EPSG:32631"},
        {"ENDIANNESS": "BIG"},
        {"predictor": 2},
        {"blockxsize": 128},
    ],
)
def test_files_that_differ_have_headers_of_their_own(tmp_path, other):
    files = Files(Client())
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, options in zip(paths, ({}, other), strict=True):
        write(path, values_of("uint16"), **{"nodata": 1, **options})
    with rasterio.open(paths[1], "r+") as dst:
        dst.update_tags(**({"TEXT": "x"} if "predictor" in other else {}))
    for path in paths:
        found = local(path, files).header
        with rasterio.open(path) as src:
            assert (found.transform, found.crs, found.nodata) == (src.transform, src.crs, src.nodata)
            assert found.tags == src.tags()
    assert len({id(local(path, files).header) for path in paths}) == 2


# --- arithmetic and memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["float32", "float64"])
def test_the_decibels_of_a_pixel_do_not_depend_on_its_neighbours(arithmetic):
    rng = np.random.default_rng(0)
    power = rng.gamma(2, 0.1, (64, 64)).astype("float32")
    power[rng.random(power.shape) < 0.1] = rng.choice([np.nan, np.inf, 0, -1])
    whole = sentinel1.scale(power, arithmetic)
    assert (whole > 0).mean() > 0.5
    for _ in range(50):
        some = np.flatnonzero(rng.random(power.size) < rng.random() ** 3)
        assert np.array_equal(sentinel1.scale(power.take(some), arithmetic), whole.take(some))


def test_blank_arrays():
    made = lazy_zeros((3, 5, 7), np.uint16)
    assert (made.shape, made.dtype, made.any()) == ((3, 5, 7), np.uint16, False)
    assert made.flags.c_contiguous
    made[1] = 9
    assert made.sum() == 9 * 35
    assert lazy_zeros((0, 512, 512, 2), np.int16).shape == (0, 512, 512, 2)


# --- the benchmark ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["eager", "odc-pool", "odc-dask", "stackstac"])
def test_bench_assemble_compares_equal_numbers(tmp_path, peer):
    if peer == "stackstac":
        pytest.importorskip("stackstac", reason="stackstac is not installed: it needs pandas 2")
    catalog = make_catalog(tmp_path / "catalog")
    found = json.loads(json.dumps(measure(catalog.folder, rounds=2, baseline=peer)))
    assert found["agreement"]["different"] == 0
    assert found["agreement"]["values"] > 11 * found["pixels"]
    assert len(found["rounds"]) == 2
    assert found["speedup_over_baseline"] > 0
    assert found["reads"] > found["scenes"] > 0


def test_bench_assemble_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"lacks items\.json and aoi\.geojson"):
        measure(tmp_path)
    monkeypatch.setitem(sys.modules, "odc.stac", None)
    with pytest.raises(UsageError, match="pip install odc-stac"):
        measure(tmp_path, baseline="odc-pool")
