"""Kill runs at random moments, many of them with several processes on one folder; then run them again and compare.

    python -m tests.runs.kills --count 500 --together 200 --where /tmp/kills

Every process is a fork of one that has imported everything, and gets SIGKILL after a random time, or before a random
change of the file system. After each kill no tile that was finished may be lost; after all runs were run again every
raster, array, store and weights file must be that of a folder that nobody disturbed, `verify` must find it sound, and
nothing unfinished may lie in it. Prints one line of JSON, and ends with 1 unless all of that held.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink", "link")
RESULTS = (".tif", ".npy", ".tiff", ".vrt", ".safetensors")
UNFINISHED = (".part", ".partial", ".next", ".stale")
FIELDS = ((220, 200, 300, 100), (260, 300, 380, 150), (230, 380, 290, 320), (300, 140, 370, 60))
"""West, south, east, north of fields on one tile: metres from the catalogue's corner."""
DAYS = ("2021-02-10", "2021-07-01", "2021-03-05", "2021-06-06")
"""Of the scenes that are read."""


@dataclass(frozen=True)
class Run:
    """A command line without its --out; `base` is run undisturbed before."""

    kind: str
    arguments: tuple[str, ...]


def forked(work: Callable[[], int], log: Path, *, seconds: float | None = None, change: int | None = None) -> int:
    """Start `work` in a process of its own, which is killed after so many seconds or before a change; its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("ab", buffering=0) as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        if change is not None:
            count = 0

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def counting(*arguments: Any, **more: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == change:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*arguments, **more)

                return counting

            for each in CHANGES:
                setattr(os, each, counted(getattr(os, each)))
        if seconds is not None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process as SIGKILL does, without a word
            signal.setitimer(signal.ITIMER_REAL, seconds)
        code = work()
    finally:
        os._exit(code)


def ended(children: Sequence[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def tessera(*arguments: object, modules: Path | None = None) -> Callable[[], int]:
    """Return work that runs a command line, and notes in `modules` what it has imported."""

    def work() -> int:
        from tessera_cli.cli.app import run

        code = run([str(argument) for argument in arguments])
        if modules is not None:
            modules.write_text("\n".join(sys.modules))
        return code

    return work


def import_all(modules: Path) -> None:
    """Import what a run has imported, so that forks find it."""
    for name in modules.read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def digests(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of everything that counts, and of whatever should not be there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(ending in name for ending in UNFINISHED) or (
            path.is_file() and (path.suffix in RESULTS or ".zarr/" in name)
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def lost(folder: Path, name: str) -> Callable[[], int]:
    """Return work that ends with 1 if a finished tile is lost, 2 if it is in the middle of being replaced."""

    def work() -> int:
        from tessera_cli.errors import TileError
        from tessera_cli.folders.folder import TileFolder
        from tessera_cli.journal import is_begun

        ours = TileFolder.open(folder)
        record = ours.read(ours.item_path(name))
        if record is None:
            return 1
        try:
            ours.check(record)
        except TileError:
            return 2 if is_begun(folder, name) else 1
        return 0

    return work


class Harness:
    def __init__(self, where: Path, seed: int) -> None:
        self.where, self.random = where, random.Random(seed)
        self.log = where / "log.txt"
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.tile = "utm30n_c0117_r1132_2021"
        self.runs: dict[str, list[tuple[object, ...]]] = {}
        self.lasts: dict[str, float] = {}
        self.whole: dict[tuple[str, tuple[int, ...]], Mapping[str, str]] = {}

    def alone(self, *arguments: object) -> int:
        return ended([forked(tessera(*arguments), self.log)])[0]

    def warm(self, *arguments: object) -> None:
        """Run a command line, and import what it needs."""
        modules = self.where / "modules.txt"
        assert ended([forked(tessera(*arguments, modules=modules), self.log)]) == [0], self.log.read_text()
        import_all(modules)

    def prepare(self) -> None:
        """Make catalogue, stores and shards, and the folders that nobody disturbs."""
        assert ended([forked(self._prepare, self.log)]) == [0], self.log.read_text()
        catalog = self.where / "catalog"
        for kind, verb in {
            "embed": ["embed", "--model", "null", "--threads", 1],
            "arrays": ["embed", "--model", "null", "--threads", 1, "--format", "npy", "--dtype", "float32"],
            "fetch": ["fetch", "--model", "null"],
            "fetch-npy": ["fetch", "--model", "null", "--format", "npy"],
        }.items():
            more = ["--year", 2021, "--catalog", catalog / "items.json", "-qq"]
            self.runs[kind] = [(*verb, "--aoi", catalog / f"{n}.geojson", *more) for n in range(len(FIELDS))]
        store = self.where / "stores"
        self.warm(*self.runs["fetch"][0], "--out", store)
        self.warm(*self.runs["embed"][0], "--out", self.where / "warm")
        self.warm("verify", self.where / "warm")
        self.runs["stored"] = [("embed", "--dpixels", store, "--model", "demo", "--threads", 1, "-qq")]
        sets = [
            word for one in ("steps=6", "save_every=2", "batch=32", "log_every=2") for word in ("--set", f"train.{one}")
        ]
        self.runs["pretrain"] = [
            (
                "train",
                "--shards",
                self.where / "shards",
                "--preset",
                "tiny",
                "--threads",
                1,
                "--device",
                "cpu",
                *sets,
                "-qq",
            )
        ]

    def _prepare(self) -> int:
        from tessera_cli.pretraining.run import pretrain
        from tests.conftest import box_geojson, make_catalog
        from tests.helpers.planted import write_planted
        from tests.pretraining.test_run import CPU, small

        made = make_catalog(self.where / "catalog")
        made.edit(lambda items: [item for item in items if item["id"][4:] in DAYS])
        west, north = made.origin
        for number, (left, down, right, up) in enumerate(FIELDS):
            place = made.folder / f"{number}.geojson"
            place.write_text(json.dumps(box_geojson(west + left, north - down, west + right, north - up)))
        planted = write_planted(self.where / "planted", "ab")
        pretrain([planted], small("train.steps=1"), self.where / "first", shards=self.where / "shards", device=CPU)
        return 0

    def undisturbed(self, kind: str, fields: Sequence[int]) -> Mapping[str, str]:
        """Return the results of runs one after the other; made once."""
        key = (kind, tuple(sorted(fields)))
        if key not in self.whole:
            out = self.where / "whole" / "-".join(map(str, (kind, *key[1])))
            started = time.monotonic()
            for field in key[1]:
                assert self.alone(*self.runs[kind][field], "--out", out) == 0, self.log.read_text()
            self.lasts[kind] = (time.monotonic() - started) / len(fields)
            self.whole[key] = digests(out)
        return self.whole[key]

    def round(self, kind: str, fields: Sequence[int], *, base: int | None, kill: float) -> int:
        """Start a run for each field at once on one folder, kill some of them, run all again; how many were killed."""
        asked = sorted({*fields, *([] if base is None else [base])})
        expected = self.undisturbed(kind, asked)
        out = self.where / "disturbed"
        shutil.rmtree(out, ignore_errors=True)
        if base is not None:
            shutil.copytree(self.where / "whole" / f"{kind}-{base}", out)
        children = []
        for field in fields:
            how: dict[str, Any] = {}
            if self.random.random() < kill:
                slower = 1 + 0.5 * (len(fields) - 1)
                if self.random.random() < 0.5:
                    how["seconds"] = max(0.002, self.random.uniform(0, slower * self.lasts[kind]))
                else:
                    how["change"] = self.random.randrange(1, 90 if kind.startswith("fetch") else 60)
            children.append(forked(tessera(*self.runs[kind][field], "--out", out), self.log, **how))
        codes = ended(children)
        killed = codes.count(-signal.SIGKILL) + codes.count(-signal.SIGALRM)
        self.counts["others"] += len(codes) - killed
        where = f"{kind} {fields} on {base}: {codes}"
        if bad := [code for code in codes if code not in (0, -signal.SIGKILL, -signal.SIGALRM)]:
            self.fail("failed", f"{where}: {bad}")
        if base is not None and kind != "pretrain":
            (state,) = ended([forked(lost(out, self.tile), self.log)])
            if state == 1:
                self.fail("lost", where)
            self.counts["half replaced"] += state == 2
        again = list(fields)
        self.random.shuffle(again)
        for field in again:
            if (code := self.alone(*self.runs[kind][field], "--out", out)) != 0:
                self.fail("failed again", f"{where}: {code}")
        found = digests(out)
        if left := sorted(name for name in found if any(ending in name for ending in UNFINISHED)):
            self.fail("leftovers", f"{where}: {left[:3]}")
        if differing := sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        ):
            self.fail("differ", f"{where}: {differing[:3]}")
        if kind != "pretrain" and self.alone("verify", out) != 0:
            self.fail("unsound", where)
        return killed

    def fail(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.failures.append(f"{what}: {text}")
        print(self.failures[-1], file=sys.stderr, flush=True)  # noqa: T201
        kept = self.where / f"kept-{len(self.failures)}"
        with contextlib.suppress(OSError):
            shutil.copytree(self.where / "disturbed", kept)


def measure(where: Path, *, count: int, together: int, seed: int, seconds: float) -> dict[str, Any]:
    """Kill `count` processes, `together` of them where several are on one folder; return what came of it."""
    harness, started = Harness(where, seed), time.monotonic()
    harness.prepare()
    singles, several, rounds = 0, 0, Counter[str]()
    while (singles < count - together or several < together) and time.monotonic() - started < seconds:
        kind = harness.random.choice(["embed", "embed", "arrays", "fetch", "fetch", "fetch-npy", "stored", "pretrain"])
        if several * max(count - together, 1) <= singles * together and several < together:
            kind = harness.random.choice(["embed", "arrays", "fetch", "fetch-npy"])
            fields = harness.random.sample(range(len(FIELDS)), harness.random.choice([2, 3, 4]))
            base = harness.random.choice([None, *(n for n in range(len(FIELDS)) if n not in fields)])
            if base is not None:
                harness.undisturbed(kind, [base])
            several += harness.round(kind, fields, base=base, kill=0.6)
            rounds["together"] += 1
        else:
            fields = [0] if kind in ("stored", "pretrain") else [harness.random.randrange(len(FIELDS))]
            base = None if kind in ("stored", "pretrain") else (fields[0] + 1) % len(FIELDS)
            if base is not None and harness.random.random() < 0.8:
                harness.undisturbed(kind, [base])
            else:
                base = None
            singles += harness.round(kind, fields, base=base, kill=1.0)
            rounds["alone"] += 1
        if sum(rounds.values()) % 20 == 0:
            print(f"{singles} + {several} killed, {dict(harness.counts)}", file=sys.stderr, flush=True)  # noqa: T201
    return {
        "seed": seed,
        "killed alone": singles,
        "killed together": several,
        "rounds": dict(rounds),
        **harness.counts,
        "failures": harness.failures[:20],
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="Processes to kill.")
    parser.add_argument("--together", type=int, default=200, help="How many of them with others on the same folder.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=1e9, help="End after so long in any case.")
    parser.add_argument("--where", type=Path, required=True, help="A new folder for everything.")
    given = parser.parse_args()
    given.where.mkdir(parents=True)
    import torch
    import zarr  # noqa: F401

    torch.set_num_threads(1)
    found = measure(
        given.where.resolve(), count=given.count, together=given.together, seed=given.seed, seconds=given.seconds
    )
    print(json.dumps(found))  # noqa: T201
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
