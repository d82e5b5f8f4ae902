"""What became of a run's tiles: counted from the folder alone, as `info`, `info --csv` and `info --watch` show it."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tessera_cli.cli import terminal as terminals
from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import Tile, TileRequest, pack_mask, tile_name
from tessera_cli.folders import asked as asked_module
from tessera_cli.folders.failures import forget_failure, note_failure
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.census import CensusTaker, census_taker
from tessera_cli.inspection.watch import Round, watch
from tessera_cli.outputs import formats
from tessera_cli.parts import new_token
from tests.helpers.outputs import WINDOW, arrays, encoded, identity, record, write_record

TILES = [Tile(32631, 112 + number, 1098) for number in range(6)]
NAMES = [tile_name(tile, WINDOW) for tile in TILES]
FEW = np.zeros((512, 512), bool)
FEW[:8, :8] = True


def finish(folder: TileFolder, tile: Tile, requested: np.ndarray = FEW, **more) -> None:
    ready = encoded(arrays(1, 4, requested), tile, identity=folder.identity)
    assets = formats.write(folder.path, ready)
    write_record(folder, replace(ready.record, assets=assets, pixels=int(ready.pixels.sum()), **more))


def empty(folder: TileFolder, tile: Tile) -> None:
    made = record(tile=tile, identity=folder.identity, status="empty", pixels=0, assets=(), requested=FEW)
    write_record(folder, made)


def fail(folder: TileFolder, tile: Tile, reason: str, requested: np.ndarray = FEW, run: str = "a") -> TileRequest:
    request = TileRequest(tile, WINDOW, pack_mask(requested))
    note_failure(folder.path, run, request, TileError(reason), allow_missing=0)
    return request


@pytest.fixture
def folder(tmp_path: Path) -> TileFolder:
    """A folder of six tiles: one done, one empty, one failed, one failed and finished since, two not tried."""
    folder = TileFolder(tmp_path / "out", identity(4))
    folder.start_run("a", {"names": NAMES}, None)
    finish(folder, TILES[0], missing_scenes={})
    empty(folder, TILES[1])
    fail(folder, TILES[2], 'no scene, "not one"\nof radar')
    fail(folder, TILES[3], "busy")
    finish(folder, TILES[3], missing_scenes={})
    return folder


def statuses(taker: CensusTaker) -> list[str]:
    return [state.status for state in taker.take().states]


def test_every_tile_is_counted_once(folder):
    census = census_taker(folder.path).take()
    assert [state.name for state in census.states] == sorted(NAMES)
    assert statuses(census_taker(folder.path)) == ["done", "empty", "failed", "done", "missing", "missing"]
    assert census.counts == {"done": 2, "empty": 1, "failed": 1, "missing": 2}
    assert (census.done, census.is_complete, census.is_over) == (3, False, False)
    for tile in TILES[4:]:
        empty(folder, tile)
    assert census_taker(folder.path).take().is_over
    request = fail(folder, TILES[2], "again")
    finish(folder, TILES[2], missing_scenes={})
    forget_failure(folder.path, "a", request)
    assert census_taker(folder.path).take().is_complete


def test_a_failure_is_over_when_all_that_was_asked_for_is_there(folder):
    more = FEW.copy()
    more[100, 100] = True
    fail(folder, TILES[0], "more was asked for", more, run="b")
    state = census_taker(folder.path).take().states[0]
    assert (state.status, state.reason) == ("failed", "more was asked for")
    assert state.pixels > 0  # what an earlier run has made is there
    finish(folder, TILES[0], more, missing_scenes={"S2A": "absent"})
    assert statuses(census_taker(folder.path))[0] == "failed"  # no scene was to be missing
    finish(folder, TILES[0], more, missing_scenes={})
    assert statuses(census_taker(folder.path))[0] == "done"


def test_failures_in_records_of_runs_of_the_first_version_count(folder):
    request = TileRequest(TILES[4], WINDOW, pack_mask(FEW))
    note = json.loads(fail_note(folder, request))
    (folder.path / "runs" / "old.json").write_text(json.dumps({"names": NAMES, "failed": {request.name: note}}))
    assert statuses(census_taker(folder.path))[4] == "failed"


def fail_note(folder: TileFolder, request: TileRequest) -> str:
    note_failure(folder.path, "x", request, TileError("old"), allow_missing=0)
    path = folder.path / "runs" / "x.failed" / f"{request.name}.json"
    text = path.read_text()
    path.unlink()
    return text


def test_what_is_not_whole_is_missing_and_says_why(folder):
    taker = census_taker(folder.path)
    raster = folder.path / f"{NAMES[0]}_emb.tif"
    assert statuses(taker)[0] == "done"
    kept = raster.read_bytes()
    raster.unlink()
    for each in (taker, census_taker(folder.path)):  # one that knew it, and one that did not
        assert statuses(each)[0] == "missing"
    raster.write_bytes(kept)
    assert statuses(taker)[0] == "done"
    other = TileFolder(folder.path, identity(4, min_s2=3))
    finish(other, TILES[0], missing_scenes={})
    state = taker.take().states[0]
    assert (state.status, state.reason) == ("missing", "it was made with other settings (min_s2)")


def test_no_record_is_read_twice(folder, monkeypatch):
    taker = census_taker(folder.path)
    read: list[str] = []
    monkeypatch.setattr(
        TileFolder, "record", lambda self, name, _of=TileFolder.record: read.append(name) or _of(self, name)
    )
    notes: list[str] = []
    whole = asked_module.read_or_none
    monkeypatch.setattr(asked_module, "read_or_none", lambda path: notes.append(path.name) or whole(path))
    listed: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or scan(path))
    taker.take()
    assert sorted(read) == [NAMES[0], NAMES[1], NAMES[3]]
    assert sorted(notes) == ["a.json", f"{NAMES[2]}.json", f"{NAMES[3]}.json"]
    read.clear(), notes.clear(), listed.clear()
    taker.take()
    assert (read, notes) == ([], [])
    assert sorted(listed) == ["a.failed", "out", "runs"]
    empty(folder, TILES[4])
    fail(folder, TILES[2], "another reason")
    states = taker.take().states
    assert (read, notes) == ([NAMES[4]], [f"{NAMES[2]}.json"])
    assert (states[4].status, states[2].reason) == ("empty", "another reason")


# --- info --csv -------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_tile(folder, tessera):
    code, text, _ = tessera("info", "--csv", folder.path)
    assert code == 0
    assert text.count("\r\n") == 7
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["tile"] for row in rows] == sorted(tile.id for tile in TILES)
    assert {row["window"] for row in rows} == {"2023"}
    assert [row["status"] for row in rows] == ["done", "empty", "failed", "done", "missing", "missing"]
    assert rows[0]["path"] == str(folder.path / f"{NAMES[0]}_emb.tif")
    files = list(folder.path.glob(f"{NAMES[0]}_*.tif"))
    properties = json.loads((folder.path / f"{NAMES[0]}.json").read_text())["properties"]
    assert int(rows[0]["bytes"]) == sum(path.stat().st_size for path in files)
    assert int(rows[0]["pixels"]) == properties["tessera:pixels"]
    at = time.strptime(rows[0]["finished"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(at) - time.timezone - time.time()) < 3600 * 25
    assert (rows[1]["path"], rows[1]["pixels"]) == ("", "0")
    assert rows[2]["reason"] == 'no scene, "not one"\\nof radar'
    assert rows[4]["reason"] == "no run has finished it"
    assert rows[4]["pixels"] == rows[4]["finished"] == ""


def test_tables_of_what_is_no_folder(tmp_path, tessera):
    code, text, err = tessera("info", "--csv", tmp_path)
    assert (code, text) == (2, "")
    assert "no run or plan has asked" in err
    for others in (["--json"], ["--watch"], ["--crs"]):
        assert tessera("info", "--csv", *others, tmp_path)[0] == 2
    assert tessera("info", "--watch", "5", "--model", tmp_path)[0] == 2


# --- info --watch -----------------------------------------------------------------------------------------------------


def rounds(path: Path, steps, now=time.time) -> list[Round]:
    """Watch a folder; each step is done after one look."""
    left = iter([*steps, lambda: (_ for _ in ()).throw(AssertionError("it goes on"))])
    return list(watch(path, 1, sleep=lambda seconds: next(left)(), now=now))


def test_a_watch_sees_tiles_as_they_come_and_ends_with_the_last(folder):
    steps = [lambda: empty(folder, TILES[4]), lambda: fail(folder, TILES[5], "no pixel")]
    seen = rounds(folder.path, steps)
    assert [each.census.counts.get("missing", 0) for each in seen] == [2, 1, 0]
    assert [[state.name for state in each.failed] for each in seen] == [[NAMES[2]], [], [NAMES[5]]]
    assert [each.is_last for each in seen] == [False, False, True]
    assert "Of 6 tiles" in str(seen[-1].error())
    assert "2 failed" in str(seen[-1].error())
    assert seen[-1].error().exit_code == 4


def test_a_watch_waits_for_what_is_being_written(folder):
    for tile in TILES[4:]:
        empty(folder, tile)
    part = folder.path / f"{NAMES[2]}.{new_token()}.part"
    part.mkdir()
    dead = folder.path / f"{NAMES[2]}.{new_token().replace(f'-{os.getpid():x}-', '-3fffff-')}.part"
    dead.mkdir()
    seen = rounds(folder.path, [part.rmdir])
    assert [(each.processes, each.writing, each.is_last) for each in seen] == [(1, 1, False), (1, 0, True)]


def test_rate_and_time_left(folder):
    at = time.time()
    for number, ago in ((0, 1800), (1, 900), (3, 100)):
        os.utime(folder.path / f"{NAMES[number]}.json", (at - ago, at - ago))
    (found,) = (next(watch(folder.path, 1, now=lambda: at)),)
    assert found.per_hour == pytest.approx(4.0)  # two more in half an hour
    assert found.eta == pytest.approx(1800)  # two are missing
    os.utime(folder.path / f"{NAMES[0]}.json", (at - 7200, at - 7200))
    assert next(watch(folder.path, 1, now=lambda: at)).per_hour == pytest.approx(1.0)  # of the last day
    os.utime(folder.path / f"{NAMES[0]}.json", (at - 90000, at - 90000))
    found = next(watch(folder.path, 1, now=lambda: at))
    assert (found.per_hour, found.eta) == (None, None)


def test_a_plan_can_be_watched_before_its_run_begins(tmp_path):
    TileFolder(tmp_path).start_run("a", {"names": NAMES[:1]}, None)

    def begin():
        folder = TileFolder(tmp_path, identity(4))
        folder.start_run("a", {"names": NAMES[:1]}, None)
        empty(folder, TILES[0])

    seen = rounds(tmp_path, [begin])
    assert [each.census.counts for each in seen] == [{"missing": 1}, {"empty": 1}]
    assert seen[-1].error() is None


def test_lines_off_a_terminal_and_objects(folder, tessera, monkeypatch):
    waits: list[float] = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) % 2:
            empty(folder, TILES[4])
        else:
            empty(folder, TILES[5])

    monkeypatch.setattr("tessera_cli.inspection.watch.watch.__kwdefaults__", {"sleep": wait, "now": time.time})
    monkeypatch.setattr(terminals, "HEARTBEAT_SECONDS", 0.0)
    code, text, err = tessera("info", "--watch", folder.path)
    assert (code, waits) == (4, [10.0, 10.0])
    lines = text.splitlines()
    assert lines[0].startswith(f"failed {NAMES[2]}: no scene")
    assert " 3 of 6 tiles, 1 empty, 1 failed, 2 missing" in lines[1]
    assert " 4 of 6 tiles, 2 empty, 1 failed, 1 missing" in lines[2]
    assert lines[-1] == "5 of 6 tiles, 3 empty, 1 failed"
    assert "1 failed. Run again." in err
    for tile in TILES[4:]:
        (folder.path / f"{tile_name(tile, WINDOW)}.json").unlink()
    waits.clear()
    code, text, _ = tessera("info", "--json", "--watch", "3", folder.path)
    assert (code, waits) == (4, [3.0, 3.0])
    seen = [json.loads(line) for line in text.splitlines()]
    assert [each["tiles"].get("missing", 0) for each in seen] == [2, 1, 0]
    assert [each["over"] for each in seen] == [False, False, True]
    assert seen[0]["failed"] == {NAMES[2]: 'no scene, "not one"\nof radar'}
    assert seen[-1]["error"]["exit_code"] == 4


def test_ctrl_c_ends_the_watching_alone(folder, tessera, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("tessera_cli.inspection.watch.watch.__kwdefaults__", {"sleep": interrupt, "now": time.time})
    code, _, err = tessera("info", "--watch", folder.path)
    assert code == 130
    assert "the run goes on" in err


def test_no_folder_is_watched(tmp_path):
    with pytest.raises(UsageError, match="no run or plan"):
        next(watch(tmp_path, 1))
