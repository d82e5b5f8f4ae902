"""Files on disk and on servers: the same pixels from few bytes, and only what is proven counts as missing."""

import json
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as PixelWindow

from tessera_cli.catalog import MPC, Scenes
from tessera_cli.errors import AbsentError, CredentialsError, SourceRefusedError, SourceUnavailableError
from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.blocks import block_windows
from tessera_cli.imagery.byte_sources import ByteCache
from tessera_cli.imagery.decode import inflate
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.reader import MissingScene, Read, Reader, WarpOptions, as_it_is
from tessera_cli.imagery.tiff import find_blocks
from tessera_cli.imagery.warp import on_tile, window_under
from tessera_cli.net import Client, Response
from tests.helpers import servers
from tests.helpers.builders import EPSG, ORIGIN, s2_item, tile_at
from tests.helpers.listener import Listener
from tests.helpers.servers import FileServer, Reply, always, never, status

TILE, ROW, COLUMN = tile_at()
PLACE = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])


def write(path, values, *, transform=PLACE, crs=f"EPSG:{EPSG}", **options):
    values = values[None] if values.ndim == 2 else values
    with rasterio.open(
        path,
        "w",
        **{"driver": "GTiff", **options},
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        crs=crs,
        transform=transform,
    ) as dst:
        dst.write(values)
    return path


def noise(shape=(300, 260), dtype="uint16", seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, shape).astype(dtype)


LAYOUTS = {
    "cog": {"driver": "COG", "compress": "deflate", "blocksize": 128},
    "cog with predictor": {"driver": "COG", "compress": "deflate", "predictor": 2, "blocksize": 128},
    "cog zstd": {"driver": "COG", "compress": "zstd", "blocksize": 128},
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 128, "compress": "lzw"},
    "tiled without compression": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "strips": {"blockysize": 7, "compress": "deflate"},
    "strips without compression": {},
    "one strip": {"blockysize": 300},
    "big": {"BIGTIFF": "YES", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    "big-endian": {"ENDIANNESS": "BIG", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "big big-endian": {"ENDIANNESS": "BIG", "BIGTIFF": "YES", "compress": "deflate"},
    "sparse": {"SPARSE_OK": True, "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
    "nodata": {"nodata": 7, "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"},
}


@pytest.fixture
def server(tmp_path):
    with FileServer(tmp_path) as running:
        yield running


@pytest.fixture
def hurry(monkeypatch):
    servers.hurry(monkeypatch)


def remote(server, name="a.tif", **more):
    return Files(Client(), **more).open(f"{server.url}/{name}")


def local(path):
    return Files(Client()).open(str(path))


# --- where the blocks are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one strip"])  # which GDAL cuts up in memory
def test_blocks_are_where_gdal_finds_them(tmp_path, layout):
    values = noise()
    values[128:192, 64:128] = 0
    path = write(tmp_path / "a.tif", values, **LAYOUTS[layout])
    data = path.read_bytes()
    blocks = find_blocks(lambda start, length: data[start : start + length])
    with rasterio.open(path) as src:
        height, width = src.block_shapes[0]
        assert (blocks.block_height, blocks.block_width) == (height, width)
        for row in range(-(-src.height // height)):
            for column in range(-(-src.width // width)):
                start = src.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1)
                length = src.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1)
                (number,) = blocks.under((row * height, row * height + 1), (column * width, column * width + 1))
                expected = (int(start), int(length)) if start else (0, 0)
                assert (blocks.starts[number], blocks.lengths[number]) == expected


def test_blocks_under_a_window():
    blocks = find_blocks_of(width=100, height=70, block=32)
    assert blocks.under((0, 1), (0, 1)) == [0]
    assert blocks.under((31, 33), (63, 65)) == [1, 2, 5, 6]
    assert blocks.under((64, 70), (96, 100)) == [11]
    assert blocks.under((0, 70), (0, 100)) == list(range(12))


def find_blocks_of(width, height, block):
    count = -(-width // block) * -(-height // block)
    entries = [(256, width), (257, height), (322, block), (323, block)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    where = 10 + 12 * 6 + 4
    table += struct.pack("<HHII", 324, 4, count, where) + struct.pack("<HHII", 325, 4, count, where + 4 * count)
    data = b"II" + struct.pack("<HI", 42, 8) + struct.pack("<H", 6) + table + bytes(4) + bytes(8 * count)
    return find_blocks(lambda start, length: data[start : start + length])


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_remote_windows_hold_what_the_file_holds(tmp_path, server, layout):
    values = noise()
    path = write(tmp_path / "a.tif", values, **LAYOUTS[layout])
    file, same = remote(server), local(path)
    assert file.header.transform == same.header.transform
    assert (file.header.crs, file.header.nodata) == (same.header.crs, same.header.nodata)
    assert (file.header.dtype, file.header.shape) == ("uint16", (300, 260))
    rng = np.random.default_rng(1)
    for _ in range(12):
        row, column = rng.integers(0, (299, 259))
        window = PixelWindow(column, row, rng.integers(1, 261 - column), rng.integers(1, 301 - row))
        expected = values[row : row + window.height, column : column + window.width]
        assert np.array_equal(file.pixels(window), expected)
        assert np.array_equal(same.pixels(window), expected)


def test_of_several_bands_the_first_is_read(tmp_path, server):
    values = np.stack([noise(seed=s) for s in range(3)])
    for interleave in ("pixel", "band"):
        write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64, interleave=interleave)
        assert np.array_equal(remote(server).pixels(PixelWindow(70, 3, 100, 200)), values[0, 3:203, 70:170])


def test_a_header_longer_than_the_first_request(tmp_path, server):
    values = noise((2000, 1000))
    path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(TEXT="x" * 100_000)  # rewrites the directory at the end of the file
    file = remote(server)
    assert len(file.pieces) > 1
    assert len(file.header.tags["TEXT"]) == 100_000
    assert np.array_equal(file.pixels(PixelWindow(0, 1900, 1000, 100)), values[1900:])


def test_only_blocks_under_the_window_are_fetched(tmp_path, server):
    values = noise((1024, 1024))
    write(tmp_path / "a.tif", values, tiled=True, blockxsize=256, blockysize=256)
    file = remote(server)
    asked = len(server.log)
    file.pixels(PixelWindow(300, 300, 100, 100))
    (exchange,) = server.log[asked:]
    assert 256 * 256 * 2 <= exchange.sent <= 256 * 256 * 2 + 8
    file.pixels(PixelWindow(200, 300, 100, 100))  # one block more
    assert len(server.log) == asked + 2
    file.pixels(PixelWindow(0, 256, 512, 256))  # both are known
    assert len(server.log) == asked + 2


def test_ranges_of_a_file_are_requested_side_by_side(tmp_path, server):
    values = noise((1024, 1024))
    write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64)
    file, together = remote(server), threading.Barrier(4)

    def once_all_are_there(handler, reply):
        together.wait(30)
        handler.send(reply)

    server.faults = always(once_all_are_there)
    assert np.array_equal(file.pixels(PixelWindow(512, 0, 64, 256)), values[:256, 512:576])
    counted = file.source.client.stats.to_dict()
    assert (counted["requests"], counted["retries"]) == (len(server.log), {}) == (5, {})


def test_more_readers_and_ranges_than_connections_finish(tmp_path, server):
    values, files = noise((1024, 1024)), Files(Client(connections=2), block_bytes=0)
    write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64)
    with ThreadPoolExecutor(16) as readers:
        reading = [
            readers.submit(files.open(f"{server.url}/a.tif").pixels, PixelWindow(512, 0, 64, 512)) for _ in range(48)
        ]
    assert all(np.array_equal(one.result(), values[:512, 512:576]) for one in reading)
    assert files.client.stats.to_dict()["requests"] == len(server.log) == 1 + 48 * 8


def test_a_404_for_one_range_proves_nothing_while_another_fails(tmp_path, server, hurry):
    write(tmp_path / "a.tif", noise((1024, 1024)), tiled=True, blockxsize=64, blockysize=64)
    file = remote(server)
    server.faults = lambda request: status(404 if request.range[0] < 1 << 18 else 503)
    with pytest.raises(SourceUnavailableError, match="503"):
        file.pixels(PixelWindow(512, 0, 64, 512))
    assert file.source.client.stats.to_dict()["requests"] == len(server.log)  # all have ended
    server.faults = always(status(404))
    with pytest.raises(AbsentError):
        file.pixels(PixelWindow(512, 0, 64, 512))


def test_neighbouring_tiles_share_headers_and_blocks(tmp_path, server):
    west = Affine(10, 0, TILE.bounds[0], 0, -10, TILE.bounds[3])
    write(tmp_path / "a.tif", noise((512, 1024)), transform=west, tiled=True, blockxsize=1024, blockysize=512)
    files = Files(Client())
    for tile in (TILE, Tile(TILE.epsg, TILE.column + 1, TILE.row)):
        on_tile(files.open(f"{server.url}/a.tif"), tile, "nearest", "uint16")
    assert len(server.log) == 2


def test_caches_are_bounded():
    cache = ByteCache(10, len)
    for key in range(5):
        cache.put(key, f"{key}...")
    assert [cache.get(key) for key in range(5)] == [None, None, None, "3...", "4..."]
    cache.get(3)
    cache.put(5, "5...")
    assert (cache.get(3), cache.get(4)) == ("3...", None)
    cache.put(6, "6" * 11)  # more than there is room for
    assert (cache.get(6), cache.get(3)) == (None, "3...")
    cache.put(3, "a")
    assert cache.get(3) == "a"


# --- on the tile's grid -----------------------------------------------------------------------------------------------


def warped_by_a_vrt(path, tile, resampling):
    """The way of the official code: a WarpedVRT over the whole file."""
    with (
        rasterio.open(path) as src,
        WarpedVRT(
            src,
            crs=tile.crs,
            transform=tile.transform,
            width=512,
            height=512,
            resampling=Resampling[resampling],
            add_alpha=src.nodata is None,
        ) as vrt,
    ):
        return vrt.read(1, masked=True).filled(0)


@pytest.mark.parametrize("zone", ["home", "neighbour"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("nodata", [None, 0, 7, 65535])
@pytest.mark.parametrize("step", [10, 20, 30])
def test_the_part_under_the_tile_gives_what_the_whole_file_gives(tmp_path, server, zone, resampling, nodata, step):
    x, y, crs = *TILE.transform * (256, 256), TILE.crs
    if zone == "neighbour":
        crs = f"EPSG:{EPSG + 1}"
        (x,), (y,) = rasterio.warp.transform(TILE.crs, crs, [x], [y])
    size = 900  # pixels; the tile lies inside, or (step 30) over the south-east corner
    shift = size // 2 if step < 30 else size - 60
    place = Affine(step, 0, round(x / 60) * 60 - shift * step, 0, -step, round(y / 60) * 60 + shift * step)
    path = write(tmp_path / "a.tif", noise((size, size)), transform=place, crs=crs, nodata=nodata, driver="COG")
    expected = warped_by_a_vrt(path, TILE, resampling)
    assert len(np.unique(expected)) > 100
    for file in (local(path), remote(server)):
        found = on_tile(file, TILE, resampling, "uint16")
        assert np.array_equal(found, expected)


def test_files_that_lie_elsewhere_are_not_read(tmp_path, server):
    write(tmp_path / "a.tif", noise(), transform=Affine(10, 0, 100000, 0, -10, 100000))
    file = remote(server)
    assert window_under(TILE, file.header) is None
    asked = len(server.log)
    assert not on_tile(file, TILE, "nearest", "uint16").any()
    assert len(server.log) == asked


def test_floats_without_data_stay_without_data(tmp_path):
    values = np.full((40, 40), 0.5, "float32")
    values[:, 20:] = np.nan
    for nodata in (None, np.nan):
        path = write(tmp_path / "a.tif", values, nodata=nodata)
        found = on_tile(local(path), TILE, "bilinear", "float32")
        inside = found[ROW : ROW + 40, COLUMN : COLUMN + 40]
        assert (inside[:, :20] == 0.5).all()
        assert np.isnan(inside[:, 20:]).all()


# --- what a failure is ------------------------------------------------------------------------------------------------


def test_local_files(tmp_path):
    with pytest.raises(AbsentError, match="does not exist"):
        local(tmp_path / "none.tif")
    path = tmp_path / "x.tif"
    path.write_bytes(b"1234")
    with pytest.raises(BrokenError, match="4 bytes that do not decode"):
        local(path)
    with pytest.raises(SourceRefusedError, match="only http, https and local files"):
        Files(Client()).open("s3://bucket/key.tif")


def test_a_file_url(tmp_path):
    write(tmp_path / "a b.tif", noise())
    assert Files(Client()).open(f"file://{tmp_path}/a%20b.tif").header.shape == (300, 260)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"not a tiff" * 100, "not a TIFF"),
        (lambda data: data[:4] + struct.pack("<I", len(data) + 9) + data[8:], "ends after"),
        (lambda data: data[: len(data) // 2], "ends after"),
        (lambda data: data[:2000] + bytes(len(data) - 2000), "do not decode"),
    ],
    ids=["no TIFF", "directory beyond the end", "half a file", "zeros"],
)
def test_bytes_that_do_not_decode_are_broken(tmp_path, server, damage, words):
    path = write(tmp_path / "a.tif", noise(), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BrokenError, match=words):
        remote(server).pixels(PixelWindow(0, 0, 260, 300))


def test_a_broken_block_matters_where_it_is_needed(tmp_path, server):
    values = noise()
    path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    data = bytearray(path.read_bytes())
    blocks = find_blocks(lambda start, length: bytes(data[start : start + length]))
    start, length = int(blocks.starts[0]), int(blocks.lengths[0])
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    assert np.array_equal(remote(server).pixels(PixelWindow(64, 64, 190, 200)), values[64:264, 64:254])
    with pytest.raises(BrokenError, match="do not decode"):
        remote(server).pixels(PixelWindow(60, 60, 10, 10))


@pytest.mark.parametrize("predictor", [1, 2])
def test_damage_that_a_tiff_library_decodes_is_noticed(tmp_path, server, predictor):
    """GDAL stops before the checksum of a deflated block: most of these give other pixels and no error."""
    values = np.add.outer(np.arange(128) * 7, np.arange(128) * 3).astype("uint16") + noise((128, 128))
    path = write(
        tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64, compress="deflate", predictor=predictor
    )
    whole, rng, unnoticed = path.read_bytes(), np.random.default_rng(5), 0
    blocks = find_blocks(lambda start, length: whole[start : start + length])
    for _ in range(20):
        data, n = bytearray(whole), rng.integers(4)
        start, end = int(blocks.starts[n]), int(blocks.starts[n] + blocks.lengths[n])
        cut = int(rng.integers(start + 200, end - 4))
        data[cut:end] = bytes(end - cut)  # as copies that were broken off leave them
        path.write_bytes(data)
        for file in (local(path), remote(server)):
            with pytest.raises(BrokenError, match=f"block {n} is damaged"):
                file.pixels(PixelWindow(0, 0, 128, 128))
        try:
            with rasterio.open(path) as src:
                unnoticed += not np.array_equal(src.read(1), values)
        except rasterio.errors.RasterioIOError:
            pass
    assert unnoticed


def test_local_files_of_other_formats_are_for_gdal(tmp_path, server):
    """As JPEG 2000; on a server they are broken."""
    values = noise().astype("uint8")
    lossless = {"QUALITY": 100, "REVERSIBLE": "YES"}
    write(tmp_path / "a.jp2", values, driver="JP2OpenJPEG", **lossless)
    file = local(tmp_path / "a.jp2")
    assert (file.header.shape, file.header.epsg, file.blocks) == ((300, 260), EPSG, None)
    assert np.array_equal(file.pixels(PixelWindow(60, 70, 100, 200)), values[70:270, 60:160])
    near = np.array([[80, 82, 70, 71]])
    assert np.array_equal(file.pixels(PixelWindow(60, 70, 100, 200), near)[10:12], values[80:82, 60:160])
    with pytest.raises(BrokenError, match="not a TIFF"):
        remote(server, "a.jp2")


def test_what_a_file_names_is_not_opened(tmp_path, server):
    """A VRT, or the overviews of a GeoTIFF."""
    source = "<SimpleSource><SourceFilename>{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    port = "http://127.0.0.1:12345"  # replaced below: GDAL itself follows the tag when it is written
    write(tmp_path / "b.tif", noise())
    with rasterio.open(tmp_path / "b.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{port}/x.tif")
    tagged = (tmp_path / "b.tif").read_bytes()
    assert port.encode() in tagged
    with Listener() as listener:
        for named in (f"/vsicurl/{listener.url}/x.tif", f"{listener.url}/x.tif", str(tmp_path / "b.tif")):
            (tmp_path / "a.tif").write_text(
                '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32630</SRS><GeoTransform>0,10,0,0,0,-10'
                f'</GeoTransform><VRTRasterBand dataType="UInt16" band="1">{source.format(named)}</VRTRasterBand>'
                "</VRTDataset>"
            )
            with pytest.raises(BrokenError, match="no GeoTIFF"):
                local(tmp_path / "a.tif")
        (tmp_path / "b.tif").write_bytes(tagged.replace(port.encode(), listener.url.encode().ljust(len(port), b"/")))
        for opened in (local(tmp_path / "b.tif"), remote(server, "b.tif")):
            on_tile(opened, TILE, "bilinear", "uint16")
            opened.mask(PixelWindow(0, 0, 8, 8))
    assert listener.connections == 0


def test_a_stream_that_expands_without_end_takes_bounded_memory():
    bomb = zlib.compress(bytes(1 << 28))
    tracemalloc.start()
    assert inflate(0, bomb, 1000) is None
    with pytest.raises(BrokenError, match="block 0 is damaged"):
        inflate(0, bomb[:-1], 1000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_file_without_georeference_is_broken(tmp_path, server):
    write(tmp_path / "a.tif", noise(), crs=None)
    with pytest.raises(BrokenError, match="no georeference"):
        remote(server)


def scenes_of(tmp_path, server=None, **more):
    item = s2_item(tmp_path, "S", "2021-07-01T11:00:00Z", **more)
    if server is not None:
        item = json.loads(json.dumps(item).replace(str(tmp_path), server.url))
    return Scenes.from_items([item], MPC).scenes[0]


def outcomes(reader):
    return {outcome: count for outcome, count in reader.client.stats.to_dict()["reads"].items() if count}


def test_every_planned_read_is_counted(tmp_path, server, monkeypatch):
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.001)
    scene, reader = scenes_of(tmp_path, server), Reader(Client())
    (tmp_path / "S" / "B03.tif").unlink()
    (tmp_path / "S" / "B04.tif").write_bytes(b"damaged")
    wanted = [Read(scene, asset) for asset in ("B02", "B03", "B04")]
    layers = list(reader.layers(wanted, WarpOptions("bilinear", "uint16"), TILE, as_it_is))
    assert (layers[0][ROW : ROW + 4, COLUMN : COLUMN + 4] == 2000).all()
    assert layers[1] == MissingScene("S", "B03 is absent")
    assert layers[2].scene == "S"
    assert layers[2].why.startswith("B04 is broken")
    assert outcomes(reader) == {"read": 1, "absent": 1, "broken": 1}
    server.faults = always(status(403), "*B05*")
    with pytest.raises(CredentialsError):
        list(reader.layers([Read(scene, "B05")], WarpOptions("bilinear", "uint16"), TILE, as_it_is))
    assert outcomes(reader) == {"read": 1, "absent": 1, "broken": 1, "refused": 1}


def test_a_file_that_is_repaired_meanwhile_is_not_missing(tmp_path, server):
    scene, reader = scenes_of(tmp_path, server), Reader(Client())
    path = tmp_path / "S" / "B02.tif"
    good = path.read_bytes()
    server.faults = lambda request: path.write_bytes(good) and None if request.nth else None
    path.write_bytes(b"half of an upload")
    (layer,) = reader.layers([Read(scene, "B02")], WarpOptions("bilinear", "uint16"), TILE, as_it_is)
    assert (layer[ROW : ROW + 4, COLUMN : COLUMN + 4] == 2000).all()
    assert reader.client.stats.to_dict()["retries"] == {"does not decode": 1}


ERRORS = {
    "text": Reply(200, {"Content-Type": "text/plain"}, b"Service unavailable"),
    "data": Reply(200, {"Content-Type": "image/tiff"}, bytes(100)),
    "JSON": Reply(200, {"Content-Type": "application/json"}, b'{"message": "busy"}'),
}


@pytest.mark.parametrize("compress", [None, "deflate"])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_with_status_200_is_neither_pixels_nor_proof_of_damage(tmp_path, server, hurry, error, compress):
    values = noise((300, 300)) + np.uint16(1)
    write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64, compress=compress)
    file = remote(server)
    server.faults = always(lambda handler, reply: handler.send(error))
    with pytest.raises(SourceUnavailableError):
        file.pixels(PixelWindow(200, 200, 64, 64))
    server.faults = never
    assert np.array_equal(file.pixels(PixelWindow(200, 200, 64, 64)), values[200:264, 200:264])


def test_a_file_that_is_replaced_while_it_is_read(tmp_path, server, hurry):
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    write(tmp_path / "a.tif", noise((300, 300)), **options)
    file = remote(server)
    write(tmp_path / "a.tif", noise((400, 400)), **options)
    with pytest.raises(SourceUnavailableError, match="bytes now"):
        file.pixels(PixelWindow(200, 200, 64, 64))


def test_layers_come_in_the_order_of_the_reads(tmp_path):
    scene, reader = scenes_of(tmp_path), Reader(Client(), threads=3)
    wanted = [Read(scene, asset) for asset in MPC.s2_band_assets] * 5
    levels = [int(layer.max()) for layer in reader.layers(wanted, WarpOptions("bilinear", "uint16"), TILE, as_it_is)]
    assert levels == [4000, 2000, 3000, 8000, 8500, 5000, 6000, 7000, 9000, 9500] * 5


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers_never_give_other_pixels_unnoticed(data, tmp_path_factory):
    """Whatever bytes of the header change: an error, or what GDAL makes of the same bytes as a file."""
    folder = tmp_path_factory.mktemp("damaged")
    path = write(folder / "a.tif", noise((90, 80)), tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)

    class Direct(Client):
        def fetch_parts(self, url, parts):
            found = []
            for (first, length), _ in parts:
                part = bytes(content[first : first + length])
                told = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"}
                found.append(Response(part, told, 206))
            return found

    try:
        file = Files(Direct()).open("http://example.test/a.tif")
        height, width = file.header.shape
        window = PixelWindow(width // 8, height // 16, max(1, width // 2), max(1, height // 2))
        found = file.pixels(window)
    except BrokenError:
        return
    with rasterio.open(path) as src:
        assert np.array_equal(found, src.read(1, window=window))


def test_the_same_pixels_as_odc_stac(tmp_path):
    """Another reader, with its own windows and warps: in the home zone all of them agree."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    rng = np.random.default_rng(3)
    bands = {"B02": rng.integers(0, 9000, (300, 300)), "B05": rng.integers(0, 9000, (150, 150))}
    item = s2_item(tmp_path, "S", "2021-07-01T11:00:00Z", bands, rng.integers(0, 12, (150, 150)), size=300, nodata=0)
    scene, reader = Scenes.from_items([item], MPC).scenes[0], Reader(Client())
    for asset, resampling, dtype in (
        ("B02", "bilinear", "uint16"),
        ("B05", "bilinear", "uint16"),
        ("SCL", "nearest", "uint8"),
    ):
        theirs = odc.stac.load(
            [pystac.Item.from_dict(item)],
            bands=[asset],
            geobox=GeoBox(TILE.shape, TILE.transform, TILE.crs),
            groupby="id",
            dtype=dtype,
            resampling=resampling,
        )
        (ours,) = reader.layers([Read(scene, asset)], WarpOptions(resampling, dtype), TILE, as_it_is)
        assert ours.any()
        assert np.array_equal(ours, theirs[asset].values[0])


# --- only what wanted pixels need -------------------------------------------------------------------------------------


def spots(rng):
    """bool (512, 512): a few patches, or a scatter of single pixels."""
    wanted = np.zeros(TILE.shape, bool)
    for _ in range(rng.integers(1, 5)):
        row, column = rng.integers(0, 512, 2)
        height, width = rng.integers(1, rng.choice([2, 40, 200]), 2)
        wanted[row : row + height, column : column + width] = True
    return wanted


@pytest.mark.parametrize("zone", ["home", "neighbour"])
@pytest.mark.parametrize("layout", ["cog", "tiled", "tiled without compression", "strips", "one strip"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_wanted_pixels_do_not_depend_on_what_else_is_wanted(tmp_path, server, zone, layout, nodata):
    x, y, crs = *TILE.transform * (256, 256), TILE.crs
    if zone == "neighbour":
        crs = f"EPSG:{EPSG + 1}"
        (x,), (y,) = rasterio.warp.transform(TILE.crs, crs, [x], [y])
    rng = np.random.default_rng(11)
    for step, resampling in ((10, "bilinear"), (20, "bilinear"), (20, "nearest"), (30, "bilinear"), (60, "nearest")):
        size = 7000 // step
        place = Affine(step, 0, round(x / 60) * 60 - size // 2 * step, 0, -step, round(y / 60) * 60 + size // 2 * step)
        path = write(
            tmp_path / "a.tif", noise((size, size)), transform=place, crs=crs, nodata=nodata, **LAYOUTS[layout]
        )
        full = on_tile(local(path), TILE, resampling, "uint16")
        assert full.any()
        for _ in range(3):
            wanted = spots(rng)
            for file in (local(path), remote(server)):
                found = on_tile(file, TILE, resampling, "uint16", wanted=wanted)
                assert np.array_equal(found[wanted], full[wanted])


def test_a_small_area_takes_few_blocks(tmp_path, server):
    west = Affine(10, 0, TILE.bounds[0], 0, -10, TILE.bounds[3])
    write(tmp_path / "a.tif", noise((512, 512)), transform=west, tiled=True, blockxsize=128, blockysize=128)
    wanted = np.zeros(TILE.shape, bool)
    wanted[140:150, 140:150] = True
    file = remote(server)
    asked = len(server.log)
    on_tile(file, TILE, "bilinear", "uint16", wanted=wanted)
    assert sum(exchange.sent for exchange in server.log[asked:]) <= 128 * 128 * 2 + 8
    wanted[383:385] = True  # where two rows of blocks meet
    on_tile(file, TILE, "bilinear", "uint16", wanted=wanted)
    assert sum(exchange.sent for exchange in server.log[asked:]) <= 9 * (128 * 128 * 2 + 8)


@settings(max_examples=200, deadline=None)
@given(
    block=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    window=st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 60)] * 2),
    rectangles=st.lists(st.tuples(*[st.integers(-20, 120)] * 2, *[st.integers(1, 30)] * 2), max_size=6),
)
def test_parts_are_the_blocks_that_hold_a_wanted_pixel(block, window, rectangles):
    row, column, height, width = window
    near = np.array([(r, r + h, c, c + w) for r, c, h, w in rectangles], np.int64).reshape(-1, 4)
    taken = np.zeros((200, 200), int)
    for part in block_windows(near, PixelWindow(column, row, width, height), block):
        taken[part.row_off : part.row_off + part.height, part.col_off : part.col_off + part.width] += 1
    wanted = np.zeros((200, 200), bool)
    for r, end, c, stop in near:
        wanted[max(r, row) : max(min(end, row + height), 0), max(c, column) : max(min(stop, column + width), 0)] = True
    expected = np.zeros((200, 200), int)
    for r in range(row, row + height):
        for c in range(column, column + width):
            top, left = r // block[0] * block[0], c // block[1] * block[1]
            expected[r, c] = wanted[top : top + block[0], left : left + block[1]].any()
    assert np.array_equal(taken, expected)


def test_small_files_are_requested_once(tmp_path, server):
    write(tmp_path / "a.tif", noise((80, 80)), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    assert np.array_equal(remote(server).pixels(PixelWindow(0, 0, 80, 80)), noise((80, 80)))
    assert len(server.log) == 1
    write(tmp_path / "b.tif", noise((100, 100)), blockysize=100)  # a block that begins in the header's answer
    assert np.array_equal(remote(server, "b.tif").pixels(PixelWindow(0, 0, 100, 100)), noise((100, 100)))
    assert [exchange.range[0] for exchange in server.log[1:]] == [0, 1 << 14]
