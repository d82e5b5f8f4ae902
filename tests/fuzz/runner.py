"""Run mutants of a target in child processes, and judge each: what it raised, how long it took, what it touched."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.guard import MEMORY, Watch, limit_memory, peak
from tests.fuzz.target import Mutant, Ready
from tests.fuzz.targets import TARGETS

HANG, BUSY = 10.0, 3
"""Seconds that a mutant may take, of a processor; on a busy machine so many times as long by the clock."""
_PACKAGE = "tessera_cli"


@dataclass(frozen=True)
class Finding:
    """A mutant that did what none may do."""

    target: str
    seed: int
    number: int
    key: str
    """By what findings are the same."""
    text: str

    def __str__(self) -> str:
        return f"FOUND {self.target}:{self.seed}:{self.number} {self.text}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Runner:
    """One target; its sound files are written once."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self.name, self.seed = name, seed
        self.ready: Ready = TARGETS[name].prepare(folder / name)
        self.done = self.found = self.memory = 0
        self.slowest = 0.0
        logging.getLogger().addHandler(logging.NullHandler())
        with _quiet():
            self.ready.use_sound()

    def mutant(self, number: int) -> Mutant:
        return self.ready.mutant(Random(f"{self.name}:{self.seed}:{number}"))

    def run(self, count: int, *, until: float) -> Iterator[Finding]:
        """Run the next mutants, in as many children as it takes."""
        last = self.done + count
        while self.done < last and time.monotonic() < until:
            yield from self._child(last, until)

    def repeat(self, number: int, keep: Path | None = None) -> int:
        """Run one mutant here, with its traceback."""
        if keep:
            sys.stdout.write(f"{self.keep(number, keep)}\n")
        watch = Watch()
        watch.active = True
        self.ready.use(self.mutant(number))
        watch.active = False
        sys.stdout.write("\n".join(watch.seen) + "\n")
        return 0

    def keep(self, number: int, folder: Path) -> Path:
        mutant = self.mutant(number)
        path = folder / f"{self.name}-{self.seed}-{number}" / Path(mutant.name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutant.data)
        return path

    def _child(self, last: int, until: float) -> Iterator[Finding]:
        """Run mutants in one child until one is bad beyond an error, or the number or the time is reached."""
        read, write = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                self._work(range(self.done, last), until, write)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as pipe:
            yield from self._watch(pid, pipe)
        self.ready.restore()  # what a killed child has left

    def _watch(self, pid: int, pipe: Any) -> Iterator[Finding]:
        text, at = b"", self.done
        hung, told_at, used = False, time.monotonic(), _processor_time(pid)
        while True:
            ready, _, _ = select.select([pipe], [], [], HANG / 4)
            if not ready:
                waited, worked = time.monotonic() - told_at, _processor_time(pid) - used
                if worked > HANG or waited > HANG * BUSY:
                    hung = True
                    os.kill(pid, signal.SIGKILL)
                    break
                continue
            told_at, used = time.monotonic(), _processor_time(pid)
            more = os.read(pipe.fileno(), 1 << 16)
            if not more:
                break
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                told = json.loads(line)
                at, self.done = told["number"] + 1, told["number"] + 1
                self.slowest, self.memory = max(self.slowest, told["took"]), max(self.memory, told["memory"])
                for key, what in told["bad"]:
                    self.found += 1
                    yield Finding(self.name, self.seed, told["number"], f"{self.name}: {key}", what)
        _, status = os.waitpid(pid, 0)
        if hung or os.WIFSIGNALED(status):
            why = f"takes more than {HANG:g} s" if hung else f"kills the process (signal {os.WTERMSIG(status)})"
            self.found += 1
            self.done = at + 1
            yield Finding(self.name, self.seed, at, f"{self.name}: {why}", f"{self.mutant(at).name} {why}")

    def _work(self, numbers: range, until: float, pipe: int) -> None:
        """Be the child: run mutants and tell of each, a line."""
        limit_memory()
        watch = Watch()
        for number in numbers:
            if time.monotonic() > until:
                return
            mutant, before, begun = self.mutant(number), peak(), time.monotonic()
            bad: list[tuple[str, str]] = []
            watch.seen.clear()
            watch.active = True
            try:
                with _quiet():
                    self.ready.use(mutant)
            except BaseException as error:  # whatever it is
                watch.active = False
                bad.append(_told(mutant, error))
            watch.active = False
            bad += [(each.split("/var")[0], f"{mutant.name}: {each}") for each in dict.fromkeys(watch.seen)]
            grown = peak() - before
            if grown > MEMORY:
                bad.append(("memory", f"{mutant.name} takes {grown >> 20} MB"))
            line = {"number": number, "took": time.monotonic() - begun, "memory": grown, "bad": bad}
            os.write(pipe, json.dumps(line).encode() + b"\n")
            if grown > MEMORY:
                return  # the peak hides what comes after


def _processor_time(pid: int) -> float:
    """Return the seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _told(mutant: Mutant, error: BaseException) -> tuple[str, str]:
    """Return the place of an error, the last line of ours, and what to say of it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"/{_PACKAGE}/" in frame.filename] or frames
    last = ours[-1]
    place = f"{last.filename.rpartition('/' + _PACKAGE + '/')[2]}:{last.lineno} {last.name}"
    name = type(error).__name__
    said = str(error).splitlines()[0][:160] if str(error) else ""
    key = f"{name} at {place}" if name != "AssertionError" else f"{name} {said[:80]}"
    return key, f"{mutant.name}: {name} at {place}: {said}"
