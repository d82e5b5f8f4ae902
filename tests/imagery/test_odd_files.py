"""Files as nobody should write them: each is one missing scene, in bounded memory, and no fault of the run."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import rasterio
from affine import Affine

from tessera_cli.errors import TileError
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.reader import MissingFile, Reader
from tessera_cli.imagery.tiff import find_blocks
from tessera_cli.imagery.warp import on_tile
from tessera_cli.net import Client
from tests.helpers.builders import EPSG, ORIGIN, read, s2_item, tile_at

TILE, ROW, COLUMN = tile_at()
PLACE = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])
GEOGRAPHIC = ',PRIMEM["Reference",0],UNIT["degree",0.0174532925199433]]'
MARS = 'GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.8]]' + GEOGRAPHIC
MARS_GRID = (
    f'PROJCS["Mars",{MARS},PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],UNIT["metre",1]]'
)


def write(path, *, dtype="uint16", crs=f"EPSG:{EPSG}", transform=PLACE, size=60, **options):
    values = np.full((size, size), 9).astype("complex64" if dtype == "complex_int16" else dtype)
    shape = {"driver": "GTiff", "width": size, "height": size, "count": 1}
    with rasterio.open(path, "w", **shape, dtype=dtype, crs=crs, transform=transform, **options) as dst:
        dst.write(values, 1)
    return path


def scaled_by(*numbers):
    """Write these in place of the pixels' size and place (GeoTIFF's matrix), which rasterio would refuse."""

    def change(data):
        wanted = struct.pack("<3d", 10, 10, 0), struct.pack("<6d", 0, 0, 0, *ORIGIN, 0)
        scale, tie = data.index(wanted[0]), data.index(wanted[1])
        data[scale : scale + 16] = struct.pack("<2d", *numbers[:2])
        data[tie + 24 : tie + 40] = struct.pack("<2d", *numbers[2:])

    return change


NAN, INF = float("nan"), float("inf")
ODD = {
    "NaN as size": ({}, scaled_by(NAN, 10, *ORIGIN), "georeference"),
    "infinite size": ({}, scaled_by(10, INF, *ORIGIN), "georeference"),
    "size 0": ({}, scaled_by(0, 10, *ORIGIN), "georeference"),
    "size of next to nothing": ({}, scaled_by(1e-200, 1e-200, *ORIGIN), "georeference"),
    "NaN as place": ({}, scaled_by(10, 10, NAN, ORIGIN[1]), "georeference"),
    "infinite place": ({}, scaled_by(10, 10, ORIGIN[0], -INF), "georeference"),
    "beyond the Earth": ({}, scaled_by(10, 10, 1e300, 1e300), "coordinate system|georeference"),
    "local": ({"crs": 'LOCAL_CS["a site",UNIT["metre",1]]'}, None, "coordinate system"),
    "Mars": ({"crs": MARS, "transform": Affine(1e-4, 0, 2, 0, -1e-4, 50)}, None, "coordinate system"),
    "Mars in metres": ({"crs": MARS_GRID}, None, "coordinate system"),
    "geocentric": ({"crs": "EPSG:4978"}, None, "coordinate system"),
    "complex integers": ({"dtype": "complex_int16"}, None, "complex_int16"),
    "complex": ({"dtype": "complex64"}, None, ""),
    "tiny pixels": ({"transform": PLACE * Affine.scale(1e-4), "size": 2000}, None, ""),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_raster_is_broken_or_read(tmp_path, kind):
    """And raises nothing that would end the run."""
    options, change, words = ODD[kind]
    path = write(tmp_path / "a.tif", **options)
    if change:
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
    reader = Reader(Client())
    found = reader.read(str(path), lambda file: on_tile(file, TILE, "bilinear", file.header.dtype))
    if words:
        assert isinstance(found, MissingFile)
        assert found.outcome == "broken"
        assert any(word in str(found) for word in words.split("|"))
    else:
        assert isinstance(found, MissingFile | np.ndarray)


def test_an_odd_raster_is_one_missing_scene(tmp_path):
    items = [s2_item(tmp_path, f"S{day}", f"2021-07-0{day}T11:00:00Z") for day in (1, 2)]
    with rasterio.open(items[0]["assets"]["B02"]["href"], "r+") as dst:
        dst.crs = MARS_GRID
    with pytest.raises(TileError, match=r"S1: B02 is broken \(its coordinate system cannot be used.*--allow-missing 1"):
        read(items)
    dpixels = read(items, allow_missing=1)
    assert (list(dpixels.missing_scenes), len(dpixels.s2_dates)) == (["S1"], 1)


@pytest.mark.parametrize("nodata", ["-9999", "70000", "nan", "1.5"])
def test_a_number_for_no_data_that_no_pixel_can_have(tmp_path, nodata):
    path = write(tmp_path / "a.tif", nodata=65535)
    data = path.read_bytes()
    assert data.count(b"65535\0") == 1
    path.write_bytes(data.replace(b"65535\0", nodata.encode().ljust(6, b"\0")[:6]))
    with rasterio.open(path) as src:
        assert src.nodata != 65535
    found = Reader(Client()).read(str(path), lambda file: on_tile(file, TILE, "bilinear", "uint16"))
    assert (found == 9).sum() == 60 * 60


# --- memory -----------------------------------------------------------------------------------------------------------


def tiff(entries, more=b"", *, at=8):
    """Return a TIFF of these entries: (tag, type, count, value or place)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHI", b"II", 42, at) + struct.pack("<H", len(entries)) + table + bytes(4) + more


def described(width, height, block, *, compression=8, bits=16, extra=()):
    """Return the entries of a tiled image of one block."""
    return [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (277, 3, 1, 1)),
        *((322, 4, 1, block), (323, 4, 1, block), (324, 4, 1, 4096), (325, 4, 1, 1000), *extra),
    ]


TOO_LARGE = {
    "a deflated block of 3 GB": described(40000, 40000, 40000),
    "a block of 300 MB as it is": described(12300, 12300, 12300, compression=1),
    "a block that overflows": described(1 << 31, 1 << 31, 0xFFFFFFF0),
    "a block without bits": described(64, 64, 64, bits=0),
    "a tag of 1 GB": described(64, 64, 64, extra=[(50000, 1, 1 << 30, 64)]),
    "4,096 tags of 2 MB": described(64, 64, 64, extra=[(tag, 1, 1 << 21, 64) for tag in range(40000, 44086)]),
    "the same tag 4,087 times": described(64, 64, 64, extra=[(40000, 1, 1 << 12, 64)] * 4087),
    "lists of blocks of 1 GB": described(64, 64, 64, extra=[(273, 4, 1 << 28, 64)]),
    "the same list 4,000 times": described(64, 64, 64, extra=[(273, 4, 1 << 18, 64)] * 4000),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_what_a_directory_claims_is_bounded_before_it_is_fetched(kind):
    data, fetched = tiff(TOO_LARGE[kind]), 0

    def fetch(start, length):
        nonlocal fetched
        fetched += length
        return (data[start : start + length]).ljust(length, b"\0")

    with pytest.raises(ValueError, match="claims"):
        find_blocks(fetch)
    assert fetched < 1 << 25


def test_a_header_in_very_many_places_is_not_gathered(tmp_path):
    """4,000 tags, each of which would be a request."""
    extra = [(tag, 1, 100, 1_000_000 + 40_000 * (tag - 40000)) for tag in range(40000, 44000)]
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.write(tiff(described(64, 64, 64, extra=extra)))
        file.truncate(1 << 28)
    with pytest.raises(BrokenError, match="more than 256 places"):
        Files(Client()).open(str(path))


def test_a_block_that_expands_without_end_takes_bounded_memory(tmp_path):
    """Its directory says 8 KB, the stream goes on."""
    path = write(tmp_path / "a.tif", size=64, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    data, bomb = bytearray(path.read_bytes()), zlib.compress(bytes(1 << 26))
    blocks = find_blocks(lambda start, length: bytes(data[start : start + length]))
    for numbers, number in ((blocks.starts, len(data)), (blocks.lengths, len(bomb))):
        old = struct.pack("<HHI", 324 if numbers is blocks.starts else 325, 4, 1) + struct.pack("<I", int(numbers[0]))
        assert data.count(old) == 1
        place = data.index(old)
        data[place : place + 12] = old[:8] + struct.pack("<I", number)
    path.write_bytes(bytes(data) + bomb)
    tracemalloc.start()
    with pytest.raises(BrokenError, match="block 0"):
        Files(Client()).open(str(path)).pixels(rasterio.windows.Window(0, 0, 64, 64))
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


# --- blocks of another length -----------------------------------------------------------------------------------------

LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "strips": {"blockysize": 64},
}


def with_block(path, number, change):
    """Replace a deflated block; `change`: its content -> the new one."""
    data = bytearray(path.read_bytes())
    blocks = find_blocks(lambda start, length: bytes(data[start : start + length]))
    start, length = int(blocks.starts[number]), int(blocks.lengths[number])
    stream = zlib.compress(change(zlib.decompress(bytes(data[start : start + length]))), 9)
    for numbers, new in ((blocks.starts, len(data)), (blocks.lengths, len(stream))):
        place, item = data.index(numbers.tobytes()), numbers.itemsize
        data[place + number * item : place + (number + 1) * item] = new.to_bytes(item, "little")
    path.write_bytes(bytes(data) + stream)


@pytest.mark.parametrize("by", [-700, 2], ids=lambda by: f"{by:+} bytes")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "predictor", "interleave"),
    [
        *(("uint8", 1, "one band"), ("uint16", 2, "one band"), ("int16", 2, "one band"), ("float32", 1, "one band")),
        *(("float32", 2, "one band"), ("float32", 3, "one band"), ("uint16", 2, "pixel"), ("float32", 3, "band")),
    ],
)
def test_a_block_of_another_length_is_broken(tmp_path, dtype, predictor, layout, by, interleave):
    """With a sound checksum. GDAL would leave at its end what was in memory before."""
    values = np.random.default_rng(1).integers(0, 200, (1 if interleave == "one band" else 3, 200, 150)).astype(dtype)
    path, kind = tmp_path / "a.tif", {} if interleave == "one band" else {"interleave": interleave}
    shape = {"driver": "GTiff", "width": 150, "height": 200, "count": len(values), "dtype": dtype}
    place = {"crs": f"EPSG:{EPSG}", "transform": PLACE}
    how = {"compress": "deflate", "predictor": predictor, **kind, **LAYOUTS[layout]}
    with rasterio.open(path, "w", **shape, **place, **how) as dst:
        dst.write(values)
    window = rasterio.windows.Window(0, 0, 150, 200)
    assert np.array_equal(Files(Client()).open(str(path)).pixels(window), values[0])
    with_block(path, 1, lambda content: content + b"x" * by if by > 0 else content[:by])
    with pytest.raises(BrokenError, match="block 1 holds more or fewer bytes"):
        Files(Client()).open(str(path)).pixels(window)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_a_last_strip_that_is_filled_up_is_cut_and_never_left_to_gdal(tmp_path, dtype, predictor):
    """As some writers leave it: what is beyond the image is no pixel of it."""
    path = write(tmp_path / "a.tif", dtype=dtype, size=200, blockysize=64, compress="deflate", predictor=predictor)
    with_block(path, 3, lambda content: content + b"x" * (56 * 200 * 2))
    file, window = Files(Client()).open(str(path)), rasterio.windows.Window(0, 0, 200, 200)
    if dtype == "uint16":
        assert (file.pixels(window) == 9).all()
    else:
        with pytest.raises(BrokenError, match="block 3 holds more or fewer bytes"):
            file.pixels(window)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("by", [-200, 50, 512])
def test_a_block_that_is_not_compressed_may_be_filled_up_and_never_short(tmp_path, layout, by):
    """As some writers do, up to the next sector. What is beyond its length is no pixel."""
    values = np.random.default_rng(1).integers(1, 1000, (150, 150)).astype("uint16")
    path = write(tmp_path / "a.tif", size=150, **LAYOUTS[layout])
    with rasterio.open(path, "r+") as dst:
        dst.write(values, 1)
    data = bytearray(path.read_bytes())
    blocks = find_blocks(lambda start, length: bytes(data[start : start + length]))
    place, item = data.index(blocks.lengths.tobytes()), blocks.lengths.itemsize
    data[place : place + item] = (int(blocks.lengths[0]) + by).to_bytes(item, "little")
    path.write_bytes(data)
    file, window = Files(Client()).open(str(path)), rasterio.windows.Window(0, 0, 150, 150)
    if by > 0:
        assert np.array_equal(file.pixels(window), values)
        return
    with pytest.raises(BrokenError, match="block 0 claims"):
        file.pixels(window)
