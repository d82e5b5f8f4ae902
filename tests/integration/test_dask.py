"""Runs over a real Dask cluster: scheduler and workers are processes of their own."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_catalog
from tests.integration.dask_cluster import ROOT, cluster
from tests.workers import calls

pytest.importorskip("distributed")
pytestmark = pytest.mark.integration
PATIENCE = 120
WINDOWS = ("2021-01/2021-06", "2021-05/2021-10", "2021-07/2021-12", "2021-02/2021-09")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return make_catalog(tmp_path_factory.mktemp("small") / "catalog")


def options(catalog: Any, *more: object) -> list[str]:
    windows = [word for window in WINDOWS for word in ("--window", window)]
    area = ["embed", "--aoi", catalog.aoi.name, *windows, "--catalog", catalog.items.name, "--model", "null"]
    return [*area, "--min-s2", "0", "--allow-no-radar", *map(str, more)]


def start(catalog: Any, *more: object) -> subprocess.Popen[str]:
    """Start a run in the folder of the catalogue, by relative paths."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tessera_cli", *options(catalog, *more)],
        cwd=catalog.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(catalog: Any, *more: object) -> tuple[int, str, str]:
    started = start(catalog, *more)
    out, error = started.communicate(timeout=5 * PATIENCE)
    return started.returncode, out, error


def rasters(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix in (".tif", ".vrt")
    }


def times(folder: Path) -> dict[str, tuple[int, int]]:
    """Of the records of finished tiles: when and as which file they were written."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("utm*_2021*.json")}


@pytest.fixture(scope="module")
def whole(catalog):
    code, _, error = run(catalog, "--out", "whole", "-q")
    assert code == 0, error
    return rasters(catalog.folder / "whole")


def test_a_cluster_makes_the_bytes_of_one_process(whole, catalog, tmp_path):
    """Its workers run elsewhere: relative paths are those of the run."""
    with cluster(tmp_path / "dask", workers=1) as dask:
        dask.worker(threads=2)
        code, out, error = run(catalog, "--out", "over", "--scheduler", dask.address)
    assert code == 0, error
    assert rasters(catalog.folder / "over") == whole
    assert "over/" in out
    lines = [line.split("tessera: ", 1)[1] for line in error.splitlines()]  # nothing of Dask is among them
    assert any(line.startswith("files of scenes: ") for line in lines)


def test_a_worker_that_is_killed_costs_its_tile_a_second_time_and_nothing_else(whole, catalog, tmp_path):
    with cluster(tmp_path / "dask", workers=2) as dask:
        started, out = start(catalog, "--out", "killed", "--scheduler", dask.address), catalog.folder / "killed"
        until = time.monotonic() + PATIENCE
        while not times(out) and time.monotonic() < until:
            time.sleep(0.02)
        before = times(out)
        dask.workers[0].kill()
        _, error = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, error
    assert rasters(out) == whole
    assert before
    assert before.items() <= times(out).items()


def test_a_scheduler_that_is_killed_ends_the_run_which_goes_on_with_another(whole, catalog, tmp_path):
    out = catalog.folder / "gone"
    with cluster(tmp_path / "one", workers=1) as dask:
        started, until = start(catalog, "--out", "gone", "--scheduler", dask.address), time.monotonic() + PATIENCE
        while not times(out) and time.monotonic() < until:
            time.sleep(0.02)
        dask.scheduler.kill()
        killed = time.monotonic()
        _, error = started.communicate(timeout=PATIENCE)
        took = time.monotonic() - killed
        address = dask.address
    before = times(out)
    last = error.splitlines()[-1]
    assert started.returncode == 75, error
    assert f"the scheduler at {address} is gone; tiles in hand may still be finished by their workers." in last
    assert "Run the same command again." in last
    assert "Traceback" not in error
    assert took < 30
    with cluster(tmp_path / "two", workers=1) as dask:
        code, _, error = run(catalog, "--out", "gone", "--scheduler", dask.address)
    assert code == 0, error
    assert rasters(out) == whole
    assert before.items() <= times(out).items()


def test_a_call_that_kills_every_worker_is_given_up_by_its_own_name_alone(tmp_path):
    """Dask tries it four times."""
    from tessera_cli.workers import DaskExecutor

    with cluster(tmp_path / "dask", workers=5) as dask, DaskExecutor(dask.address) as executor:
        bad = executor.submit(calls.die)
        with pytest.raises(BrokenExecutor, match="died, 4 times"):
            bad.result(PATIENCE)
        assert executor.submit(calls.pid).result(PATIENCE) in [worker.pid for worker in dask.workers]


def test_workers_come_and_go(tmp_path, caplog):
    from tessera_cli.workers import DaskExecutor

    with cluster(tmp_path / "dask", workers=0) as dask, DaskExecutor(dask.address) as executor:
        assert "no workers yet" in caplog.text
        assert executor.slots == 1
        waiting = executor.submit(calls.pid)
        first = dask.worker(threads=3)
        assert waiting.result(PATIENCE) == first.pid
        _until(lambda: executor.slots == 3)
        dask.worker()
        _until(lambda: executor.slots == 4)
        first.kill()
        _until(lambda: executor.slots == 1)


def test_tasks_share_the_cores_of_their_worker_and_the_gpu_one_at_a_time(tmp_path):
    from tessera_cli import config
    from tessera_cli.workers import DaskExecutor, threads_of_task

    with cluster(tmp_path / "dask", workers=0) as dask:
        dask.worker(threads=2, OMP_NUM_THREADS="2")
        with DaskExecutor(dask.address) as executor:
            assert executor.submit(config.threads).result(PATIENCE) == config.threads({"OMP_NUM_THREADS": "2"})
            assert executor.submit(threads_of_task).result(PATIENCE) == 1
        with DaskExecutor(dask.address, alone=True) as executor:
            _until(lambda: executor.slots == 1)
            spans = [executor.submit(calls.span, 0.3) for _ in range(4)]
            ordered = sorted(each.result(PATIENCE) for each in spans)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ordered))
    assert threads_of_task() >= 1


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_futures_end_with_the_scheduler(tmp_path, end):
    """Also where it says goodbye."""
    from tessera_cli.workers import DaskExecutor, SchedulerGoneError

    with cluster(tmp_path / "dask", workers=1) as dask, DaskExecutor(dask.address) as executor:
        waiting = [executor.submit(calls.wait_for, tmp_path / "never") for _ in range(3)]
        threading.Timer(1, getattr(dask.scheduler, end)).start()
        for future in waiting:
            with pytest.raises(SchedulerGoneError):
                future.result(PATIENCE)
        with pytest.raises(SchedulerGoneError):
            executor.submit(calls.pid).result(PATIENCE)


def test_an_interrupted_run_leaves_no_task_behind(catalog, tmp_path):
    with cluster(tmp_path / "dask", workers=1) as dask:
        started, out = start(catalog, "--out", "left", "--scheduler", dask.address), catalog.folder / "left"
        until = time.monotonic() + PATIENCE
        while not times(out) and time.monotonic() < until:
            time.sleep(0.02)
        started.send_signal(signal.SIGINT)
        _, error = started.communicate(timeout=PATIENCE)
        assert started.returncode == 130, error
        assert len(error.splitlines()[-1]) < 200
        from distributed import Client

        with Client(dask.address, set_as_default=False) as client:
            _until(lambda: not client.run_on_scheduler(_tasks))


def _tasks(dask_scheduler: Any = None) -> int:
    return len(dask_scheduler.tasks)


def test_workers_with_another_version_are_named(tmp_path, monkeypatch):
    from tessera_cli.errors import UsageError
    from tessera_cli.workers import DaskExecutor, dask

    with cluster(tmp_path / "dask", workers=1) as running:
        _until(lambda: _workers(running.address) == 1)
        monkeypatch.setattr(dask, "__version__", "9.9")
        with pytest.raises(UsageError, match=r"9\.9 here and .* at tcp://127"):
            DaskExecutor(running.address)


def test_workers_without_our_package_are_told(tmp_path):
    from tessera_cli.errors import UsageError
    from tessera_cli.workers import DaskExecutor

    hidden = tmp_path / "hidden" / "tessera_cli"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('No module named tessera_cli', name='tessera_cli')")
    with cluster(tmp_path / "dask", workers=0) as running:
        with DaskExecutor(running.address) as executor:
            path = os.pathsep.join(filter(None, (str(hidden.parent), os.environ.get("PYTHONPATH"))))
            running.worker(PYTHONPATH=path)  # it comes later
            with pytest.raises(UsageError, match="its workers have no tessera-embed"):
                executor.submit(calls.pid).result(PATIENCE)
        _until(lambda: _workers(running.address) == 1)
        with pytest.raises(UsageError, match="its workers have no tessera-embed"):
            DaskExecutor(running.address)


def _workers(address: str) -> int:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.nthreads())


def _until(what: Any, seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.1)
