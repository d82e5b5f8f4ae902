"""The loop: stages side by side, in bounded memory; what fails, what stops a run, what is taken once more."""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli.errors import DiskFullError, SourceUnavailableError, TileError, UsageError
from tessera_cli.extent.grid import ForeignTile, TileRequest, pack_mask
from tessera_cli.folders.failures import noted_failures
from tessera_cli.runs.crew import run_tiles
from tessera_cli.runs.pipeline import Job
from tessera_cli.runs.results import Silent, TileResult
from tessera_cli.runs.terms import Terms
from tessera_cli.timing import StageTimer

PATIENCE = 20.0
"""Seconds that only a test that fails waits for."""
Stage = Callable[[str, Any], Any]


class Inputs:
    """Tiles called a, b, c, ... of 2 x 3 pixels."""

    key = "run"

    def __init__(self, names: str) -> None:
        packed = pack_mask(np.ones((2, 3), bool))
        self.tile_requests = [TileRequest(ForeignTile(name, (2, 3)), None, packed) for name in names]
        self.stopped = threading.Event()
        self.reads = 0

    @property
    def reading(self) -> Inputs:
        return self

    def check(self, requests: Any) -> None: ...

    def stop(self) -> None:
        self.stopped.set()

    def network(self) -> dict[str, Any]:
        return {"reads": {"read": self.reads}, "requests": 0, "bytes": 0, "retries": {}}

    def digest(self, request: TileRequest) -> None: ...


class Folder:
    """`done` names tiles that are finished."""

    def __init__(self, path: Path, done: str = "") -> None:
        self.path, self.done = path, done

    @property
    def failures(self) -> dict[str, str]:
        return {name: failed["reason"] for name, failed in noted_failures(self.path)}

    def finished(self, request: TileRequest, **how: Any) -> str | None:
        return request.name if request.name in self.done else None

    def tidy(self) -> None: ...

    def tell_foreign(self, names: Any) -> None: ...


class Counts:
    """How many things of a kind there are, and were at most."""

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.RLock()


class Held:
    """What a stage gives to the next: it is counted as long as somebody holds it."""

    def __init__(self, kind: str, counts: Counts) -> None:
        self.kind, self.counts = kind, counts
        with counts.lock:
            counts.alive[kind] += 1
            counts.most[kind] = max(counts.most[kind], counts.alive[kind])

    def __del__(self) -> None:
        with self.counts.lock:
            self.counts.alive[self.kind] -= 1


class Stub(Job[Held]):
    """A job whose stages do what a test says."""

    def __init__(self, **stages: Stage) -> None:
        self.stages = StageTimer()
        self.does = stages
        self.counts = Counts()
        self.finished: list[str] = []

    def _do(self, stage: str, request: TileRequest, more: Any = None) -> Any:
        return self.does.get(stage, lambda name, more: None)(request.name, more)

    def result(self, request: TileRequest, status: Any, record: Any, **more: Any) -> TileResult:
        return TileResult(request, status, **more)

    def read(self, request: TileRequest, reading: Callable[[int, int], None]) -> Any:
        self._do("read", request)
        return Held("read", self.counts)

    def process(self, request: TileRequest, dpixels: Any, advance: Callable[[int], None]) -> Held:
        self._do("process", request, advance)
        return Held("made", self.counts)

    def write(self, request: TileRequest, made: Held) -> TileResult | None:
        if self._do("write", request) == "again":
            return None
        self.finished.append(request.name)
        return TileResult(request, "done")


def run(
    tmp_path: Path, inputs: Inputs, job: Stub, progress: Any = None, done: str = ""
) -> tuple[list[tuple[str, str]], Folder]:
    folder: Any = Folder(tmp_path, done)
    (tmp_path / "runs").mkdir()  # as a run that has started
    given: Any = inputs
    job.reading, job.folder = given, folder
    outcome = run_tiles(given, job, Terms(), progress or Silent())
    return [(result.request.name, result.status) for result in outcome.results], folder


def test_the_stages_run_side_by_side(tmp_path):
    """The third tile is read while the second is worked on and the first is written: each waits for the others."""
    together = threading.Barrier(3)

    def meet(at: str) -> Stage:
        return lambda name, more: together.wait(PATIENCE) if name == at else None

    found, _ = run(tmp_path, Inputs("abcd"), Stub(read=meet("c"), process=meet("b"), write=meet("a")))
    assert found == [(name, "done") for name in "abcd"]


@pytest.mark.parametrize("slow", ["read", "process", "write"])
def test_little_is_held_whichever_stage_is_slow(tmp_path, slow):
    job = Stub(**{slow: lambda name, more: time.sleep(0.02)})
    found, _ = run(tmp_path, Inputs("abcdefgh"), job)
    assert len(found) == 8
    assert 1 <= job.counts.most["read"] <= 2
    assert 1 <= job.counts.most["made"] <= 2
    assert not any(job.counts.alive.values())


@pytest.mark.parametrize("stage", ["read", "process", "write"])
@pytest.mark.parametrize("error", [TileError("broken"), MemoryError("no room")])
def test_a_stage_that_fails_fails_its_tile_alone(tmp_path, stage, error):
    held = []

    def fail(name: str, more: Any) -> None:
        if name == "b":
            arrays = np.zeros(3)
            held.append(weakref.ref(arrays))
            try:
                raise ValueError
            except ValueError as cause:
                raise type(error)(*error.args) from cause

    job = Stub(**{stage: fail})
    found, folder = run(tmp_path, Inputs("abc"), job)
    assert found == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert list(folder.failures) == ["b"]
    assert str(error) in folder.failures["b"]
    assert not any(job.counts.alive.values())
    assert [reference() for reference in held] == [None]  # nothing of the tile outlives it


@pytest.mark.parametrize("error", [DiskFullError, UsageError, BrokenPipeError])
@pytest.mark.parametrize("meanwhile", ["process", "read"])
def test_what_stops_the_writer_stops_the_run(tmp_path, meanwhile, error):
    """Soon, whether the next tile is being worked on or still being read."""
    inputs, writing, working = Inputs("abcd"), threading.Event(), threading.Event()
    processed, late = [], []

    def write(name: str, more: Any) -> None:
        writing.set()
        assert meanwhile == "read" or working.wait(PATIENCE)
        raise error

    def process(name: str, advance: Any) -> None:
        processed.append(name)
        if name == "b":
            working.set()
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                advance(1)
            late.append(name)

    def read(name: str, more: Any) -> None:
        if name == "b" and meanwhile == "read":
            assert writing.wait(PATIENCE)
            if not inputs.stopped.wait(PATIENCE):
                late.append(name)
            raise SourceUnavailableError("The run has been stopped.")

    with pytest.raises(error):
        run(tmp_path, inputs, Stub(read=read, process=process, write=write))
    assert inputs.stopped.is_set()
    assert processed == (["a", "b"] if meanwhile == "process" else ["a"])
    assert not late


def test_an_error_that_ends_the_run_ends_what_is_being_read(tmp_path):
    """Before it is reported: it holds on to the stages as long as somebody holds on to it."""
    inputs, begun, ended = Inputs("ab"), threading.Event(), threading.Event()

    def read(name: str, more: Any) -> None:
        if name == "a":
            raise UsageError("all scenes are unfit")
        begun.set()
        inputs.stopped.wait(PATIENCE)
        ended.set()

    with pytest.raises(UsageError) as error:
        run(tmp_path, inputs, Stub(read=read))
    assert error.value.__traceback__ is not None
    assert inputs.stopped.is_set()
    assert ended.is_set() or not begun.is_set()


def test_an_interrupt_finishes_what_is_being_written_and_nothing_else(tmp_path):
    writing, told = threading.Event(), []

    def write(name: str, more: Any) -> None:
        writing.set()
        time.sleep(0.1)

    def process(name: str, advance: Any) -> None:
        if name == "b":
            assert writing.wait(PATIENCE)
            raise KeyboardInterrupt

    inputs, job = Inputs("abcd"), Stub(process=process, write=write)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, inputs, job, Told(told.append))
    assert inputs.stopped.is_set()
    assert job.finished == told == ["a"]


def test_an_interrupt_while_a_tile_waits_to_be_written_does_not_cost_it(tmp_path):
    """It was encoded, and nothing of it is kept elsewhere."""
    main, processed = threading.get_ident(), threading.Event()

    def write(name: str, more: Any) -> None:
        if name == "a":
            assert processed.wait(PATIENCE)
            time.sleep(0.2)
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.2)

    def process(name: str, advance: Any) -> None:
        if name == "b":
            processed.set()

    job = Stub(process=process, write=write)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Inputs("abcd"), job)
    assert job.finished == ["a", "b"]


class Told(Silent):
    """Hears of tiles."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.hear = hear

    def tile(self, result: TileResult) -> None:
        self.hear(result.request.name)


def test_a_tile_that_another_run_finished_meanwhile_is_taken_once_more(tmp_path):
    """Or more often."""
    ends = {"a": iter(["again", "again", "again", ""]), "b": iter([""]), "c": iter(["again", ""])}
    read: list[str] = []
    told: list[str] = []
    job = Stub(read=lambda name, more: read.append(name), write=lambda name, more: next(ends[name]))
    found, _ = run(tmp_path, Inputs("abcd"), job, Told(told.append), done="d")
    assert "".join(read) == "abc" + "ac" + "a" + "a"
    assert found == [("a", "done"), ("b", "done"), ("c", "done"), ("d", "present")]  # in the order of the tasks
    assert sorted(told) == ["a", "b", "c", "d"]


def test_progress_is_told_one_thing_at_a_time(tmp_path):
    inside, overlaps = threading.Lock(), []

    class Alone(Silent):
        def hear(self) -> None:
            free = inside.acquire(blocking=False)
            overlaps.append(not free)
            time.sleep(0.002)
            if free:
                inside.release()

        def advance(self, pixels: int) -> None:
            self.hear()

        def tile(self, result: TileResult) -> None:
            self.hear()

    job = Stub(process=lambda name, advance: [advance(1) for _ in range(10)])
    run(tmp_path, Inputs("abcdef"), job, Alone())
    assert len(overlaps) == 66
    assert not any(overlaps)


@pytest.mark.parametrize(("working", "tried"), [(False, "ab"), (True, "abcd")])
def test_a_source_of_which_nothing_can_be_read_is_given_up(tmp_path, working, tried):
    """After two tiles in a row; not while some reads still work."""
    inputs, begun = Inputs("abcd"), threading.Event()

    def read(name: str, more: Any) -> None:
        inputs.reads += working
        if name > tried[-1]:
            assert inputs.stopped.wait(PATIENCE)
        raise SourceUnavailableError("nobody answers")

    found, folder = run(tmp_path, inputs, Stub(read=read, process=lambda name, advance: begun.set()))
    assert found == [(name, "failed") for name in tried]
    assert sorted(folder.failures) == list(tried)
    assert inputs.stopped.is_set() is not working
    assert not begun.is_set()


def test_the_start_ends_when_the_first_tile_was_read(tmp_path):
    begun = []

    def process(name: str, advance: Any) -> None:
        begun.append(time.perf_counter())
        time.sleep(0.1)

    job, before = Stub(read=lambda name, more: time.sleep(0.1), process=process), time.perf_counter()
    run(tmp_path, Inputs("ab"), job)
    assert 0.1 <= job.stages.seconds["start"] <= begun[0] - before
