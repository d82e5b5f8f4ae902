"""Shares of a run: each tile in one, of about the same cost, cut alike everywhere; together they are the run."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tessera_cli import jobs
from tessera_cli.api.shards import as_shard
from tessera_cli.catalog import MPC, Scenes, Sensor
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, TileRequest, pack_mask
from tessera_cli.extent.window import Window
from tessera_cli.planning import overlaps as overlaps_module
from tessera_cli.planning.costs import CERTAIN, Expected, reads
from tessera_cli.planning.overlaps import Overlaps
from tessera_cli.planning.shard import Shard, shares_of
from tests.helpers import many_scenes

COSTS = st.lists(st.integers(1, 10**13), min_size=1, max_size=60)
WINDOWS = ["--window", "2021-01/2021-06", "--window", "2021-07/2021-12"]
"""With the year, three windows of two tiles."""


# --- how shares are cut -----------------------------------------------------------------------------------------------


@given(COSTS, st.integers(1, 80))
def test_each_tile_is_in_one_share_of_neighbours(costs: list[int], count: int) -> None:
    tiles = list(range(len(costs)))
    shares = [tiles[Shard(index, count).of(costs)] for index in range(1, count + 1)]
    assert list(itertools.chain(*shares)) == tiles


@given(COSTS, st.integers(1, 80))
def test_shares_cost_the_mean_or_a_tile_more_or_less(costs: list[int], count: int) -> None:
    for index in range(1, count + 1):
        cost = sum(costs[Shard(index, count).of(costs)])
        assert abs(cost * count - sum(costs)) <= max(costs) * count


def test_very_large_costs_are_cut_exactly() -> None:
    """Beyond what floats and 64 bits tell apart."""
    costs = [10**30, 1, 10**30, 1]
    assert shares_of(costs, 2) == [1, 1, 2, 2]
    assert shares_of([0, 0, 0], 3) == [1, 2, 3]


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/0", "2", "1/5/2", "-1/5", "a/b", "1.5/2", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*(Give|Write)"):
        Shard.parse(text)


# --- what a job array tells -------------------------------------------------------------------------------------------


def array(task: int, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
    count = (last - first) // step + 1 if count is None else count
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def rank(number: int, count: int) -> dict[str, str]:
    return {"SLURM_PROCID": str(number), "SLURM_NTASKS": str(count), "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "size", "share"),
    [
        (array(0, 0, 3), None, (1, 4)),
        (array(3, 0, 3), 4, (4, 4)),
        (array(7, 1, 9, 2), None, (4, 5)),
        (array(5, 1, 10), None, (5, 10)),
        (array(2, 1, 3) | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None, (2, 3)),
        (rank(1, 2), None, (2, 2)),
        (array(2, 1, 3) | rank(1, 4), None, (6, 12)),
        ({"PBS_ARRAY_INDEX": "1"}, 8, (1, 8)),
        ({"PBS_ARRAY_INDEX": "8"}, 8, (8, 8)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "9"}, None, (1, 9)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "8"}, 9, (9, 9)),
        ({"JOB_COMPLETION_INDEX": "0"}, 5, (1, 5)),
        ({"JOB_COMPLETION_INDEX": "4"}, 5, (5, 5)),
    ],
)
def test_a_job_array_tells_the_share(environ: dict[str, str], size: int | None, share: tuple[int, int]) -> None:
    assert jobs.share(size, environ) == share


def test_tasks_of_an_array_of_ranks_are_each_another_share() -> None:
    found = {jobs.share(None, array(t, 2, 8, 3) | rank(r, 2)) for t in (2, 5, 8) for r in range(2)}
    assert found == {(index, 6) for index in range(1, 7)}


@pytest.mark.parametrize(
    ("environ", "size", "told"),
    [
        ({}, None, "no job array"),
        ({}, 8, "no job array"),
        (array(3, 1, 7, 1, 3), None, r"gaps \(3 tasks from 1 to 7\).*--array=1-3"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, None, "SLURM_ARRAY_TASK_MIN is not set"),
        (array(3, 1, 4) | {"SLURM_ARRAY_TASK_COUNT": "x"}, None, "SLURM_ARRAY_TASK_COUNT is x, no number"),
        (array(3, 1, 4), 8, "Slurm runs 4 shares"),
        ({"SLURM_NTASKS": "4"}, None, "SLURM_PROCID is not set"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None, "srun"),
        ({"PBS_ARRAY_INDEX": "3"}, None, r"PBS_ARRAY_INDEX is set.*auto/N"),
        ({"PBS_ARRAY_INDEX": "0"}, 8, "none of 8, counted from 1"),
        ({"JOB_COMPLETION_INDEX": "3"}, None, r"JOB_COMPLETION_INDEX is set.*auto/N"),
        ({"JOB_COMPLETION_INDEX": "8"}, 8, "none of 8, counted from 0"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1"}, None, "auto/N"),
    ],
)
def test_what_an_array_does_not_tell_is_an_error(environ: dict[str, str], size: int | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        jobs.share(size, environ)


def test_auto_is_asked_of_the_environment(monkeypatch: Any) -> None:
    for name, value in array(2, 1, 3).items():
        monkeypatch.setenv(name, value)
    assert as_shard("auto") == Shard(2, 3)
    assert as_shard("2/5") == Shard(2, 5)
    assert as_shard(None) is None
    with pytest.raises(UsageError, match="auto/x"):
        as_shard("auto/x")


# --- what tiles cost --------------------------------------------------------------------------------------------------


def test_dates_and_costs_are_those_of_each_tile_alone(monkeypatch: Any) -> None:
    """Against a count tile by tile, over blocks of tiles, some without a scene, in two windows."""
    monkeypatch.setattr(overlaps_module, "BLOCK", 5)
    tiles = [Tile(32631, 40 + i % 4, 100 + i // 4) for i in range(12)] + [Tile(32660, 150, 3), Tile(32601, 30, 3)]
    scenes = Scenes.from_items(many_scenes.items(30, 20), MPC)
    mask = pack_mask(many_scenes.many_tiles.REQUESTED)
    requests = [TileRequest(t, Window.from_name(w), mask) for w in ("2023", "20230101-20230630") for t in tiles]
    overlaps = Overlaps.of(scenes, requests)
    found, counts = Expected.of(overlaps, requests), dict.fromkeys((scene.id for scene in scenes.scenes), 0)
    for number, request in enumerate(requests):
        on_tile = scenes.on(*request.on_grid())
        optical, radar = on_tile.of(Sensor.S2), on_tile.of(Sensor.S1_ASC, Sensor.S1_DESC)
        best: dict[Any, float] = {}
        for scene in optical:
            best[scene.date] = max(best.get(scene.date, 0), 1 - (scene.cloud_cover or 0) / 100)
        assert found.s2_dates[number] == len(best)
        assert found.s1_dates[number] == len({scene.date for scene in radar})
        assert found.passes[number] == len({(scene.date, scene.sensor) for scene in radar})
        assert found.clear[number] / CERTAIN == pytest.approx(sum(best.values()))
        for scene in on_tile.scenes:
            counts[scene.id] += 1
    assert found.s2_dates.max() == 73
    assert list(reads(overlaps, requests)) == list(counts.values())
    assert all(type(cost) is int and cost > 0 for cost in found.costs)


# --- runs -------------------------------------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, bytes]:
    """All files of a folder that a run of several processes must leave equal."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "items.parquet"
    }


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shares_in_any_order_are_the_whole(catalog, tessera, tmp_path, order) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = [*catalog.options(tmp_path)[:-4], *WINDOWS]
    assert tessera("plan", *options, "--out", whole)[0] == 0
    assert tessera("plan", *options, "--out", out)[0] == 0
    assert tessera("embed", *options, "--out", whole)[0] == 0
    for position, index in enumerate(order):
        code, stdout, stderr = tessera("embed", *options, "--out", out, "--shard", f"{index}/3", "--json")
        summary = json.loads(stdout.splitlines()[-1])
        assert code == 0, stderr
        assert (summary["shard"], sum(summary["tiles"].values())) == (f"{index}/3", 2)
        assert summary["is_whole"] == (out / "collection.json").exists() == (position == 2)
        assert bool(summary["mosaics"]) == (position == 2)
    assert written(out) == written(whole)


def test_shares_at_once_are_the_whole(catalog, tessera, tmp_path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = [*catalog.options(tmp_path)[:-4], *WINDOWS]
    for folder in (whole, out):
        assert tessera("plan", *options, "--out", folder)[0] == 0
    assert tessera("embed", *options, "--out", whole)[0] == 0
    command = [sys.executable, "-m", "tessera_cli", "embed", *options, "--out", str(out), "--shard"]
    both = [subprocess.Popen([*command, f"{index}/2"], stderr=subprocess.PIPE, text=True) for index in (1, 2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert written(out) == written(whole)


def test_an_empty_share_is_no_error(catalog, tessera, tmp_path) -> None:
    out = tmp_path / "out"
    assert tessera("plan", *catalog.options(out))[0] == 0
    code, stdout, stderr = tessera("embed", *catalog.options(out), "--shard", "2/9", "--json")
    assert code == 0, stderr
    assert "share 2/9 holds none of the 2 tiles" in stderr
    summary = json.loads(stdout)
    assert (summary["shard"], summary["exit_code"], sum(summary["tiles"].values())) == ("2/9", 0, 0)


def test_a_failed_tile_does_not_keep_the_last_from_writing_the_lists(catalog, tessera, tmp_path) -> None:
    out = tmp_path / "out"
    assert tessera("plan", *catalog.options(out))[0] == 0
    (catalog.folder / "cogs" / "S2A_2021-05-20" / "B04.tif").rename(tmp_path / "away.tif")
    assert tessera("embed", *catalog.options(out), "--shard", "1/2")[0] == 4
    assert tessera("embed", *catalog.options(out), "--shard", "2/2", "--allow-missing", "1")[0] == 0
    assert (out / "collection.json").exists()


@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_shares_need_frozen_scenes_and_say_how_to_get_them(catalog, tessera, tmp_path, monkeypatch, verb) -> None:
    """The command in the message is one that works, also where names have blanks."""
    out = tmp_path / "an out"
    options = [each for each in catalog.options(out) if verb == "embed" or each not in ("--threads", "1")]
    code, _, stderr = tessera(verb, *options, "--shard", "1/2")
    assert (code, out.exists()) == (2, False)
    words = shlex.split(stderr.splitlines()[-1].partition("First run, once: ")[2])
    assert words[:2] == ["tessera", "plan"]
    assert tessera(*words[1:])[0] == 0
    calls = []
    monkeypatch.setattr("tessera_cli.planning.origin.search", lambda *arguments, **more: calls.append(arguments))
    assert tessera(verb, *options, "--shard", "1/2")[0] == 0
    assert calls == []
    code, _, stderr = tessera(verb, *options, "--shard", "1/2", "--refresh")
    assert code == 2
    assert "tessera plan --refresh" in stderr


def test_stored_dpixels_are_shared_out_without_a_plan(catalog, tessera, tmp_path) -> None:
    options, stores = catalog.options(tmp_path)[:-4], tmp_path / "dpixels"
    assert tessera("fetch", *options, "--out", stores)[0] == 0
    settings = ["--dpixels", stores, "--model", "null", "--out"]
    assert tessera("embed", *settings, tmp_path / "whole")[0] == 0
    for index in (2, 1):
        assert tessera("embed", *settings, tmp_path / "out", "--shard", f"{index}/2")[0] == 0
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_shares_are_cut_by_what_was_frozen(catalog, tessera, tmp_path) -> None:
    """Whatever another machine's libraries would make of the footprints."""
    out = tmp_path / "out"
    assert tessera("plan", *catalog.options(out))[0] == 0
    (path,) = (out / "runs").glob("*.json")
    record = json.loads(path.read_text())
    assert len(record["costs"]) == len(record["names"]) == 2
    path.write_text(json.dumps({**record, "costs": [1000, 10**6]}))
    before = path.read_bytes()
    summary = json.loads(tessera("embed", *catalog.options(out), "--shard", "2/3", "--json")[1].splitlines()[-1])
    assert summary["tiles"]["done"] == 1  # none, if both cost the same
    made = json.loads(tessera("plan", *catalog.options(out)[:-2], "--shards", "3", "--json")[1])
    assert [each["tiles"] for each in made["shards"]] == [1, 1, 0]
    assert path.read_bytes() == before
