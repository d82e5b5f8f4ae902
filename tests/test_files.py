"""One of many claims a file; what the system says while it takes data becomes an error of ours."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tessera_cli.errors import DiskFullError, TileError, UsageError
from tessera_cli.files import claim_bytes, explained


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_one_of_many_claims_a_file(tmp_path: Path, monkeypatch: Any, links: bool) -> None:
    if not links:

        def refuse(*arguments: Any, **more: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(arguments[0]))

        monkeypatch.setattr(os, "link", refuse)
    for number in range(20):
        path = tmp_path / str(number)
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda mine, path=path: claim_bytes(path, bytes([mine]) * 9), range(8)))
        assert sum(won) == 1
        assert path.read_bytes() == bytes([won.index(True)]) * 9
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (errno.EROFS, UsageError, 2),
        (errno.EACCES, UsageError, 2),
        (errno.ENOSPC, DiskFullError, 4),
        (errno.EDQUOT, DiskFullError, 4),
        (errno.EFBIG, TileError, 4),
        (errno.EIO, TileError, 4),
        (errno.ESTALE, TileError, 4),
    ],
)
def test_what_the_system_says_of_our_folder_is_explained(tmp_path: Path, code: int, kind: Any, exit_code: int) -> None:
    text = os.strerror(code)
    for named in (
        [str(tmp_path / "a.json")],
        [os.fsencode(tmp_path / "a.json")],
        ["/b", None, str(tmp_path / "a.json")],
    ):
        with pytest.raises(kind, match=r"a\.json cannot be written") as caught, explained(tmp_path):
            raise OSError(code, text, *named)
        assert caught.value.exit_code == exit_code
    if code != errno.EACCES:
        with pytest.raises(kind, match="cannot be written"), explained(tmp_path):
            raise OSError(code, text)
    with pytest.raises(OSError, match="somewhere"), explained(tmp_path):
        raise OSError(code, text, "/somewhere/else")


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), KeyboardInterrupt(), ConnectionResetError(errno.ECONNRESET, "gone")]
)
def test_what_is_no_matter_of_the_disk_passes(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, explained(tmp_path):
        raise error
    assert caught.value is error
