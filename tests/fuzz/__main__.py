"""Fuzz every border for a while: `python -m tests.fuzz --seconds 1200 --seed 1 [--target items --target tiff]`.

Targets take turns, each in a child process that is killed when a mutant takes more than ten seconds. Findings are told
once each, with what repeats them (`--repeat TARGET:SEED:NUMBER`). The last line is JSON. Exit code 1 with findings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from tests.fuzz.guard import make_sandbox
from tests.fuzz.runner import Finding, Runner
from tests.fuzz.targets import names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long in all")
    parser.add_argument("--mutants", type=int, default=sys.maxsize, help="of each target, if that is sooner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--batch", type=int, default=200, help="mutants per child process")
    parser.add_argument("--repeat", help="run one mutant again, here, with its traceback: TARGET:SEED:NUMBER")
    parser.add_argument("--keep", type=Path, help="a folder for the files that findings are about")
    given = parser.parse_args(arguments)
    folder = make_sandbox()
    try:
        return fuzz(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(given: argparse.Namespace, folder: Path) -> int:
    """Do what the command line says; return the exit code."""
    if given.repeat:
        target, seed, number = given.repeat.split(":")
        return Runner(target, int(seed), folder).repeat(int(number), given.keep)
    runners = [Runner(name, given.seed, folder) for name in names(given.target)]
    turn = min(30.0, max(2.0, given.seconds / len(runners) / 4))
    end, findings = time.monotonic() + given.seconds, dict[str, Finding]()
    while time.monotonic() < end and any(runner.done < given.mutants for runner in runners):
        for runner in runners:
            count = min(given.batch, given.mutants - runner.done)
            for finding in runner.run(count, until=min(end, time.monotonic() + turn)):
                if findings.setdefault(finding.key, finding) is finding:
                    sys.stdout.write(f"{finding}\n")
                    sys.stdout.flush()
                    if given.keep:
                        runner.keep(finding.number, given.keep)
            if time.monotonic() >= end:
                break
    for runner in runners:
        own = [finding for finding in findings.values() if finding.target == runner.name]
        text = f"{runner.name:12} {runner.done:7} mutants, {runner.found} bad ones of {len(own)} kinds"
        sys.stdout.write(f"{text}, slowest {runner.slowest:.1f} s, most memory {runner.memory >> 20} MB more\n")
    result = {
        "seed": given.seed,
        "mutants": sum(runner.done for runner in runners),
        "findings": [finding.to_dict() for finding in findings.values()],
        "targets": {runner.name: {"mutants": runner.done, "bad": runner.found} for runner in runners},
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
