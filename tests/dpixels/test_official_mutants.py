"""Changed bytes of official folders: no mutant of a header reads otherwise, none ends in another exception."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli.dpixels import describe, official, read_folder, write_folder
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import ForeignTile
from tests.helpers.tiles import made_up

FILES = (
    "bands.npy",
    "masks.npy",
    "doys.npy",
    "sar_ascending.npy",
    "sar_ascending_doy.npy",
    "sar_descending.npy",
    "sar_descending_doy.npy",
)
HEADER = 128
"""Bytes before the values."""


def small_folder(parent: Path) -> Path:
    counts = np.tile([[3, 2, 2]], (6, 1))
    tile = ForeignTile("small", (2, 3))
    return write_folder(parent, dataclasses.replace(made_up(counts, 1, (2, 3)), tile=tile, window=None))


def equal(one: DPixels, other: DPixels) -> bool:
    names = ("s2", "s2_mask", "s2_dates", "s1_asc", "s1_asc_dates", "s1_desc", "s1_desc_dates", "requested")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("file", FILES)
def test_no_flipped_bit_of_a_header_is_silent(tmp_path: Path, file: str) -> None:
    folder = small_folder(tmp_path)
    whole, path = read_folder(folder), folder / file
    data, refused = path.read_bytes(), 0
    for bit in range(0, HEADER * 8, 3):  # coprime to 8: every byte, and every bit of a byte
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = read_folder(folder)
        except TileError:
            refused += 1
        else:
            assert equal(found, whole), bit
    assert refused > HEADER


@pytest.mark.parametrize("seed", range(3))
def test_random_mutants_are_refused_or_of_the_same_layout(tmp_path: Path, seed: int) -> None:
    """Values have no checksum here: what is read otherwise is a value, never a shape, a type or a place."""
    rng = np.random.default_rng(seed)
    folder = small_folder(tmp_path / "whole")
    whole = read_folder(folder)
    for number in range(60):
        mutant = Path(shutil.copytree(folder, tmp_path / f"m{number}" / "small"))
        path = mutant / rng.choice([*FILES, "roi.tiff"])
        data = bytearray(path.read_bytes())
        for _ in range(rng.integers(1, 4)):
            position = int(rng.integers(len(data)))
            match rng.integers(4):
                case 0:
                    data[position] = int(rng.integers(256))
                case 1:
                    del data[position:]
                case 2:
                    data[position:position] = bytes(rng.integers(0, 256, 3, dtype=np.uint8))
                case 3:
                    del data[position : position + 5]
            if not data:
                break
        path.write_bytes(data)
        try:
            describe(mutant)
            found = read_folder(mutant)
        except (TileError, UsageError):
            continue
        else:
            assert (found.s2.shape, found.s2.dtype) == (whole.s2.shape, whole.s2.dtype)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"{'descr': '<u2', 'fortran_order': False, 'shape': (100000000000, 1000000, 10, 10), }", "speaks of"),
        (b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 2, 3, 10), }", "not that of an array"),
        (b"{'descr': '<u2', 'fortran_order': False, 'shape': " + b"(" * 3000, "not that of an array"),
        (b"{'descr': '<u3', 'fortran_order': False, 'shape': (3, 2, 3, 10), }", "does not exist"),
        (b"{'descr': '>u2', 'fortran_order': False, 'shape': (3, 2, 3, 10), }", "not that of an array"),
        (b"__import__('os').abort()", "not that of an array"),
    ],
)
def test_headers_that_claim_too_much(tmp_path: Path, header: bytes, why: str) -> None:
    folder = small_folder(tmp_path)
    text = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    values = (folder / "bands.npy").read_bytes()[HEADER:]
    (folder / "bands.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + values)
    with pytest.raises(TileError, match=why):
        read_folder(folder)


def test_a_folder_that_is_replaced_while_it_is_read_is_not_a_mix_of_both(tmp_path: Path, monkeypatch: Any) -> None:
    path, load = small_folder(tmp_path), official._load

    def replaced_first(file: Path, **more: Any) -> Any:
        monkeypatch.setattr(official, "_load", load)
        found = load(file, **more)
        shutil.copytree(path, tmp_path / "new")
        path.rename(tmp_path / "old")
        (tmp_path / "new").rename(path)
        return found

    monkeypatch.setattr(official, "_load", replaced_first)
    with pytest.raises(TileError, match="was replaced while it was read"):
        read_folder(path)
    read_folder(path)
