"""Nothing is written but the output folder and the weights cache: no scratch files, no caches of libraries."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import fake_hub
from tests.integration.tracing import Traced, traced

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

NOWHERE = ("/dev/null",)
LOCKS = "/dev/shm/sem."
"""Of Python's multiprocessing, which tqdm and Zarr's codecs use: in memory, and without a name once they are made."""


@pytest.fixture
def trace(tmp_path) -> Callable[..., Traced]:
    """Run Python with arguments under strace, in folders of its own: home, temporary files, weights, working folder."""
    for name in ("home", "scratch", "weights", "work"):
        (tmp_path / name).mkdir()

    def run(*arguments: object, endpoint: str = "http://127.0.0.1:9") -> Traced:
        environment = fake_hub.environment(tmp_path / "weights", endpoint, HOME=str(tmp_path / "home"))
        environment |= {"TMPDIR": str(tmp_path / "scratch"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # what Python keeps beside the program itself
        done = traced([sys.executable, *arguments], tmp_path / "log", cwd=tmp_path / "work", env=environment)
        for name in ("home", "scratch", "work"):
            assert list((tmp_path / name).iterdir()) == []
        locks = {path for path in done.changed if path.startswith(LOCKS)}
        assert not [path for path in locks if Path(path).exists()]
        return replace(done, changed={path: call for path, call in done.changed.items() if path not in locks})

    return run


def test_the_trace_sees_what_is_written(trace, tmp_path):
    """From threads and from processes of processes, by relative paths and by those of an open folder."""
    code = """
import os, subprocess, sys, threading
target = sys.argv[1]
open(target + "/plain", "w").close()
threading.Thread(target=lambda: os.mkdir(target + "/folder")).start()
folder = os.open(target, os.O_RDONLY)
os.close(os.open("relative", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
subprocess.run([sys.executable, "-c", f"import os; os.rename({target + '/plain'!r}, {target + '/renamed'!r})"])
os.chdir(target)
subprocess.run([sys.executable, "-c", "import os; os.symlink('elsewhere', 'link')"])
try:
    open(target + "/absent/file", "w")
except OSError:
    pass
open(target + "/renamed").read()
"""
    (tmp_path / "target").mkdir()
    done = trace("-c", code, tmp_path / "target")
    assert done.code == 0, done.stderr
    written = {path.removeprefix(f"{tmp_path}/target/") for path in done.outside(*NOWHERE)}
    assert {"plain", "folder", "relative", "renamed"} <= written
    assert not any("absent" in path for path in written)
    assert any("symlink" in call for call in done.changed.values())
    assert not any("elsewhere" in path for path in done.changed)  # what the link says
    assert done.outside(tmp_path / "target", tmp_path / "work", *NOWHERE) == {}
    assert done.outside(tmp_path / "targe") != {}


def ours(done: Traced, out, *more) -> None:
    """What a run has changed lies in its folder, or where else it may."""
    assert done.code == 0, done.stderr
    assert done.outside(*NOWHERE, *more).keys() - done.outside(out, *NOWHERE, *more).keys(), "nothing was traced"
    assert done.outside(out, *NOWHERE, *more) == {}
    assert not [path for path in out.rglob("*") if path.name.endswith((".part", ".partial", ".next", ".stale"))]


RUNS = {
    "null": ("--model", "null"),
    "encoder": ("--model", "demo"),
    "arrays": ("--format", "npy", "--dtype", "float32"),
    "workers": ("--model", "demo", "--workers", "2"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_embed_writes_its_folder_alone(catalog, trace, tmp_path, kind):
    done = trace("-m", "tessera_cli", "embed", *catalog.options(tmp_path / "out"), *RUNS[kind])
    ours(done, tmp_path / "out")


@pytest.mark.parametrize("format", ["zarr", "npy"])
def test_fetch_writes_its_folder_and_the_weights(catalog, trace, tmp_path, format):
    """And what was fetched is embedded into one folder again."""
    options = catalog.options(tmp_path / "stores")
    options = [*options[: options.index("--model")], "--out", str(tmp_path / "stores"), "--format", format]
    with fake_hub.serving() as hub:
        weights = ("--model", "v1.1-aws", "--source", "mpc", "--force-source")
        done = trace("-m", "tessera_cli", "fetch", *options, *weights, endpoint=hub.endpoint)
    ours(done, tmp_path / "stores", tmp_path / "weights")
    assert any(path.read_bytes() == fake_hub.CONTENT for path in (tmp_path / "weights").rglob("*.pt"))
    before = sorted((tmp_path / "weights").rglob("*"))
    stored = ("--dpixels", tmp_path / "stores", "--model", "demo", "--threads", "2")
    stored += ("--source", "mpc") if format == "npy" else ()
    done = trace("-m", "tessera_cli", "embed", *stored, "--out", tmp_path / "out")
    ours(done, tmp_path / "out")
    assert sorted((tmp_path / "weights").rglob("*")) == before
