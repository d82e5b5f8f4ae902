"""Searching a STAC API of the kind that Planetary Computer runs: pages, order, faults that end or do not."""

import contextlib
import gzip
import json
import time

import pytest

from tests.integration.conftest import CROWDED, OPEN, TIMELESS, error_line, hashes
from tests.integration.gate import gate
from tests.integration.planetary import crowd, shipped
from tests.integration.stac_api import stac_api

pytestmark = pytest.mark.integration


def frozen(out):
    """The items of the scene list, in its order."""
    return [json.loads(line) for line in gzip.decompress((out / "scenes.ndjson.gz").read_bytes()).splitlines()]


def in_order(items):
    """Ids: Sentinel-2 by date, datetime string, id descending; radar by date, orbit, datetime and id descending."""
    optical = [item for item in items if item["collection"] == "sentinel-2-l2a"]
    radar = [item for item in items if item["collection"] == "sentinel-1-rtc"]
    optical.sort(key=lambda i: i["id"], reverse=True)
    optical.sort(key=lambda i: (i["properties"]["datetime"][:10], i["properties"]["datetime"]))
    radar.sort(key=lambda i: (i["properties"]["datetime"].replace("000Z", "Z"), i["id"]), reverse=True)
    radar.sort(key=lambda i: (i["properties"]["datetime"][:10], i["properties"]["sat:orbit_state"]))
    return [item["id"] for item in optical + radar]


def test_a_run_on_the_api_gives_the_bytes_of_a_run_on_files(world, tessera, tmp_path, expected):
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", *world.options(OPEN, out))
    assert code == 0, stderr
    assert hashes(out) == expected(OPEN)
    assert [item["id"] for item in frozen(out)] == in_order(world.items(OPEN))


def test_a_plan_counts_the_same_on_the_api_and_on_files(world, tessera):
    def planned(catalog):
        options = world.options(OPEN, "unused", catalog)
        code, stdout, stderr = tessera("plan", *options[: options.index("--out")], "--json")
        assert code == 0, stderr
        return json.loads(stdout)

    live, local = planned(None), planned(world.on_disk(world.items(OPEN), "plan"))
    assert live["windows"] == local["windows"]
    assert live["windows"]["2021"]["s2"]["scenes"] == 4
    assert (live["tiles"], live["pixels"]) == (local["tiles"], local["pixels"])


def plan_crowd(world, tessera, out):
    """Freeze the 640 scenes of 2018; no pixel is read."""
    options = world.options(CROWDED, out)
    return tessera("plan", *options[: options.index("--model")], "--out", out)


def test_many_pages_in_the_one_order(world, tessera, tmp_path):
    code, _, stderr = plan_crowd(world, tessera, tmp_path / "out")
    assert code == 0, stderr
    assert len(world.gate.searches) >= 3
    assert set(world.gate.searches) == {200}
    assert [item["id"] for item in frozen(tmp_path / "out")] == in_order(crowd())


def test_spellings_survive_the_api(world, tessera, tmp_path):
    """The order of Sentinel-2 goes by the string: equal instants, spelled differently, must stay so."""
    plan_crowd(world, tessera, tmp_path / "out")
    spelled = {item["id"]: item["properties"]["datetime"] for item in crowd()}
    assert {item["id"]: item["properties"]["datetime"] for item in frozen(tmp_path / "out")} == spelled


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_page_that_fails_once(world, tessera, tmp_path, status):
    world.gate.before = lambda nth: status if nth == 2 else None
    code, _, stderr = plan_crowd(world, tessera, tmp_path / "out")
    assert code == 0, stderr
    assert world.gate.searches[:3] == [200, status, 200]
    assert [item["id"] for item in frozen(tmp_path / "out")] == in_order(crowd())


def test_postgresql_restarted_between_pages(world, tessera, tmp_path):
    restarts = []

    def restart(nth):
        if nth == 2:
            world.database.server.restart()
            restarts.append(nth)

    world.gate.before = restart
    code, _, stderr = plan_crowd(world, tessera, tmp_path / "out")
    assert code == 0, stderr
    assert restarts == [2]
    assert [item["id"] for item in frozen(tmp_path / "out")] == in_order(crowd())


def test_postgresql_down_between_pages_for_a_while(world, tessera, tmp_path):
    server = world.database.server
    world.gate.before = lambda nth: server.stop() if nth == 2 else server.start() if nth == 4 else None
    code, _, stderr = plan_crowd(world, tessera, tmp_path / "out")
    assert code == 0, stderr
    assert world.gate.searches[0] == 200
    assert {500, 502, 503} & set(world.gate.searches[1:3])  # the search was asked again until the database was back
    assert [item["id"] for item in frozen(tmp_path / "out")] == in_order(crowd())


@pytest.mark.parametrize("page", [1, 2])
def test_postgresql_down_for_good(world, tessera, tmp_path, page):
    server = world.database.server
    world.gate.before = lambda nth: server.stop() if nth == page else None
    started = time.monotonic()
    try:
        code, stdout, stderr = plan_crowd(world, tessera, tmp_path / "out")
    finally:
        server.start()
    assert (code, stdout) == (75, "")
    assert time.monotonic() - started < 20  # at a tenth of the waits
    line = error_line(stderr)
    assert world.gate.url in line
    assert "try again later" in line.lower()
    assert not list((tmp_path / "out").glob("scenes*"))  # a part of the scenes is never frozen
    code, _, stderr = plan_crowd(world, tessera, tmp_path / "out")
    assert code == 0, stderr


@pytest.mark.parametrize(("status", "code"), [(400, 69), (403, 77), (500, 75), (502, 75)])
def test_an_api_that_refuses_for_good(world, tessera, tmp_path, status, code):
    world.gate.before = lambda nth: status
    found, stdout, stderr = tessera("embed", *world.options(OPEN, tmp_path / "out"))
    assert (found, stdout) == (code, ""), stderr
    line = error_line(stderr)
    assert f"HTTP {status}" in line
    assert not (tmp_path / "out").exists()


def test_items_without_datetime(world, tessera, tmp_path, expected):
    """A null is not even sent by this API; start_datetime stands in."""
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", *world.options(TIMELESS, out))
    assert code == 0, stderr
    assert {item["properties"].get("datetime") for item in frozen(out)} == {None}
    assert hashes(out) == expected(TIMELESS)


def test_a_second_run_does_not_search(world, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *world.options(OPEN, out))
    assert world.gate.searches
    for path in out.glob("*_2021*"):
        path.unlink()
    world.gate.reset()
    code, _, stderr = tessera("embed", *world.options(OPEN, out))
    assert code == 0, stderr
    assert world.gate.searches == []
    assert len(hashes(out)) == 6
    assert tessera("embed", *world.options(OPEN, out), "--refresh")[0] == 0
    assert world.gate.searches


# --- other catalogues -------------------------------------------------------------------------------------------------


@pytest.fixture
def api_with(world):
    """An API over the given items alone."""
    with contextlib.ExitStack() as stack:

        def start(name, items):
            world.database.create(name)
            if items:
                world.database.load(name, items)
            return stack.enter_context(gate(stack.enter_context(stac_api(world.database, name))))

        yield start


def test_collections_that_do_not_exist(world, tessera, tmp_path, api_with):
    empty = api_with("nothing", [])
    code, stdout, stderr = tessera("embed", *world.options(OPEN, tmp_path / "out", empty.url))
    assert (code, stdout) == (3, "")
    line = error_line(stderr)
    assert "no scene" in line
    assert not (tmp_path / "out").exists()


def test_a_radar_collection_that_does_not_exist(world, tessera, tmp_path, api_with):
    items = [item for item in shipped(world.items(OPEN), f"{world.storage.url}/open") if item["id"].startswith("S2")]
    half = api_with("optical", items)
    options = world.options(OPEN, tmp_path / "out", half.url)
    code, stdout, stderr = tessera("embed", *options)
    assert (code, stdout) == (3, "")
    assert "no Sentinel-1 scene" in stderr
    code, _, stderr = tessera("embed", *options, "--allow-no-radar")
    assert code == 0, stderr
