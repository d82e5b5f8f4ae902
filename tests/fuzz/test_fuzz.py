"""The short form of the fuzzing: the same mutants each time; and whether the long form finds what it should."""

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import EVIL, damaged, mutated
from tests.fuzz.target import Ready
from tests.fuzz.targets import TARGETS

MUTANTS = {"items": 50, "api": 50, "scenes": 50, "cmr": 50, "tree": 30, "parquet": 30, "toml": 200, "npy": 60}
MUTANTS |= {"geopackage": 30, "tiff": 60, "weights": 6, "records": 15, "commands": 8, "geojson": 12, "zarr": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder, ready = tmp_path_factory.mktemp("fuzz"), {}

    def prepare(name) -> Ready:
        if name not in ready:
            ready[name] = TARGETS[name].prepare(folder / name)
        return ready[name]

    return prepare


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_used_or_refused_in_a_line(name, prepared, tessera):
    ready = prepared(name)
    for number in range(MUTANTS.get(name, 20)):
        mutant = ready.mutant(Random(f"{name}:0:{number}"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ready.use(mutant)
            except Exception as error:
                error.add_note(f"python -m tests.fuzz --repeat {name}:0:{number}")
                raise


def test_mutants_are_the_same_each_time_and_differ_from_each_other():
    sound = {"a": [1, 2.5, {"b": "c"}], "d": {"e": None}}
    made = [mutated(sound, Random(number)) for number in range(300)]
    assert made == [mutated(sound, Random(number)) for number in range(300)]
    assert len(set(made)) > 150
    assert sound == {"a": [1, 2.5, {"b": "c"}], "d": {"e": None}}
    for mark in (b"NaN", b"Infinity", rb"\ud800", b"[" * 1000, b"9" * 5000):
        assert any(mark in each for each in made), mark
    assert len(EVIL) > 40
    blocks = [damaged(bytes(2000), Random(number)) for number in range(300)]
    assert len(set(blocks)) > 200
    assert {len(block) < 2000 for block in blocks} == {len(block) > 2000 for block in blocks} == {True, False}


PLANTED = """
    import os, socket, sys, time
    from pathlib import Path
    from tests.fuzz import __main__, runner, targets
    from tests.fuzz.target import Target

    def fail():
        raise KeyError("planted")

    FAULTS = {
        "error": fail,
        "hang": lambda: time.sleep(60),
        "memory": lambda: bytes(bytearray(100 << 20)),
        "read": lambda: Path("/etc/hostname").open().close(),
        "write": lambda: Path(sys.argv[1], "planted").open("w").close(),
        "network": lambda: socket.create_connection(("127.0.0.1", 9), 1),
        "killed": lambda: os.kill(os.getpid(), 11),
        "sound": lambda: None,
        "refused": lambda: Path("/nowhere/x").unlink(),
    }
    runner.HANG, runner.BUSY, runner.MEMORY = 1, 1.5, 50 << 20

    def build(folder):
        for name in FAULTS:
            (folder / name).write_text("sound")

    def use(folder, changed):
        if changed.read_bytes() != b"sound":
            FAULTS[changed.name]()

    planted = Target("planted", build, use, lambda path, data, rng: b"changed", allowed=(OSError,))
    targets.TARGETS["planted"] = planted
    sys.exit(__main__.main(["--target", "planted", "--batch", "60", "--seconds", "90", "--mutants", "40"]))
"""


def test_what_is_planted_is_found(tmp_path):
    """Faults of every kind, by the name of the file that is changed."""
    command = [sys.executable, "-c", textwrap.dedent(PLANTED), str(tmp_path)]
    own = {**os.environ, "TMPDIR": str(tmp_path / "own")}
    (tmp_path / "own").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=own)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mutants"] == 40
    found = sorted(finding["text"] for finding in result["findings"])
    words = {
        "error: KeyError at ": "planted",
        "hang ": "takes more than 1 s",
        "killed ": "kills the process (signal 11)",
        "memory ": "MB",
        "network: socket.connect": "127.0.0.1",
        "network: socket.getaddrinfo": "127.0.0.1",
        "read: reads /etc/hostname": "",
        "refused: os.remove /nowhere/x": "",
        f"write: writes {tmp_path}/planted": "",
    }
    assert len(found) == len(words), found
    for text, (begin, rest) in zip(found, words.items(), strict=True):
        assert text.startswith(begin), text
        assert rest in text
