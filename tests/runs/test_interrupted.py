"""A run that ends in the middle of a tile, in whatever way, goes on from there: the same bytes, no work twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli import embed
from tessera_cli.errors import DiskFullError
from tessera_cli.folders.partial import encoded_pixels
from tessera_cli.inference import cpu, kept
from tessera_cli.inference.kept import Keeping
from tests.conftest import SmallCatalog, box_geojson, make_catalog

CHUNK = 1000
SIZE = 64
PIXELS = (SIZE - 6) ** 2
"""About: those of a tile that lie in the area and were seen."""
TILE = "utm30n_c0117_r1132_2021"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> SmallCatalog:
    """A catalogue whose area lies on one tile."""
    return make_catalog(tmp_path_factory.mktemp("field"), tile_columns=117.5, size=SIZE)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK", CHUNK)
    monkeypatch.setattr("tessera_cli.inference.encode._CHUNK", CHUNK)


def results(folder: Path) -> dict[str, str]:
    """Everything that lies in a folder but what holds the time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "items.parquet"
    }


def made(field: SmallCatalog, out: Path, **more: Any) -> Any:
    options = {"model": "demo", "threads": 1, **more}
    return embed(field.aoi, year=2021, catalog=str(field.items), out=out, **options)


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupt(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """Raise Interrupt when so many pixels of a tile are encoded."""
    add = Keeping.add

    def counted(self: Keeping, *rows: Any) -> None:
        add(self, *rows)
        if self.done >= pixels:
            raise Interrupt

    monkeypatch.setattr(Keeping, "add", counted)


def interrupted(monkeypatch: pytest.MonkeyPatch, chunks: int, field: SmallCatalog, out: Path, **how: Any) -> None:
    """Embed until so many chunks of the tile are finished."""
    with monkeypatch.context() as patch:
        interrupt(patch, chunks * CHUNK)
        with pytest.raises(Interrupt):
            made(field, out, **how)


# --- in this process --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"dtype": "float32", "format": "npy"},
        {"format": "npy", "dims": 16},
        {"precision": "bf16"},
        {"model": "null"},
    ],
    ids=str,
)
def test_what_goes_on_has_the_same_bytes(
    how: dict[str, Any], field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(field, tmp_path / "whole", **how)
    out = tmp_path / "out"
    for chunks in (1, 3):
        interrupted(monkeypatch, chunks, field, out, **how)
        assert encoded_pixels(out, TILE) == chunks * CHUNK
        assert not list(out.glob("*.part")) + list(out.glob(f"{TILE}.json")) + list(out.glob("*.tif"))
    rest = made(field, out, **how)
    assert results(out) == results(tmp_path / "whole")
    assert rest.pixels == whole.pixels
    if how.get("model") != "null":
        share = (whole.pixels - 3 * CHUNK) / whole.pixels
        assert rest.tokens == pytest.approx(share * whole.tokens, rel=0.1)


def test_points_go_on_too(field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    west, north = field.origin
    boxes = [box_geojson(west + 100, north - 300, west + 500, north - 100)]
    plots = tmp_path / "plots.geojson"
    features = [{"type": "Feature", "properties": {}, "geometry": box} for box in boxes]
    plots.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    options: dict[str, Any] = {"points": plots, "year": 2021, "catalog": str(field.items), "model": "demo"}
    monkeypatch.setattr(cpu, "CHUNK", 300)
    embed(out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        interrupt(patch, 300)
        with pytest.raises(Interrupt):
            embed(out=tmp_path / "out", **options)
    assert encoded_pixels(tmp_path / "out", TILE) == 300
    embed(out=tmp_path / "out", **options)
    for path in (tmp_path / "whole").glob("*.npy"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").glob("*.partial"))


def test_other_pixels_scenes_or_settings_start_anew(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partial result of something else is not used, and is gone in the end."""
    west, north = field.origin
    smaller = tmp_path / "smaller.geojson"
    smaller.write_text(json.dumps(box_geojson(west + 50, north - 550, west + 550, north - 50)))
    out = tmp_path / "out"
    interrupted(monkeypatch, 2, field, out)
    options: dict[str, Any] = {"year": 2021, "catalog": str(field.items), "model": "demo", "threads": 1}
    found = embed(smaller, out=out, **options)
    alone = embed(smaller, out=tmp_path / "alone", **options)
    assert found.tokens == alone.tokens
    assert not list(out.glob("*.partial"))
    raster = f"{TILE}_emb.tif"
    assert (out / raster).read_bytes() == (tmp_path / "alone" / raster).read_bytes()


def test_a_damaged_partial_result_is_not_used(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(field, tmp_path / "whole")
    out = tmp_path / "out"
    interrupted(monkeypatch, 2, field, out)
    file = out / f"{TILE}.partial"
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    file.write_bytes(data)
    made(field, out)
    assert results(out) == results(tmp_path / "whole")


def test_a_full_disk_costs_the_partial_result_and_not_the_tile(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made(field, tmp_path / "whole")
    monkeypatch.setattr(kept, "EVERY", 0)
    monkeypatch.setattr(kept, "SHARE", 1)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if ".partial." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert made(field, tmp_path / "out").error() is None
    assert "cannot be kept" in caplog.text
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_tile_that_cannot_be_written_keeps_what_is_encoded(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "EVERY", 0)
    monkeypatch.setattr(kept, "SHARE", 1)
    out = tmp_path / "out"

    def full(*given: Any, **more: Any) -> Any:
        raise DiskFullError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("tessera_cli.outputs.formats.write", full)
        with pytest.raises(DiskFullError):
            made(field, out)
    assert encoded_pixels(out, TILE) == 3 * CHUNK
    made(field, out)
    assert not list(out.glob("*.partial"))


def test_what_others_finish_meanwhile_leaves_nothing(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes the tile while this one, which keeps partial results of it, is in the middle."""
    made(field, tmp_path / "whole")
    monkeypatch.setattr(kept, "EVERY", 0)
    monkeypatch.setattr(kept, "SHARE", 1)
    out, add = tmp_path / "out", Keeping.add

    def meanwhile(self: Keeping, *rows: Any) -> None:
        monkeypatch.setattr(Keeping, "add", add)
        made(field, out)
        add(self, *rows)

    monkeypatch.setattr(Keeping, "add", meanwhile)
    assert made(field, out).count("present") == 1
    assert results(out) == results(tmp_path / "whole")
    assert not list(out.glob("*.partial"))


def test_one_of_a_tile_that_is_made_again_stays(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that replaces finished tiles is interrupted; others look at the folder before it goes on."""
    out = tmp_path / "out"
    made(field, out)
    before = results(out)
    interrupted(monkeypatch, 2, field, out, overwrite=True)
    assert made(field, out).count("present") == 1
    assert encoded_pixels(out, TILE) == 2 * CHUNK
    again = made(field, out, overwrite=True)
    assert results(out) == before
    assert 0 < again.tokens < (PIXELS - CHUNK) * 16


def test_verify_and_info_know_it(
    field: SmallCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tessera: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    interrupted(monkeypatch, 2, field, out)
    code, told, _ = tessera("verify", out)
    assert code == 4
    assert "missing" in told
    assert "partial" not in told
    described = json.loads(tessera("info", "--json", out)[1])
    assert described["tiles"] == {"missing": 1}
    assert described["by_tile"][TILE]["encoded"] == 2 * CHUNK
    made(field, out)
    assert tessera("verify", out)[0] == 0


# --- processes that get a signal --------------------------------------------------------------------------------------

PATCH = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored
from tessera_cli.inference import cpu, kept
cpu.CHUNK = {CHUNK}
if sys.argv.pop() == "often":
    kept.EVERY, kept.SHARE = 0, 1
add = kept.Keeping.add
def told(self, *rows):
    add(self, *rows)
    print("CHUNK", self.done, flush=True)
kept.Keeping.add = told
from tessera_cli.cli.app import main
main()
"""
"""Says which chunks are finished, and does nothing else than a run of users does."""


def process(field: SmallCatalog, out: Path, *more: str, often: bool = False) -> subprocess.Popen[str]:
    where = ["--aoi", str(field.aoi), "--year", "2021", "--catalog", str(field.items), "--out", str(out)]
    command = [sys.executable, "-c", PATCH, "embed", *where, "--model", "demo", "--threads", "1", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "often" if often else "-"], text=True, **pipes)


def chunks(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("CHUNK")]


@pytest.fixture(scope="module")
def undisturbed(field: SmallCatalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with process(field, out) as running:
        assert running.wait(120) == 0
    return out


@pytest.mark.parametrize(
    ("number", "code", "twice"),
    [
        (signal.SIGINT, 130, False),
        (signal.SIGTERM, 143, True),
        (signal.SIGUSR1, 75, True),
        (signal.SIGKILL, -9, False),
    ],
)
def test_a_signal_in_the_middle_of_a_tile_costs_a_chunk(
    number: signal.Signals, code: int, twice: bool, field: SmallCatalog, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with process(field, out, often=number == signal.SIGKILL) as running:
        assert running.stdout is not None
        lines = iter(running.stdout.readline, "")
        while next(lines) != f"CHUNK {2 * CHUNK}\n":
            pass
        running.send_signal(number)
        if twice:
            running.send_signal(number)
        told, stderr = running.communicate(timeout=90)
    assert running.returncode == code, stderr
    kept = encoded_pixels(out, TILE)
    assert kept >= max([2 * CHUNK, *chunks(told)])
    if number != signal.SIGKILL:
        assert "What is finished stays, of the tile in hand too; run the same command to go on." in stderr
        assert "Traceback" not in stderr
        assert not list(out.glob("*.part")) + list(out.glob("*.next"))
    with process(field, out) as running:
        told, stderr = running.communicate(timeout=90)
    assert running.returncode == 0, stderr
    assert min(chunks(told)) > kept, "what was kept was encoded again"
    assert results(out) == results(undisturbed)


@pytest.mark.slow
def test_kills_at_any_moment_cost_no_tile_and_no_byte(field: SmallCatalog, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL, SIGTERM or SIGUSR1 at random moments, again and again on one folder, until the run is through.

    Some come while it starts, the others a moment after its first or second chunk.
    """
    seed = int.from_bytes(os.urandom(4), "little")
    rng, out, kept, code = np.random.default_rng(seed), tmp_path / "out", 0, -1
    while code != 0:
        with process(field, out, often=True) as running:
            assert running.stdout is not None
            for _ in range(rng.integers(0, 3)):
                while (line := running.stdout.readline()) and not line.startswith("CHUNK"):
                    pass
            with suppress(subprocess.TimeoutExpired):
                running.wait(rng.uniform(0, 1))
            running.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1]))
            running.communicate(timeout=90)
        code = running.returncode
        assert code in (0, -9, 143, 75, -15, -10), seed  # the last two before signals are obeyed
        now = encoded_pixels(out, TILE)
        assert now >= kept or (out / f"{TILE}.json").exists(), f"seed {seed}: a kept chunk was lost"
        kept = now
    with process(field, out) as running:
        assert running.wait(90) == 0
    assert results(out) == results(undisturbed), seed
