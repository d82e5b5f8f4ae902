"""Whose unfinished files are: those of the dead go at once, those of the living stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tessera_cli import parts
from tessera_cli.parts import is_alive, is_token, new_token, part_of, remove_stale_parts

LONG_AGO = time.time() - 2 * 3600


def token_of_another_process(code: str = "") -> str:
    code = f"from tessera_cli.parts import new_token; print(new_token(), flush=True); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def dead() -> str:
    return token_of_another_process("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_tokens_tell_the_living_from_the_dead(dead: str) -> None:
    mine = new_token()
    assert is_token(mine)
    assert is_token(dead)
    assert mine != new_token()
    assert is_alive(mine) is True
    assert is_alive(f"a.tif.{mine}.part") is True
    assert is_alive(dead) is False
    machine, pid, start, mark = mine.split("-")
    assert is_alive(f"{machine}-{pid}-{int(start, 16) - 1:x}-{mark}") is False  # an earlier one had our number
    other = "0" * 12 if machine != "0" * 12 else "1" * 12
    assert is_alive(f"{other}-{pid}-{start}-{mark}") is None
    assert is_alive("a.tif.1a2b3c4d.part") is None  # as earlier versions named them


def test_one_that_has_ended_and_is_not_yet_waited_for_is_dead() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_token().encode())
        os._exit(0)
    try:
        token = os.read(reading, 100).decode()
        for _ in range(500):
            if is_alive(token) is False:
                break
            time.sleep(0.01)
        assert is_alive(token) is False
    finally:
        os.waitpid(child, 0)


def test_without_proc_only_the_number_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_started", lambda pid: None)
    mine = new_token()
    assert is_alive(mine) is None  # another process may have its number
    machine, _, start, mark = mine.split("-")
    assert is_alive(f"{machine}-{2**22 + 1:x}-{start}-{mark}") is False


def test_what_the_dead_left_goes_at_once(tmp_path: Path, dead: str) -> None:
    machine = new_token()[:6]
    elsewhere = f"{'0' * 6 if machine != '0' * 6 else '1' * 6}{dead[6:]}"
    names = {
        f"a.tif.{dead}.part": False,
        f"b.zarr.{dead}.part": False,  # a folder
        part_of(tmp_path / "c.tif").name: True,
        f"d.tif.{elsewhere}.part": True,
        f"e.tif.{elsewhere}.part": False,  # nothing has happened in it for long
        "f.tif.12345678.part": True,
        "g.tif": True,
    }
    for name in names:
        if name.startswith("b"):
            (tmp_path / name / "s2").mkdir(parents=True)
            (tmp_path / name / "s2" / "zarr.json").touch()
        else:
            (tmp_path / name).touch()
        if name.startswith("e"):
            os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))
    remove_stale_parts(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names
