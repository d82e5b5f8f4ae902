"""Items with values that nobody expects: used all the same, or skipped by name, and always fit to be frozen."""

import contextlib
import gzip
import json
import logging

import pytest
import shapely

from tessera_cli.catalog import MPC, Scenes, search
from tessera_cli.catalog.reprocessing import latest_reprocessing
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.window import Window
from tessera_cli.files import write_ndjson_gz
from tessera_cli.net import Client
from tessera_cli.planning.volumes import file_size
from tests.catalog.test_search import TILE, YEAR, item

SOUND, RADAR = item("S2"), item("S1", "sentinel-1-rtc")
DEEP = json.loads("[" * 90 + "]" * 90)


def found(tmp_path, *items, text=None):
    """The scenes of a catalogue of these items, which can be frozen and are then the same."""
    path = tmp_path / "items.json"
    path.write_text(text or json.dumps({"type": "FeatureCollection", "features": items}))
    scenes = search([TILE], [YEAR], MPC, client=Client(), catalog=str(path))
    write_ndjson_gz(tmp_path / "frozen.ndjson.gz", scenes.to_ndjson())
    thawed = Scenes.from_ndjson(tmp_path / "frozen.ndjson.gz", MPC)
    assert [dict(scene.item) for scene in thawed.scenes] == [dict(scene.item) for scene in scenes.scenes]
    latest_reprocessing(scenes)
    assert scenes.touching([TILE]) is not None
    return scenes


ODD = [float("nan"), float("inf"), -float("inf"), 10**400, "\ud800", "a\x00b", [[]], {"a": [None]}, DEEP, True, ""]
UNUSED = ["sun_azimuth", "proj:epsg", "created", "updated", "s2:mgrs_tile", "s2:datatake_id", "s2:generation_time"]


@pytest.mark.parametrize("key", [*UNUSED, "s2:processing_baseline", "s2:datastrip_id", "grid:code", "end_datetime"])
def test_odd_properties_do_not_matter(tmp_path, key):
    items = [item(f"S2_{number}", **{key: value}) for number, value in enumerate(ODD)]
    scenes = found(tmp_path, *items)
    assert (len(scenes), scenes.skipped) == (len(ODD), {})


@pytest.mark.parametrize("key", ["sat:orbit_state", "sat:relative_orbit"])
def test_odd_properties_of_radar(tmp_path, key):
    items = [item(f"S1_{number}", "sentinel-1-rtc", **{key: value}) for number, value in enumerate(ODD)]
    assert set(found(tmp_path, *items).skipped) <= {"without orbit direction"}


@pytest.mark.parametrize(
    "change",
    [
        {"geometry": {"type": "Polygon", "coordinates": [[[float("nan"), 1], [2, 3], [4, 5], [float("nan"), 1]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[10**400, 1], [2, 3], [4, 5]]]}},
        {"geometry": {"type": ["Polygon"], "coordinates": {}}},
        {"geometry": {"type": "Polygon"}},
        {"geometry": {"type": "GeometryCollection", "geometries": 5}},
        {"geometry": [1, 2]},
        {"geometry": "POLYGON"},
        {"geometry": None, "bbox": [4.0]},
        {"geometry": None, "bbox": []},
        {"geometry": None, "bbox": [4, 50, 5]},
        {"geometry": None, "bbox": ["4", "50", "5", "51"]},
        {"geometry": None, "bbox": {"xmin": 4}},
        {"geometry": None, "bbox": [float("nan")] * 4},
        {"geometry": None, "bbox": "4,50,5,51"},
        {"links": {"rel": "self"}},
        {"links": [None, 5, {"rel": "self"}, {"href": 5}, {"rel": ["self"], "href": "x"}]},
        {"links": [{"rel": "self", "href": {"a": 1}}]},
        {"stac_extensions": 5, "type": [], "stac_version": None},
        {"properties": {**SOUND["properties"], "datetime": "2021-07-01T10:56:31.123456789+00:00"}},
    ],
)
def test_odd_fields_do_not_matter(tmp_path, change):
    scenes = found(tmp_path, {**SOUND, **change}, RADAR)
    assert (len(scenes), scenes.skipped) == (2, {})
    assert len(scenes.on(TILE, YEAR)) == 2  # where it lies is not known, so it may lie anywhere


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"assets": []}, "not a STAC item (its assets are no object)"),
        ({"assets": None}, "not a STAC item (its assets are no object)"),
        ({"properties": [1]}, "not a STAC item (its properties are no object)"),
        ({"properties": "x"}, "not a STAC item (its properties are no object)"),
        ({"properties": None}, "without eo:cloud_cover"),
        ({"id": None}, "not a STAC item (its id is no text)"),
        ({"id": ["S2"]}, "not a STAC item (its id is no text)"),
        ({"id": {}}, "not a STAC item (its id is no text)"),
        ({"id": ""}, "not a STAC item (its id is no text)"),
        ({"collection": {"id": "sentinel-2-l2a"}}, "not a STAC item (the name of its collection is no text)"),
        ({"collection": 5}, "not a STAC item (the name of its collection is no text)"),
        ({"collection": None}, "without a collection"),
        *(
            ({"properties": {**SOUND["properties"], "eo:cloud_cover": value}}, "without eo:cloud_cover")
            for value in (float("nan"), 10**400, "much", [10], {}, None)
        ),
        *(
            ({"properties": {**SOUND["properties"], "datetime": value}}, "without a readable datetime")
            for value in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", ["2021"], {}, "2021-02-30", "0")
        ),
    ],
)
def test_items_that_cannot_be_used_are_counted(tmp_path, caplog, change, reason):
    caplog.set_level(logging.INFO)
    scenes = found(tmp_path, {**SOUND, **change}, RADAR)
    assert (len(scenes), scenes.skipped) == (1, {reason: 1})
    (told,) = [record for record in caplog.records if f"1 item skipped: {reason}" in record.message]
    assert told.levelno == (logging.WARNING if reason.startswith("not a STAC") else logging.INFO)


@pytest.mark.parametrize("asset", [None, [], "x", 5, {}, {"href": None}, {"href": 5}, {"href": ["x"]}, {"href": ""}])
def test_assets_without_an_address_are_not_listed(tmp_path, asset):
    odd = {**SOUND, "assets": {**SOUND["assets"], "B04": asset}}
    (scene,) = found(tmp_path, odd).scenes
    assert (scene.missing, scene.defect) == (("B04",), "asset B04 is not listed")


@pytest.mark.parametrize("size", [-5, "12", 1.5, None, 10**400, [], True])
def test_odd_sizes_of_files(tmp_path, size):
    asset = {**SOUND["assets"]["B04"], "file:size": size}
    (scene,) = found(tmp_path, {**SOUND, "assets": {**SOUND["assets"], "B04": asset}}).scenes
    assert file_size(scene.item["assets"]["B04"]) > 0


def test_an_id_may_be_a_number_and_stays_the_same_when_frozen(tmp_path):
    (scene,) = found(tmp_path, {**SOUND, "id": 5}).scenes
    assert (scene.id, scene.item["id"]) == ("5", "5")


def test_numbers_of_python_that_are_no_json_become_nothing(tmp_path):
    text = json.dumps({"type": "FeatureCollection", "features": [item("S2", a=float("nan"), b=[float("inf")])]})
    assert "NaN" in text
    (scene,) = found(tmp_path, text=text).scenes
    assert (scene.item["properties"]["a"], scene.item["properties"]["b"]) == (None, [None])


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "5",
        "{",
        "{}",
        '{"id": 1, "assets": []}',
        "[" * 100_000,
        json.dumps({**SOUND, "assets": 5}),
        '{"id": "\x00"',
    ],
)
def test_a_frozen_list_with_something_else_in_it_is_damaged(tmp_path, line):
    path = tmp_path / "scenes.ndjson.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(SOUND)}\n{line}\n".encode()))
    with pytest.raises(UsageError, match=r"scenes\.ndjson\.gz is damaged: .*Use --refresh to search again"):
        Scenes.from_ndjson(path, MPC)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features": {"a": 1}}, "has no list of features"),
        ({"features": "x"}, "has no list of features"),
        ({"features": [None]}, "not STAC items"),
        ({"features": [[]]}, "not STAC items"),
        ({"features": [{"id": 1}]}, "not STAC items"),
        ({"features": [], "numberMatched": 3}, "is one page of a search"),
        ({"type": ["FeatureCollection"]}, "JSON but not STAC"),
        ([], "JSON but not STAC"),
    ],
)
def test_lists_that_are_none(tmp_path, content, words):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", **content} if isinstance(content, dict) else content))
    with pytest.raises(UsageError, match=words):
        search([TILE], [YEAR], MPC, client=Client(), catalog=str(path))


@pytest.mark.parametrize("field", ["conformsTo", "links", "id", "features", "numberMatched", "context", "title"])
@pytest.mark.parametrize("value", [5, "x", [None], [5], {"a": 1}, [{"rel": "search"}], True, DEEP])
def test_odd_fields_of_a_catalogue(tmp_path, field, value):
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"type": "Catalog", "id": "c", "links": [], field: value}))
    with contextlib.suppress(UsageError):
        assert len(search([TILE], [YEAR], MPC, client=Client(), catalog=str(path))) == 0


def test_catalogues_below_one_another_have_an_end(tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(SOUND))

    def chain(levels):
        for level in range(levels):
            link = {"rel": "child", "href": f"./{level + 1}.json"} if level + 1 < levels else None
            link = link or {"rel": "item", "href": "./item.json"}
            content = {"type": "Catalog", "id": "c", "links": [link]}
            (tmp_path / f"{level}.json").write_text(json.dumps(content))
        return search([TILE], [YEAR], MPC, client=Client(), catalog=str(tmp_path / "0.json"))

    assert len(chain(90)) == 1
    with pytest.raises(UsageError, match=r"100\.json lies 100 levels below .*0\.json, so there may be no end"):
        chain(2000)


def test_a_place_that_is_too_far_away_is_no_place():
    geometry = shapely.geometry.mapping(shapely.box(1e300, 1e300, 1.1e300, 1.1e300))
    scenes = Scenes.from_items([item("A", geometry=geometry)], MPC)
    assert len(scenes.on(TILE, Window.from_name("2021"))) in (0, 1)


def test_nothing_but_malformed_items_is_told(tmp_path, tessera):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{**SOUND, "assets": []}]}))
    area = tmp_path / "aoi.geojson"
    area.write_text(json.dumps(shapely.geometry.mapping(TILE.outline.centroid.buffer(0.001))))
    code, _, stderr = tessera("plan", "--aoi", area, "--year", "2021", "--catalog", path)
    assert code == NothingToEmbedError.exit_code
    assert "1 skipped: not a STAC item (its assets are no object)" in stderr
