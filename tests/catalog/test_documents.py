"""Documents of items: one page of a search is refused, items find their collection, folders their catalogue."""

import json
import logging

import pytest

from tessera_cli.catalog import MPC, search
from tessera_cli.errors import UsageError
from tessera_cli.net import Client
from tests.catalog.test_search import TILE, YEAR, item

ITEMS = [item("S2"), item("S1", "sentinel-1-rtc")]


def scenes(location):
    return search([TILE], [YEAR], MPC, client=Client(), catalog=str(location))


def ids(location):
    return sorted(scene.id for scene in scenes(location).scenes)


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def nameless(item):
    return {key: value for key, value in item.items() if key != "collection"}


def link(rel, href):
    return {"rel": rel, "href": href}


NEXT, PREVIOUS = link("next", "https://x.test/search?token=2"), link("prev", "https://x.test/search")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ({"links": [NEXT]}, "holds 2 items and links to another page"),
        ({"links": [PREVIOUS]}, "holds 2 items and links to another page"),
        ({"numberMatched": 38}, "holds 2 of 38 items"),
        ({"context": {"matched": 38, "returned": 2}, "links": [NEXT]}, "holds 2 of 38 items"),
        (
            {"numberMatched": 38, "links": [link("root", "https://x.test/v1?key=SECRET")]},
            r"the API \(https://x.test/v1\)",
        ),
    ],
)
def test_a_saved_page_of_a_search_is_refused(tmp_path, page, words):
    path = written(tmp_path / "page.json", {"type": "FeatureCollection", "features": ITEMS, **page})
    with pytest.raises(UsageError, match=f"{path} is one page of a search: .*{words}"):
        ids(path)
    above = written(tmp_path / "catalog.json", {"type": "Catalog", "id": "c", "links": [link("child", "page.json")]})
    with pytest.raises(UsageError, match=f"{path} is one page"):
        ids(above)


@pytest.mark.parametrize("page", [{"numberMatched": 2, "links": [NEXT]}, {"numberMatched": 1}, {"links": []}])
def test_a_saved_search_that_holds_all_is_complete(tmp_path, page):
    path = written(tmp_path / "page.json", {"type": "FeatureCollection", "features": ITEMS, **page})
    assert ids(path) == ["S1", "S2"]


def test_items_belong_to_the_collection_above_them(tmp_path):
    for number, one in enumerate(ITEMS):
        folder = tmp_path / f"c{number}"
        written(folder / "item.json", nameless(one))
        rows = {"type": "Collection", "id": one["collection"], "links": [link("item", "./item.json")]}
        written(folder / "collection.json", rows)
    root = {"type": "Catalog", "id": "r", "links": [link("child", f"./c{n}/collection.json") for n in range(2)]}
    assert ids(written(tmp_path / "catalog.json", root)) == ["S1", "S2"]
    rows["links"] = [link("items", "./items.json")]  # one list in place of links to each
    written(folder / "collection.json", rows)
    written(folder / "items.json", {"type": "FeatureCollection", "features": [nameless(ITEMS[1])]})
    assert ids(tmp_path) == ["S1", "S2"]


@pytest.mark.parametrize(
    "href", ["https://x.test/collections/{}", "../{}/collection.json", "./{}.json", "https://x.test/collections/{}/"]
)
def test_items_belong_to_the_collection_that_they_link_to(tmp_path, href):
    features = [{**nameless(one), "links": [link("collection", href.format(one["collection"]))]} for one in ITEMS]
    path = written(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    assert ids(path) == ["S1", "S2"]


def test_items_of_no_collection_are_counted(tmp_path):
    features = [nameless(ITEMS[0]), {**nameless(ITEMS[1]), "links": [link("collection", "./collection.json")]}]
    path = written(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    assert scenes(path).skipped == {"without a collection": 2}


@pytest.mark.parametrize("name", ["catalog.json", "items.json", "collection.json", "items.ndjson"])
def test_a_folder_that_holds_a_catalogue(tmp_path, name):
    written(tmp_path / "items" / "S2.json", ITEMS[0])
    written(tmp_path / "aoi.geojson", {"type": "FeatureCollection", "features": []})
    tree = {"id": "x", "links": [link("item", "./items/S2.json")]}
    made = {
        "catalog.json": {"type": "Catalog", **tree},
        "collection.json": {"type": "Collection", **tree},
        "items.json": {"type": "FeatureCollection", "features": ITEMS[:1]},
        "items.ndjson": ITEMS[0],
    }
    written(tmp_path / name, made[name])
    assert ids(tmp_path) == ["S2"]


def test_of_two_catalogues_in_a_folder_the_one_that_is_read_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    written(tmp_path / "items.json", {"type": "FeatureCollection", "features": ITEMS})
    written(tmp_path / "catalog.json", {"type": "Catalog", "id": "x", "links": []})
    assert ids(tmp_path) == []
    assert f"{tmp_path} holds catalog.json, items.json; reading the first" in caplog.text


def test_a_catalogue_without_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tessera_cli.catalog.documents.MAX_DOCUMENTS", 7)
    monkeypatch.setattr("tessera_cli.catalog.documents.TOLD", 3)
    caplog.set_level("INFO")
    for nth in range(20):
        written(tmp_path / f"{nth}.json", {"type": "Catalog", "id": "x", "links": [link("child", f"./{nth + 1}.json")]})
    with pytest.raises(UsageError, match=r"0\.json has no end: 7 documents"):
        scenes(tmp_path / "0.json")
    assert "3 documents so far" in caplog.text
