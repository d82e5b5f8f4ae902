"""Masks within files, in place of nodata: what they leave out has no data, as GDAL's warp of the whole file has it."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tessera_cli.errors import TileError
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.tiff import find_blocks
from tessera_cli.imagery.warp import on_tile
from tessera_cli.net import Client
from tests.helpers.builders import EPSG, ORIGIN, mask_block, read, s1_item, s2_item, tile_at
from tests.helpers.servers import FileServer

TILE, _, _ = tile_at()
OTHER_ZONE = EPSG + 1

LAYOUTS = {
    "strips": {"compress": "deflate"},
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2},
    "lzw": {"tiled": True, "blockxsize": 64, "blockysize": 128, "compress": "lzw"},
    "bare": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "big": {"tiled": True, "blockxsize": 64, "blockysize": 64, "BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    "cog": {"driver": "COG", "compress": "deflate", "blocksize": 128},
    "cog zstd": {"driver": "COG", "compress": "zstd", "blocksize": 128},
}


def write(path, values, mask, epsg=EPSG, step=20, overviews=False, **options):
    (west,), (north,) = rasterio.warp.transform(f"EPSG:{EPSG}", f"EPSG:{epsg}", [ORIGIN[0]], [ORIGIN[1]])
    place = Affine(step, 0, round(west / 60) * 60 - 1200, 0, -step, round(north / 60) * 60 + 1200)
    size = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype}
    georeference = {"crs": f"EPSG:{epsg}", "transform": place}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "w", **{"driver": "GTiff", **options}, **size, **georeference) as dst:
            dst.write(values, 1)
            if mask is not None and not overviews:
                dst.write_mask(mask)
        if overviews:
            with rasterio.open(path, "r+") as dst:
                dst.build_overviews([2, 4])
            with rasterio.open(path, "r+") as dst:
                dst.write_mask(mask)
    return path


def clumps(rng, shape, holes=0.25):
    return np.kron(rng.random((-(-shape[0] // 7), -(-shape[1] // 7))) > holes, np.ones((7, 7)))[
        : shape[0], : shape[1]
    ].astype(bool)


def by_gdal(path, resampling):
    with rasterio.open(path) as src:
        place = {"crs": TILE.crs, "transform": TILE.transform, "width": 512, "height": 512}
        with WarpedVRT(src, **place, resampling=Resampling[resampling], add_alpha=src.nodata is None) as vrt:
            return vrt.read(1, masked=True).filled(0)


@pytest.fixture
def server(tmp_path):
    with FileServer(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("layout", "resampling", "epsg", "step"),
    [
        *((layout, "bilinear", EPSG, 20) for layout in LAYOUTS),
        *(("tiled", resampling, OTHER_ZONE, 10) for resampling in ("nearest", "bilinear")),
        ("cog", "nearest", EPSG, 10),
        ("cog", "bilinear", OTHER_ZONE, 20),
    ],
)
def test_masked_pixels_have_no_data_as_in_the_warp_of_the_whole_file(tmp_path, server, layout, resampling, epsg, step):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9000, (400, 390)).astype("uint16")  # zeros are ordinary values
    path = write(tmp_path / "a.tif", values, clumps(rng, values.shape), epsg, step, **LAYOUTS[layout])
    expected = by_gdal(path, resampling)
    assert 0.05 < (expected == 0).mean() < 0.95
    for href in (str(path), f"{server.url}/a.tif"):
        found = on_tile(Files(Client()).open(href), TILE, resampling, "uint16")
        assert np.array_equal(found, expected)


def test_a_mask_written_after_overviews_is_found(tmp_path, server):
    rng = np.random.default_rng(2)
    values = rng.integers(1, 9000, (400, 390)).astype("uint16")
    path = write(tmp_path / "a.tif", values, clumps(rng, values.shape), overviews=True, **LAYOUTS["tiled"])
    for href in (str(path), f"{server.url}/a.tif"):
        assert np.array_equal(
            on_tile(Files(Client()).open(href), TILE, "bilinear", "uint16"), by_gdal(path, "bilinear")
        )


def test_of_a_masked_file_few_bytes_are_read(tmp_path, server):
    rng = np.random.default_rng(3)
    values = rng.integers(1, 9000, (2000, 2000)).astype("uint16")
    path = write(tmp_path / "a.tif", values, clumps(rng, values.shape), **LAYOUTS["cog"])
    wanted = np.zeros(TILE.shape, bool)
    _, row, column = tile_at()
    wanted[row : row + 5, column : column + 5] = True
    found = on_tile(Files(Client()).open(f"{server.url}/a.tif"), TILE, "bilinear", "uint16", wanted)
    assert np.array_equal(found[wanted], by_gdal(path, "bilinear")[wanted])
    assert sum(exchange.sent for exchange in server.log) < path.stat().st_size / 20


@pytest.mark.parametrize("nodata", [0, 7])
def test_a_mask_and_a_nodata_tag_leave_out_what_either_leaves_out(tmp_path, nodata):
    rng = np.random.default_rng(4)
    values, mask = rng.integers(0, 20, (400, 390)).astype("uint16"), clumps(rng, (400, 390))
    both = write(tmp_path / "a.tif", values, mask, nodata=nodata, **LAYOUTS["tiled"])
    tagged = write(tmp_path / "b.tif", np.where(mask, values, nodata).astype("uint16"), None, nodata=nodata)
    for resampling in ("nearest", "bilinear"):
        found = on_tile(Files(Client()).open(str(both)), TILE, resampling, "uint16")
        assert np.array_equal(found, by_gdal(tagged, resampling))


@pytest.mark.parametrize("nodata", [None, -32768])
def test_masked_floats_have_no_data(tmp_path, nodata):
    rng = np.random.default_rng(5)
    values, mask = rng.gamma(2, 0.1, (400, 390)).astype("float32"), clumps(rng, (400, 390))
    path = write(tmp_path / "a.tif", values, mask, step=10, nodata=nodata, **LAYOUTS["tiled"])
    found = on_tile(Files(Client()).open(str(path)), TILE, "nearest", "float32")
    with rasterio.open(path) as src:
        column, row = ~src.transform * TILE.transform * (0.5, 0.5)
    row, column = int(row), int(column)
    expected = np.where(mask, values, np.nan if nodata is None else nodata)[row : row + 512, column : column + 512]
    inside = found[: expected.shape[0], : expected.shape[1]]
    assert np.array_equal(inside, expected, equal_nan=True)


@pytest.mark.parametrize("layout", ["cog", "cog zstd"])
def test_files_without_a_mask_cost_no_further_request(tmp_path, server, layout):
    rng = np.random.default_rng(6)
    write(tmp_path / "a.tif", rng.integers(1, 9, (3000, 3000)).astype("uint16"), None, **LAYOUTS[layout])
    assert Files(Client()).open(f"{server.url}/a.tif").blocks.mask is None
    assert len(server.log) == 1


def test_directories_in_a_circle_end(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((9, 9), "uint16"), None)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[end : end + 4] = data[4:8]
    assert find_blocks(lambda start, length: bytes(data[start : start + length])).mask is None


def test_a_mask_beside_a_local_file_is_refused_by_name(tmp_path):
    item = s2_item(tmp_path, "A", "2021-07-01T11:00:00Z")
    (tmp_path / "A" / "B05.tif.msk").write_bytes(b"x")
    with pytest.raises(TileError, match=r"B05 has its mask in .*B05\.tif\.msk, which is not read"):
        read([item])


def add_mask(path, mask):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dst:
        dst.write_mask(np.asarray(mask, bool))


def test_masked_pixels_are_no_observations(tmp_path):
    """Of the classification, of radar without nodata; the other pixels keep their values."""
    optical, radar = (
        s2_item(tmp_path, "A", "2021-07-01T11:00:00Z"),
        s1_item(tmp_path, "R", "2021-07-01T11:00:00Z", {"vv": 0.1, "vh": 0.02}),
    )
    add_mask(optical["assets"]["SCL"]["href"], [[1, 0], [1, 1]])
    add_mask(radar["assets"]["vv"]["href"], np.eye(4))
    dpixels = read([optical, radar])
    assert mask_block(dpixels)[::2, ::2].tolist() == [[1, 0], [1, 1]]
    _, row, column = tile_at()
    vv = dpixels.s1_asc[0, row : row + 4, column : column + 4, 0]
    assert np.array_equal(vv, 6000 * np.eye(4))


def test_a_directory_beyond_the_end_of_a_file_is_no_end_of_the_list(tmp_path, server):
    path = write(tmp_path / "a.tif", np.ones((9, 9), "uint16"), None)
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[end : end + 4] = len(data).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BrokenError, match="ends after"):
        Files(Client()).open(f"{server.url}/a.tif")
