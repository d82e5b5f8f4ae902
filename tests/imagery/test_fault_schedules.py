"""Random faults of a server, hundreds of times: whatever happens, a raster is right or it is not there."""

import functools
import json
import random
import shutil

import pytest
import rasterio

from tests.conftest import SmallCatalog
from tests.helpers import servers
from tests.helpers.servers import Exchange, FileServer, Reply, Request, served, status
from tests.imagery.test_faults import SCENE, TILE, Site, hashes, nothing_written, options, small_catalog, summary

pytestmark = pytest.mark.slow

ROUNDS, PER_ROUND = 20, 10
MISSING = 4
FIRST = 600
"""Bytes of the first request to a file: its header."""


def garbled(handler, reply):
    """The right number of bytes, and none of them right. Compressed blocks and headers tell."""
    handler.send(Reply(reply.status, reply.headers, bytes(len(reply.body))))


ENDS = {
    **{status(code): 75 for code in (408, 429, 500, 502, 503, 504)},
    status(429, {"Retry-After": "0"}): 75,
    **{status(code): 77 for code in (401, 403)},
    status(416): 69,
    servers.reset: 75,
    servers.reset_midway: 75,
    servers.truncated: 75,
    servers.wrong_range: 75,
    servers.page: 75,
    servers.page_as_data: 75,
    **{status(code): MISSING for code in (404, 410)},
    garbled: MISSING,
}
"""What a run ends with if a question's last answer is this."""
STALLS = {servers.silent: 75, servers.stalled: 75}
HARMLESS = (servers.unranged, servers.late(0.01))


class Schedule:
    """A plan for each request by its file and range alone, so that the order of threads does not matter: with some
    probability its first answers, few or all, are one of some faults."""

    def __init__(self, seed: int, *, missing_scenes: bool = False) -> None:
        draw = random.Random(seed)
        self.seed = seed
        stalls = STALLS if seed % 10 == 0 else {}
        self.ends = {
            fault: end
            for fault, end in (ENDS | stalls).items()
            if end == MISSING or not missing_scenes or seed % 5 == 0
        }
        self.faults = [*draw.sample(list(self.ends), min(len(self.ends), draw.randint(1, 5))), *HARMLESS]
        self.probability = 10 ** draw.uniform(-1.8, -0.2)
        self.times = draw.choice([(1, 2), (1, 2, 3, 4), (1, 99), (99,)])
        self.silence = 1.0 if stalls else 20.0

    def __call__(self, request: Request) -> servers.Fault | None:
        draw = random.Random(f"{self.seed} {request.path} {request.range}")
        fault, times = draw.choice(self.faults), draw.choice(self.times)
        if fault is garbled and request.range is not None and 0 < request.range[0] < FIRST:
            return None  # the answer about the header holds the beginning of this block too, and may do
        return fault if draw.random() < self.probability and request.nth < times else None

    def last(self, log: list[Exchange]) -> dict[str, set[int]]:
        """Scene -> what the last answers to its questions lead to, where they were faults."""
        final = {(exchange.path, exchange.range): exchange.request for exchange in log}
        ends = [(request.path.split("/")[1], self.ends.get(self(request))) for request in final.values()]
        return {scene: {end for name, end in ends if name == scene and end} for scene, end in ends if end}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The small catalogue with files that are compressed and in blocks, of which headers are asked for apart."""

    folder = tmp_path_factory.mktemp("site")
    catalog = small_catalog(folder / "catalog")
    for path in (catalog.folder / "cogs").glob("*/*.tif"):
        with rasterio.open(path) as src:
            values, profile = src.read(), src.profile
        profile |= {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
        with rasterio.open(path, "w", **profile) as dst:
            dst.write(values)
    with pytest.MonkeyPatch.context() as patch, FileServer(catalog.folder) as server:
        patch.setattr("tessera_cli.imagery.geotiff.FIRST_READ", FIRST)
        served(catalog.items, server)
        yield Site(catalog, server, clean={})


@pytest.fixture(scope="module")
def few(site, tmp_path_factory):
    """One scene of each kind: a run takes a third of a second."""
    from tessera_cli.cli.app import run

    folder = tmp_path_factory.mktemp("few")
    catalog = SmallCatalog(folder, site.catalog.origin)
    shutil.copy(site.catalog.items, catalog.items)
    shutil.copy(site.catalog.aoi, catalog.aoi)
    catalog.edit(lambda items: [item for item in items if item["id"] in (SCENE, "S1A_2021-03-05", "S1A_2021-06-06")])
    site.server.faults = servers.never
    site.server.forget()
    assert run(options(catalog, folder / "clean")) == 0
    assert len(site.server.log) > 20  # the headers of 15 files, and the blocks of those that are longer
    return Site(catalog, site.server, hashes(folder / "clean"))


@pytest.fixture(scope="module")
def without(site, tmp_path_factory):
    """Exit code and rasters of a clean run, as if some scenes had never been taken."""
    from tessera_cli.cli.app import run

    @functools.cache
    def clean(scenes: frozenset[str]) -> tuple[int, dict[str, str]]:
        collection = json.loads(site.catalog.items.read_text())
        collection["features"] = [item for item in collection["features"] if item["id"] not in scenes]
        out = tmp_path_factory.mktemp("without")
        (out / "items.json").write_text(json.dumps(collection))
        site.server.faults = servers.never
        code = run([*options(site.catalog, out), "--catalog", str(out / "items.json"), "--allow-no-radar"])
        return code, hashes(out, "*.tif")

    return clean


@pytest.mark.parametrize("part", range(ROUNDS))
def test_a_run_is_right_or_fails_and_a_rerun_is_right(few, tessera, tmp_path, monkeypatch, part):
    for seed in range(part * PER_ROUND, (part + 1) * PER_ROUND):
        schedule, out = Schedule(seed), tmp_path / str(seed)
        servers.hurry(monkeypatch, silence=schedule.silence)
        few.server.forget()
        few.server.faults = schedule
        code, stdout, stderr = tessera(*options(few.catalog, out))
        ends = set().union(*schedule.last(few.server.log).values())
        assert code in (ends or {0}), (seed, ends, stderr)
        if code == 0:
            assert hashes(out) == few.clean, seed
            continue
        nothing_written(out)
        assert summary(stdout)["exit_code"] == code
        assert stderr.splitlines()[-1].startswith("tessera: error: 1 of 1 tiles failed"), seed
        few.server.faults = servers.never
        assert tessera(*options(few.catalog, out))[0] == 0
        assert hashes(out) == few.clean, seed


@pytest.mark.parametrize("part", range(5))
def test_with_missing_scenes_allowed_a_run_is_one_without_these_scenes(
    site, without, tessera, tmp_path, monkeypatch, part
):
    for seed in range(1000 + part * PER_ROUND, 1000 + (part + 1) * PER_ROUND):
        schedule, out = Schedule(seed, missing_scenes=True), tmp_path / str(seed)
        servers.hurry(monkeypatch, silence=schedule.silence)
        site.server.forget()
        site.server.faults = schedule
        code, _, stderr = tessera(*options(site.catalog, out, "--allow-missing", 99))
        last = schedule.last(site.server.log)
        unproven = set().union(*last.values()) - {MISSING}
        if unproven:
            assert code in unproven, (seed, last, stderr)
            nothing_written(out)
            continue
        expected, rasters = without(frozenset(last))
        assert code == expected, (seed, last, stderr)
        assert hashes(out, "*.tif") == rasters, (seed, last)
        recorded = json.loads((out / f"{TILE}.json").read_text())["properties"].get("tessera:holes", {})
        assert recorded.keys() == last.keys(), seed


def test_lies_and_replaced_files_give_no_other_pixels():
    """In short; `python -m tests.imagery.fault_schedules` is the long form, and measures what cannot be seen."""
    from tests.imagery.fault_schedules import measure

    found = measure(8, 0, ("lzw",), ("md5",), None)
    assert found["silent"] == 0, found
    assert any(codes.get("0") for codes in found["codes"].values())


def test_the_schedules_are_of_every_kind(site):
    """Else all of the above would prove little: of 200, many end well, and many with each exit code."""
    questions = [
        Request(path.relative_to(site.catalog.folder).as_posix(), (0, FIRST - 1))
        for path in (site.catalog.folder / "cogs").glob("*/*.tif")
    ]
    hit = [sum(Schedule(seed)(question) is not None for question in questions) for seed in range(200)]
    assert sum(count > 0 for count in hit) > 150
    assert sum(0 < count < 5 for count in hit) > 40
    staying = [Schedule(seed).times[-1] == 99 for seed in range(200)]
    assert 60 < sum(staying) < 140
