"""Before a run: a sensor without any scene is refused, and tiles with few dates are named."""

import datetime as dt
import json
import time

import numpy as np
import pytest
import shapely

from tessera_cli.catalog import MPC, Scenes, Sensor
from tessera_cli.extent.grid import Tile, TileRequest
from tessera_cli.extent.window import Window
from tessera_cli.planning.overlaps import Overlaps
from tessera_cli.planning.scene_counts import dates_by_tile, gaps_text
from tests.catalog.test_search import item

YEARS = [Window(dt.date(year, 1, 1), dt.date(year, 12, 31)) for year in (2020, 2021)]
WEST, EAST = "utm30n_c0116_r1132", "utm30n_c0117_r1132"
VERBS = ("plan", "fetch", "embed")


def without_s2(items):
    return [{**i, "collection": i["collection"].replace("sentinel-2-l2a", "sentinel-2-c1-l2a")} for i in items]


def without_cloud_cover(items):
    for one in items:
        one["properties"].pop("eo:cloud_cover", None)
    return items


# --- no Sentinel-2 at all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (without_s2, "4 skipped: collection sentinel-2-c1-l2a"),
        (without_cloud_cover, "4 skipped: without eo:cloud_cover"),
        (lambda items: [i for i in items if i["collection"] != "sentinel-2-l2a"], "no Sentinel-2 scene"),
    ],
)
def test_no_optical_scene_is_refused(catalog, tessera, tmp_path, verb, edit, why):
    catalog.edit(edit)
    options = catalog.options(tmp_path / "out")
    code, stdout, stderr = tessera(verb, *(options[:-2] if verb == "fetch" else options))
    assert (code, stdout) == (3, ""), stderr
    error = stderr.splitlines()[-1]
    assert "no Sentinel-2 scene for aoi in 2021" in error
    assert why in error
    assert ("sentinel-2-l2a or sentinel-1-rtc" in error) == ("c1" in why)
    assert not (tmp_path / "out").exists()


def test_each_window_needs_optical_scenes(catalog, tessera, tmp_path):
    options = [*catalog.options(tmp_path / "out"), "--window", "2021-10/2021-10"]  # radar of 5 October alone
    code, _, stderr = tessera("plan", *options)
    assert code == 3
    assert "no Sentinel-2 scene for aoi in 20211001-20211031" in stderr


def test_scenes_beside_all_tiles_are_none(catalog, tessera, tmp_path):
    """In the box of the search, which is turned against the tiles."""
    tiles = shapely.union_all([Tile(32630, column, 1132).outline for column in (116, 117)])
    beside = shapely.box(*tiles.bounds).difference(tiles.buffer(1e-5))

    def moved(items):
        for one in items:
            if one["collection"] == "sentinel-2-l2a":
                one["geometry"] = shapely.geometry.mapping(
                    shapely.get_parts(beside)[0].representative_point().buffer(1e-6)
                )
        return items

    catalog.edit(moved)
    code, _, stderr = tessera("plan", *catalog.options(tmp_path / "out"))
    assert code == 3
    assert "7 scenes found" in stderr
    assert "no Sentinel-2 scene" in stderr


def test_radar_alone_by_an_explicit_wish(catalog, tessera, tmp_path):
    catalog.edit(without_s2)
    code, _, stderr = tessera("embed", *catalog.options(tmp_path / "out"), "--min-s2", "0")
    assert code == 0, stderr
    assert "4 items skipped: collection sentinel-2-c1-l2a" in stderr


# --- dates by tile ----------------------------------------------------------------------------------------------------


def request(tile, window):
    return TileRequest(tile, window, b"")


def test_dates_are_those_of_the_scenes_on_each_tile():
    """Against the scenes of one tile at a time."""
    rng = np.random.default_rng(1)
    tiles = [Tile(32631, 100 + column, 1098) for column in range(12)]
    items = []
    for number in range(200):
        radar, day = number % 3 == 0, dt.date(2020, 12, 1) + dt.timedelta(int(rng.integers(60)))
        place = tiles[int(rng.integers(9))].outline.buffer(0.02)
        names = {"collection": "sentinel-1-rtc"} if radar else {}
        when = f"{day}T1{number % 10}:00:00Z"
        items.append(item(f"{number}", when=when, geometry=shapely.geometry.mapping(place), **names))
    scenes = Scenes.from_items(items, MPC)
    found = dates_by_tile(Overlaps.of(scenes, [request(tile, year) for year in YEARS for tile in tiles]))
    for year in YEARS:
        for sensor, kinds in {"s2": [Sensor.S2], "s1": [Sensor.S1_ASC, Sensor.S1_DESC]}.items():
            counts = [len({s.date for s in scenes.on(tile, year).of(*kinds)}) for tile in tiles]
            dates = found[year.name][sensor]
            assert (dates.tiles, dates.fewest, dates.median) == (12, min(counts), np.median(counts))
            assert counts[[tile.id for tile in tiles].index(dates.fewest_tile)] == min(counts)
            assert dates.without == tuple(t.id for t, n in zip(tiles, counts, strict=True) if n == 0)
            assert dates.few == tuple(t.id for t, n in zip(tiles, counts, strict=True) if 0 < n < np.median(counts) / 2)
            assert dates.without  # of the last columns


def test_thousands_of_tiles_are_counted_quickly():
    """5000 tiles, 3000 scenes."""
    corners = np.random.default_rng(0).uniform((0, 43), (9, 50), (3000, 2))
    items = [
        item(f"{n}", geometry=shapely.geometry.mapping(shapely.box(x, y, x + 1.4, y + 1)))
        for n, (x, y) in enumerate(corners)
    ]
    scenes = Scenes.from_items(items, MPC)
    requests = [request(Tile(32631, 60 + n % 100, 950 + n // 100), YEARS[1]) for n in range(5000)]
    started = time.perf_counter()
    found = dates_by_tile(Overlaps.of(scenes, requests))
    assert time.perf_counter() - started < 20
    assert found["2021"]["s2"].tiles == 5000


def test_tiles_are_named_up_to_five():
    tiles = [Tile(32631, 100 + column, 1098) for column in range(20)]
    items = [
        item(
            f"{n}",
            when=f"2021-0{1 + n % 9}-01T10:00:00Z",
            geometry=shapely.geometry.mapping(tiles[12].outline.buffer(0.4)),
        )
        for n in range(9)
    ]
    overlaps = Overlaps.of(Scenes.from_items(items, MPC), [request(tile, YEARS[1]) for tile in tiles])
    found = dates_by_tile(overlaps)
    (line,) = gaps_text(found)
    names = [f"utm31n_c0{100 + n}_r1098" for n in range(5)]
    assert line.startswith(f"Sentinel-2 in 2021: no scene on {len(found['2021']['s2'].without)} of 20 tiles: ")
    assert line.endswith(", ..." if len(found["2021"]["s2"].without) > 5 else "")
    assert all(name in line for name in names[: len(found["2021"]["s2"].without)])


def only_east(items, ids):
    """Cut the footprints of some scenes to the eastern tile."""
    east = Tile(32630, 117, 1132).outline.buffer(-0.001)
    for one in items:
        if one["id"] in ids:
            one |= {"geometry": shapely.geometry.mapping(east), "bbox": list(east.bounds)}
    return items


def test_a_run_over_uneven_tiles_is_told_first(catalog, tessera, tmp_path):
    catalog.edit(lambda items: only_east(items, ["S2A_2021-02-10", "S2A_2021-05-20", "S2A_2021-07-01"]))
    options = catalog.options(tmp_path / "out")
    code, stdout, _ = tessera("plan", *options[:-4], "--json")
    assert code == 0
    dates = json.loads(stdout)["tile_dates"]["2021"]
    few = {"tiles": 2, "fewest": 1, "fewest_tile": WEST, "most": 4, "median": 2.5, "without": [], "few": [WEST]}
    assert dates["s2"] == few
    assert dates["s1"] | {"fewest_tile": ""} == {
        **few,
        "fewest": 3,
        "most": 3,
        "median": 3.0,
        "few": [],
        "fewest_tile": "",
    }
    told = f"Sentinel-2 in 2021: less than half of the median of 2.5 dates on 1 of 2 tiles: {WEST}"
    assert told in " ".join(tessera("plan", *options[:-4])[1].split())
    for verb in ("embed", "fetch"):
        code, _, stderr = tessera(verb, *(options if verb == "embed" else options[:-4]), "--out", tmp_path / verb)
        assert code == 0, stderr
        assert f"warning: {told}" in stderr
        assert f"Sentinel-2 in 2021: fewest dates on a tile 1 ({WEST}), median 2.5" in stderr


def test_a_tile_without_a_scene_is_named(catalog, tessera, tmp_path):
    names = [f"S2A_2021-{day}" for day in ("02-10", "05-20", "07-01", "09-15")]
    catalog.edit(lambda items: only_east(items, names))
    code, stdout, _ = tessera("plan", *catalog.options(tmp_path / "out")[:-4])
    assert code == 0
    assert f"Sentinel-2 in 2021: no scene on 1 of 2 tiles: {WEST}" in stdout
