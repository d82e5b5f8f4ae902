"""Catalogues: what counts as a scene, in which order, from which kind of document."""

import dataclasses
import datetime as dt
import gzip
import json

import pytest
import shapely

from tessera_cli.catalog import AWS, MPC, Scenes, get_source, search
from tessera_cli.catalog.api import search_link
from tessera_cli.catalog.boxes import search_boxes
from tessera_cli.catalog.documents import Document
from tessera_cli.catalog.scene import Scene, Sensor, SkippedItem
from tessera_cli.catalog.search import matching
from tessera_cli.errors import (
    CredentialsError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
    UsageError,
)
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.net import Client, RequestStats
from tests.conftest import SHARED, make_catalog
from tests.helpers.builders import lies_on
from tests.helpers.fake_catalogs import PAGE, Api, Reply, always, first

YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
TILE = Tile(32631, 112, 1098)


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    """Pauses shrink; answers may take as long as on a busy machine."""
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.01)
    monkeypatch.setattr("tessera_cli.net.retries.READ_TIMEOUT", 3000.0)
    monkeypatch.setattr("tessera_cli.net.retries.TOTAL_TIMEOUT", 3000.0)


def item(
    item_id="A", collection="sentinel-2-l2a", when="2021-07-01T10:56:31Z", *, geometry=None, assets=None, **properties
):
    s2 = collection == "sentinel-2-l2a"
    keys = assets if assets is not None else (tuple(MPC.s2_assets.values()) if s2 else ("vv", "vh"))
    defaults = {"eo:cloud_cover": 10.0} if s2 else {"sat:orbit_state": "ascending"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": collection,
        "links": [],
        "geometry": geometry or shapely.geometry.mapping(TILE.outline.buffer(0.1)),
        "properties": {"datetime": when, **defaults, **properties},
        "assets": {key: {"href": f"https://example.test/{item_id}/{key}.tif"} for key in keys},
    }


def order(*items):
    return [scene.id for scene in Scenes.from_items(items, MPC).scenes]


def test_sentinel_2_order_is_time_up_then_id_down():
    a, b, c = item("T30"), item("T31"), item("T29", when="2021-07-01T10:00:00Z")
    assert order(a, b, c) == order(c, b, a) == ["T29", "T31", "T30"]


def test_sentinel_2_time_is_compared_as_text():
    assert order(item("B"), item("A", when="2021-07-01T10:56:31.5Z")) == ["A", "B"]


def test_sentinel_1_order_is_date_and_orbit_then_time_down_then_id_down():
    radar = "sentinel-1-rtc"
    early, late = item("E", radar, "2021-07-01T05:00:00Z"), item("L", radar, "2021-07-01T05:00:25Z")
    twin, before = item("M", radar, "2021-07-01T05:00:25Z"), item("Z", radar, "2021-06-30T23:59:59Z")
    other = item("D", radar, "2021-07-01T17:00:00Z", **{"sat:orbit_state": "descending"})
    assert order(early, other, late, twin, before) == ["Z", "M", "L", "E", "D"]


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (item(**{"eo:cloud_cover": 100.0}), "cloud cover"),
        (item(**{"eo:cloud_cover": None}), "without eo:cloud_cover"),
        (item("R", "sentinel-1-rtc", assets=("vv",)), r"without both VV and VH \(has VV\)"),
        (item("R", "sentinel-1-rtc", assets=("hh", "hv")), r"without both VV and VH \(has HH, HV\)"),
        (item("R", "sentinel-1-rtc", **{"sat:orbit_state": None}), "without orbit direction"),
        (item(when=None), "without a readable datetime"),
        (item(when="yesterday"), "without a readable datetime"),
        (item("L", "landsat-c2-l2"), "^collection landsat-c2-l2$"),
        (item("L", None), "^without a collection$"),
    ],
)
def test_normal_items_that_hold_nothing_for_us(candidate, reason):
    with pytest.raises(SkippedItem, match=reason):
        Scene.from_item(candidate, MPC)


def test_what_is_dropped_is_counted():
    scenes = Scenes.from_items([item("A"), item("B", **{"eo:cloud_cover": 100}), item("L", "landsat-c2-l2")], MPC)
    assert (len(scenes), scenes.skipped) == (1, {"cloud cover": 1, "collection landsat-c2-l2": 1})


def test_ninety_nine_point_nine_percent_cloud_is_used():
    assert order(item(**{"eo:cloud_cover": 99.999})) == ["A"]


def test_an_item_listed_twice_is_one_scene():
    assert order(item("A"), item("A")) == ["A"]


def test_of_two_editions_the_later_counts_whatever_the_order():
    old, new = item(updated="2022-01-01T00:00:00Z"), item(updated="2023-01-01T00:00:00Z")
    for pair in ([old, new], [new, old]):
        (scene,) = Scenes.from_items(pair, MPC).scenes
        assert scene.item["properties"]["updated"].startswith("2023")


def test_a_missing_band_is_noted():
    assets = tuple(key for key in MPC.s2_assets.values() if key != "B05")
    assert Scene.from_item(item(assets=assets), MPC).missing == ("B05",)


def test_pruning_keeps_properties_and_wanted_assets():
    given = item(**{"custom:thing": 1})
    given["assets"]["visual"] = {"href": "x"}
    given["assets"]["B04"] |= {"proj:shape": [1, 1], "description": "long"}
    scene = Scene.from_item(given, MPC)
    assert scene.item["properties"]["custom:thing"] == 1
    assert "visual" not in scene.item["assets"]
    assert set(scene.item["assets"]["B04"]) == {"href", "proj:shape"}


def test_a_frozen_list_thaws_to_the_same_scenes(tmp_path):
    from tessera_cli.files import write_ndjson_gz

    scenes = Scenes.from_items([item("B"), item("A"), item("R", "sentinel-1-rtc")], MPC)
    path = tmp_path / "scenes.ndjson.gz"
    write_ndjson_gz(path, scenes.to_ndjson())
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["id"] for line in lines] == ["B", "A", "R"]
    thawed = [dict(s.item) for s in Scenes.from_ndjson(path, MPC).scenes]
    assert thawed == lines == json.loads(json.dumps([dict(s.item) for s in scenes.scenes]))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="frozen"):
        Scenes.from_ndjson(path, MPC)


def test_signatures_that_items_bring_along_are_left_out():
    """They expire within the hour, and a frozen list is no place for them."""
    address = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/B04.tif"
    signed = item()
    signed["assets"]["B04"]["href"] = f"{address}?st=2023-01-01&se=2023-01-02&sp=rl&sig=s3cret"
    scenes = Scenes.from_items([signed], MPC)
    assert scenes.scenes[0].item["assets"]["B04"]["href"] == address
    assert "s3cret" not in json.dumps(list(scenes.to_ndjson()))


# --- where scenes lie -------------------------------------------------------------------------------------------------


def test_footprints_decide_which_tile_a_scene_lies_on():
    far = item("F", geometry=shapely.geometry.mapping(shapely.box(10, 40, 11, 41)))
    scenes = Scenes.from_items([item("A"), far], MPC)
    assert [s.id for s in scenes.on(TILE, YEAR).scenes] == ["A"]
    assert not len(scenes.on(TILE, Window(dt.date(2020, 1, 1), dt.date(2020, 12, 31))))


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[[None, 0], [1, 1], [1, 0], [None, 0]]]},
        {"type": "Polygon"},
        "POLYGON EMPTY",
    ],
)
def test_a_footprint_that_is_none_drops_no_scene(geometry):
    where = list(TILE.outline.bounds)
    assert lies_on(Scene.from_item(item(geometry=geometry) | {"bbox": where}, MPC), TILE)
    assert not lies_on(Scene.from_item(item(geometry=geometry) | {"bbox": [50, 0, 51, 1]}, MPC), TILE)
    assert lies_on(Scene.from_item(item(geometry=geometry), MPC), TILE)


@pytest.mark.parametrize("bbox", [[None] * 4, ["west", "south", "east", "north"], [1, 2], "1,2,3,4", 7])
def test_a_box_that_is_none_drops_no_scene(bbox):
    odd = item() | {"geometry": None, "bbox": bbox}
    assert [found["id"] for found in matching([odd], search_boxes([TILE]), [YEAR])] == ["A"]
    assert lies_on(Scene.from_item(odd, MPC), TILE)


@pytest.mark.parametrize(
    "footprint",
    [
        shapely.MultiPolygon([shapely.box(179.0, -18, 180, -16), shapely.box(-180, -18, -179.0, -16)]),
        shapely.Polygon([(179, -18), (-179, -18), (-179, -16), (179, -16)]),
        shapely.box(179.0, -18, 181.0, -16),
    ],
    ids=["split", "jumping", "beyond 180"],
)
def test_footprints_across_the_antimeridian(footprint):
    scene = Scene.from_item(item(geometry=shapely.geometry.mapping(footprint)), MPC)
    east_of, west_of = Tile(32701, 35, 1585), Tile(32760, 159, 1585)
    assert lies_on(scene, east_of)
    assert lies_on(scene, west_of)
    assert not lies_on(scene, Tile(32631, 97, 1))


def test_the_search_covers_whole_tiles_and_not_the_gap_between_them():
    boxes = search_boxes([Tile(32631, 112, 1098), Tile(32631, 113, 1098), Tile(32631, 97, 500)])
    assert len(boxes) == 2
    outline = shapely.union_all([shapely.box(*box) for box in boxes])
    assert outline.contains(TILE.outline)
    crossing = search_boxes([Tile(32760, 160, 1585)])
    assert all(-180 <= west < east <= 180 for west, _, east, _ in crossing)


def test_local_items_are_filtered_as_an_api_would():
    items = [
        item("in"),
        item("early", when="2020-12-31T23:59:59.999Z"),
        item("first", when="2021-01-01T00:00:00Z"),
        item("last", when="2021-12-31T23:59:59.999Z"),
        item("late", when="2022-01-01T00:00:00Z"),
        item("far", geometry=shapely.geometry.mapping(shapely.box(10, 40, 11, 41))),
        item("other", "landsat-c2-l2"),
        item("span", when=None, start_datetime="2020-12-31T23:00:00Z", end_datetime="2021-01-01T01:00:00Z"),
    ]
    found = list(matching(items, search_boxes([TILE]), [YEAR]))
    assert [i["id"] for i in found] == ["in", "first", "last", "other", "span"]
    assert Scenes.from_items(found, MPC).skipped == {
        "collection landsat-c2-l2": 1
    }  # what lies elsewhere is not dropped
    assert "other" not in [i["id"] for i in matching(items, search_boxes([TILE]), [YEAR], without=["landsat-c2-l2"])]


# --- documents --------------------------------------------------------------------------------------------------------


def found_in(catalog, tmp_path, *, windows=(YEAR,)):
    small = make_catalog(tmp_path / "c") if catalog is None else catalog
    tiles = [Tile(32630, 116, 1132), Tile(32630, 117, 1132)]
    return search(tiles, windows, MPC, client=Client(), catalog=str(small))


def as_static_catalog(folder, items):
    """catalog.json -> collection.json -> items, all hrefs relative to their own file."""
    links = []
    for feature in items:
        path = folder / "static" / feature["id"] / f"{feature['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        assets = {k: {**a, "href": "../../" + a["href"].removeprefix("./")} for k, a in feature["assets"].items()}
        path.write_text(json.dumps({**feature, "assets": assets}))
        links.append({"rel": "item", "href": f"./{feature['id']}/{feature['id']}.json"})
    parent = {"rel": "parent", "href": "./catalog.json"}
    collection = {"type": "Collection", "stac_version": "1.0.0", "id": "all", "links": [*links, parent]}
    (folder / "static" / "collection.json").write_text(json.dumps(collection))
    root = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "root",
        "description": "",
        "links": [{"rel": "child", "href": "collection.json"}, {"rel": "self", "href": "catalog.json"}],
    }
    (folder / "static" / "catalog.json").write_text(json.dumps(root))
    return folder / "static" / "catalog.json"


def test_every_kind_of_document_gives_the_same_scenes(catalog, tmp_path):
    items = json.loads(catalog.items.read_text())["features"]
    lines = catalog.folder / "items.ndjson"
    lines.write_text("\n".join(map(json.dumps, items)))
    packed = catalog.folder / "items.ndjson.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    static = as_static_catalog(catalog.folder, items)
    root = catalog.folder / "catalog.json"  # what it leads to names files in its folder
    root.write_text(static.read_text().replace('"collection.json"', '"static/collection.json"'))
    scenes = [found_in(path, tmp_path) for path in (catalog.items, lines, packed, root, root.parent)]
    expected = [dict(s.item) for s in scenes[0].scenes]
    assert len(expected) == 7
    for other in scenes[1:]:
        assert [dict(s.item) for s in other.scenes] == expected
    assert all(href.startswith("/") for href in (a["href"] for i in expected for a in i["assets"].values()))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "not JSON"),
        ("b.json", '{"type": "Topology"}', "not STAC"),
        (
            "c.json",
            '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": null}]}',
            "not STAC items",
        ),
        ("d.json", "\xff\xfe", "cannot be read|not JSON"),
        ("e.ndjson.gz", "\x1f\x8bxx", "cannot be read|not JSON"),
    ],
)
def test_documents_that_are_not_stac(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        found_in(path, tmp_path)


def test_an_absent_document(tmp_path):
    with pytest.raises(UsageError, match=f"folder {tmp_path} holds no catalogue: neither catalog.json nor items.json"):
        found_in(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        found_in(tmp_path / "none.json", tmp_path)


# --- a live API -------------------------------------------------------------------------------------------------------


def absolute_items(catalog):
    return [dict(scene.item) for scene in found_in(catalog.items, None).scenes]


def on_the_web(items, url):
    """Items whose hrefs begin with a slash, as a server means them: never as files of this machine."""
    return [
        {**each, "assets": {k: {**a, "href": url + a["href"]} for k, a in each["assets"].items()}} for each in items
    ]


def api_item(number):
    """One of many: all of different times."""
    return item(f"S2A_{number:03}", when=f"2021-{1 + number % 12:02}-{1 + number // 12:02}T10:56:31Z")


def found_by(api, source=MPC, stats=None):
    return search([TILE], [YEAR], source, client=Client(stats=stats), catalog=api.url)


def test_a_live_api_gives_the_same_scenes_as_the_file(catalog, tmp_path):
    items = absolute_items(catalog)
    with Api(items[::-1]) as api:
        assert [dict(s.item) for s in found_in(api.url, tmp_path).scenes] == on_the_web(items, api.url)
    assert len(api.asked) == 4  # pages of two
    assert api.asked[0].fields["datetime"] == "2021-01-01T00:00:00Z/2021-12-31T23:59:59.999999Z"
    assert {asked.fields["limit"] for asked in api.asked} == {250}


def test_an_api_that_takes_no_post(catalog, tmp_path):
    items = absolute_items(catalog)
    with Api(items, method="GET") as api:
        assert [dict(s.item) for s in found_in(api.url, tmp_path).scenes] == on_the_web(items, api.url)
    assert {asked.method for asked in api.asked} == {"GET"}


def test_the_landing_page_decides_how_to_search():
    def found_by(root):
        return search_link(Document("https://x.test/v1/", root), Client())

    root = {"conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"], "links": []}
    assert found_by(root) == ("https://x.test/v1/search", "POST")
    get, post = {"rel": "search", "href": "./look"}, {"rel": "search", "href": "./look", "method": "POST"}
    assert search_link(Document("https://x.test/v1/", {"links": [get]}), Client()) == ("https://x.test/v1/look", "GET")
    assert search_link(Document("https://x.test/v1/", {"links": [get, post]}), Client()) == (
        "https://x.test/v1/look",
        "POST",
    )


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Reply(503), "server error"),
        (Reply(502), "too long"),
        (Reply(429, headers={"Retry-After": "0"}), "busy"),
        (Reply(200, PAGE, {"Content-Type": "text/html"}), "error page"),
        (Reply(200, b""), "error page"),
        (Reply(200, b'{"type": "FeatureCollection", "features": []}', cut=True), "truncated"),
    ],
    ids=["503", "502", "429", "html", "empty", "truncated"],
)
def test_a_page_that_fails_once_is_asked_for_again(reply, cause):
    items, stats = [api_item(n) for n in range(7)], RequestStats()
    with Api(items, lambda nth, asked: reply if nth == 2 else None) as api:
        assert len(found_by(api, stats=stats)) == 7
    assert len(api.asked) == 5
    assert api.asked[1].fields == api.asked[2].fields
    assert stats.to_dict()["retries"] == {cause: 1}


@pytest.mark.parametrize(
    ("reply", "error", "requests"),
    [
        (Reply(400), SourceRefusedError, 1),
        (Reply(401), CredentialsError, 1),
        (Reply(403), CredentialsError, 1),
        (Reply(404), SourceRefusedError, 1),
        (Reply(429), SourceBusyError, 7),
        (Reply(500), SourceUnavailableError, 6),
        (Reply(200, PAGE), SourceUnavailableError, 3),
        (Reply(200, b'{"message": "Internal error"}'), SourceUnavailableError, 1),
        (Reply(200, b'{"type": "FeatureCollection", "features": null}'), SourceUnavailableError, 1),
        (Reply(200, b"[1, 2]"), SourceUnavailableError, 1),
    ],
    ids=["400", "401", "403", "404", "429", "500", "html", "message", "null", "list"],
)
def test_an_api_that_stays_so(reply, error, requests):
    with Api([], always(reply)) as api, pytest.raises(error):
        found_by(api)
    assert len(api.asked) == requests


@pytest.mark.parametrize(("status", "error"), [(401, CredentialsError), (404, SourceRefusedError)])
def test_a_landing_page_that_refuses(status, error):
    with Api([], landing=Reply(status)) as api, pytest.raises(error, match=str(status)):
        found_by(api)


def test_an_api_that_is_not_there(tmp_path):
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        found_in("http://127.0.0.1:9/stac", tmp_path)


def test_what_stands_in_a_query_is_told_to_nobody():
    with Api([], always(Reply(500)), landing=Reply(500)) as api:
        for place in (api.url, "http://127.0.0.1:9"):
            with pytest.raises(SourceUnavailableError) as caught:
                found_in(f"{place}/?token=SECRET", None)
            assert "SECRET" not in str(caught.value)
    assert "SECRET" not in caught.getrepr().reprcrash.message


# pages that are too long, and calls that come too often: Earth Search


@pytest.mark.parametrize("status", [502, 504, 413])
def test_pages_that_are_too_long_are_halved(status):
    items = [api_item(n) for n in range(60)] + [item("L", "landsat-c2-l2"), item("C", **{"eo:cloud_cover": 100.0})]
    with Api(items, page=250, longest=30, too_long=status) as api:
        found = found_by(api)
    assert {scene.id for scene in found.scenes} == {f"S2A_{n:03}" for n in range(60)}
    assert [asked.fields["limit"] for asked in api.asked] == [250, 250, 125, 125, 62, 62, 31, 31, 15, 15, 15, 15, 15]
    assert found.skipped == {"cloud cover": 1}


def test_a_search_that_starts_over_counts_nothing_twice():
    """The second page holds the long items, as they lie in the collection of Earth Search."""
    items = [api_item(n) for n in range(12)] + [
        item(f"C{n}", when=f"2021-12-30T00:00:0{n}Z", **{"eo:cloud_cover": 100.0}) for n in range(3)
    ]
    late = Reply(502)
    with Api(items, lambda nth, asked: late if asked.fields["limit"] > 15 and "token" in asked.fields else None) as api:
        found = found_by(api)
    assert (len(found), found.skipped) == (12, {"cloud cover": 3})


def test_a_short_page_is_not_the_reason_for_502():
    with Api([], always(Reply(502))) as api, pytest.raises(SourceUnavailableError, match="502"):
        found_by(api)
    assert [asked.fields["limit"] for asked in api.asked] == [250] * 2 + [125] * 2 + [62] * 2 + [31] * 2 + [15] * 2 + [
        10
    ] * 6


def test_403_of_earth_search_asks_for_patience():
    items, stats = [api_item(n) for n in range(3)], RequestStats()
    aws = dataclasses.replace(AWS, granules=None)
    named = [{**entry, "assets": {key: {"href": "x"} for key in AWS.s2_assets.values()}} for entry in items]
    with Api(named, first(3, Reply(403))) as api:
        assert len(found_by(api, aws, stats)) == 3
    assert stats.to_dict()["retries"] == {"busy": 3}
    with Api([], always(Reply(403))) as api, pytest.raises(SourceBusyError, match=r"too many requests\. Try again"):
        found_by(api, aws)
    assert len(api.asked) == 7


# circles


def same_page(api, onwards):
    """An API whose every page is the first, and leads on by `onwards(nth)`."""
    page = {"type": "FeatureCollection", "features": api.items[:2]}

    def mischief(nth, asked):
        link = {"rel": "next", "method": "POST", "href": f"{api.url}/search", "body": {**asked.fields, **onwards(nth)}}
        return Reply(200, json.dumps({**page, "links": [link]}).encode())

    return mischief


@pytest.mark.parametrize(
    "onwards",
    [lambda nth: {"token": "same"}, lambda nth: {"token": nth}, lambda nth: {}],
    ids=["token", "page", "none"],
)
def test_pages_that_lead_in_circles(onwards):
    with Api([api_item(n) for n in range(4)]) as api:
        api.mischief = same_page(api, onwards)
        with pytest.raises(SourceRefusedError, match="circles"):
            found_by(api)
    assert len(api.asked) == 2


def test_an_empty_page_with_more_to_come_is_not_the_end():
    with Api([api_item(n) for n in range(6)]) as api:

        def mischief(nth, asked):
            link = {"rel": "next", "method": "POST", "href": f"{api.url}/search", "body": dict(asked.fields)}
            page = {"type": "FeatureCollection", "features": [], "links": [link]}
            return Reply(200, json.dumps(page).encode()) if nth == 2 else None

        api.mischief = mischief
        with pytest.raises(SourceUnavailableError, match="empty page"):
            found_by(api)


def test_a_link_that_returns_to_an_earlier_page():
    """Page 1 -> 2 -> 3 -> 2, with new items each time: the link tells."""
    with Api([]) as api:

        def mischief(nth, asked):
            link = {"rel": "next", "method": "POST", "href": f"{api.url}/search", "body": {"token": 1 + nth % 2}}
            page = {"type": "FeatureCollection", "features": [api_item(nth)], "links": [link]}
            return Reply(200, json.dumps(page).encode())

        api.mischief = mischief
        with pytest.raises(SourceRefusedError, match="circles"):
            found_by(api)
    assert len(api.asked) == 3


def test_a_search_without_end(monkeypatch, caplog):
    monkeypatch.setattr("tessera_cli.catalog.paging.MAX_PAGES", 7)
    monkeypatch.setattr("tessera_cli.catalog.paging.TOLD", 3)
    caplog.set_level("INFO")
    with Api([]) as api:

        def mischief(nth, asked):
            link = {"rel": "next", "method": "POST", "href": f"{api.url}/search", "body": {"token": nth}}
            page = {"type": "FeatureCollection", "features": [api_item(nth)], "links": [link]}
            return Reply(200, json.dumps(page).encode())

        api.mischief = mischief
        with pytest.raises(SourceRefusedError, match="page after page, 7 so far"):
            found_by(api)
    assert len(api.asked) == 7
    assert "3 items so far, on 3 pages" in caplog.text


def test_items_that_pages_repeat_are_one_scene():
    """Pages shift when items are added between two questions: a page that brings something new is no circle."""
    items = [api_item(n) for n in range(5)]
    with Api([]) as api:

        def mischief(nth, asked):
            link = {"rel": "next", "method": "POST", "href": f"{api.url}/search", "body": {"token": nth}}
            page = {
                "type": "FeatureCollection",
                "features": items[nth - 1 : nth + 1],
                "links": [link] if nth < 4 else [],
            }
            return Reply(200, json.dumps(page).encode())

        api.mischief = mischief
        assert len(found_by(api)) == 5


def test_an_item_with_a_span_in_place_of_a_datetime():
    span = item("span", when=None, start_datetime="2021-06-30T23:59:58Z", end_datetime="2021-07-01T00:00:02Z")
    with Api([span]) as api:
        (scene,) = found_by(api).scenes
    assert scene.date == dt.date(2021, 6, 30)
    del span["properties"]["end_datetime"]
    (found,) = matching([span], search_boxes([TILE]), [YEAR])
    assert Scene.from_item(found, MPC).date == dt.date(2021, 6, 30)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_unknown_source():
    with pytest.raises(UsageError, match="mpc"):
        get_source("usgs")


# --- real items of Planetary Computer, where they are at hand ------------------------------------------------------


def real_items():
    folders = [SHARED / "data" / name for name in ("stac-utils+stac-geoparquet", "opendatacube+odc-stac")]
    for path in sorted(p for folder in folders if folder.is_dir() for p in folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text())
        except (ValueError, UnicodeDecodeError):
            continue
        found = content if isinstance(content, list) else content.get("features", [content])
        for entry in found:
            hrefs = str(entry.get("assets", "")) if isinstance(entry, dict) else ""
            if "blob.core.windows.net" in hrefs and entry.get("collection", "sentinel-2-l2a") in (
                MPC.s2_collection,
                MPC.s1_collection,
            ):
                yield {"collection": "sentinel-2-l2a", **entry}


def test_real_planetary_computer_items():
    items = list(real_items())
    if not items:
        pytest.skip("needs ../shared/data with items of Planetary Computer")
    for entry in items:
        properties = entry["properties"]
        try:
            scene = Scene.from_item(entry, MPC)
        except SkippedItem as reason:
            assert str(reason) in ("cloud cover", "without both VV and VH")  # noqa: PT017
            continue
        assert scene.timestamp == properties["datetime"]
        assert scene.date.isoformat() == properties["datetime"][:10]
        assert scene.missing == ()
        assert scene.footprint.is_valid
        if scene.sensor is Sensor.S2:
            assert scene.baseline == properties["s2:processing_baseline"]
            assert f"T{scene.item['properties']['s2:mgrs_tile']}" in scene.id
        else:
            assert scene.sensor.value == {"ascending": "s1_asc", "descending": "s1_desc"}[properties["sat:orbit_state"]]
    by_rule = Scenes.from_items(items, MPC).of(Sensor.S2)
    keys = [(s.date, s.timestamp) for s in by_rule]
    assert keys == sorted(keys)


def test_a_cloud_cover_that_is_no_number_is_none():
    scenes = Scenes.from_items([item("x") | {"properties": {**item("x")["properties"], "eo:cloud_cover": "n/a"}}], MPC)
    assert (len(scenes), scenes.skipped) == (0, {"without eo:cloud_cover": 1})


# --- answers that nobody expects --------------------------------------------------------------------------------------


def leading_on(api, **link):
    """A first page whose link to the next one is as given, and which holds two items."""
    content = {"type": "FeatureCollection", "features": [api_item(0), api_item(1)]}
    onwards = {"rel": "next", "href": f"{api.url}/search?token=2", **link}
    return Reply(200, json.dumps({**content, "links": [onwards]}).encode())


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"method": "DELETE"}, "by another method than GET and POST"),
        ({"method": "PUT", "body": {}}, "by another method than GET and POST"),
        ({"method": ["GET"]}, "by another method than GET and POST"),
        ({"method": "POST", "body": "token=2"}, "with a body that is no object"),
        ({"method": "POST", "body": [1], "merge": True}, "with a body that is no object"),
        ({"headers": "x"}, "with headers that cannot be sent"),
        ({"headers": {"X-Page": 2}}, "with headers that cannot be sent"),
        ({"headers": {"X-Page": "2\r\nHost: x.test"}}, "with headers that cannot be sent"),
        ({"headers": {"X-Page\n": "2"}}, "with headers that cannot be sent"),
        ({"headers": {"X-Page": "\xe4"}}, "with headers that cannot be sent"),
        ({"headers": {"Host": "x.test"}}, "with headers that cannot be sent"),
        ({"headers": {"content-length": "99999"}}, "with headers that cannot be sent"),
    ],
)
def test_links_to_a_next_page_that_make_no_request(link, why):
    with Api([]) as api:
        api.mischief = always(leading_on(api, **link))
        with pytest.raises(SourceUnavailableError, match=why):
            found_by(api)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "href", ["file:///etc/passwd", "/etc/../x\x00", "http://[::1", "ftp://x.test/a", "\\\\x\\y", "http://.x.test/a"]
)
def test_links_to_a_next_page_elsewhere(href):
    with Api([]) as api:
        api.mischief = always(leading_on(api, href=href))
        with pytest.raises(SourceRefusedError, match="is refused"):
            found_by(api)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "link", [{"href": 5}, {"href": None}, {"href": ["x"]}, {"rel": ["next"]}, {"rel": None}, {"href": ""}]
)
def test_links_that_lead_nowhere_are_none(link):
    with Api([]) as api:
        api.mischief = always(leading_on(api, **link))
        assert len(found_by(api)) == 2


def test_a_next_page_may_be_asked_for_with_headers_and_a_body():
    with Api([api_item(n) for n in range(4)]) as api:
        more = {"method": "POST", "headers": {"X-Page": "two"}, "body": {"token": 0}, "merge": True, "title": [5]}
        page = leading_on(api, href=f"{api.url}/search", **more)
        api.mischief = lambda nth, asked: page if nth == 1 else None
        assert len(found_by(api)) == 4
    assert api.asked[1].headers["X-Page"] == "two"
    assert api.asked[1].fields["limit"] == 250  # merged


@pytest.mark.parametrize("method", ["DELETE", "PATCH", 5, ["POST"], {"a": 1}])
def test_a_search_by_another_method_is_not_made(method):
    root = {"links": [{"rel": "search", "href": "./look", "method": method}]}
    assert search_link(Document("https://x.test/v1/", root), Client()) == ("https://x.test/v1/search", "POST")


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "FeatureCollection", "features": {"a": 1}}',
        b'{"type": "FeatureCollection", "features": [5]}',
        b'{"type": "FeatureCollection", "features": [null]}',
        b'{"type": "FeatureCollection", "features": [{"assets": {}}]}',
        b'"features"',
        b"5",
    ],
)
def test_a_body_that_holds_no_items(body):
    with Api([], always(Reply(200, body))) as api, pytest.raises(SourceUnavailableError, match="else than items"):
        found_by(api)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"features": "\xff"}', b"\xff\xfe{"])
def test_a_body_that_is_no_json(body):
    with Api([], always(Reply(200, body))) as api, pytest.raises(SourceUnavailableError, match="page in place of data"):
        found_by(api)


@pytest.mark.parametrize("told", [True, "3", -1, 1.5, [3], {"a": 1}, None, 10**400, float("nan")])
def test_numbers_of_matches_that_are_none(told):
    items = [api_item(n) for n in range(3)]
    with Api(items, told=lambda matched: {"numberMatched": told, "numberReturned": told, "context": told}) as api:
        assert len(found_by(api)) == 3


def test_one_odd_item_of_a_page_is_left_out_alone():
    odd = [{**api_item(0), "collection": {"a": 1}}, {**api_item(1), "assets": []}, {**api_item(2), "properties": [5]}]
    odd += [{**api_item(3), "id": {"a": 1}}, {**api_item(4), "geometry": float("nan")}]
    content = {"type": "FeatureCollection", "features": [*odd, api_item(5)], "links": []}
    with Api([], always(Reply(200, json.dumps(content).encode()))) as api:
        scenes = found_by(api)
    assert [scene.id for scene in scenes.scenes] == ["S2A_004", "S2A_005"]
    assert sum(scenes.skipped.values()) == 4
    assert all(reason.startswith("not a STAC item (") for reason in scenes.skipped)
