"""Before a run: what it is likely to take of memory and disk; afterwards: what it took."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from tessera_cli import config
from tessera_cli.extent.grid import ForeignTile, TileRequest, pack_mask
from tessera_cli.imagery.lazy_zeros import lazy_zeros
from tessera_cli.runs import fit
from tessera_cli.runs.fit import Bulk, Needs, Workers
from tessera_cli.runs.terms import Terms
from tessera_cli.timing import rss_mb
from tessera_cli.workers import DaskExecutor, ProcessPool
from tests.conftest import make_catalog

GB = 10**9


def lines(needs, folder, workers=Workers()):  # noqa: B008 - frozen
    return list(needs.shortfalls(folder, workers, memory=10 * GB, held=0.5 * GB))


def test_nothing_is_said_where_all_fits(tmp_path):
    assert lines(Needs(memory=8 * GB, disk=1000), tmp_path) == []
    assert lines(Needs(memory=1 * GB, disk=1000), tmp_path, Workers("processes", 5)) == []


def test_memory_of_one_process(tmp_path):
    (line,) = lines(Needs(memory=9 * GB, disk=0), tmp_path)
    assert "may take 9.5 GB of memory, and 10.0 GB are granted: give the job more memory," in line
    assert "--threads" not in line
    (line,) = lines(Needs(memory=9 * GB, disk=0, threads=True), tmp_path)
    assert "or use fewer --threads" in line


def test_memory_of_several_processes(tmp_path):
    """Each of them holds what this one holds, and takes tiles."""
    needs = Needs(memory=2 * GB, disk=0)
    assert lines(needs, tmp_path, Workers("processes", 3)) == []
    (line,) = lines(needs, tmp_path, Workers("processes", 4))
    assert "may take 10.5 GB of memory (4 processes of 2.5 GB), and 10.0 GB are granted" in line
    assert "use fewer --workers" in line


def test_memory_of_threads_and_of_other_machines(tmp_path):
    """Threads share what this process holds; what others have is not known here."""
    needs = Needs(memory=2 * GB, disk=0)
    assert lines(needs, tmp_path, Workers("threads", 4)) == []
    (line,) = lines(needs, tmp_path, Workers("threads", 5))
    assert "may take 10.5 GB of memory, and 10.0 GB are granted" in line
    assert "use fewer --workers" in line
    assert lines(needs, tmp_path, Workers("elsewhere", 500)) == []


def test_who_takes_the_tiles():
    assert Workers.of(Terms()) == Workers("here", 1)
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        assert Workers.of(Terms(executor=threads, slots=3)) == Workers("threads", 3)
        assert Workers.of(Terms(executor=processes, slots=2)) == Workers("processes", 2)
    cluster = object.__new__(DaskExecutor)  # with nobody to connect to
    cluster._slots = 7
    assert Workers.of(Terms(executor=cluster)) == Workers("elsewhere", 7)
    with ProcessPool(1) as pool:
        assert Workers.of(Terms(executor=pool)) == Workers("processes", 1)


def test_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * GB))
    assert lines(Needs(memory=0, disk=2.9 * GB), tmp_path / "not" / "there") == []
    (line,) = lines(Needs(memory=0, disk=3.1 * GB), tmp_path / "not" / "there")
    assert "may take 3.1 GB, and 3.0 GB are free" in line
    assert "choose another --out" in line


def test_memory_of_a_gpu(tmp_path):
    assert lines(Needs(0, 0, device=1 * GB, device_free=2 * GB), tmp_path) == []
    (line,) = lines(Needs(0, 0, device=2 * GB, device_free=1 * GB), tmp_path)
    assert "2.0 GB of the GPU's memory, and 1.0 GB are free" in line


@pytest.mark.skipif(not fit.Path("/proc/self/statm").exists(), reason="only Linux tells it there")
@pytest.mark.parametrize("shape", ["field", "diagonal", "whole"])
def test_d_pixels_take_the_memory_of_the_pages_that_are_written(shape):
    """As the kernel counts it."""
    pixels = np.zeros((512, 512), bool)
    if shape == "field":
        pixels[200:260, 100:180] = True
    elif shape == "diagonal":
        pixels[np.arange(512), np.arange(512)] = True
    else:
        pixels[:] = True
    frames = 30
    bulk = Bulk(1, int(pixels.sum()), (pixels,), s2=frames, s1=frames)
    before = rss_mb()
    s2, s1 = lazy_zeros((frames, 512, 512, 10), np.uint16), lazy_zeros((frames, 512, 512, 2), np.int16)
    mask = lazy_zeros((frames, 512, 512), np.uint8)
    for frame in range(frames):
        s2[frame][pixels] = 7
        s1[frame][pixels] = 7
        mask[frame][pixels] = 1
    assert bulk.tile_bytes(pixels) / 1e6 == pytest.approx(rss_mb() - before, rel=0.1, abs=2)
    assert s2.any()


def test_clear_skies_and_the_largest_tile_decide():
    whole, few = np.ones((512, 512), bool), np.zeros((512, 512), bool)
    few[:10] = True
    requests = [
        TileRequest(ForeignTile(name, (512, 512)), None, pack_mask(mask)) for name, mask in (("a", few), ("b", whole))
    ]
    bulk = fit.bulk_of_stores(requests)
    assert (bulk.tiles, bulk.pixels, bulk.counts) == (2, 512 * 512 + 5120, [512 * 512, 512 * 512])  # read as a whole
    cloudy, clear = (Bulk(2, 1, (whole, few), s2=100, s1=50, written=share) for share in (0.4, 1.0))
    assert 0.4 < cloudy.tile_bytes(whole) / clear.tile_bytes(whole) < 0.6
    alone = Bulk(1, 1, (whole,), s2=100, s1=50)
    assert clear.tiles_bytes - alone.tiles_bytes == clear.tile_bytes(few) < clear.tile_bytes(whole)


def warnings(stderr):
    return [line for line in stderr.splitlines() if "may take" in line]


@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_a_run_that_will_not_fit_says_so_and_goes_on(catalog, tessera, tmp_path, monkeypatch, verb):
    options = catalog.options(tmp_path / "out")
    options = options if verb == "embed" else options[: options.index("--threads")]
    monkeypatch.setattr(config, "memory", lambda: 50 * 10**6)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    code, _, stderr = tessera(verb, *options)
    assert code == 0, stderr
    memory, disk = warnings(stderr)
    assert "0.1 GB are granted" in memory
    assert "0.0 GB are free" in disk
    code, _, stderr = tessera(verb, *options)
    assert (code, warnings(stderr)) == (0, [])  # nothing is to do


def test_nothing_is_said_of_a_run_that_fits(catalog, tessera, tmp_path):
    code, _, stderr = tessera("embed", *catalog.options(tmp_path / "out"))
    assert (code, warnings(stderr)) == (0, [])


def taken(stdout):
    return json.loads(stdout.splitlines()[-1])["resources"]


def test_the_summary_says_what_was_taken(catalog, tessera, tmp_path):
    code, stdout, stderr = tessera("embed", *catalog.options(tmp_path / "out"), "--json", "-v")
    assert code == 0, stderr
    found = taken(stdout)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tif"))
    files = sum(path.stat().st_size for path in catalog.folder.rglob("*.tif"))
    assert found["written_bytes"] == written
    assert found["retries"] == 0
    assert 0.5 * files < found["read_bytes"] < 3 * files  # all files, on two tiles; of each its header and its blocks
    assert 50 < found["peak_rss_mb"] < 20_000
    assert found.keys() == {"peak_rss_mb", "read_bytes", "written_bytes", "retries"}
    assert re.search(r"GB of memory at most; [\d.]+ MB read, [\d.]+ MB written", stderr)
    code, stdout, _ = tessera("embed", *catalog.options(tmp_path / "out"), "--json")
    assert code == 0
    assert (taken(stdout)["written_bytes"], taken(stdout)["read_bytes"]) == (0, 0)


def test_of_stores_all_bytes_are_read(catalog, tessera, tmp_path):
    options = catalog.options(tmp_path / "stores")
    code, stdout, stderr = tessera("fetch", *options[: options.index("--threads")], "--json")
    assert code == 0, stderr
    size = sum(path.stat().st_size for path in (tmp_path / "stores").rglob("*.zarr/**/*") if path.is_file())
    assert taken(stdout)["written_bytes"] == size
    code, stdout, stderr = tessera(
        "embed", "--dpixels", tmp_path / "stores", "--model", "null", "--out", tmp_path / "out", "--json"
    )
    assert code == 0, stderr
    assert taken(stdout)["read_bytes"] == size


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_the_estimate_is_near_what_a_run_takes(tmp_path, verb):
    """Two tiles, one of them nearly whole, with a hundred dates; the same files on many of them."""
    made = make_catalog(tmp_path / "catalog", tile_columns=117.5, size=512)

    def repeated(items):
        for item in items:
            day = dt.date.fromisoformat(item["properties"]["datetime"][:10])
            for number in range(20 if item["collection"] == "sentinel-2-l2a" else 10):
                again = copy.deepcopy(item)
                again["id"] += f"-{number}"
                moved = dt.date(2021, 1, 1) + dt.timedelta(days=(day.toordinal() + 17 * number) % 365)
                again["properties"]["datetime"] = f"{moved}T10:56:31Z"
                yield again

    made.edit(lambda items: list(repeated(items)))
    options = made.options(tmp_path / "out")
    options = options if verb == "embed" else options[: options.index("--threads")]
    command = [sys.executable, "-m", "tessera_cli", verb, *options, "--json", "-vv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    needs, held = re.search(r"may take (\d+) MB beside the (\d+) MB", done.stderr).groups()
    peak = taken(done.stdout)["peak_rss_mb"]
    assert peak > 700
    assert (int(needs) + int(held)) / peak == pytest.approx(1, abs=0.3)
