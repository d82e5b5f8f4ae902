"""Files with the first embeddings of a tile: read back as they were, or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.folders.partial import PartialFile, partial_digest
from tessera_cli.models import load_model
from tests.helpers.tiles import made_up

ROWS, DIMS = 50, 6
IDENTITY = {"model": "null", "dims": DIMS, "dtype": "int8"}


def arrays(dtype: str, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(3)
    values = rng.integers(-127, 128, (rows, DIMS)).astype(dtype)
    return values, None if dtype == "float32" else rng.random(rows, np.float32)


def empty(dtype: str, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray | None]:
    values = np.zeros((rows, DIMS), dtype)
    return values, None if dtype == "float32" else np.zeros(rows, np.float32)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("rows", [1, 20, ROWS])
def test_rows_come_back(dtype: str, rows: int, tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "a_2021.partial", "d" * 64)
    values, scales = arrays(dtype, rows)
    file.save(values, scales)
    found, factors = empty(dtype)
    assert file.load(found, factors) == rows
    assert found[:rows].tobytes() == values.tobytes()
    assert not found[rows:].any()
    if scales is not None and factors is not None:
        assert factors[:rows].tobytes() == scales.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a_2021.partial"]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_no_changed_cut_or_longer_file_is_believed(dtype: str, tmp_path: Path) -> None:
    """Every bit of the file counts, and its length."""
    file = PartialFile(tmp_path / "a.partial", "d" * 64)
    file.save(*arrays(dtype, 3))
    whole = file.path.read_bytes()
    assert file.load(*empty(dtype)) == 3
    for at in range(len(whole)):
        for bit in (0, 5):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            file.path.write_bytes(changed)
            assert file.load(*empty(dtype)) == 0 or json.loads(changed.split(b"\n")[0]) == json.loads(
                whole.split(b"\n")[0]
            ), (at, bit)
        file.path.write_bytes(whole[:at])
        assert file.load(*empty(dtype)) == 0, at
    file.path.write_bytes(whole + b"\0")
    assert file.load(*empty(dtype)) == 0
    file.path.write_bytes(whole)
    assert file.load(*empty(dtype, 2)) == 0, "it holds more than there is"
    assert dataclasses.replace(file, digest="e" * 64).load(*empty(dtype)) == 0


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\n",
        b"null\n",
        b"[1]\n",
        b'"pixels"\n',
        b'{"digest": "D", "sha256": "0"}\n',
        b'{"digest": "D", "pixels": 1e300, "sha256": "0"}\n',
        b'{"digest": "D", "pixels": true, "sha256": "0", "replaces": null}\n',
        b'{"digest": "D", "pixels": -1, "sha256": "0", "replaces": null}\n',
        b'{"digest": "D", "pixels": 99999999999999999999, "sha256": "0", "replaces": null}\n',
        b'{"digest": "D", "pixels": 2, "sha256": ["0"], "replaces": null}\n',
        b'{"digest": ["D"], "pixels": 2, "sha256": "0", "replaces": {}}\n',
        b'{"digest": "D", "pixels": NaN}\n',
        b"[" * 900 + b"\n",
        b" " * 100_000 + b"{}\n",
        b"\xff\xfe\n",
        b"\x80\x04N.",  # a pickle
    ],
)
def test_what_strangers_write_is_not_believed(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.partial"
    path.write_bytes(header + b"\0" * 200)
    assert PartialFile(path, "D").load(*empty("int8")) == 0


def test_nan_is_not_believed(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "a.partial", "d" * 64)
    values, _ = arrays("float32")
    values[3, 2] = np.nan
    file.save(values, None)
    assert file.load(*empty("float32")) == 0


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.partial", tmp_path / "folder.partial"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder, tmp_path / "none.partial"):
        assert PartialFile(path, "D").load(*empty("int8")) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_disk_that_takes_nothing_is_said_and_not_raised(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = PartialFile(tmp_path / "a_2021.partial", "d" * 64)
    file.save(*arrays("int8", 10))

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        file.save(*arrays("int8", 20))
    assert "a_2021" in caplog.text
    assert file.load(*empty("int8")) == 10, "what was kept before stays"
    assert [path.name for path in tmp_path.iterdir()] == ["a_2021.partial"]


def test_a_folder_in_its_place_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = PartialFile(tmp_path / "a.partial", "d" * 64)
    file.path.mkdir()
    file.save(*arrays("int8"))
    assert "cannot be kept" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]


def test_two_that_write_at_once_leave_one_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes whole between our last byte and our renaming."""
    file = PartialFile(tmp_path / "a.partial", "d" * 64)
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        file.save(*arrays("int8", 30))
        assert file.load(*empty("int8")) == 30
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    file.save(*arrays("int8", 20))
    assert file.load(*empty("int8")) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]


def tile() -> DPixels:
    pixels = made_up(np.tile([[5, 3, 2]], (60, 1)), seed=4, shape=(6, 10))
    return dataclasses.replace(pixels, input_digest="abc")


def test_the_digest_follows_everything_that_the_bytes_depend_on() -> None:
    dpixels, model = tile(), load_model("null")
    everything = np.ones((6, 10), bool)
    ours = partial_digest(dpixels, everything, model, IDENTITY)
    assert partial_digest(tile(), everything.copy(), model, dict(IDENTITY)) == ours

    def changed(field: str, at: tuple[int, ...], value: Any) -> DPixels:
        array = getattr(dpixels, field).copy()
        array[at] = value
        return dataclasses.replace(dpixels, **{field: array})

    fewer = everything.copy()
    fewer[2, 3] = False
    day = np.datetime64("2024-12-31")
    others = [
        partial_digest(dpixels, fewer, model, IDENTITY),
        partial_digest(dpixels, everything, model, IDENTITY | {"dims": 5}),
        partial_digest(dpixels, everything, model, IDENTITY | {"dtype": "float32"}),
        *(
            partial_digest(other, everything, model, IDENTITY)
            for other in (
                dataclasses.replace(dpixels, input_digest="abd"),
                dataclasses.replace(dpixels, missing_scenes={"x": "absent"}),
                changed("s2_dates", (-1,), day),
                changed("s1_desc", (0, 3, 4, 1), 77),
                changed("s2_mask", (0, 5, 9), 1 - dpixels.s2_mask[0, 5, 9]),
                changed("s2", (*np.argwhere(dpixels.s2_mask != 0)[0], 1), 10001),
            )
        ),
    ]
    assert len({ours, *others}) == 1 + len(others)
    hidden = changed("s2", (*np.argwhere(dpixels.s2_mask == 0)[0], 1), 10001) if (dpixels.s2_mask == 0).any() else None
    assert hidden is None or partial_digest(hidden, everything, model, IDENTITY) == ours


def test_the_digest_follows_software_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.inference.test_encode import small

    dpixels, everything = tile(), np.ones((6, 10), bool)
    found = {partial_digest(dpixels, everything, small("student"), IDENTITY)}
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    found.add(partial_digest(dpixels, everything, small("student"), IDENTITY))
    monkeypatch.setattr("tessera_cli.folders.partial.__version__", "99")
    found.add(partial_digest(dpixels, everything, small("student"), IDENTITY))
    assert len(found) == 3
