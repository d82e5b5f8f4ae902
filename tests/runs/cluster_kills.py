"""Kill what takes part in runs of many processes, at random moments; run again until all is done, and compare.

    python -m tests.runs.cluster_kills --count 50 --where /tmp/kills

Runs are shares of a job array, a pool, or tasks on a Dask cluster; SIGKILL hits coordinators, workers and schedulers.
After that the same command is run until it ends well. Then every raster and mosaic must be that of a folder that
nobody disturbed, and no other file may lie beside them; `verify` must find it sound, and the record of no tile may have
changed once it was there. Prints one line of JSON, and ends with 1 unless all of that held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import make_catalog
from tests.integration.dask_cluster import ROOT, Cluster, cluster
from tests.runs.kills import digests

KINDS = ("shards", "pool", "dask")
WINDOWS = ("2021-01/2021-06", "2021-05/2021-10", "2021-07/2021-12", "2021-02/2021-09")
MOST = 12
"""Starts of one command before it is taken for never ending."""
PATIENCE = 300
GOOD = (0, -9)
AGAIN = (4, 75)
"""Exit codes that ask for another try: a tile whose process was killed three times, a scheduler that is gone."""


class Harness:
    def __init__(self, where: Path, seed: int) -> None:
        self.where, self.random = where, random.Random(seed)
        where.mkdir(parents=True, exist_ok=True)
        self.catalog = make_catalog(where / "catalog")
        self.log = where / "log.txt"
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        started = time.monotonic()
        windows = [word for window in WINDOWS for word in ("--window", window)]
        area = ["--aoi", self.catalog.aoi, *windows, "--catalog", self.catalog.items, "--allow-no-radar", "-q"]
        self.plan = ["plan", *area]
        self.embed = ["embed", *area, "--model", "null", "--min-s2", "0", "--threads", "1"]
        assert self.start(*self.embed, "--out", where / "whole").wait() == 0, self.log.read_text()
        self.lasts = time.monotonic() - started
        self.whole = digests(where / "whole")

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tessera_cli", *map(str, arguments)]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def round(self, kind: str, kills: int) -> int:
        """Run over many processes, kill so many of them, run again until done; return how many were killed."""
        out = self.where / "disturbed"
        shutil.rmtree(out, ignore_errors=True)
        seen: dict[str, tuple[int, int]] = {}
        killed = 0
        if kind == "shards":
            assert self.start(*self.plan, "--out", out).wait() == 0, self.log.read_text()
        with contextlib.ExitStack() as stack:
            dask: Cluster | None = None
            for attempt in range(MOST):
                if kind == "dask" and (dask is None or dask.scheduler.poll() is not None):
                    stack.close()
                    dask = stack.enter_context(cluster(self.where / f"dask-{time.monotonic_ns()}", workers=2))
                runs = [self.start(*self.embed, "--out", out, *how) for how in self.how(kind, dask)]
                killed += self.disturb(kind, runs, dask, out, seen, kills - killed)
                codes = [run.wait(PATIENCE) for run in runs]
                self.look(out, seen, f"{kind}, try {attempt}")
                if bad := [code for code in codes if code not in (*GOOD, *AGAIN)]:
                    self.fail("failed", f"{kind}: {bad}")
                self.counts["asked for another try"] += sum(code in AGAIN for code in codes)
                if killed >= kills and not any(codes):
                    break
            else:
                self.fail("never ends", kind)
        self.compare(kind, out)
        return killed

    def how(self, kind: str, dask: Cluster | None) -> list[list[object]]:
        """Return the options of the processes that make up a run."""
        if kind == "shards":
            return [["--shard", f"{number}/3"] for number in (1, 2, 3)]
        return [["--scheduler", dask.address]] if dask is not None else [["--workers", 2]]

    def disturb(
        self,
        kind: str,
        runs: list[subprocess.Popen[bytes]],
        dask: Cluster | None,
        out: Path,
        seen: dict[str, tuple[int, int]],
        kills: int,
    ) -> int:
        """Kill at most so many processes while the runs are under way; return how many died."""
        killed = 0
        moments = sorted(self.random.uniform(0, 1.5 * self.lasts) for _ in range(self.random.randint(1, 2)))[:kills]
        if moments and self.random.random() < 0.5:  # while tiles are being written, rather than imports
            self.watch(runs, out, seen, lambda: len(seen) > self.random.randrange(3))
            moments = [moment / 8 for moment in moments]
        begun = time.monotonic()
        for moment in moments:
            self.watch(runs, out, seen, lambda until=begun + moment: time.monotonic() > until)
            victims = self.victims(kind, runs, dask)
            if not victims or all(run.poll() is not None for run in runs):
                break
            name, process = self.random.choice(victims)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed += 1
                self.counts[f"killed: {name}"] += 1
                if dask is not None and name == "worker of Dask":
                    process.wait()
                    dask.workers.remove(process)
                    dask.worker()
                if name == "coordinator of a pool":
                    self.orphans(process)
        self.watch(runs, out, seen, lambda: False)
        return killed

    def victims(self, kind: str, runs: list[subprocess.Popen[bytes]], dask: Cluster | None) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for run in runs:
            if run.poll() is None:
                name = {"shards": "shard", "pool": "coordinator of a pool", "dask": "coordinator on Dask"}[kind]
                found.append((name, run))
                if kind == "pool":
                    found += [("worker of a pool", each) for each in spawned(run.pid)] * 2
        if dask is not None:
            found += [("worker of Dask", each) for each in dask.workers if each.poll() is None]
            found += [("scheduler of Dask", dask.scheduler)] if dask.scheduler.poll() is None else []
        return found

    def orphans(self, parent: Any) -> None:
        """Wait for the workers of a pool that was killed: they end by themselves."""
        parent.wait()
        ends = time.monotonic() + 30
        while left := [each for each in psutil.process_iter() if _began(each, self.where, "spawn_main")]:
            if time.monotonic() > ends:
                self.fail("orphans", f"{len(left)} workers live on")
                for each in left:
                    each.kill()
            time.sleep(0.05)

    def watch(
        self,
        runs: list[subprocess.Popen[bytes]],
        out: Path,
        seen: dict[str, tuple[int, int]],
        enough: Callable[[], bool],
    ) -> None:
        """Look at the records until it is enough or all runs have ended."""
        ends = time.monotonic() + PATIENCE
        while not enough() and any(run.poll() is None for run in runs) and time.monotonic() < ends:
            self.look(out, seen, "under way")
            time.sleep(0.02)

    def look(self, out: Path, seen: dict[str, tuple[int, int]], when: str) -> None:
        """A record that is there stays the same file: no finished tile is computed again."""
        for path in out.glob("utm*_r*.json"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                mark = (status.st_mtime_ns, status.st_ino)
                if seen.setdefault(path.name, mark) != mark:
                    self.fail("computed twice", f"{when}: {path.name}")
                    seen[path.name] = mark

    def compare(self, kind: str, out: Path) -> None:
        found = digests(out)
        if left := sorted(names(out) - names(self.where / "whole")):
            self.fail("leftovers", f"{kind}: {left[:3]}")
        if lost := sorted(names(self.where / "whole") - names(out)):
            self.fail("lost", f"{kind}: {lost[:3]}")
        if differing := sorted(
            name for name in self.whole.keys() | found.keys() if self.whole.get(name) != found.get(name)
        ):
            self.fail("differ", f"{kind}: {differing[:3]}")
        if self.start("verify", out, "-q").wait() != 0:
            self.fail("unsound", kind)

    def fail(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.failures.append(f"{what}: {text}")
        print(self.failures[-1], file=sys.stderr, flush=True)  # noqa: T201


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def spawned(pid: int) -> list[psutil.Process]:
    """Return the workers of a pool whose coordinator has this number."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [each for each in psutil.Process(pid).children() if _began(each, None, "spawn_main")]
    return []


def _began(process: psutil.Process, where: Path | None, word: str) -> bool:
    """Return whether a process was started by such a command, and, with `where`, has lost its parent."""
    try:
        return word in " ".join(process.cmdline()) and (where is None or process.ppid() == 1)
    except psutil.Error:
        return False


def measure(
    where: Path, *, count: int, seed: int, kinds: tuple[str, ...] = KINDS, seconds: float = 1e9
) -> dict[str, Any]:
    """Kill `count` processes; return what came of it."""
    started, killed, rounds = time.monotonic(), 0, Counter[str]()
    harness = Harness(where, seed)
    while killed < count and time.monotonic() - started < seconds:
        kind = kinds[sum(rounds.values()) % len(kinds)]
        killed += harness.round(kind, min(harness.random.randint(2, 5), count - killed))
        rounds[kind] += 1
        print(f"{killed} killed, {dict(harness.counts)}", file=sys.stderr, flush=True)  # noqa: T201
    return {
        "seed": seed,
        "killed": killed,
        "rounds": dict(rounds),
        **harness.counts,
        "failures": harness.failures[:20],
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="Processes to kill.")
    parser.add_argument("--kinds", default=",".join(KINDS), help="Of runs, taken in turn.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=1e9, help="End after so long in any case.")
    parser.add_argument("--where", type=Path, required=True, help="A new folder for everything.")
    given = parser.parse_args()
    given.where.mkdir(parents=True)
    found = measure(
        given.where.resolve(),
        count=given.count,
        seed=given.seed,
        kinds=tuple(given.kinds.split(",")),
        seconds=given.seconds,
    )
    print(json.dumps(found))  # noqa: T201
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
