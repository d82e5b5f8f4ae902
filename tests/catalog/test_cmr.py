"""OPERA RTC-S1 in CMR: one granule, one item; all pages or an error."""

import datetime as dt
import json

import pytest
import shapely

from tessera_cli.catalog import AWS, Scenes, Sensor, cmr
from tessera_cli.catalog.boxes import search_boxes
from tessera_cli.catalog.cmr import footprint_of, granule_items, granule_search, item_of
from tessera_cli.errors import SourceBusyError, SourceRefusedError, SourceUnavailableError
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.net import Client, RequestStats
from tessera_cli.net.reach import Reach
from tests.helpers.builders import lies_on
from tests.helpers.fake_catalogs import PAGE, Cmr, Reply, always, first, granule

YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
TILE = Tile(32631, 112, 1098)
HERE = TILE.outline.buffer(0.1)
CUMULUS = "https://cumulus.asf.earthdatacloud.nasa.gov/OPERA/OPERA_L2_RTC-S1"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.01)
    monkeypatch.setattr("tessera_cli.net.retries.READ_TIMEOUT", 3000.0)
    monkeypatch.setattr("tessera_cli.net.retries.TOTAL_TIMEOUT", 3000.0)


def burst(title="B", start="2021-07-01T05:00:00.000Z", end="2021-07-01T05:00:03.000Z", outline=HERE, pols=("VV", "VH")):
    return granule(title, start, end, outline, {pol: f"{CUMULUS}/{title}/{title}_{pol}.tif" for pol in pols})


def bursts(count):
    return [
        burst(f"B{n:02}", f"2021-07-{n + 1:02}T05:00:00.000Z", f"2021-07-{n + 1:02}T05:00:03.000Z")
        for n in range(count)
    ]


def found(server, *, tiles=(TILE,), windows=(YEAR,), stats=None):
    url = f"{server.url}/search/granules.json"
    return list(granule_items(url, AWS, search_boxes(tiles), windows, client=Client(stats=stats)))


def ids(items):
    return [item["id"] for item in items]


# --- one granule ------------------------------------------------------------------------------------------------------


def test_a_granule_becomes_an_item():
    """Written by hand after the JSON that CMR sends."""
    title = "OPERA_L2_RTC-S1_T102-217155-IW1_20240703T162341Z_20240703T220516Z_S1A_30_v1.0"
    data, meta = "http://esipfed.org/ns/fedsearch/1.1/data#", "http://esipfed.org/ns/fedsearch/1.1/metadata#"
    item = item_of(
        {
            "producer_granule_id": title,
            "title": title,
            "id": "G3160000000-ASF",
            "time_start": "2024-07-03T16:23:41.000Z",
            "time_end": "2024-07-03T16:23:44.000Z",
            "updated": "2024-07-04T01:02:03.000Z",
            "polygons": [["10 20 10 21 11 21 11 20 10 20"]],
            "links": [
                {"rel": data, "href": f"{CUMULUS}/{title}/{title}.h5"},
                {"rel": data, "href": f"{CUMULUS}/{title}/{title}_VV.tif"},
                {"rel": data, "href": f"{CUMULUS}/{title}/{title}_VH.tif"},
                {"rel": data, "href": f"{CUMULUS}/{title}/{title}_mask.tif"},
                {"rel": "http://esipfed.org/ns/fedsearch/1.1/s3#", "href": f"s3://asf-cumulus-prod/{title}_VV.tif"},
                {"rel": meta, "href": "https://asf.test/OPERA_VV.tif", "inherited": True},
            ],
        },
        AWS,
        Reach(),
    )
    assert (item["id"], item["collection"], item["type"]) == (title, "OPERA_L2_RTC-S1_V1", "Feature")
    assert item["properties"] == {
        "datetime": "2024-07-03T16:23:41.000Z",
        "start_datetime": "2024-07-03T16:23:41.000Z",
        "end_datetime": "2024-07-03T16:23:44.000Z",
        "updated": "2024-07-04T01:02:03.000Z",
    }
    hrefs = {key: asset["href"] for key, asset in item["assets"].items()}
    assert hrefs == {pol: f"{CUMULUS}/{title}/{title}_{pol}.tif" for pol in ("VV", "VH")}
    bounds = shapely.geometry.shape(item["geometry"]).bounds
    assert bounds == pytest.approx((20, 10, 21, 11), abs=0.011)  # latitude comes first in CMR
    assert item == json.loads(json.dumps(item))
    (scene,) = Scenes.from_items([item], AWS).scenes
    assert (scene.sensor, scene.date, scene.missing) == (Sensor.S1, dt.date(2024, 7, 3), ())


def test_of_several_links_the_one_that_takes_tokens():
    links = [
        {"href": "s3://bucket/x_VV.tif"},
        {"href": "http://datapool.asf.alaska.edu/x_VV.tif"},
        {"href": "https://datapool.asf.alaska.edu/x_VV.tif"},
        {"href": f"{CUMULUS}/x_VV.tif"},
        {"href": "https://other.test/x_VV.tif"},
    ]
    for given, chosen in ((links, links[3]), (links[:3], links[2]), (links[:2], links[1])):
        for order in (given, given[::-1]):
            assert item_of({"id": "G", "links": order}, AWS, Reach())["assets"] == {"VV": chosen}
    assert item_of({"id": "G", "links": links[:1]}, AWS, Reach())["assets"] == {}


@pytest.mark.parametrize("pols", [("HH", "HV"), ("VV",), ("VH",), ()])
def test_no_link_is_made_up(pols):
    """S5: the official code builds addresses from names and gets 404."""
    scenes = Scenes.from_items([item_of(burst(pols=pols), AWS, Reach()), item_of(burst("C"), AWS, Reach())], AWS)
    assert [scene.id for scene in scenes.scenes] == ["C"]
    has = f" (has {', '.join(pols)})" if pols else ""
    assert scenes.skipped == {f"without both VV and VH{has}": 1}


def test_without_a_start_there_is_no_scene():
    scenes = Scenes.from_items([item_of({**burst(), "time_start": None}, AWS, Reach())], AWS)
    assert scenes.skipped == {"without a readable datetime": 1}


@pytest.mark.parametrize(
    ("granule", "inside", "outside"),
    [
        ({"polygons": [["10 20 10 21 11 21 11 20 10 20"]]}, [(20.5, 10.5)], [(10.5, 20.5), (21.1, 10.5)]),
        ({"polygons": [["0 0 0 9 9 9 9 0 0 0", "4 4 5 4 5 5 4 5 4 4"]]}, [(1, 1), (4.001, 4.5)], [(4.5, 4.5)]),
        ({"polygons": [["0 0 0 1 1 1 1 0 0 0"], ["5 5 5 6 6 6 6 5 5 5"]]}, [(0.5, 0.5), (5.5, 5.5)], [(3, 3)]),
        ({"polygons": [["-18 179 -18 -179 -16 -179 -16 179 -18 179"]]}, [(179.9, -17), (-179.9, -17)], [(0, -17)]),
        ({"polygons": [["-18 -179 -18 179 -16 179 -16 -179 -18 -179"]]}, [(179.9, -17), (-179.9, -17)], [(0, -17)]),
        ({"boxes": ["-18 179 -16 -179"]}, [(179.9, -17), (-179.9, -17)], [(0, -17), (178, -17)]),
        ({"boxes": ["10 20 11 21"]}, [(20.5, 10.5)], [(10.5, 20.5)]),
        ({"polygons": [["0 179.995 0 179 1 179 1 179.995 0 179.995"]]}, [(179.5, 0.5)], [(0, 0.5), (178, 0.5)]),
    ],
    ids=["plain", "hole", "two", "antimeridian", "antimeridian westwards", "box across", "box", "up to 180"],
)
def test_where_a_granule_lies(granule, inside, outside):
    footprint = footprint_of(granule)
    assert -180 <= footprint.bounds[0] < footprint.bounds[2] <= 180
    assert all(footprint.contains(shapely.Point(place)) for place in inside)
    assert not any(footprint.intersects(shapely.Point(place)) for place in outside)


@pytest.mark.parametrize(
    "granule",
    [{}, {"polygons": [["80 0 80 120 80 -120 80 0"]]}, {"polygons": [["1 2 3"]]}, {"polygons": [["a b"]]}],
    ids=["nothing", "around the pole", "odd", "words"],
)
def test_a_granule_whose_place_is_not_told_may_lie_anywhere(granule):
    item = item_of({**burst(), "polygons": None, **granule}, AWS, Reach())
    assert item["geometry"] is None
    (scene,) = Scenes.from_items([item], AWS).scenes
    assert lies_on(scene, TILE)


def test_footprints_reach_as_far_as_arcs_of_great_circles_do():
    """At 60 degrees north the arc between two corners 2 degrees apart runs up to 460 m north of the parallel."""
    south = item_of(burst(outline=shapely.box(2, 59, 4, 60)), AWS, Reach())
    assert shapely.geometry.shape(south["geometry"]).contains(shapely.Point(3, 60.004))


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (1, 2), (3, 3), (4, 3), (7, 5)])
def test_all_pages_are_read(monkeypatch, count, requests):
    monkeypatch.setattr(cmr, "PAGE", 2)
    with Cmr(bursts(count)) as server:
        assert ids(found(server)) == [f"B{n:02}" for n in range(count)]
    assert len(server.asked) == requests  # the last one is answered without granules
    assert not any("page_num" in asked.fields for asked in server.asked)
    assert ["CMR-Search-After" in asked.headers for asked in server.asked] == [False] + [True] * (len(server.asked) - 1)


def test_what_is_asked():
    with Cmr([]) as server:
        found(server)
    (asked,) = server.asked
    west, south, east, north = (float(number) for number in asked.fields.pop("bounding_box").split(","))
    assert shapely.box(west, south, east, north).contains(TILE.outline)
    assert asked.fields == {
        "collection_concept_id": "C2777436413-ASF",
        "temporal": "2021-01-01T00:00:00Z,2021-12-31T23:59:59.999Z",
        "page_size": "2000",
    }


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Reply(200, PAGE), "error page"),
        (Reply(502), "server error"),
        (Reply(429), "busy"),
        (Reply(200, b'{"feed": {"entry": []}}', cut=True), "truncated"),
    ],
    ids=["html", "502", "429", "truncated"],
)
def test_a_page_that_fails_once_is_asked_for_again(monkeypatch, reply, cause):
    monkeypatch.setattr(cmr, "PAGE", 2)
    stats = RequestStats()
    with Cmr(bursts(5), lambda nth, asked: reply if nth == 2 else None) as server:
        assert len(found(server, stats=stats)) == 5
    assert server.asked[1].headers["CMR-Search-After"] == server.asked[2].headers["CMR-Search-After"]
    assert stats.to_dict()["retries"] == {cause: 1}


@pytest.mark.parametrize(
    ("reply", "error", "requests"),
    [
        (Reply(400, b'{"errors": ["bad"]}'), SourceRefusedError, 1),
        (Reply(429), SourceBusyError, 7),
        (Reply(503), SourceUnavailableError, 6),
        (Reply(200, PAGE), SourceUnavailableError, 3),
        (Reply(200, b'{"errors": ["Something went wrong"]}'), SourceUnavailableError, 1),
        (Reply(200, b"[]"), SourceUnavailableError, 1),
    ],
    ids=["400", "429", "503", "html", "errors", "list"],
)
def test_a_search_that_stays_so_is_never_an_empty_one(reply, error, requests):
    with Cmr(bursts(3), always(reply)) as server, pytest.raises(error) as caught:
        found(server)
    assert len(server.asked) == requests
    assert "bounding_box" not in str(caught.value)


def as_page(entries, **headers):
    return Reply(
        200, json.dumps({"feed": {"entry": entries}}).encode(), {k.replace("_", "-"): v for k, v in headers.items()}
    )


@pytest.mark.parametrize("after", [lambda nth: "same", lambda nth: f"{nth}"], ids=["header", "granules"])
def test_pages_that_lead_in_circles(after):
    mischief = lambda nth, asked: as_page(bursts(2), CMR_Search_After=after(nth))  # noqa: E731
    with Cmr([], mischief) as server, pytest.raises(SourceRefusedError, match="circles"):
        found(server)
    assert len(server.asked) == 2


def test_a_list_that_breaks_off_is_an_error(monkeypatch):
    with (
        Cmr([], first(1, as_page(bursts(2), CMR_Hits="3"))) as server,
        pytest.raises(SourceUnavailableError, match="2 of 3 items"),
    ):
        found(server)
    monkeypatch.setattr(cmr, "PAGE", 2)
    with (
        Cmr([], first(1, as_page(bursts(2)))) as server,
        pytest.raises(SourceUnavailableError, match="after a full page"),
    ):
        found(server)
    with Cmr([], first(1, as_page(bursts(1)))) as server:
        assert ids(found(server)) == ["B00"]


def test_granules_that_come_twice_count_once():
    pages = [as_page(bursts(2), CMR_Hits="3", CMR_Search_After="a"), as_page(bursts(1), CMR_Hits="3")]
    with Cmr([], lambda nth, asked: pages[nth - 1]) as server, pytest.raises(SourceUnavailableError, match="2 of 3"):
        found(server)


# --- where and when ---------------------------------------------------------------------------------------------------


def test_the_search_is_cut_at_the_antimeridian_and_lists_nothing_twice():
    crossing = shapely.Polygon([(179, -18), (-179, -18), (-179, -16), (179, -16)])
    with Cmr([burst()]) as server:
        server.granules = [{**burst(outline=crossing), "polygons": [["-18 -180 -18 180 -16 180 -16 -180 -18 -180"]]}]
        assert ids(found(server, tiles=[Tile(32760, 160, 1585), Tile(32701, 35, 1585)])) == ["B"]
    assert len(server.asked) > 1
    for asked in server.asked:
        west, _, east, _ = (float(number) for number in asked.fields["bounding_box"].split(","))
        assert -180 <= west < east <= 180


def test_a_granule_of_two_windows_is_listed_once():
    over = burst(start="2021-06-30T23:59:59.000Z", end="2021-07-01T00:00:02.000Z")
    halves = [Window(dt.date(2021, 1, 1), dt.date(2021, 6, 30)), Window(dt.date(2021, 7, 1), dt.date(2021, 12, 31))]
    with Cmr([over]) as server:
        (item,) = found(server, windows=halves)
    assert len({asked.fields["temporal"] for asked in server.asked}) == 2
    scenes = Scenes.from_items([item], AWS)
    assert [len(scenes.on(TILE, half)) for half in halves] == [1, 0]


def test_h30_a_granule_that_began_before_the_window_does_not_count():
    eve = burst("EVE", "2020-12-31T23:59:59.000Z", "2021-01-01T00:00:02.000Z")
    dawn = burst("DAWN", "2021-01-01T00:00:00.000Z", "2021-01-01T00:00:03.000Z")
    end = burst("END", "2021-12-31T23:59:59.000Z", "2022-01-01T00:00:02.000Z")
    with Cmr([eve, dawn, end]) as server:
        items = found(server)
    assert set(ids(items)) == {"EVE", "DAWN", "END"}  # CMR lists what overlaps
    here = Scenes.from_items(items, AWS).on(TILE, YEAR)
    assert [(scene.id, scene.date.isoformat()) for scene in here.scenes] == [
        ("DAWN", "2021-01-01"),
        ("END", "2021-12-31"),
    ]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://cmr.test/search", "https://cmr.test/search/granules.json"),
        ("https://cmr.test/search/", "https://cmr.test/search/granules.json"),
        ("https://cmr.test/search/granules.json", "https://cmr.test/search/granules.json"),
        ("https://cmr.test/search/granules.json?provider=ASF", "https://cmr.test/search/granules.json?provider=ASF"),
        ("https://cmr.test/search?provider=ASF", "https://cmr.test/search/granules.json?provider=ASF"),
        ("https://x.test/items.json", None),
        ("https://x.test/items.ndjson.gz?token=a", None),
        ("https://x.test/items.parquet", None),
        ("/data/granules.json", None),
        ("items.json", None),
    ],
)
def test_what_a_radar_catalogue_is(location, url):
    assert granule_search(location) == url


def test_a_query_that_the_user_gave_is_kept():
    with Cmr(bursts(1)) as server:
        url = f"{server.url}/search/granules.json?provider=ASF"
        assert len(list(granule_items(url, AWS, search_boxes([TILE]), [YEAR], client=Client()))) == 1
    assert server.asked[0].fields["provider"] == "ASF"


# --- answers that nobody expects --------------------------------------------------------------------------------------

ODD = [5, "x", [], [None], [[]], [[5]], {}, {"a": 1}, True, float("nan"), "9" * 400, [["nan nan nan nan nan nan"]]]
ODD += [[["1e999 5 6 7 8 9 1e999 5"]], [["1 2 3 4"]], [["1 2 3"]], ["1 2 3"], ["a b c d"]]


@pytest.mark.parametrize("field", ["polygons", "boxes", "links", "time_start", "time_end", "updated", "title"])
@pytest.mark.parametrize("value", ODD)
def test_odd_fields_of_a_granule(field, value):
    entry = {**burst(), field: value}
    if field == "boxes":
        del entry["polygons"]
    with Cmr([]) as server:
        server.answer = lambda asked: Reply(200, json.dumps({"feed": {"entry": [entry, burst("C")]}}).encode())
        items = found(server)
    json.dumps(items, allow_nan=False)
    scenes = Scenes.from_items(items, AWS)
    assert "C" in [scene.id for scene in scenes.scenes]
    assert len(scenes) + sum(scenes.skipped.values()) == 2
    assert scenes.touching([TILE]) is not None


@pytest.mark.parametrize("link", [None, 5, "x", {}, {"href": None}, {"href": 5}, {"href": ["x_VV.tif"]}, [[]]])
def test_odd_links_of_a_granule(link):
    links = [link, {"href": f"{CUMULUS}/x_VV.tif"}]
    assert item_of({"id": "G", "links": links}, AWS, Reach())["assets"] == {"VV": links[1]}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"feed": []},
        {"feed": {"entry": {"id": "x"}}},
        {"feed": {"entry": ["id"]}},
        {"feed": {"entry": "id"}},
        {"feed": {"entry": [None]}},
        {"feed": {"entry": [[]]}},
        {"feed": {"entry": [{"title": "x"}]}},
        {"feed": {"entry": 5}},
    ],
)
def test_what_is_no_list_of_granules(body):
    reply = Reply(200, json.dumps(body).encode())
    with Cmr([], always(reply)) as server, pytest.raises(SourceUnavailableError, match="else than granules"):
        found(server)


@pytest.mark.parametrize("hits", ["", "x", "-1", "1.5", "\xb2", "9" * 5000, "2 "])
def test_odd_numbers_of_hits(hits):
    body = json.dumps({"feed": {"entry": bursts(2)}}).encode()
    with Cmr([], always(Reply(200, body, {"CMR-Hits": hits}))) as server:
        assert len(found(server)) == 2
