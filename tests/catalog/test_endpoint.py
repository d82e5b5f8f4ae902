"""Whatever address of an API is given as catalogue, all its scenes are found, or the advice says which to give."""

import json

import pytest
import shapely
from shapely import affinity

from tessera_cli.catalog import MPC, search
from tessera_cli.catalog.paging import ESTIMATED
from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, UsageError
from tessera_cli.extent.antimeridian import split
from tessera_cli.net import Client
from tests.catalog.test_scenes import tile_around, wrapped
from tests.catalog.test_search import TILE, YEAR, item
from tests.helpers.fake_catalogs import Api, Reply

OPTICAL = [item(f"S2_{n:02}", when=f"2021-07-{1 + n:02}T10:56:31Z") for n in range(7)]
RADAR = [item(f"S1_{n:02}", "sentinel-1-rtc", f"2021-07-{1 + n:02}T05:00:00Z") for n in range(4)]
FOREIGN = [item("L", "landsat-c2-l2"), item("old", when="2020-07-01T10:56:31Z")]
ALL = {i["id"] for i in OPTICAL + RADAR}


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    """Pauses shrink; answers may take as long as on a busy machine."""
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.01)
    monkeypatch.setattr("tessera_cli.net.retries.READ_TIMEOUT", 3000.0)
    monkeypatch.setattr("tessera_cli.net.retries.TOTAL_TIMEOUT", 3000.0)


def ids(location, source=MPC):
    return {scene.id for scene in search([TILE], [YEAR], source, client=Client(), catalog=str(location)).scenes}


@pytest.fixture
def api():
    with Api(OPTICAL + RADAR + FOREIGN, method="GET", told=lambda matched: {"numberMatched": matched}) as server:
        yield server


def collection(server, name, **more):
    """A collection as APIs describe it; `more` replaces links by their relation, None drops one."""
    base = f"{server.url}/collections/{name}"
    links = {"self": base, "root": f"{server.url}/", "parent": f"{server.url}/", "items": f"{base}/items"} | more
    listed = [{"rel": rel, "href": href} for rel, href in links.items() if href]
    return {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": "x", "links": listed}


# --- searches ---------------------------------------------------------------------------------------------------------


def test_the_address_of_a_search_is_followed_to_its_end(api):
    query = "collections=sentinel-2-l2a,sentinel-1-rtc&bbox=2,49,5,51&datetime=2021-01-01/2021-12-31T23:59:59Z&limit=3"
    assert ids(f"{api.url}/search?{query}") == ALL
    asked = api.asked[1]  # after the first look
    assert (asked.fields["bbox"], asked.fields["limit"]) == ("2,49,5,51", "3")  # as the user has said


def test_a_search_that_leaves_something_open_is_narrowed_to_the_run(api):
    """Else all items of the world would be listed."""
    assert ids(f"{api.url}/search") == ALL
    assert ids(f"{api.url}/search?limit=3") == ALL
    asked = api.asked[-1].fields
    assert asked["datetime"] == "2021-01-01T00:00:00Z/2021-12-31T23:59:59.999999Z"
    assert asked["collections"] == "sentinel-2-l2a,sentinel-1-rtc"


def test_what_a_search_leaves_out_is_left_out(api):
    assert ids(f"{api.url}/search?collections=sentinel-1-rtc") == {i["id"] for i in RADAR}
    assert ids(f"{api.url}/search?bbox=10,10,11,11") == set()


def test_the_items_of_a_collection(api):
    assert ids(f"{api.url}/collections/sentinel-2-l2a/items?limit=3") == {i["id"] for i in OPTICAL}
    assert "collections" not in api.asked[-1].fields


@pytest.mark.parametrize("merge", [True, False])
def test_a_search_whose_next_pages_are_posted(api, merge):
    def mischief(nth, asked):
        page = json.loads(api.answer(asked).body)
        for link in page["links"]:
            if link["rel"] == "next":
                token = {"token": int(asked.fields.get("token", 0)) + 2}
                link |= {"method": "POST", "href": f"{api.url}/search", "merge": merge}
                link["body"] = token if merge else {**bare, **token}
        return Reply(200, json.dumps(page).encode())

    bare = {"collections": ["sentinel-2-l2a", "sentinel-1-rtc"], "bbox": [2, 49, 5, 51], "datetime": "2021/2022"}
    api.mischief = mischief
    assert ids(f"{api.url}/search?collections=sentinel-2-l2a,sentinel-1-rtc&bbox=2,49,5,51&datetime=2021/2022") == ALL
    posted = [asked.fields for asked in api.asked if asked.method == "POST"]
    assert len(posted) == 5
    assert all(fields["bbox"] == [2, 49, 5, 51] for fields in posted)


def test_a_later_page_is_no_catalogue(api):
    with pytest.raises(UsageError, match="one page of a search: others come before it"):
        ids(f"{api.url}/search?token=2")


def test_a_list_on_the_web_is_followed_too(api):
    """No search by its address: pages that lie there as files."""
    pages = [OPTICAL, RADAR]
    for number, features in enumerate(pages):
        links = [{"rel": "next", "href": "./page-1.json"}] if number == 0 else []
        api.documents[f"/page-{number}.json"] = {"type": "FeatureCollection", "features": features, "links": links}
    assert ids(f"{api.url}/page-0.json") == ALL
    api.documents["/all.json"] = {"type": "FeatureCollection", "features": OPTICAL, "numberMatched": 11}
    with pytest.raises(SourceUnavailableError, match="7 of 11 items"):
        ids(f"{api.url}/all.json")


# --- collections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "links",
    [{}, {"root": None}, {"root": None, "parent": None}, {"root": "/none.json", "parent": None}, {"items": None}],
    ids=["root", "parent", "address", "wrong root", "without items"],
)
def test_a_collection_leads_to_its_api(api, links):
    api.documents["/collections/sentinel-2-l2a"] = collection(api, "sentinel-2-l2a", **links)
    api.documents["/none.json"] = Reply(404)
    assert ids(f"{api.url}/collections/sentinel-2-l2a") == ALL


def test_a_saved_collection_leads_to_its_api(api, tmp_path):
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(collection(api, "sentinel-2-l2a")))
    assert ids(path) == ids(tmp_path) == ALL


def test_the_list_of_collections_leads_to_its_api(api):
    api.documents["/collections"] = {"collections": [], "links": [{"rel": "root", "href": f"{api.url}/"}]}
    assert ids(f"{api.url}/collections") == ALL


def test_a_collection_that_is_not_read(api):
    api.documents["/collections/sentinel-2-c1-l2a"] = collection(api, "sentinel-2-c1-l2a")
    with pytest.raises(UsageError, match=f"collection sentinel-2-c1-l2a; --source mpc .* the API itself .{api.url}/"):
        ids(f"{api.url}/collections/sentinel-2-c1-l2a")


def test_a_collection_of_an_api_without_item_search(api):
    api.landing = Reply(200, b'{"type": "Catalog", "id": "x", "stac_version": "1.0.0", "links": []}')
    api.documents["/collections/sentinel-2-l2a"] = collection(api, "sentinel-2-l2a")
    assert ids(f"{api.url}/collections/sentinel-2-l2a") == {i["id"] for i in OPTICAL}
    api.documents["/collections"] = {"collections": [], "links": []}
    with pytest.raises(UsageError, match="list of collections"):
        ids(f"{api.url}/collections")


def test_the_address_of_an_item_is_that_item(api):
    links = [{"rel": "root", "href": f"{api.url}/"}, {"rel": "collection", "href": "../../sentinel-2-l2a"}]
    api.documents["/collections/sentinel-2-l2a/items/one"] = OPTICAL[0] | {"links": links}
    assert ids(f"{api.url}/collections/sentinel-2-l2a/items/one") == {OPTICAL[0]["id"]}


# --- fewer items than match -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        lambda n: {"numberMatched": n + 4},
        lambda n: {"context": {"matched": n + 4}},
        lambda n: {"numberMatched": None, "context": {"matched": n + 4}},
    ],
    ids=["numberMatched", "context", "context, and an empty numberMatched"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_search_that_ends_early_is_an_error(told, method):
    with (
        Api(OPTICAL, told=told, method=method, page=5) as api,
        pytest.raises(SourceUnavailableError, match="7 of 11 items that match, and no more"),
    ):
        ids(api.url)
    assert len(api.asked) == 4  # the whole search twice


def test_no_item_at_all_of_those_that_match():
    with Api([], told=lambda n: {"numberMatched": 4}) as api, pytest.raises(SourceUnavailableError, match="0 of 4"):
        ids(api.url)


def test_a_page_that_is_shorter_than_it_says():
    with (
        Api(OPTICAL, told=lambda n: {"numberReturned": 3}, page=2) as api,
        pytest.raises(SourceUnavailableError, match="2 of 3 items of a page"),
    ):
        ids(api.url)


def test_a_search_that_ended_early_once_starts_over():
    short = {"type": "FeatureCollection", "features": OPTICAL[:2], "links": [], "numberMatched": 7}
    with Api(OPTICAL, lambda nth, asked: Reply(200, json.dumps(short).encode()) if nth == 1 else None) as api:
        assert ids(api.url) == {i["id"] for i in OPTICAL}


def test_items_that_pages_repeat_in_place_of_others_are_missed():
    """Seven items on four pages, but one twice and one never: pages without a fixed order."""

    def mischief(nth, asked):
        page = json.loads(api.answer(asked).body)
        page["features"] = [OPTICAL[3] if i["id"] == "S2_00" else i for i in page["features"]]
        return Reply(200, json.dumps(page).encode())

    with (
        Api(OPTICAL, mischief, told=lambda n: {"numberMatched": n}) as api,
        pytest.raises(SourceUnavailableError, match="6 of 7 items"),
    ):
        ids(api.url)


def test_an_item_that_is_removed_while_pages_are_read():
    """The last page's number counts."""
    with Api(OPTICAL) as api:
        counts = iter([8, 8, 8, 7])
        api.told = lambda matched: {"numberMatched": next(counts)}
        assert ids(api.url) == {i["id"] for i in OPTICAL}


def test_a_number_that_may_be_an_estimate_is_warned_about(caplog):
    with Api(OPTICAL, told=lambda n: {"numberMatched": ESTIMATED + 7}) as api:
        assert ids(api.url) == {i["id"] for i in OPTICAL}
    assert f"7 of {ESTIMATED + 7} items" in caplog.text


@pytest.mark.parametrize("told", [{"numberMatched": None}, {"numberMatched": "unknown"}, {"context": None}])
def test_a_number_that_is_not_told(told):
    with Api(OPTICAL, told=lambda n: told) as api:
        assert ids(api.url) == {i["id"] for i in OPTICAL}


# --- near 180 degrees -------------------------------------------------------------------------------------------------

WRITTEN = {
    "as it is": lambda shape: shape,
    "from the other side": lambda shape: affinity.translate(shape, xoff=-360 if shape.centroid.x > 0 else 360),
    "split": lambda shape: shapely.union_all(split(shape)),
    "jumping": lambda shape: shapely.transform(shape, lambda x, y: (wrapped(x), y), interleaved=False),
}


def found_near(place, footprint, mischief=lambda nth, asked: None, **more):
    shape = shapely.geometry.mapping(footprint)
    with Api([item("A", geometry=shape)], mischief, **more) as api:
        found = search([tile_around(*place)], [YEAR], MPC, client=Client(), catalog=api.url)
    return len(found), api.asked


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("width", [0.2, 2.4], ids=["narrow", "wide"])
@pytest.mark.parametrize("place", [(179.3, -17), (179.97, -17), (-179.97, 66), (-178, 66)])
def test_footprints_near_180_degrees_are_found_however_they_are_written(place, width, written):
    """A narrow one lies wholly on one side of the border, or beyond it."""
    lon, lat = place
    around = shapely.box(lon - width, lat - 0.5, lon + width, lat + 0.5)
    assert found_near(place, WRITTEN[written](around))[0] == 1
    assert found_near(place, WRITTEN[written](affinity.translate(around, yoff=3)))[0] == 0
    assert found_near(place, WRITTEN[written](affinity.translate(around, xoff=2 * width + 0.4)))[0] == 0


def test_far_from_180_degrees_one_box_is_asked_for():
    assert len(found_near((3, 47), shapely.box(2, 46, 4, 48))[1]) == 1
    assert len(found_near((174.8, -41.3), shapely.box(2, 46, 4, 48))[1]) == 1


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_that_takes_no_longitudes_beyond_180_degrees(status):
    def mischief(nth, asked):
        west, _, east, _ = asked.fields["bbox"]
        return Reply(status) if west < -180 or east > 180 else None

    crossing = shapely.box(178.5, -18, 181, -16)
    assert found_near((179.3, -17), crossing, mischief)[0] == 1
    assert found_near((-179.3, -17), crossing, mischief)[0] == 1
    with pytest.raises((SourceRefusedError, SourceUnavailableError)):
        found_near((179.3, -17), crossing, lambda nth, asked: Reply(status))
