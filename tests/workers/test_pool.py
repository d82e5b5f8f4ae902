"""Processes of a pool: they die, are told to stop, talk, and never print."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import suppress
from pathlib import Path

import pytest

from tessera_cli.errors import TesseraError
from tessera_cli.workers import ProcessPool, WorkerDiedError, pool, process_pool
from tests.workers import calls

ROOT = Path(__file__).parents[2]
PATIENCE = 60


def until(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_calls_run_side_by_side_in_processes_of_their_own(tmp_path):
    with ProcessPool(2) as workers:
        first = workers.submit(calls.wait_for, tmp_path / "go")
        (tmp_path / "begun").touch()
        second = workers.submit(calls.wait_for, tmp_path / "begun")
        assert second.result(PATIENCE)
        (tmp_path / "go").touch()
        assert first.result(PATIENCE)
        pids = {workers.submit(calls.pid).result(PATIENCE) for _ in range(4)}
        assert os.getpid() not in pids
        assert pids <= set(workers.pids)
        assert len(workers.pids) == 2
    assert not any(map(alive, pids))


def test_a_death_breaks_its_own_call_alone_and_the_process_is_replaced(tmp_path):
    with ProcessPool(2) as workers:
        other = workers.submit(calls.wait_for, tmp_path / "go", begun=tmp_path / "begun")
        until((tmp_path / "begun").exists)
        with pytest.raises(BrokenExecutor, match="signal 9"):
            workers.submit(calls.die).result(PATIENCE)
        assert workers.submit(calls.pid).result(PATIENCE)
        (tmp_path / "go").touch()
        assert other.result(PATIENCE)


def test_errors_come_back_as_they_are_with_where_they_arose():
    with ProcessPool(1) as workers:
        with pytest.raises(ValueError, match="invalid literal") as raised:
            workers.submit(calls.fail, "x").result(PATIENCE)
        assert "return int(kind)" in "".join(raised.value.__notes__)
        with pytest.raises(RuntimeError, match="OddError: odd"):
            workers.submit(calls.fail, "odd").result(PATIENCE)
        with pytest.raises(RuntimeError, match="cannot be sent"):
            workers.submit(calls.fail, "unsendable").result(PATIENCE)
        assert workers.submit(calls.fail, "7").result(PATIENCE) == 7


def test_each_process_has_its_share_before_anything_is_imported(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "64")
    with process_pool(2, threads=6) as workers:
        assert workers.submit(calls.variables, "OMP_NUM_THREADS", "MKL_NUM_THREADS").result(PATIENCE) == ["3", "3"]
    with process_pool(4, threads=2) as workers:
        assert workers.submit(calls.variables, "OMP_NUM_THREADS").result(PATIENCE) == ["1"]
        assert workers.submit(calls.torch_threads).result(PATIENCE) == 1


def test_each_process_sees_one_gpu(monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-6b")
    with process_pool(3, threads=4, device="cuda") as workers:
        assert workers.slots == 2
        both = [workers.submit(_slow_variables, 1.0) for _ in range(2)]
        seen = {tuple(each.result(PATIENCE)) for each in both}
    assert seen == {("5", "2"), ("GPU-6b", "2")}
    assert "--workers 3, but 2 GPU(s)" in caplog.text
    with pytest.raises(TesseraError, match="--device cuda:1 names one"):
        process_pool(2, device="cuda:1")


def _slow_variables(seconds: float) -> list[str | None]:
    time.sleep(seconds)
    return calls.variables("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def test_what_a_process_says_goes_to_the_loggers_of_its_parent(capfd):
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append
    logger, root = logging.getLogger("tessera_cli"), logging.getLogger()
    root.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(), ProcessPool(1) as workers:
            warnings.simplefilter("always")  # those of the parent hold
            workers.submit(calls.say, "snow").result(PATIENCE)
    finally:
        root.removeHandler(listener)
        logger.setLevel(logging.NOTSET)
    texts = [(each.name, each.getMessage()) for each in heard]
    assert texts[:2] == [("tessera_cli.somewhere", "snow, for those who listen"), ("tessera_cli.somewhere", "snow")]
    assert ("py.warnings", "UserWarning: odd") in texts
    assert not [text for _, text in texts if "not asked for" in text]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("end", ["error", "ctrl-c"])
def test_to_leave_by_an_exception_lets_calls_in_hand_keep_what_they_have(tmp_path, end):
    error = RuntimeError if end == "error" else KeyboardInterrupt
    workers = ProcessPool(2)
    with suppress(error), workers:
        first = workers.submit(calls.keep, tmp_path / "a", tmp_path / "kept")
        until((tmp_path / "a").exists)
        pids = workers.pids
        queued = [workers.submit(calls.wait_for, tmp_path / "never") for _ in range(3)]
        for pid in pids:
            os.kill(pid, signal.SIGINT)  # as a terminal does, to all processes in it
        time.sleep(0.3)
        assert not (tmp_path / "kept").exists()
        raise error
    assert (tmp_path / "kept").read_text() == "Interrupted "
    assert isinstance(first.exception(PATIENCE), WorkerDiedError)
    for each in queued:
        with pytest.raises((CancelledError, WorkerDiedError)):
            each.result(PATIENCE)
    assert not any(map(alive, pids))
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(calls.pid)


def test_a_process_that_does_not_leave_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.5)
    with suppress(KeyboardInterrupt), ProcessPool(1) as workers:
        workers.submit(calls.ignore_everything, tmp_path / "begun")
        until((tmp_path / "begun").exists)
        pids = workers.pids
        raise KeyboardInterrupt
    assert not any(map(alive, pids))


def test_signals_to_the_whole_group_interrupt_once(tmp_path, capfd):
    """A scheduler tells every process, and the parent says it again."""
    with suppress(KeyboardInterrupt), ProcessPool(1) as workers:
        workers.submit(calls.keep, tmp_path / "begun", tmp_path / "kept")
        until((tmp_path / "begun").exists)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            os.kill(workers.pids[0], number)
        raise KeyboardInterrupt
    assert (tmp_path / "kept").read_text() == "Interrupted "
    assert capfd.readouterr().err == ""


def test_processes_that_cannot_begin_end_the_run_with_the_reason(monkeypatch):
    monkeypatch.setattr("tessera_cli.workers.process.work", os.abort)
    with ProcessPool(1) as workers, pytest.raises(TesseraError, match="before it began, 3 times"):
        workers.submit(calls.pid).result(PATIENCE)


PARENT = """
import sys, time
from pathlib import Path
from tessera_cli.workers import ProcessPool
from tests.workers import calls

where = Path(sys.argv[1])
with (where / "ran").open("a") as ran:
    ran.write("x")
pool = ProcessPool(2)
with pool:
    first = pool.submit(calls.main_module)
    assert "where" not in first.result(), first.result()
    pool.submit(calls.keep, where / "begun", where / "kept")
    while not (where / "begun").exists():
        time.sleep(0.01)
    (where / "pids").write_text(" ".join(map(str, pool.pids)))
    (where / "ready").touch()
    time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path):
    """A script, without a guard for `__main__`, whose workers are at work."""
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(
            [sys.executable, script, tmp_path], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    until(lambda: (tmp_path / "ready").exists() or started.poll() is not None)
    assert started.poll() is None, (tmp_path / "log").read_text()
    yield started
    started.kill()
    started.wait()


def test_workers_whose_parent_is_killed_end_by_themselves_and_keep_what_they_have(parent, tmp_path):
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    parent.kill()
    until(lambda: not any(map(alive, pids)), 15)
    assert (tmp_path / "kept").read_text() == "Interrupted "
    assert (tmp_path / "ran").read_text() == "x"  # the script was not run again in a worker
    assert (tmp_path / "log").read_text() == ""


def test_ctrl_c_in_a_terminal_leaves_one_traceback_and_no_process(parent, tmp_path):
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(PATIENCE) == -signal.SIGINT
    assert not any(map(alive, pids))
    assert (tmp_path / "kept").read_text() == "Interrupted "
    log = (tmp_path / "log").read_text()
    assert log.count("Traceback") == 1
    assert log.endswith("KeyboardInterrupt\n")
