"""Catalogues: what counts as a scene, in which order, from which kind of document."""

import datetime as dt
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import shapely

from tessera_cli.catalog import Scenes, search, source_named
from tessera_cli.catalog.scene import Scene, Sensor, Unusable
from tessera_cli.catalog.search import matching, search_boxes
from tessera_cli.catalog.signing import planetary_computer_signer, signer_of
from tessera_cli.catalog.sources import MPC
from tessera_cli.errors import CredentialsError, SourceRefusedError, SourceUnavailableError, UsageError
from tessera_cli.grid import Tile
from tessera_cli.window import Window
from tests.conftest import SHARED, make_catalog

YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
TILE = Tile(32631, 112, 1098)


def item(
    item_id="A", collection="sentinel-2-l2a", when="2021-07-01T10:56:31Z", *, geometry=None, assets=None, **properties
):
    s2 = collection == "sentinel-2-l2a"
    keys = assets if assets is not None else (tuple(MPC.s2_assets.values()) if s2 else ("vv", "vh"))
    defaults = {"eo:cloud_cover": 10.0} if s2 else {"sat:orbit_state": "ascending"}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": item_id, "collection": collection, "links": [],
        "geometry": geometry or shapely.geometry.mapping(TILE.outline.buffer(0.1)),
        "properties": {"datetime": when, **defaults, **properties},
        "assets": {key: {"href": f"https://example.test/{item_id}/{key}.tif"} for key in keys},
    }  # fmt: skip


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
        (item(**{"eo:cloud_cover": None}), "cloud cover"),
        (item("R", "sentinel-1-rtc", assets=("vv",)), "without both VV and VH"),
        (item("R", "sentinel-1-rtc", assets=("hh", "hv")), "without both VV and VH"),
        (item("R", "sentinel-1-rtc", **{"sat:orbit_state": None}), "without orbit direction"),
        (item(when=None), "without a readable datetime"),
        (item(when="yesterday"), "without a readable datetime"),
        (item("L", "landsat-c2-l2"), "other collection"),
    ],
)
def test_normal_items_that_hold_nothing_for_us(candidate, reason):
    with pytest.raises(Unusable, match=reason):
        Scene.from_item(candidate, MPC)


def test_what_is_dropped_is_counted():
    scenes = Scenes.from_items([item("A"), item("B", **{"eo:cloud_cover": 100}), item("L", "landsat-c2-l2")], MPC)
    assert (len(scenes), scenes.skipped) == (1, {"cloud cover": 1, "other collection": 1})


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
    given = item(**{"proj:code": "EPSG:32631", "custom:thing": 1})
    given["assets"]["visual"] = {"href": "x"}
    given["assets"]["B04"] |= {"proj:shape": [1, 1], "description": "long"}
    scene = Scene.from_item(given, MPC)
    assert scene.item["properties"]["custom:thing"] == 1
    assert scene.epsg == 32631
    assert "visual" not in scene.item["assets"]
    assert set(scene.item["assets"]["B04"]) == {"href", "proj:shape"}


def test_a_frozen_list_thaws_to_the_same_scenes(tmp_path):
    from tessera_cli.atomic import write_ndjson_gz

    scenes = Scenes.from_items([item("B"), item("A"), item("R", "sentinel-1-rtc")], MPC)
    path = tmp_path / "scenes.ndjson.gz"
    write_ndjson_gz(path, scenes.freeze_lines())
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line["id"] for line in lines] == ["B", "A", "R"]
    thawed = [dict(s.item) for s in Scenes.thaw(path, MPC).scenes]
    assert thawed == lines == json.loads(json.dumps([dict(s.item) for s in scenes.scenes]))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="frozen"):
        Scenes.thaw(path, MPC)


# --- where scenes lie -------------------------------------------------------------------------------------------------


def test_footprints_decide_which_tile_a_scene_lies_on():
    far = item("F", geometry=shapely.geometry.mapping(shapely.box(10, 40, 11, 41)))
    scenes = Scenes.from_items([item("A"), far], MPC)
    assert [s.id for s in scenes.on(TILE, YEAR).scenes] == ["A"]
    assert not len(scenes.on(TILE, Window(dt.date(2020, 1, 1), dt.date(2020, 12, 31))))


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
    assert scene.lies_on(east_of)
    assert scene.lies_on(west_of)
    assert not scene.lies_on(Tile(32631, 97, 1))


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
    found = matching(items, search_boxes([TILE]), [YEAR], MPC)
    assert [i["id"] for i in found] == ["in", "first", "last", "span"]


# --- documents --------------------------------------------------------------------------------------------------------


def found_in(catalog, tmp_path, *, windows=(YEAR,)):
    small = make_catalog(tmp_path / "c") if catalog is None else catalog
    tiles = [Tile(32630, 116, 1132), Tile(32630, 117, 1132)]
    return search(tiles, windows, MPC, catalog=str(small))


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
        "type": "Catalog", "stac_version": "1.0.0", "id": "root", "description": "",
        "links": [{"rel": "child", "href": "collection.json"}, {"rel": "self", "href": "catalog.json"}],
    }  # fmt: skip
    (folder / "static" / "catalog.json").write_text(json.dumps(root))
    return folder / "static" / "catalog.json"


def test_every_kind_of_document_gives_the_same_scenes(catalog, tmp_path):
    items = json.loads(catalog.items.read_text())["features"]
    lines = catalog.folder / "items.ndjson"
    lines.write_text("\n".join(map(json.dumps, items)))
    packed = catalog.folder / "items.ndjson.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    static = as_static_catalog(catalog.folder, items)
    scenes = [found_in(path, tmp_path) for path in (catalog.items, lines, packed, static, static.parent)]
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
    with pytest.raises(UsageError, match="no such file"):
        found_in(tmp_path / "none.json", tmp_path)


# --- a live API -------------------------------------------------------------------------------------------------------


class Api(ThreadingHTTPServer):
    """A STAC API on loopback with paging; `fail` decides the status of each search."""

    def __init__(self, items, fail=lambda number: 200, page=2, landing=200):
        self.items, self.fail, self.page, self.landing, self.searches = items, fail, page, landing, []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *exc):
        self.shutdown()
        super().__exit__(*exc)


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def log_message(self, *args):
        pass

    def do_GET(self):
        core = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
        link = {"rel": "search", "href": f"{self.server.url}/search", "method": "POST", "type": "application/geo+json"}
        root = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "x", "conformsTo": core}
        self.answer(self.server.landing, {**root, "links": [link]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.searches.append(body)
        status = self.server.fail(len(self.server.searches))
        if status != 200:
            return self.answer(status, {"detail": "no"})
        start = int(body.get("token", 0))
        area = shapely.box(*body["bbox"])
        hits = [
            i for i in self.server.items
            if i["collection"] in body["collections"] and shapely.geometry.shape(i["geometry"]).intersects(area)
        ]  # fmt: skip
        page = hits[start : start + self.server.page]
        links = []
        if start + len(page) < len(hits):
            links = [{
                "rel": "next", "method": "POST", "href": f"{self.server.url}/search",
                "body": {**body, "token": start + len(page)},
            }]  # fmt: skip
        return self.answer(200, {"type": "FeatureCollection", "features": page, "links": links})

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def absolute_items(catalog):
    return [dict(scene.item) for scene in found_in(catalog.items, None).scenes]


def test_a_live_api_gives_the_same_scenes_as_the_file(catalog, tmp_path):
    items = absolute_items(catalog)
    with Api(items[::-1]) as api:
        assert [dict(s.item) for s in found_in(api.url, tmp_path).scenes] == items
        assert len(api.searches) == 4  # pages of two
        assert api.searches[0]["datetime"] == "2021-01-01T00:00:00Z/2021-12-31T23:59:59.999999Z"


def test_an_api_that_fails_for_a_moment_is_asked_again(catalog, tmp_path):
    items = absolute_items(catalog)
    with Api(items, fail=lambda number: 503 if number == 2 else 200) as api:
        assert len(found_in(api.url, tmp_path)) == len(items)


@pytest.mark.parametrize(
    ("status", "error"), [(400, SourceRefusedError), (401, CredentialsError), (403, CredentialsError)]
)
def test_an_api_that_refuses(catalog, tmp_path, status, error):
    with Api([], fail=lambda number: status) as api, pytest.raises(error):
        found_in(api.url, tmp_path)


@pytest.mark.parametrize(("status", "error"), [(401, CredentialsError), (404, SourceRefusedError)])
def test_a_landing_page_that_refuses(catalog, tmp_path, status, error):
    with Api([], landing=status) as api, pytest.raises(error, match=str(status)):
        found_in(api.url, tmp_path)


def test_an_api_that_is_not_there(tmp_path):
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        found_in("http://127.0.0.1:9/stac", tmp_path)


# --- signing, sources -------------------------------------------------------------------------------------------------


def test_only_azure_blobs_are_signed():
    assert signer_of(MPC) is planetary_computer_signer
    for href in ("/data/B04.tif", "https://example.test/B04.tif"):
        assert planetary_computer_signer(href) == href


def test_unknown_source():
    with pytest.raises(UsageError, match="mpc"):
        source_named("usgs")


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
                MPC.s2_collection, MPC.s1_collection,
            ):  # fmt: skip
                yield {"collection": "sentinel-2-l2a", **entry}


def test_real_planetary_computer_items():
    items = list(real_items())
    if not items:
        pytest.skip("needs ../shared/data with items of Planetary Computer")
    for entry in items:
        properties = entry["properties"]
        try:
            scene = Scene.from_item(entry, MPC)
        except Unusable as reason:
            assert str(reason) in ("cloud cover", "without both VV and VH")  # noqa: PT017
            continue
        assert scene.timestamp == properties["datetime"]
        assert scene.date.isoformat() == properties["datetime"][:10]
        assert scene.epsg == properties.get("proj:epsg", scene.epsg)
        assert scene.missing == ()
        assert scene.footprint.is_valid
        if scene.sensor is Sensor.S2:
            assert scene.baseline == properties["s2:processing_baseline"]
            assert f"T{scene.item['properties']['s2:mgrs_tile']}" in scene.id
            assert scene.epsg % 100 == int(scene.item["properties"]["s2:mgrs_tile"][:2])
        else:
            assert scene.sensor.value == {"ascending": "s1_asc", "descending": "s1_desc"}[properties["sat:orbit_state"]]
    by_rule = Scenes.from_items(items, MPC).of(Sensor.S2)
    keys = [(s.date, s.timestamp) for s in by_rule]
    assert keys == sorted(keys)
