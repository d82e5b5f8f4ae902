"""Only regular files are read, and no more of them, or of what they inflate to, than is expected."""

from __future__ import annotations

import gzip
import os
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tessera_cli.reading import GZIP, check_file, inflate, is_special, open_file, read_file, read_json

BOMB = 200_000_000


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A path that is no regular file, and what it is."""
    path, kind = tmp_path / "thing", request.param
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    if kind != "socket":
        yield path, kind
        return
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        yield path, kind


def test_what_is_no_regular_file_is_refused_at_once(special: tuple[Path, str]) -> None:
    path, kind = special
    for use in (open_file, check_file, lambda path: read_file(path, 10), read_json):
        with pytest.raises(OSError, match=f"it is a {kind}, and a file is needed"):
            use(path)
    assert is_special(path) == (kind != "folder")


def test_a_link_to_a_pipe_is_a_pipe_and_one_to_a_file_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"abc")
    for name in ("pipe", "file"):
        (tmp_path / f"to-{name}").symlink_to(name)
    with pytest.raises(OSError, match="a pipe"):
        open_file(tmp_path / "to-pipe")
    assert read_file(tmp_path / "to-file", 3) == b"abc"


def test_a_pipe_that_takes_the_place_of_a_file_between_look_and_opening_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("tessera_cli.reading.check_file", lambda path: None)
    with pytest.raises(OSError, match="a pipe"):
        open_file(tmp_path / "pipe")


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**12)  # sparse
    with pytest.raises(OSError, match="it has 1,000,000 MB, and at most 1 MB are read"):
        read_file(tmp_path / "large", 10**6)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"", b"{"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError):  # noqa: PT011 - of many libraries
        read_json(tmp_path / "x.json")


def test_inflating_is_the_inverse_of_deflating() -> None:
    data = bytes(range(256)) * 40
    assert inflate(zlib.compress(data), len(data)) == data
    assert inflate(gzip.compress(data), len(data), wbits=GZIP) == data
    assert inflate(gzip.compress(data) + gzip.compress(data), 2 * len(data), wbits=GZIP) == 2 * data  # members
    assert inflate(zlib.compress(b""), 0) == b""


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, GZIP])
def test_a_bomb_takes_no_memory(wbits: int) -> None:
    pack = zlib.compressobj(9, zlib.DEFLATED, wbits)
    bomb = b"".join(pack.compress(bytes(10**6)) for _ in range(BOMB // 10**6)) + pack.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than 1,000,000 bytes"):
            inflate(bomb, 10**6, wbits=wbits)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wbits", [zlib.MAX_WBITS, GZIP])
def test_cut_and_damaged_streams_are_refused(wbits: int) -> None:
    pack = zlib.compressobj(9, zlib.DEFLATED, wbits)
    packed = pack.compress(bytes(range(200))) + pack.flush()
    for broken in (packed[:-1], packed[:10], packed[:-6] + b"\1" + packed[-5:], packed + b"more"):
        with pytest.raises(ValueError, match=r"ends early|no whole|follow"):
            inflate(broken, 1000, wbits=wbits)
