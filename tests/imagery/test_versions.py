"""A file that is replaced while it is read is read from its beginning; wrong bytes are noticed by what tells."""

import hashlib
import os

import numpy as np
import pytest
from rasterio.windows import Window as PixelWindow

from tessera_cli.catalog import MPC, Scenes
from tessera_cli.errors import SourceUnavailableError
from tessera_cli.imagery.doubts import Doubts
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.reader import MissingFile, Read, Reader, WarpOptions, as_it_is
from tessera_cli.net import Client, RangeResponse
from tests.helpers import servers
from tests.helpers.builders import s2_item
from tests.helpers.servers import FileServer, Reply, always, with_date, with_etag, with_opaque_etag
from tests.imagery.test_reader import TILE, write

SIZE = 192
WINDOW = PixelWindow(0, 0, SIZE, SIZE)


@pytest.fixture
def server(tmp_path, monkeypatch):
    servers.hurry(monkeypatch)
    monkeypatch.setattr("tessera_cli.imagery.geotiff.FIRST_READ", 600)
    monkeypatch.setattr("tessera_cli.imagery.geotiff.GAP", 0)
    with FileServer(tmp_path) as running:
        yield running


def level(path, number, compress=None, when=1e9):
    """Write an image of one value, as long as any other, and of this date."""
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    write(path, np.full((SIZE, SIZE), number, "uint16"), compress=compress, **tiles)
    os.utime(path, (when, when))
    return path


def pixels(file):
    """Read the image in three parts."""
    return np.concatenate([file.pixels(PixelWindow(0, row, SIZE, 64)) for row in range(0, SIZE, 64)])


def in_the_middle(server, path, number, *, every=False):
    """Replace the file once its second range of pixels is asked for (`every`: the second of each version)."""
    count = 0

    def plan(request):
        nonlocal count
        if request.range[0] > 600:
            count += 1
            if count == 2 or (every and count % 2 == 0):
                level(path, number + count, when=1e9 + count)

    return plan


@pytest.mark.parametrize("validators", [with_etag, with_opaque_etag, with_date, None])
def test_a_file_replaced_in_the_middle_is_read_from_its_beginning(tmp_path, server, validators, monkeypatch):
    monkeypatch.setattr("tessera_cli.imagery.geotiff.WHOLE", 0)
    path = level(tmp_path / "a.tif", 5)
    server.validators = validators or server.validators
    server.faults = in_the_middle(server, path, 5)
    reader = Reader(Client())
    found = reader.read(f"{server.url}/a.tif", pixels)
    if validators is None:
        assert np.unique(found).tolist() == [5, 7]  # nobody can see it
        return
    assert np.unique(found).tolist() == [7]
    assert reader.client.stats.to_dict()["retries"] == {"changed": 1}
    assert reader.client.stats.to_dict()["reads"]["read"] == 1


@pytest.mark.parametrize("validators", [with_opaque_etag, with_date])
def test_blocks_of_another_version_are_not_used_again(tmp_path, server, validators):
    """Between two tiles of a run, that is."""
    path, reader, href = level(tmp_path / "a.tif", 5), Reader(Client()), f"{server.url}/a.tif"
    server.validators = validators
    top = reader.read(href, lambda file: file.pixels(PixelWindow(0, 0, 64, 64)))
    level(path, 6, when=2e9)
    both = reader.read(href, lambda file: file.pixels(PixelWindow(0, 0, 128, 64)))
    assert (np.unique(top).tolist(), np.unique(both).tolist()) == ([5], [6])


def test_a_file_that_never_rests_is_given_up(tmp_path, server, monkeypatch):
    monkeypatch.setattr("tessera_cli.imagery.geotiff.WHOLE", 0)
    path = level(tmp_path / "a.tif", 5)
    server.validators = with_etag
    server.faults = in_the_middle(server, path, 5, every=True)
    with pytest.raises(SourceUnavailableError, match="changes while it is being read: it has the ETag"):
        Reader(Client()).read(f"{server.url}/a.tif", pixels)
    assert len(server.log) < 30


def test_servers_that_do_not_agree_on_an_etag_end_in_a_message(tmp_path, server):
    level(tmp_path / "a.tif", 5)
    server.validators = lambda path, content: {"ETag": f'"{len(server.log)}"'}
    with pytest.raises(SourceUnavailableError, match="ETag"):
        Reader(Client()).read(f"{server.url}/a.tif", pixels)
    assert len(server.log) < 30


MACHINES = {
    "two": lambda nth, span: f"-{nth % 2}",
    "three": lambda nth, span: f"-{nth % 3}",
    "a suffix now and then": lambda nth, span: "-gzip" if nth % 3 else "",
    "of the part": lambda nth, span: f"-{span[0]}",
}


@pytest.mark.parametrize("kind", MACHINES)
def test_an_etag_that_comes_back_says_nothing(tmp_path, server, kind):
    """As of several machines behind one address: date and size decide, and the file is read as it always was."""
    for name in ("a", "b"):
        level(tmp_path / f"{name}.tif", 5)

    def validators(path, content):
        machine = MACHINES[kind](len(server.log), server.log[-1].range)
        return {**with_date(path, content), "ETag": f'"{path.stat().st_mtime}{machine}"'}

    server.validators = validators
    reader = Reader(Client())
    assert np.unique(reader.read(f"{server.url}/a.tif", pixels)).tolist() == [5]
    assert len(server.log) < 30
    server.faults = in_the_middle(server, tmp_path / "b.tif", 5)
    assert np.unique(reader.read(f"{server.url}/b.tif", pixels)).tolist() == [7]


@pytest.mark.parametrize("how", ["in place", "renamed over it", "same size and date"])
def test_a_local_file_replaced_in_the_middle(tmp_path, how):
    path, count = level(tmp_path / "a.tif", 5), 0

    def use(file):
        nonlocal count
        top = file.pixels(PixelWindow(0, 0, SIZE, 64))
        if (count := count + 1) == 1:
            if how == "in place":
                level(path, 6, when=1e9 + 1)
            else:
                level(tmp_path / "b.tif", 6, when=1e9 + ("date" not in how)).replace(path)
        return np.concatenate([top, file.pixels(PixelWindow(0, 64, SIZE, 128))])

    assert np.unique(Reader(Client()).read(str(path), use)).tolist() == [6]


# --- wrong bytes ------------------------------------------------------------------------------------------------------


def zeros(handler, reply):
    handler.send(Reply(reply.status, reply.headers, bytes(len(reply.body))))


@pytest.mark.parametrize("compress", [None, "lzw", "zstd"])
def test_a_small_file_without_checksums_has_that_of_its_server(tmp_path, server, compress):
    level(tmp_path / "good.tif", 5, compress)
    level(tmp_path / "a.tif", 6, compress)
    server.validators = with_etag
    files = Files(Client())
    assert (files.open(f"{server.url}/good.tif").pixels(WINDOW) == 5).all()
    server.faults = lambda request: zeros if request.path == "a.tif" and request.range[0] >= 600 else None
    with pytest.raises(BrokenError, match=r"checksum that its server tells \(ETag\)"):
        files.open(f"{server.url}/a.tif")


def test_etags_that_only_look_like_checksums_do_no_harm(tmp_path, server):
    for name in ("a", "b", "c"):
        level(tmp_path / f"{name}.tif", 5)
    server.validators = lambda path, content: {"ETag": f'"{hashlib.md5(path.name.encode()).hexdigest()}"'}
    files = Files(Client())
    for name in ("a", "b", "c"):
        assert (files.open(f"{server.url}/{name}.tif").pixels(WINDOW) == 5).all()
    assert not files.doubts.hosts


def test_wrong_bytes_before_the_meaning_of_etags_was_known_are_doubted():
    doubts, good = Doubts(), hashlib.md5(b"good").hexdigest()
    said = RangeResponse(b"", 4, etag_md5=good)
    assert doubts.contradiction("https://a.example/1", b"evil", said) is None
    assert "https://a.example/2" not in doubts
    assert doubts.contradiction("https://a.example/2", b"good", said) is None
    assert "https://a.example/3" in doubts
    assert "https://b.example/3" not in doubts
    assert doubts.contradiction("https://a.example/1", b"evil", said) == "ETag"


def test_a_server_whose_bytes_were_wrong_is_asked_twice(tmp_path, server):
    """For what has no checksum: its headers and blocks, those too that were fetched before."""
    level(tmp_path / "a.tif", 5)
    level(tmp_path / "b.tif", 6, "deflate")
    reader, a, b = Reader(Client()), f"{server.url}/a.tif", f"{server.url}/b.tif"
    part = PixelWindow(0, 64, SIZE, 64)
    lies = {"a.tif": lambda start: start > 0, "b.tif": lambda start: start == 0}
    server.faults = lambda request: zeros if not request.nth and lies[request.path](request.range[0]) else None
    assert (reader.read(a, lambda file: file.pixels(part)) == 0).all()  # nobody can see it
    assert (reader.read(b, lambda file: file.pixels(part)) == 6).all()
    assert reader.doubted == {"127.0.0.1"}
    assert (reader.read(a, lambda file: file.pixels(part)) == 5).all()
    before = len(server.log)
    assert (reader.read(a, lambda file: file.pixels(part)) == 5).all()
    assert (reader.read(b, lambda file: file.pixels(part)) == 6).all()
    assert len(server.log) - before <= 2  # the header of b, and its blocks


def test_a_server_that_sends_other_bytes_each_time_is_given_up(tmp_path, server):
    level(tmp_path / "a.tif", 5)
    reader, href = Reader(Client()), f"{server.url}/a.tif"
    reader._files.doubts.cast(href)
    answers = iter(range(1000))

    def fault(handler, reply):
        handler.send(Reply(reply.status, reply.headers, bytes([next(answers) % 251]) * len(reply.body)))

    server.faults = lambda request: fault if request.range[0] else None
    with pytest.raises(SourceUnavailableError, match="other bytes each time"):
        reader.read(href, lambda file: file.pixels(WINDOW))


def test_a_file_that_is_broken_for_good_is_a_missing_one_at_doubted_servers_too(tmp_path, server):
    path = level(tmp_path / "a.tif", 5, "lzw")
    path.write_bytes(path.read_bytes()[:700] + bytes(path.stat().st_size - 700))
    reader = Reader(Client())
    for _ in range(2):
        assert isinstance(reader.read(f"{server.url}/a.tif", pixels), MissingFile)
        assert reader.doubted


@pytest.mark.parametrize("compress", [None, "lzw", "deflate"])
@pytest.mark.parametrize("kept", [300, 5000])
def test_what_comes_without_its_length_and_ends_early_proves_nothing(tmp_path, server, compress, kept):
    """As HTTP/1.0 sends it: not a missing scene, which --allow-missing would accept."""
    write(tmp_path / "a.tif", np.arange(SIZE * SIZE, dtype="uint16").reshape(SIZE, SIZE), compress=compress)

    def cut(handler, reply):
        handler.close_connection = True
        handler.exchange.status = 200
        handler.send_response(200)
        handler.end_headers()
        handler.write((tmp_path / "a.tif").read_bytes()[:kept])

    server.faults = always(cut)
    reader = Reader(Client())
    with pytest.raises(SourceUnavailableError):
        reader.read(f"{server.url}/a.tif", lambda file: file.pixels(WINDOW))
    assert not reader.doubted


def test_a_sound_server_is_asked_once(tmp_path, server):
    level(tmp_path / "a.tif", 5)
    Reader(Client()).read(f"{server.url}/a.tif", pixels)
    asked = [exchange.range for exchange in server.log]
    assert len(asked) == len(set(asked)) == 4


# --- what items say ---------------------------------------------------------------------------------------------------


def multihash(name, data):
    prefix = {"md5": "d50110", "sha1": "1114", "sha256": "1220", "sha512": "1340", "bare": ""}[name]
    return prefix + hashlib.new("md5" if name == "bare" else name, data).hexdigest()


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512", "bare"])
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_the_checksum_in_an_item(tmp_path, server, monkeypatch, remote, name):
    monkeypatch.undo()  # headers of 16 KB: small files are read whole
    item = s2_item(tmp_path, "S", "2021-07-01T11:00:00Z")
    asset = item["assets"]["B02"]
    path = tmp_path / "S" / "B02.tif"
    data = path.read_bytes()
    options, href = WarpOptions("bilinear", "uint16"), f"{server.url}/S/B02.tif" if remote else str(path)
    for content, size, sound in ((data, len(data), True), (data[1:], len(data), False), (data[1:], 1, True)):
        asset |= {"href": href, "file:size": size, "file:checksum": multihash(name, content)}
        scene = Scenes.from_items([item], MPC).scenes[0]
        (layer,) = Reader(Client()).layers([Read(scene, "B02")], options, TILE, as_it_is)
        assert isinstance(layer, np.ndarray) == sound
        assert sound or "checksum that its item tells" in layer.why


def test_another_size_than_the_item_says_is_told_once(tmp_path, caplog):
    item = s2_item(tmp_path, "S", "2021-07-01T11:00:00Z")
    for asset in item["assets"].values():
        asset["file:size"] = 10
    scene = Scenes.from_items([item], MPC).scenes[0]
    reads = [Read(scene, asset) for asset in ("B02", "B03")]
    layers = list(Reader(Client()).layers(reads, WarpOptions("bilinear", "uint16"), TILE, as_it_is))
    assert all(isinstance(layer, np.ndarray) for layer in layers)
    assert len([record for record in caplog.records if "file:size" in record.message]) == 1
