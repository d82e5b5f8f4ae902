"""Files that are replaced as one: in any order of many writers' steps, and whoever dies at any of them."""

from __future__ import annotations

import errno
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tessera_cli import journal, parts
from tessera_cli.errors import DiskFullError, TileError, UsageError
from tessera_cli.journal import finish_begun, is_begun, replacement
from tests.helpers.interleaved import Schedule

MARKER = "tile.json"
FILES = ("a", "b", "store/c", "store/d/e")


def numbers(path: Path) -> set[int] | None:
    try:
        return set(json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def put(folder: Path, more: set[int]) -> None:
    """Add numbers to all files of the folder, as a run adds pixels to a tile: again and again, until they are in."""
    path = folder / MARKER
    while not (before := set(json.loads(content := path.read_bytes() if path.exists() else b"[]"))) >= more:
        with replacement(folder, "tile", MARKER) as new:
            union = sorted(before | more)
            for name in (*FILES, MARKER):
                (new.files / name).parent.mkdir(parents=True, exist_ok=True)
                (new.files / name).write_text(json.dumps(union))
            new.commit(replaces=content if before else None, remove=["gone"])


def contents(folder: Path) -> dict[str, set[int] | None]:
    return {path.relative_to(folder).as_posix(): numbers(path) for path in folder.rglob("*") if path.is_file()}


def holding(found: set[int]) -> dict[str, set[int]]:
    return dict.fromkeys((*FILES, MARKER), found)


@pytest.mark.parametrize("block", range(10))
def test_no_order_of_steps_loses_or_tears_anything(tmp_path: Path, block: int, monkeypatch: Any) -> None:
    """200 orders: with nobody killed, some, all; with living ones that are taken over, since they did not move."""
    for seed in range(20 * block, 20 * block + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.setattr(journal, "STILL", 0.05 if seed % 2 else 2.0)
        (folder / "gone").touch()
        put(folder, {0})
        writers = [partial(put, folder, {number}) for number in range(1, 4 + seed % 2)]
        schedule = Schedule(seed, writers, kill=(0.0, 0.5, 1.0)[seed % 3])

        def look(folder: Path = folder, schedule: Schedule = schedule) -> None:
            there = {name: numbers(folder / name) for name in (*FILES, MARKER)}
            assert there[MARKER], "the tile is lost"
            assert there[MARKER] >= {number + 1 for number in schedule.ended}, "what a run has finished is lost"
            if not is_begun(folder, "tile"):
                assert len(set(map(str, there.values()))) == 1, "the tile is torn"

        schedule.run(look)
        monkeypatch.setattr(journal, "is_alive", lambda text: False)  # all have ended
        finish_begun(folder)
        look()
        for number in schedule.dead:
            put(folder, {number + 1})
        left = {name: found for name, found in contents(folder).items() if ".part/" not in name}
        assert left == holding(set(range(len(writers) + 1))), seed
        monkeypatch.undo()


def test_what_was_prepared_for_something_else_is_dropped(tmp_path: Path) -> None:
    put(tmp_path, {1})
    with replacement(tmp_path, "tile", MARKER) as late:
        for name in ("a", MARKER):
            (late.files / name).write_text("[2]")
        before = (tmp_path / MARKER).read_bytes()
        put(tmp_path, {3})
        assert not late.commit(replaces=before)
    assert contents(tmp_path) == holding({1, 3})
    with replacement(tmp_path, "tile", MARKER) as first:
        (first.files / MARKER).write_text("[2]")
        assert not first.commit(replaces=None)  # there is one meanwhile
    assert len(contents(tmp_path)) == len(FILES) + 1


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EROFS, UsageError), (errno.ENOSPC, DiskFullError), (errno.EIO, TileError)]
)
@pytest.mark.parametrize("change", ["rename", "replace", "fsync", "mkdir"])
def test_an_error_of_the_system_is_ours_and_loses_nothing(
    tmp_path: Path, monkeypatch: Any, change: str, code: int, kind: type
) -> None:
    """At any change, one after the other: until the files are all new they are all old, or the next run goes on."""
    real, told = getattr(os, change), 0
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        folder.mkdir()
        put(folder, {1})
        count = 0

        def fail(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:  # noqa: B023
                raise OSError(code, os.strerror(code), *([] if change == "fsync" else [str(arguments[0])]))
            return real(*arguments, **more)

        monkeypatch.setattr(os, change, fail)
        failed = ""
        try:
            put(folder, {2})
        except kind as error:
            failed = str(error)
            told += 1
        assert not failed or "cannot be written" in failed
        monkeypatch.setattr(os, change, real)
        begun = is_begun(folder, "tile")
        if failed and not begun:
            assert len(set(map(str, contents(folder).values()))) == 1
        monkeypatch.setattr(journal, "STILL", 0.02)
        finish_begun(folder)
        found = contents(folder)
        assert found in [holding({1}), holding({1, 2})]
        assert not begun or 2 in (found[MARKER] or ())
        if not failed:
            break
    assert told >= (change != "fsync")


def test_a_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.next" / "notes").mkdir(parents=True)
    finish_begun(tmp_path)
    assert (tmp_path / "mine.next" / "notes").is_dir()
    (tmp_path / "a").mkdir()
    with pytest.raises(TileError, match=r"/a cannot be written"):
        put(tmp_path, {1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mine.next"]


def prepare(new: journal.Replacement, found: set[int]) -> None:
    for name in (*FILES, MARKER):
        (new.files / name).parent.mkdir(parents=True, exist_ok=True)
        (new.files / name).write_text(json.dumps(sorted(found)))


@pytest.mark.parametrize("meanwhile", [False, True])
def test_who_is_taken_over_at_once_knows_whether_his_was_carried_out(
    tmp_path: Path, monkeypatch: Any, meanwhile: bool
) -> None:
    """He stands still between the claim and the first step; in the moment before it the marker has changed, or not."""
    put(tmp_path, {1})
    before, carry_out = (tmp_path / MARKER).read_bytes(), journal._carry_out

    def slowly(held: Path) -> Any:
        monkeypatch.setattr(journal, "_carry_out", carry_out)
        if meanwhile:
            (tmp_path / MARKER).write_text("[1, 3]")
        finish_begun(tmp_path)
        assert not held.exists()
        return carry_out(held)

    monkeypatch.setattr(journal, "STILL", 0.02)
    monkeypatch.setattr(journal, "_carry_out", slowly)
    with replacement(tmp_path, "tile", MARKER) as late:
        prepare(late, {1, 2})
        assert late.commit(replaces=before) is not meanwhile
    assert numbers(tmp_path / MARKER) == ({1, 3} if meanwhile else {1, 2})


def test_what_cannot_be_removed_does_not_keep_others_waiting(tmp_path: Path, monkeypatch: Any) -> None:
    """As on NFS, where a file that somebody reads leaves another one behind when it is removed."""
    put(tmp_path, {1})
    with monkeypatch.context() as patch:
        patch.setattr(journal.shutil, "rmtree", lambda path, **more: None)
        put(tmp_path, {2})
        assert not is_begun(tmp_path, "tile")
        began = time.monotonic()
        put(tmp_path, {3})
        assert time.monotonic() - began < 1
    assert {name: found for name, found in contents(tmp_path).items() if ".part/" not in name} == holding({1, 2, 3})
    monkeypatch.setattr(parts, "is_alive", lambda text: False)
    parts.remove_stale_parts(tmp_path)
    assert contents(tmp_path) == holding({1, 2, 3})


def test_a_folder_of_somebody_else_in_the_place_of_the_slot_is_told(tmp_path: Path) -> None:
    (tmp_path / "tile.next" / "notes").mkdir(parents=True)
    with pytest.raises(TileError, match=r"tile\.next cannot be written"):
        put(tmp_path, {1})
    assert [path.name for path in tmp_path.iterdir()] == ["tile.next"]
