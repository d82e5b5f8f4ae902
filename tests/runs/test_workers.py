"""Runs over processes and threads: the same bytes as of one process, whoever dies."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tessera_cli as tessera_library
from tessera_cli.errors import DiskFullError
from tessera_cli.runs import dispatch
from tessera_cli.runs.fit import Workers
from tessera_cli.runs.terms import Terms
from tessera_cli.workers import DaskExecutor, ProcessPool, ThreadPool
from tests.conftest import make_catalog
from tests.runs.test_pipeline import Folder, Inputs, Stub

WINDOWS = ["2021-01/2021-06", "2021-05/2021-10", "2021-07/2021-12", "2021-02/2021-09"]


def arguments(catalog: Any, **more: Any) -> dict[str, Any]:
    given = {"window": WINDOWS, "catalog": str(catalog.items), "model": "null", "min_s2": 0, "allow_no_radar": True}
    return {"aoi": catalog.aoi, **given, **more}


def rasters(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in (".tif", ".vrt") or ".zarr/" in str(path)]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.is_file()
    }


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_catalog(tmp_path_factory.mktemp("small") / "catalog")


@pytest.fixture(scope="module")
def whole(catalog, tmp_path_factory):
    """Rasters of one process."""
    out = tmp_path_factory.mktemp("whole")
    summary = tessera_library.embed(**arguments(catalog, out=out))
    assert summary.error() is None
    made = rasters(out)
    assert len([name for name in made if name.endswith("_emb.tif")]) == 8
    return made


@pytest.mark.parametrize("workers", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_processes_makes_the_same_bytes(whole, catalog, tmp_path, workers):
    summary = tessera_library.embed(**arguments(catalog, out=tmp_path / "out", workers=workers))
    assert summary.error() is None
    assert rasters(tmp_path / "out") == whole
    assert [result.status for result in summary.results] == ["done"] * 8
    assert all(result.path.is_relative_to(tmp_path / "out") for result in summary.results)
    assert summary.network["reads"]["read"] > 0
    assert {"read", "encode", "write"} <= summary.stages.keys()


class Shuffled(ThreadPoolExecutor):
    """Performs tasks in any order."""

    slots = 8

    def submit(self, *call: Any) -> Future[Any]:  # type: ignore[override]
        time.sleep(random.random() / 100)
        return super().submit(*call)


def test_any_order_makes_the_same_bytes(whole, catalog, tmp_path, monkeypatch):
    from tessera_cli.api import arguments as made

    monkeypatch.setattr(made, "executor_for", lambda **given: Shuffled(3))
    monkeypatch.setattr(
        dispatch.Dispatch,
        "run",
        lambda self, requests, run=dispatch.Dispatch.run: run(self, random.Random(3).sample(requests, len(requests))),
    )
    assert tessera_library.embed(**arguments(catalog, out=tmp_path / "out")).error() is None
    assert rasters(tmp_path / "out") == whole


def test_fetch_reads_several_tiles_at_a_time(catalog, tmp_path):
    """In this process: what takes time is to wait for servers."""
    one = tessera_library.fetch(**fetching(catalog, tmp_path / "one"))
    several = tessera_library.fetch(**fetching(catalog, tmp_path / "several"), workers=3)
    assert one.error() is several.error() is None
    assert rasters(tmp_path / "one") == rasters(tmp_path / "several") != {}
    assert one.network["reads"] == several.network["reads"]


def fetching(catalog: Any, out: Path) -> dict[str, Any]:
    given = arguments(catalog, out=out, window=WINDOWS[:1])
    del given["min_s2"]
    return given


def test_to_stop_reaches_threads_that_are_still_opening_what_they_read(catalog, tmp_path, monkeypatch):
    """Else they would read all tiles of their tasks before the run ends."""
    from tessera_cli.folders import failures
    from tessera_cli.runs import recipes

    thaw, main, opening = recipes.thaw, threading.get_ident(), threading.Event()

    def slowly(*given: Any) -> Any:
        if not opening.is_set():
            opening.set()
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.5)
        return thaw(*given)

    monkeypatch.setattr(recipes, "thaw", slowly)
    given = {**fetching(catalog, tmp_path / "out"), "window": WINDOWS}
    with pytest.raises(KeyboardInterrupt):
        tessera_library.fetch(**given, workers=2)
    assert not list((tmp_path / "out").glob("*.zarr"))
    assert not list(failures.noted_failures(tmp_path / "out"))
    monkeypatch.setattr(recipes, "thaw", thaw)
    summary = tessera_library.fetch(**given, workers=2)
    assert summary.error() is None
    assert summary.count("done") == 8


def test_threads_leave_what_is_not_begun():
    begun: list[int] = []

    def interrupted() -> None:
        with ThreadPool(1) as pool:
            for number in range(5):
                pool.submit(lambda number: (begun.append(number), time.sleep(0.2)), number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) <= 1


def test_what_the_system_says_in_a_worker_is_told_as_anywhere(tmp_path):
    """Its path is absolute there, and is not where the user named a relative folder."""
    from tessera_cli.runs.tasks import Task, perform

    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.json").write_text("{}")

    def read(name: str, more: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "runs" / "run.failed"))

    job: Any = Stub(read=read)
    job.folder, job.reading = Folder(tmp_path), Inputs("a")
    recipe: Any = SimpleNamespace(open=lambda requests: job)
    with pytest.raises(DiskFullError, match="the disk quota is used up"):
        perform(Task(recipe, "run", tuple(job.reading.tile_requests)))


class Killer(threading.Thread):
    """Kills the processes of a pool, a moment after they have begun."""

    def __init__(self, monkeypatch: Any, times: int) -> None:
        super().__init__(daemon=True)
        self.times, self.killed = times, 0
        self.pools: list[ProcessPool] = []
        init = ProcessPool.__init__

        def made(pool: ProcessPool, *arguments: Any, **more: Any) -> None:
            init(pool, *arguments, **more)
            self.pools.append(pool)

        monkeypatch.setattr(ProcessPool, "__init__", made)

    def run(self) -> None:
        chance = random.Random(1)
        while self.killed < self.times:
            for pool in self.pools:
                for pid in pool.pids[:1]:
                    time.sleep(chance.uniform(0.5, 3))
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    self.killed += 1
            time.sleep(0.05)


@pytest.mark.slow
def test_processes_that_are_killed_are_replaced_and_nothing_is_lost(whole, catalog, tmp_path, monkeypatch):
    killer = Killer(monkeypatch, 2)
    killer.start()
    summary = tessera_library.embed(**arguments(catalog, out=tmp_path / "out", workers=2))
    assert killer.killed
    assert summary.error() is None
    assert rasters(tmp_path / "out") == whole
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith((".part", ".next", ".stale"))]


@pytest.mark.slow
def test_a_poison_tile_fails_by_name_and_the_others_are_finished(whole, catalog, tmp_path, tessera, monkeypatch):
    """And another run, where it does no harm, finishes it."""
    poison = sorted(name for name in whole if name.endswith("_emb.tif"))[2].removesuffix("_emb.tif")
    monkeypatch.setenv("POISON", poison)
    monkeypatch.setattr(dispatch, "perform", perform_or_die)
    summary = tessera_library.embed(**arguments(catalog, out=tmp_path / "out", workers=2))
    (failed,) = [result for result in summary.results if result.status == "failed"]
    assert failed.request.name == poison
    assert "killed 3 times" in str(failed.error)
    assert summary.error().exit_code == 4
    assert {name for name in whole if poison not in name and name.endswith(".tif")} == {
        name for name in rasters(tmp_path / "out") if name.endswith(".tif")
    }
    _, out, _ = tessera("info", tmp_path / "out", "--json")
    assert "killed 3 times" in out
    monkeypatch.delenv("POISON")
    assert tessera_library.embed(**arguments(catalog, out=tmp_path / "out")).error() is None
    assert rasters(tmp_path / "out") == whole


def perform_or_die(task: Any) -> Any:
    from tessera_cli.runs.tasks import perform

    if os.environ.get("POISON") in [request.name for request in task.requests]:
        os.kill(os.getpid(), signal.SIGKILL)
    return perform(task)


def test_the_memory_of_a_cluster_is_not_that_of_this_machine():
    cluster: Any = object.__new__(DaskExecutor)
    cluster._slots = 500
    assert Workers.of(Terms(executor=cluster)) == Workers("elsewhere", 500)


def test_no_workers_are_refused(catalog, tmp_path, tessera):
    out = tmp_path / "out"
    code, _, error = tessera("embed", *catalog.options(out), "--workers", "0")
    assert code == 2
    assert "--workers" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("address", "exit_code", "said"),
    [
        (None, 2, "pip install 'tessera-embed[dask]'"),
        ("tcp://127.0.0.1:1", 75, "no Dask scheduler answers there: Connection refused"),
        ("somewhere", 2, "no Dask scheduler answers there: missing port number"),
        ("pigeon://somewhere:1", 2, "Name the address"),
    ],
)
def test_a_scheduler_that_is_not_there_is_named_at_once(
    catalog, tmp_path, tessera, monkeypatch, address, exit_code, said
):
    if address is None:
        monkeypatch.setitem(sys.modules, "distributed", None)
    else:
        pytest.importorskip("distributed")
    code, _, error = tessera("embed", *catalog.options(tmp_path / "out"), "--scheduler", address or "tcp://a:1")
    assert code == exit_code
    assert len(error.splitlines()) == 1
    assert said in error
    assert not (tmp_path / "out").exists()
