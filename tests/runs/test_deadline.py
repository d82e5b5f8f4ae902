"""When a run ends, which tiles it still begins, and what it says then."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli import embed, jobs
from tessera_cli.errors import OutOfTimeError, SourceUnavailableError, TileError, UsageError
from tessera_cli.extent.grid import ForeignTile, TileRequest, pack_mask
from tessera_cli.folders.partial import encoded_pixels
from tessera_cli.inference import cpu
from tessera_cli.inference.kept import Keeping
from tessera_cli.runs.crew import run_tiles
from tessera_cli.runs.deadline import MARGIN, Deadline, Pace, ends_at, seconds_of
from tessera_cli.runs.results import Outcome, Silent, Summary
from tessera_cli.runs.tasks import perform
from tessera_cli.runs.terms import Terms
from tests.conftest import SmallCatalog
from tests.runs.test_pipeline import PATIENCE, Folder, Inputs, Stub

# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("55m", 3300),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1d2h3m4s", 93784),
        (" 1.5H ", 5400),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "m", "-5m", "0s", "1m1h", "1h 30m", "soon", "1e3s", "nan", "٣m", 0, -1, math.nan, math.inf]
)
def test_what_is_no_duration_says_how_to_write_one(text: str | float) -> None:
    with pytest.raises(UsageError, match="Write 90s, 55m or 1h30m"):
        seconds_of(text)


def test_an_option_that_cannot_be_is_refused_before_anything_else(tessera: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = tessera("embed", "--aoi", tmp_path / "none", "--year", "2021", "--deadline", "tomorrow")
    assert code == 2
    assert "--deadline tomorrow" in err


# --- the end of a Slurm job -------------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


@pytest.fixture
def squeue(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A program of that name that does what a line of Python says, and the environment of a job that finds it."""

    def install(body: str) -> dict[str, str]:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        return {"SLURM_JOB_ID": "4711", "PATH": str(path.parent)}

    return install


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("55:00", 3300),
        ("0:59", 59),
        ("1:02:03", 3723),
        ("2-00:00:01", 172801),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
        ("1:00\n2:00", None),
    ],
)
def test_squeue_tells_what_is_left(left: str, seconds: float | None, squeue: Any) -> None:
    environ = squeue(f"assert sys.argv[1:] == ['-h', '-j', '4711', '-o', '%L']; print({left!r})")
    assert jobs.job_end(environ, lambda: NOW) == (None if seconds is None else NOW + seconds)


def test_the_environment_is_asked_first(squeue: Any) -> None:
    environ = squeue("sys.exit('asked')")
    assert jobs.job_end(environ | {"SLURM_JOB_END_TIME": "1800003600"}, lambda: NOW) == NOW + 3600
    assert jobs.job_end(environ | {"SLURM_JOB_END_TIME": "soon"}, lambda: NOW) is None
    assert jobs.job_end({"SLURM_JOB_END_TIME": "1800003600"}, lambda: NOW) is None, "no job"
    assert jobs.job_end({"SLURM_JOB_ID": "4711; rm"}, lambda: NOW) is None


@pytest.mark.parametrize("body", ["sys.exit(1)", "time.sleep(60)", "sys.stdout.buffer.write(bytes([255]))", "1 / 0"])
def test_a_squeue_that_fails_or_hangs_is_no_deadline(
    body: str, squeue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs, "SQUEUE_SECONDS", 1.0)
    started = time.monotonic()
    with caplog.at_level("DEBUG"):
        assert jobs.job_end(squeue(body), lambda: NOW) is None
    assert time.monotonic() - started < 20
    assert "no deadline" in caplog.text
    assert jobs.job_end({"SLURM_JOB_ID": "1", "PATH": "/none"}, lambda: NOW) is None


def test_a_run_ends_before_its_job_and_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "job_end", lambda clock: NOW + 3600)
    assert ends_at(None, lambda: NOW) == NOW + 3600 - MARGIN
    assert ends_at("55m", lambda: NOW) == NOW + 3300
    monkeypatch.setattr(jobs, "job_end", lambda clock: None)
    assert ends_at(None) is None


# --- which tiles are begun --------------------------------------------------------------------------------------------


def begins(call: Callable[[], None]) -> bool:
    try:
        call()
    except OutOfTimeError:
        return False
    return True


def deadline(at: float | None, **seen: tuple[int, float]) -> tuple[Deadline, list[float]]:
    """A deadline at a time of a clock that stands at 0, after tiles with these pixels and seconds."""
    now, pace = [0.0], Pace()
    for part, (pixels, seconds) in seen.items():
        pace.add(part, pixels, seconds)  # type: ignore[arg-type]
    return Deadline(at, pace, lambda: now[0]), now


@pytest.mark.parametrize(("at", "expected"), [(100 + 5 + 0.1, True), (100 + 5, False), (99, False)])
def test_a_tile_that_was_read_has_to_be_processed_and_written(at: float, expected: bool) -> None:
    """Half as large as the one before, which took 200 and 10 seconds."""
    found, _ = deadline(at, read=(1000, 1e9), process=(1000, 200.0), write=(1000, 10.0))
    assert begins(lambda: found.check_processing(500, 500)) == expected


@pytest.mark.parametrize(("left", "expected"), [(500, False), (250, True)])
def test_a_partial_result_shortens_a_tile(left: int, expected: bool) -> None:
    found, _ = deadline(60, process=(1000, 200.0), write=(1000, 10.0))
    assert begins(lambda: found.check_processing(500, left)) == expected


@pytest.mark.parametrize(
    ("read", "before", "needed"),
    [
        (30.0, 1000, 200 + 100 + 5),  # it is read while the one before is processed
        (600.0, 1000, 300 + 100 + 5),  # reading takes longer
        (30.0, 0, 15 + 100 + 5),  # there is none before it
    ],
)
def test_a_tile_is_read_while_the_one_before_is_processed(read: float, before: int, needed: float) -> None:
    seen = {"read": (1000, read), "process": (1000, 200.0), "write": (1000, 10.0)}
    for at, expected in ((needed + 0.1, True), (needed - 0.1, False)):
        found, _ = deadline(at, **seen)
        assert begins(lambda found=found: found.check_reading(500, 500, before)) == expected


def test_what_cannot_be_judged_is_begun_while_there_is_time() -> None:
    found, now = deadline(10)
    assert begins(lambda: found.check_reading(10**6, 10**6, 10**6))
    assert begins(lambda: found.check_processing(10**6, 10**6))
    now[0] = 10
    assert not begins(lambda: found.check_processing(1, 1))
    assert not begins(lambda: found.check_reading(1, 1, 0))
    assert not begins(found.check)


def test_small_tiles_do_not_judge_large_ones() -> None:
    """The corner of an area takes seconds for what every tile costs; a whole tile is not a thousand times that."""
    found, _ = deadline(3600, process=(100, 20.0))
    assert begins(lambda: found.check_processing(262_144, 262_144))
    found.pace.add("process", 262_144, 3000.0)
    assert begins(lambda: found.check_processing(262_144, 262_144))
    found.pace.add("process", 262_144, 5000.0)
    assert not begins(lambda: found.check_processing(262_144, 262_144))
    assert found.pace.seconds("process", 262_144) == 4000
    assert found.pace.seconds("process", 800) == pytest.approx(800 * 8020 / (2 * 262_144 + 100))


def test_without_a_deadline_everything_is_begun() -> None:
    found, now = deadline(None, process=(1, 1e12))
    now[0] = 1e12
    found.check()
    found.check_processing(10**6, 10**6)


def test_only_the_last_tiles_count() -> None:
    pace = Pace()
    for seconds in [1000.0] * 50 + [1.0] * 50:
        pace.add("process", 10, seconds)
    assert pace.seconds("process", 10) == 1


# --- the loop ---------------------------------------------------------------------------------------------------------


def taken(tmp_path: Path, names: str, until: float, **stages: Any) -> tuple[Outcome, Folder, Inputs]:
    folder: Any = Folder(tmp_path)
    inputs: Any = Inputs(names)
    job = Stub(**stages)
    job.reading, job.folder = inputs, folder
    return run_tiles(inputs, job, Terms(deadline=time.time() + until), Silent()), folder, inputs


def statuses(outcome: Outcome) -> list[tuple[str, str]]:
    return [(result.request.name, result.status) for result in outcome.results]


def test_no_tile_is_begun_that_would_not_be_finished(tmp_path: Path) -> None:
    """Tiles take 1 s of 2.8: a third one would not be finished. Nothing is cut off, and nothing fails."""
    outcome, folder, _ = taken(tmp_path, "abcdef", 2.8, process=lambda name, advance: time.sleep(1))
    assert statuses(outcome) == [("a", "done"), ("b", "done")]
    assert outcome.left == 4
    assert isinstance(outcome.stopped, OutOfTimeError)
    assert "4 of 6 tiles are left" in str(outcome.stopped)
    assert not folder.failures


def test_the_deadline_cuts_off_the_tile_in_hand(tmp_path: Path) -> None:
    """The first one is begun without an estimate; what is read ahead is stopped, what is being written is finished."""
    ended = []

    def process(name: str, advance: Any) -> None:
        if name == "b":
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                advance(0)
                time.sleep(0.01)
        ended.append(name)

    started = time.monotonic()
    outcome, folder, inputs = taken(tmp_path, "abc", 0.6, process=process, write=lambda name, more: time.sleep(0.2))
    assert time.monotonic() - started < PATIENCE / 2
    assert statuses(outcome) == [("a", "done")]
    assert (outcome.left, ended) == (2, ["a"])
    assert inputs.stopped.is_set()
    assert not folder.failures


def test_a_read_that_is_stopped_is_left_and_not_failed(tmp_path: Path) -> None:
    def read(name: str, more: Any) -> None:
        if name == "b":
            assert inputs.stopped.wait(PATIENCE)
            raise SourceUnavailableError("The run has been stopped.")

    inputs: Any = Inputs("abc")
    job, folder = Stub(read=read), Folder(tmp_path)
    job.reading, job.folder = inputs, folder  # type: ignore[assignment]
    outcome = run_tiles(inputs, job, Terms(deadline=time.time() + 0.5), Silent())
    assert statuses(outcome) == [("a", "done")]
    assert outcome.left == 2
    assert not folder.failures


def test_a_tile_whose_last_pixel_is_finished_is_written(tmp_path: Path) -> None:
    def process(name: str, advance: Any) -> None:
        time.sleep(0.6)
        advance(6)

    outcome, _, _ = taken(tmp_path, "ab", 0.5, process=process)
    assert statuses(outcome) == [("a", "done")]


def test_a_deadline_after_the_last_tile_is_none(tmp_path: Path) -> None:
    before = threading.active_count()
    outcome, _, inputs = taken(tmp_path, "abc", 3600)
    assert (len(outcome.results), outcome.left, outcome.stopped) == (3, 0, None)
    assert not inputs.stopped.is_set()
    assert threading.active_count() == before


def test_a_deadline_that_has_passed_begins_nothing(tmp_path: Path) -> None:
    outcome, _, _ = taken(tmp_path, "ab", -1)
    assert (outcome.results, outcome.left) == ((), 2)


def request(name: str) -> TileRequest:
    return TileRequest(ForeignTile(name, (2, 3)), None, pack_mask(np.ones((2, 3), bool)))


def test_stopped_outranks_failed_and_says_both() -> None:
    from tessera_cli.runs.results import TileResult

    failed = TileResult(request("a"), "failed", error=TileError("its scenes are broken"))
    stopped = OutOfTimeError("The time is up, and 1 of 2 tiles are left. Run the same command to go on.")
    error = Summary(Path("x"), (failed,), (), 0, left=1, stopped=stopped).error()
    assert error is not None
    assert error.exit_code == 75
    assert "1 of 2 tiles are left" in str(error)
    assert "its scenes are broken" in str(error)


class Recipe:
    """Opens jobs whose tiles take 0.4 seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, requests: Any) -> Any:
        inputs, folder = Inputs("".join(each.name for each in requests)), Folder(self.folder)
        job = Stub(process=lambda name, advance: time.sleep(0.4))
        job.reading, job.folder = inputs, folder  # type: ignore[assignment]
        return job

    def stop(self) -> None: ...


def test_a_worker_remembers_its_pace_from_task_to_task(tmp_path: Path) -> None:
    """Of one run: a worker of a cluster that learned it in another would begin nothing, however often it is asked."""
    from tessera_cli.runs.tasks import Task

    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.json").write_text("{}")
    recipe: Any = Recipe(tmp_path)
    deadline = time.time() + 0.7
    first = perform(Task(recipe, "run", (request("a"),), deadline=deadline))
    second = perform(Task(recipe, "run", (request("b"),), deadline=deadline))
    again = perform(Task(recipe, "run", (request("b"),), deadline=time.time() + 0.3))
    assert (len(first.results), first.out_of_time) == (1, False)
    assert (len(second.results), second.out_of_time) == (0, True)
    assert (len(again.results), again.out_of_time) == (1, False)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_time_is_up_in_the_middle_of_a_tile(
    catalog: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tessera: Callable[..., Any]
) -> None:
    """An hour passes while the first chunk is encoded: the run ends with 75, and goes on where it was."""
    options = ["demo" if word == "null" else word for word in catalog.options(tmp_path / "whole")]
    assert tessera("embed", *options)[0] == 0
    out, add, made = tmp_path / "out", Keeping.add, []
    monkeypatch.setattr(cpu, "CHUNK", 200)

    def noted(self: Keeping, part: slice, *more: Any) -> None:
        add(self, part, *more)
        made.append(part)

    late = partial(Deadline, clock=lambda: time.time() + 3600 * len(made))

    options[options.index("--out") + 1] = str(out)
    with monkeypatch.context() as patch:
        patch.setattr(Keeping, "add", noted)
        patch.setattr("tessera_cli.runs.pipeline.Deadline", late)
        code, told, err = tessera("embed", *options, "--deadline", "1h", "--json")
    assert code == 75
    last = json.loads(told.splitlines()[-1])
    assert (last["left"], last["error"]["exit_code"], last["error"]["kind"]) == (2, 75, "OutOfTimeError")
    assert "2 of 2 tiles are left. Run the same command to go on." in err
    assert "failed" not in err
    name = next(out.glob("*.partial")).stem
    kept = encoded_pixels(out, name)
    assert (kept, len(made)) == (200, 1)
    assert not list(out.glob("*.part")) + list(out.glob("*.tif"))
    assert not list((out / "runs").glob("*.failed/*"))
    code, told, _ = tessera("embed", *options, "--json")
    assert code == 0
    for path in (tmp_path / "whole").glob("*.tif"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert not list(out.glob("*.partial"))


def test_a_job_without_time_left_ends_at_once(
    catalog: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 30))
    summary = embed(catalog.aoi, year=2021, catalog=str(catalog.items), model="null", out=tmp_path / "out")
    error = summary.error()
    assert (summary.left, error and error.exit_code) == (2, 75)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    summary = embed(catalog.aoi, year=2021, catalog=str(catalog.items), model="null", out=tmp_path / "out")
    assert (summary.left, summary.error()) == (0, None)
    assert os.environ["SLURM_JOB_ID"] == "7"
