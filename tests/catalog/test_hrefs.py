"""Hrefs of items: from where they count, what is left of them, and which lead to nothing that we can read."""

import gzip
import json
import os
import re
import shutil
import stat
import time

import pytest

from tessera_cli.catalog import MPC, Scene, Scenes, search
from tessera_cli.catalog.hrefs import REFUSED, SIGNED, absolute, cleared
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tessera_cli.net import Client
from tessera_cli.net.address import AddressError
from tessera_cli.net.reach import Reach
from tests.catalog.test_search import YEAR, as_static_catalog, item
from tests.helpers.fake_catalogs import Api, Reply
from tests.helpers.servers import FileServer, always, status

PAGE = "https://api.test/v1/search"
ANYWHERE = Reach(everywhere=True, outside=True)
SELF = "https://api.test/v1/collections/c/items/i"


def href_of(href, location, origin=None, reach=ANYWHERE, **how):
    links = [{"rel": "root", "href": "/"}, {"rel": "self", "href": origin}] if origin else []
    given = {"id": "i", "links": links, "assets": {"B02": {"href": href, "type": "image/tiff"}}}
    (asset,) = absolute(given, location, reach, **how)["assets"].values()
    assert asset["type"] == "image/tiff"
    return asset.get(REFUSED) or asset["href"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "https://api.test/v1/x.tif"),
        (SELF, "https://api.test/v1/collections/c/items/x.tif"),
        ("/stac/items/i", "https://api.test/stac/items/x.tif"),
        ("https://other.test/i", "https://other.test/x.tif"),
        ("file:///etc/i", "https://api.test/v1/x.tif"),
        ("https://a\\@b/i", "https://api.test/v1/x.tif"),
        (7, "https://api.test/v1/x.tif"),
    ],
)
def test_a_page_from_the_web_leaves_the_base_to_the_item(origin, expected):
    assert href_of("./x.tif", PAGE, origin) == expected


def test_a_document_of_its_own_counts_from_where_it_was_read():
    assert href_of("x.tif", "https://mirror.test/c/i.json", SELF, listed=False) == "https://mirror.test/c/x.tif"
    assert href_of("/x.tif", "https://mirror.test/c/i.json", SELF, listed=False) == "https://mirror.test/x.tif"


def test_a_copy_on_this_machine_counts_from_the_document_unless_the_file_is_not_here(tmp_path):
    for name in ("here.tif", "my file.tif"):
        (tmp_path / name).touch()
    document = str(tmp_path / "items.json")
    for listed in (True, False):
        assert href_of("./here.tif", document, SELF, listed=listed) == str(tmp_path / "here.tif")
        assert href_of("my%20file.tif", document, SELF, listed=listed) == str(tmp_path / "my file.tif")
        assert href_of("../x.tif", document, SELF, listed=listed) == "https://api.test/v1/collections/c/x.tif"
        assert href_of("/no/x.tif", document, SELF, listed=listed) == "https://api.test/no/x.tif"
        assert href_of("/no/x.tif", document, "./i.json", listed=listed) == "/no/x.tif"
        assert href_of("file:///no/x.tif", document, SELF, listed=listed) == "file:///no/x.tif"


def test_items_without_links_or_assets_of_use():
    given = {"id": "i", "links": None, "assets": {"a": None, "b": {}, "c": {"href": None}, "d": {"href": "/x"}}}
    assert absolute(given, PAGE, Reach())["assets"] == {"d": {"href": "https://api.test/x"}}
    assert absolute({"id": "i", "links": ["x", {"rel": "self"}]}, PAGE, Reach())["assets"] == {}


# --- what scenes keep of them -----------------------------------------------------------------------------------------


def with_href(href, key="B04", name="A"):
    made = item(name)
    made["assets"][key] = {"href": href}
    return made


@pytest.mark.parametrize(
    ("href", "why"),
    [
        ("s3://private/x.tif", "lies in the bucket private, which is not open"),
        ("S3://private/x.tif", "lies in the bucket private, which is not open"),
        ("https://sentinel-s2-l2a.s3.eu-central-1.amazonaws.com/x.jp2", "bucket sentinel-s2-l2a, which is not open"),
        ("gs://bucket/x.tif", r"\(gs://bucket/x.tif\) is refused: only http"),
        ("abfs://c@a.dfs.test/x.tif", "refused: only http"),
        ("/vsicurl/https://x.test/x.tif", "refused: only http"),
        ("file://other.test/x.tif", "another machine"),
        ("https://user:s3cret@x.test/x.tif", r"\(https://x.test/x.tif\) is refused: it holds a user name"),
        ("https://evil.test\\@x.test/x.tif?s3cret", "backslash"),
        ("https://x.test/\n\x1b[2J.tif", r"\(https://x.test/\?\?\[2J.tif\) is refused: .*control"),
    ],
)
def test_a_scene_tells_which_href_cannot_be_read(href, why):
    """A missing scene, as with an asset that is not listed: the run goes on without."""
    scene = Scene.from_item(with_href(href), MPC)
    assert scene.missing == ("B04",)
    assert re.search(f"^asset B04 .*{why}", scene.defect)
    assert "s3cret" not in scene.defect


def test_what_was_refused_stays_refused_when_the_list_is_frozen(tmp_path):
    refused = absolute(with_href("file:///etc/passwd"), PAGE, Reach())
    scene = Scene.from_item(json.loads(json.dumps(Scene.from_item(refused, MPC).item)), MPC)
    assert scene.missing == ("B04",)
    assert scene.defect == (
        "asset B04 (file:///etc/passwd) is refused: a document from the web may name web addresses only"
    )


def test_signatures_are_neither_frozen_nor_hashed():
    href = "https://x.test/B04.tif"
    plain, first, second = (
        Scenes.from_items([with_href(f"{href}{query}")], MPC)
        for query in ("", "?X-Amz-Date=1&X-Amz-Signature=s3cret", "?sv=2&sig=s3cret")
    )
    assert plain.digest == first.digest == second.digest
    assert first.signatures == {href: "X-Amz-Date=1&X-Amz-Signature=s3cret"}
    for scenes in (first, second):
        (scene,) = scenes.scenes
        assert scene.item["assets"]["B04"] == {"href": href, SIGNED: True}
        assert scene.signed
        assert "s3cret" not in json.dumps(list(scenes.to_ndjson())) + repr(scene) + repr(scenes)
        (thawed,) = Scenes.from_items(json.loads(json.dumps(list(scenes.to_ndjson()))), MPC).scenes
        assert json.dumps(thawed.item) == json.dumps(scene.item)
        assert (thawed.signed, thawed.signatures) == (True, {})
    assert not plain.scenes[0].signed
    (scene,) = Scenes.from_items([with_href(f"{href}?file=7&sig=s3cret")], MPC).scenes
    assert scene.item["assets"]["B04"]["href"] == f"{href}?file=7"  # without which it cannot be read


def test_digests_of_hrefs_without_queries_are_those_of_earlier_versions():
    import hashlib

    for href in ("https://x.test/a b%20c.tif", "/data/a?b#c.tif", "file:///data/a%20b.tif", "HTTPS://x.test/a.tif"):
        hrefs = {**item("A")["assets"], "B04": {"href": href}}
        line = json.dumps(["A", *(hrefs[key]["href"] for key in MPC.s2_assets.values())]).encode() + b"\n"
        assert Scenes.from_items([with_href(href)], MPC).digest == hashlib.sha256(line).hexdigest()


# --- documents and servers --------------------------------------------------------------------------------------------


def found_at(location, reach=None):
    tiles = [Tile(32630, 116, 1132), Tile(32630, 117, 1132)]
    return search(tiles, [YEAR], MPC, client=Client(reach=reach or Reach()), catalog=str(location))


def hrefs(scenes):
    return sorted(asset["href"] for scene in scenes.scenes for asset in scene.item["assets"].values())


def test_a_static_catalogue_over_http(catalog):
    """Also with links and hrefs from the root of the server, and by way of a redirect."""
    items = json.loads(catalog.items.read_text())["features"]
    static = as_static_catalog(catalog.folder, items)
    local = hrefs(found_at(static, ANYWHERE))
    with FileServer(catalog.folder) as server:
        expected = [href.replace(str(catalog.folder), server.url) for href in local]
        assert hrefs(found_at(f"{server.url}/static/catalog.json")) == expected
        for path in static.parent.rglob("*.json"):
            text = path.read_text().replace('"../../cogs', '"/cogs').replace('"./S', '"/static/S')
            path.write_text(text.replace('"collection.json', '"/static/collection.json'))
        assert hrefs(found_at(f"{server.url}/static/catalog.json")) == expected
        moved = status(302, {"Location": f"{server.url}/static/catalog.json"})
        with FileServer(catalog.folder, faults=always(moved)) as old:
            assert hrefs(found_at(f"{old.url}/latest.json")) == expected
        signed = status(302, {"Location": f"{server.url}/static/catalog.json?X-Amz-Signature=s3cret"})
        with FileServer(
            catalog.folder, faults=always(signed, "static/catalog.json")
        ) as gate:  # a way in, no other place
            found = hrefs(found_at(f"{gate.url}/static/catalog.json"))
            assert found == [href.replace(server.url, gate.url) for href in expected]


def test_a_catalogue_that_redirects_to_its_own_child_ends(catalog):
    items = json.loads(catalog.items.read_text())["features"]
    static = as_static_catalog(catalog.folder, items)
    root = json.loads(static.read_text())
    with FileServer(catalog.folder) as server:
        root["links"].append({"rel": "child", "href": "again.json"})
        static.write_text(json.dumps(root))
        moved = status(302, {"Location": f"{server.url}/static/catalog.json"})
        server.faults = lambda request: moved if request.path.endswith("again.json") else None
        assert len(found_at(f"{server.url}/static/catalog.json")) == 7


@pytest.mark.parametrize("href", ["file:///etc/passwd", "/\\x", "http://u:p@x.test/c"])
def test_links_that_are_refused_are_named(tmp_path, href):
    root = {"type": "Catalog", "id": "c", "links": [{"rel": "child", "href": href}]}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    with FileServer(tmp_path) as server, pytest.raises(UsageError, match=r"catalog.json links to .* refused"):
        found_at(f"{server.url}/catalog.json")


@pytest.mark.parametrize("kind", ["items.ndjson", "items.ndjson.gz", "items.parquet"])
def test_lists_of_items_over_http(catalog, kind):
    from tests.catalog.test_tables import write

    items = json.loads(catalog.items.read_text())["features"]
    expected = hrefs(found_at(catalog.items))
    for each in items:
        each["links"] = [{"rel": "self", "href": f"/stac/items/{each['id']}/", "type": "application/json"}]
        for asset in each["assets"].values():
            asset["href"] = "../../a" + asset["href"].removeprefix(".")
    if kind.endswith("parquet"):
        pytest.importorskip("pyarrow")
        write(catalog.folder / kind, items)
    else:
        text = "\n".join(map(json.dumps, items)).encode()
        (catalog.folder / kind).write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    with FileServer(catalog.folder) as server:
        found = hrefs(found_at(f"{server.url}/{kind}"))
        assert [href.replace(f"{server.url}/stac/a", str(catalog.folder)) for href in found] == expected


def test_files_of_a_local_document_by_every_spelling(catalog, monkeypatch):
    folder = catalog.folder / "my files"
    shutil.move(catalog.folder / "cogs", folder / "cogs")
    spellings = {
        "./my%20files/": f"{folder}/",
        "my files/": f"{folder}/",
        f"file://{catalog.folder}/my%20files/": f"file://{catalog.folder}/my%20files/",
        f"file:{catalog.folder}/my%20files/": f"file:{catalog.folder}/my%20files/",
        f"file://localhost{catalog.folder}/my%20files/": f"file://localhost{catalog.folder}/my%20files/",
    }
    written = catalog.items.read_text()
    from tessera_cli.imagery.files import Files

    for spelled, expected in spellings.items():
        catalog.items.write_text(written.replace('"./', f'"{spelled}'))
        found = hrefs(found_at(catalog.items))
        assert all(href.startswith(expected) for href in found)
        assert found == hrefs(found_at(f"file://{catalog.folder}/items.json"))
        assert Files(Client()).open(found[0]).header.shape
    with pytest.raises(UsageError, match="another machine"):
        found_at(f"file://other.test{catalog.items}")
    for location in ("s3://bucket/items.json", "gs://bucket/items.json"):
        with pytest.raises(UsageError, match="only http"):
            found_at(location)


class Site(Api):
    """A STAC API that serves a folder of files as well."""

    def __init__(self, items, folder):
        self.folder = folder
        super().__init__(items)

    def answer(self, asked):
        path = self.folder / asked.path.removeprefix("/data/")
        if asked.path.startswith("/data/"):
            return Reply(200, path.read_bytes(), {"Content-Type": "image/tiff"}) if path.is_file() else Reply(404)
        return super().answer(asked)


@pytest.mark.parametrize("kind", ["root", "item", "page"])
def test_an_api_never_names_a_file_of_this_machine(catalog, tessera, tmp_path, monkeypatch, kind):
    """Where files with just these names lie below the working directory, and other pixels in them."""
    from tests.runs.test_embed import hashes

    direct = tmp_path / "direct"
    assert tessera("embed", *catalog.options(direct))[0] == 0
    items = json.loads(catalog.items.read_text())["features"]
    relative = {"root": "/data/", "item": "../../../../data/", "page": "./data/"}[kind]
    for each in items:
        if kind == "item":
            each["links"] = [{"rel": "self", "href": f"/v1/collections/c/items/{each['id']}"}]
        for asset in each["assets"].values():
            asset["href"] = relative + asset["href"].removeprefix("./")
    here = tmp_path / "trap" / "a" / "b" / "c" / "d"
    here.mkdir(parents=True)
    for place in (here / "data", here.parents[3] / "data"):
        place.mkdir()
        files = sorted((catalog.folder / "cogs").rglob("*.tif"))
        for path, other in zip(files, files[1:] + files[:1], strict=True):
            target = place / path.relative_to(catalog.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(other, target)
    monkeypatch.chdir(here)
    with Site(items, catalog.folder) as site:
        options = catalog.options(tmp_path / "out")
        options[options.index("--catalog") + 1] = site.url
        code, _, stderr = tessera("embed", *options)
    assert code == 0, stderr
    assert hashes(tmp_path / "out") == hashes(direct)


# --- what a catalogue may name ----------------------------------------------------------------------------------------

INSIDE = ("http://127.0.0.1:8000/x.tif", "http://169.254.169.254/x.tif", "http://10.0.0.1/x.tif", "http://[::1]/x.tif")


@pytest.mark.parametrize("href", INSIDE)
def test_a_host_inside_is_refused_until_the_user_allows_it(href):
    refused = absolute(with_href(f"{href}?v=2"), PAGE, Reach())
    (scene,) = frozen = Scenes.from_items([refused], MPC).scenes
    assert scene.missing == ("B04",)
    assert "--allow-private-hosts lets a catalogue name such hosts" in scene.defect
    scenes = Scenes(MPC, frozen)
    assert scenes.permitted(Reach()).scenes[0].missing == ("B04",)
    (allowed,) = scenes.permitted(Reach(everywhere=True)).scenes
    assert allowed.missing == ()
    assert allowed.item["assets"]["B04"] == {"href": f"{href}?v=2"}
    (again,) = Scenes(MPC, (allowed,)).permitted(Reach()).scenes
    assert again.missing == ("B04",)


def test_what_a_page_on_the_web_was_refused_no_catalogue_here_allows_later(tmp_path):
    """The user's own catalogue may name any host, and links to pages of others that may not."""
    refused = absolute(with_href(INSIDE[0]), PAGE, Reach())
    reach = Reach()
    reach.add(str(tmp_path))
    (scene,) = Scenes(MPC, Scenes.from_items([refused], MPC).scenes).permitted(reach).scenes
    assert scene.missing == ("B04",)


def test_what_is_frozen_holds_no_password():
    refused = absolute(with_href("https://user:s3cret@x.test/x.tif?s3cret"), PAGE, ANYWHERE)
    (scene,) = Scenes.from_items([refused], MPC).permitted(ANYWHERE).scenes
    assert scene.missing == ("B04",)
    assert "s3cret" not in json.dumps(scene.item)


def test_frozen_items_hold_what_is_used_and_no_secrets():
    signed = "https://x.test/a?file=7&X-Amz-Signature=s3cret"
    made = with_href("https://x.test/B04.tif")
    made |= {"secret": "s3cret", "alternate": {"href": signed}}
    made["properties"] |= {"note": f"see {signed} and https://u:s3cret@x.test/b, s3://k:s3cret@x/y?sig=s3cret"}
    made["properties"] |= {"azure": "abfs://c@x.test/y?sig=s3cret", "gdal": f"/vsicurl/{signed}"}
    made["properties"] |= {"thing": [signed, {"deep": "https://u:s3cret@x.test/a"}], "words": "a://b? c"}
    made["assets"]["B04"] |= {"proj:more": signed, "alternate": {"s3": {"href": signed}}, "title": signed}
    (scene,) = Scenes.from_items([made], MPC).scenes
    assert "s3cret" not in json.dumps(scene.item)
    assert scene.item["properties"]["thing"] == ["https://x.test/a?file=7", {"deep": "https://x.test/a"}]
    assert scene.item["properties"]["words"] == "a://b? c"
    assert scene.item["properties"]["note"] == "see https://x.test/a?file=7 and https://x.test/b, s3://x/y"
    assert scene.item["properties"]["azure"] == "abfs://c@x.test/y"
    (scene,) = Scenes.from_items([with_href("s3://bucket/x.tif?X-Amz-Signature=s3cret")], MPC).scenes
    assert "s3cret" not in json.dumps(scene.item)


@pytest.mark.parametrize("text", ["a" * 10**6 + "://", "a://" + ":" * 10**6, "a://" * 10**5, "a://b?sig=" * 10**5])
def test_long_texts_are_cleared_in_no_time(text):
    begun = time.monotonic()
    cleared(text)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(("query", "mode"), [("", 0o644), ("?v=7", 0o600), ("?sig=s3cret", 0o644)])
def test_a_list_whose_hrefs_have_queries_is_for_its_owner_alone(tmp_path, query, mode):
    from tessera_cli.folders.folder import TileFolder

    scenes = Scenes.from_items([with_href(f"https://x.test/B04.tif{query}")], MPC)
    before = os.umask(0o022)
    try:
        TileFolder(tmp_path).start_run("run", {}, scenes)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scenes.ndjson.gz").stat().st_mode) == mode


def test_a_catalogue_here_names_files_below_its_folder(catalog, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    items = json.loads(catalog.items.read_text())
    for each in items["features"]:
        for asset in each["assets"].values():
            asset["href"] = str(catalog.folder / asset["href"])
    (other / "items.json").write_text(json.dumps(items))
    expected = hrefs(found_at(catalog.items))
    for location in (other, other / "items.json", f"file://{other}/items.json"):
        with pytest.raises(
            UsageError, match=rf"names \d+ files outside its own folder, such as {catalog.folder}/.*-outside"
        ):
            found_at(location)
        assert hrefs(found_at(location, Reach(outside=True))) == expected
    (catalog.folder / "other").symlink_to(other)
    with pytest.raises(UsageError, match="outside its own folder"):
        found_at(catalog.folder / "other" / "items.json", Reach(everywhere=True))
    root = {"type": "Catalog", "id": "c", "links": [{"rel": "child", "href": str(other / "items.json")}]}
    (catalog.folder / "catalog.json").write_text(json.dumps(root))
    with pytest.raises(UsageError, match=r"links to .*, which is refused: it lies outside .*--allow-outside"):
        found_at(catalog.folder / "catalog.json")


def test_a_search_page_that_leads_inside_is_not_followed():
    """As a link of a landing page, or to the next page."""
    from tessera_cli.catalog.api import search_link
    from tessera_cli.catalog.documents import Document

    landing = {"links": [{"rel": "search", "href": "http://169.254.169.254/search"}]}
    with pytest.raises(AddressError, match="link-local network"):
        search_link(Document("https://api.test/v1", landing), Client(reach=Reach()))
