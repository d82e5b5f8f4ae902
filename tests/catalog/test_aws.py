"""Source `aws`: Earth Search for Sentinel-2, OPERA RTC-S1 for radar."""

import dataclasses
import datetime as dt
import gzip
import json
from urllib.parse import parse_qs

import numpy as np
import pytest
import rasterio
import shapely

from tessera_cli.catalog import AWS, MPC, Scenes, Sensor, by_date, search
from tessera_cli.catalog.scene import Scene, SkippedItem
from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window, day_of_year
from tessera_cli.net import Client
from tests.helpers import servers
from tests.helpers.fake_catalogs import Api, Asked, Cmr, granule, jwt
from tests.helpers.servers import FileServer, always, status

TILE = Tile(32631, 112, 1098)
OUTLINE = TILE.outline.buffer(0.1)
YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
COGS = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs"
OPERA = "OPERA_L2_RTC-S1_V1"
TOKEN = "s3cret-t0ken"


def feature(item_id, collection, when, assets, geometry=OUTLINE, **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": collection,
        "links": [],
        "geometry": shapely.geometry.mapping(geometry),
        "properties": {"datetime": when, **properties},
        "assets": {key: {"href": href} for key, href in assets.items()},
    }


def s2(item_id="S2A_31UDQ_20210701_0_L2A", when="2021-07-01T10:56:31.024000Z", *, assets=None, cloud=10.0, **more):
    named = {key: f"{COGS}/{item_id}/{key}.tif" for key in AWS.s2_assets.values()}
    return feature(item_id, "sentinel-2-l2a", when, named | (assets or {}), **{"eo:cloud_cover": cloud}, **more)


def s1(item_id="B", when="2021-07-01T05:00:00.000Z", *, pols=("VV", "VH"), **more):
    return feature(item_id, OPERA, when, {pol: f"https://x.test/{item_id}_{pol}.tif" for pol in pols}, **more)


def scenes(*items):
    return Scenes.from_items(items, AWS)


def order(*items):
    forwards, backwards = (([scene.id for scene in scenes(*given).scenes]) for given in (items, items[::-1]))
    assert forwards == backwards
    return forwards


# --- what a scene is --------------------------------------------------------------------------------------------------


def test_the_asset_keys_of_earth_search():
    """Spec 1.1, in the order of the bands of a d-pixel."""
    keys = ("red", "blue", "green", "nir", "nir08", "rededge1", "rededge2", "rededge3", "swir16", "swir22")
    assert AWS.s2_band_assets == keys
    assert S2_BANDS == ("B04", "B02", "B03", "B08", "B8A", "B05", "B06", "B07", "B11", "B12")
    assert AWS.scl_asset == "scl"
    extra = {f"{key}-jp2": f"s3://sentinel-s2-l2a/{key}.jp2" for key in (*keys, "scl")}
    (scene,) = scenes(s2(assets=extra)).scenes
    assert set(scene.item["assets"]) == {*keys, "scl"}
    assert scene.missing == ()
    assert scene.defect is None


def test_the_collection_of_the_newer_baseline_is_not_mixed_in():
    with pytest.raises(SkippedItem, match="collection sentinel-2-c1-l2a"):
        Scene.from_item({**s2(), "collection": "sentinel-2-c1-l2a"}, AWS)


@pytest.mark.parametrize(("cloud", "used"), [(99.999, True), (100.0, False), (100, False), (None, False), (0, True)])
def test_the_cloud_filter(cloud, used):
    assert bool(len(scenes(s2(cloud=cloud)))) is used


def test_radar_tells_its_orbit_in_the_file_alone():
    for more in ({}, {"sat:orbit_state": "descending"}):
        assert [scene.sensor for scene in scenes(s1(**more)).scenes] == [Sensor.S1]


@pytest.mark.parametrize("pols", [("HH", "HV"), ("VV",), ("VH", "HH")])
def test_radar_without_both_polarisations_is_counted(pols):
    assert scenes(s1(pols=pols)).skipped == {f"without both VV and VH (has {', '.join(sorted(pols))})": 1}


def test_keys_are_known_in_any_case_and_spelled_our_way():
    (radar,) = scenes(s1(pols=("vv", "Vh"))).scenes
    assert {key: asset["href"] for key, asset in radar.item["assets"].items()} == {
        "VV": "https://x.test/B_vv.tif",
        "VH": "https://x.test/B_Vh.tif",
    }
    item = s2()
    item["assets"] = {key.upper(): asset for key, asset in item["assets"].items()}
    (optical,) = scenes(item).scenes
    assert set(optical.item["assets"]) == {*AWS.s2_band_assets, "scl"}
    exact = s1()
    exact["assets"]["vv"] = {"href": "https://x.test/other.tif"}
    assert scenes(exact).scenes[0].item["assets"]["VV"]["href"] == "https://x.test/B_VV.tif"


def test_an_asset_without_an_href_is_not_listed():
    item = s2()
    item["assets"]["red"] = {"type": "image/tiff"}
    item["assets"]["scl"] = None
    (scene,) = scenes(item).scenes
    assert scene.missing == ("red", "scl")
    assert scene.defect == "asset red, scl is not listed"


def test_open_buckets_are_read_over_the_web():
    (scene,) = scenes(s2(assets={"red": "s3://sentinel-cogs/sentinel-s2-l2a-cogs/31/U/DQ/B04.tif"})).scenes
    assert scene.item["assets"]["red"]["href"] == f"{COGS}/31/U/DQ/B04.tif"
    assert scene.missing == ()


@pytest.mark.parametrize(
    ("href", "bucket"),
    [
        ("s3://sentinel-s2-l2a/tiles/31/U/DQ/2021/7/1/0/R10m/B04.jp2", "sentinel-s2-l2a"),
        ("https://sentinel-s2-l2a.s3.eu-central-1.amazonaws.com/tiles/31/U/DQ/B04.jp2", "sentinel-s2-l2a"),
        ("s3://somebodys-own/B04.tif", "somebodys-own"),
    ],
)
def test_buckets_that_are_not_open_make_a_scene_unreadable(href, bucket):
    item = s2(assets={"red": href})
    del item["assets"]["nir"]
    (scene,) = scenes(item).scenes
    assert scene.missing == ("red", "nir")
    assert scene.defect == f"asset nir is not listed; asset red lies in the bucket {bucket}, which is not open"
    (thawed,) = scenes(json.loads(json.dumps(scene.item))).scenes
    assert (thawed.missing, thawed.defect) == (scene.missing, scene.defect)


def test_a_copied_tile_with_the_bucket_in_its_path_is_open():
    href = "https://mirror.test/sentinel-s2-l2a/B04.tif"
    assert scenes(s2(assets={"red": href})).scenes[0].missing == ()


# --- order and dates --------------------------------------------------------------------------------------------------


def test_optical_order_is_the_earliest_granule_first():
    early, late = s2("S2A_31UDQ", "2021-07-01T10:56:31.024000Z"), s2("S2A_31UDR", "2021-07-01T10:56:17.024000Z")
    twin = s2("S2B_31UDQ", "2021-07-01T10:56:31.024000Z")
    assert order(early, late, twin) == ["S2A_31UDR", "S2B_31UDQ", "S2A_31UDQ"]


def test_radar_order_is_time_up_then_id_up():
    a, b = s1("A", "2021-07-01T05:00:03.000Z"), s1("B", "2021-07-01T05:00:00.000Z")
    c, d = s1("C", "2021-07-01T05:00:00.000Z"), s1("D", "2021-06-30T23:59:59.000Z")
    assert order(a, b, c, d) == ["D", "B", "C", "A"]


def test_c11_c10_optical_ties_go_by_the_text_of_the_datetime():
    assert order(s2("A", "2021-07-01T11:00:00.500Z"), s2("B", "2021-07-01T11:00:00Z")) == ["A", "B"]
    assert order(s2("A", "2021-07-01T11:00:00Z"), s2("C", "2021-07-01T10:59:00Z")) == ["C", "A"]


def test_c16_dates_are_utc():
    """Near the antimeridian the sun has another date."""
    east = shapely.box(178.9, -17, 179.1, -16)
    last = [s2("O", "2021-12-31T23:59:59Z", geometry=east), s1("R", "2021-12-31T23:59:59.000Z", geometry=east)]
    leap = s1("L", "2024-12-31T23:59:59.999Z", geometry=east)
    dates = np.array([scene.date for scene in scenes(*last, leap).scenes], "datetime64[D]")
    assert dates.astype(str).tolist() == ["2021-12-31", "2021-12-31", "2024-12-31"]
    assert day_of_year(dates).tolist() == [365, 365, 366]


def test_bursts_of_a_date_are_one_frame():
    made = scenes(
        *(s1(f"B{n}", f"2021-07-01T05:00:{n:02}.000Z") for n in range(9)), s1("C", "2021-07-01T17:00:00.000Z")
    )
    ((date, group), *others) = by_date(made.of(Sensor.S1))
    assert (date, len(group), others) == (dt.date(2021, 7, 1), 10, [])


# --- where scenes are searched ----------------------------------------------------------------------------------------


def found(**catalogues):
    result = search([TILE], [YEAR], AWS, client=Client(), **{name: str(where) for name, where in catalogues.items()})
    return [scene.id for scene in result.scenes]


@pytest.fixture
def document(tmp_path):
    def write(name, *items):
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
        return path

    return write


def burst(title):
    links = {pol: f"https://cumulus.asf.earthdatacloud.nasa.gov/{title}_{pol}.tif" for pol in ("VV", "VH")}
    return granule(title, "2021-07-01T05:00:00.000Z", "2021-07-01T05:00:03.000Z", OUTLINE, links)


def test_by_default_both_live_catalogues_are_asked():
    with Api([s2("O"), s1("not asked for")]) as api, Cmr([burst("R")]) as server:
        aws = dataclasses.replace(AWS, api=api.url, granules=f"{server.url}/search/granules.json")
        result = search([TILE], [YEAR], aws, client=Client())
    assert [scene.id for scene in result.scenes] == ["O", "R"]
    (asked,) = api.asked
    assert (asked.fields["limit"], asked.fields["collections"]) == (100, ["sentinel-2-l2a"])


def test_another_api_and_another_granule_search():
    with Api([s2("O"), s1("not asked for")]) as api, Cmr([burst("R")]) as server:
        assert found(catalog=api.url, radar_catalog=f"{server.url}/search") == ["O", "R"]
        assert found(catalog=api.url, radar_catalog=f"{server.url}/search/granules.json") == ["O", "R"]


def test_a_document_holds_both(document):
    assert found(catalog=document("items.json", s2("O"), s1("R"), {**s1("X"), "collection": "landsat"})) == ["O", "R"]


def test_a_document_of_its_own_for_radar(document):
    both, radar = document("items.json", s2("O"), s1("R")), document("radar.json", s1("S"), s2("not from here"))
    assert found(catalog=both, radar_catalog=radar) == ["O", "S"]
    with Api([s2("P")]) as api:
        assert found(catalog=api.url, radar_catalog=radar) == ["P", "S"]
    with Cmr([burst("T")]) as server:
        assert found(catalog=both, radar_catalog=f"{server.url}/search") == ["O", "T"]


def test_documents_are_filtered_by_place_and_time(document):
    far = shapely.box(10, 40, 11, 41)
    radar = [s1("R"), s1("far", geometry=far), s1("late", "2022-01-01T00:00:00.000Z")]
    assert found(catalog=document("items.json", s2("O")), radar_catalog=document("radar.json", *radar)) == ["O", "R"]


def test_mpc_has_no_radar_catalogue(document):
    radar = str(document("radar.json", s1()))
    with pytest.raises(UsageError, match="--radar-catalog is not for --source mpc"):
        search([TILE], [YEAR], MPC, client=Client(), catalog=radar, radar_catalog=radar)


# --- from the catalogues to the embeddings ----------------------------------------------------------------------------


def as_aws(catalog):
    """The small catalogue under the names of Earth Search and OPERA: items with paths below the catalogue's folder."""
    made = []
    for item in json.loads(catalog.items.read_text())["features"]:
        paths = {key: asset["href"].removeprefix("./") for key, asset in item["assets"].items()}
        if item["collection"] == "sentinel-2-l2a":
            assets = {AWS.s2_assets[key]: {"href": path} for key, path in paths.items()}
            made.append({**item, "assets": assets})
            continue
        assets = {}
        for key, path in paths.items():
            renamed = path.replace(f"{key}.tif", f"{item['id']}_{key.upper()}.tif")
            (catalog.folder / path).rename(catalog.folder / renamed)
            with rasterio.open(catalog.folder / renamed, "r+") as file:
                file.update_tags(ORBIT_PASS_DIRECTION=item["properties"]["sat:orbit_state"].upper())
            assets[key.upper()] = {"href": renamed}
        del item["properties"]["sat:orbit_state"]
        made.append({**item, "collection": OPERA, "assets": assets})
    return made


def at(base, item):
    return {key: f"{base}/{asset['href']}" for key, asset in item["assets"].items()}


def as_granule(item, base):
    start = item["properties"]["datetime"].replace("Z", ".000Z")
    outline = shapely.geometry.shape(item["geometry"])
    return granule(item["id"], start, start.replace("00.000Z", "03.000Z"), outline, at(base, item))


@pytest.fixture
def world(catalog, monkeypatch):
    """Earth Search, and a server of CMR and storage, on loopback; radar is for those with the token."""
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.01)
    monkeypatch.setattr("tessera_cli.net.retries.READ_TIMEOUT", 3000.0)
    monkeypatch.setattr("tessera_cli.net.retries.TOTAL_TIMEOUT", 6000.0)
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    items = as_aws(catalog)

    def guard(request):
        shown = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return None if shown or "S1A" not in request.path else status(401)

    with FileServer(catalog.folder) as storage:
        optical = [
            {**item, "assets": {key: {"href": href} for key, href in at(storage.url, item).items()}}
            for item in items
            if item["collection"] != OPERA
        ]
        bursts = [as_granule(item, storage.url) for item in items if item["collection"] == OPERA]
        with Api(optical) as api, Cmr(bursts) as cmr:
            storage.faults = searched(cmr, guard)
            yield World(catalog, items, api, cmr, storage)


def searched(cmr, faults):
    """The plan of a server that answers the searches of a CMR, too: the token is for its origin."""

    def search(handler, reply):
        request = handler.exchange.request
        fields = {key: values[-1] for key, values in parse_qs(request.query).items()}
        found = cmr.answer(Asked("GET", f"/{request.path}", fields, request.headers))
        handler.send(servers.Reply(found.status, {"Content-Type": "application/json", **found.headers}, found.body))

    return lambda request: search if request.path == "search/granules.json" else faults(request)


@dataclasses.dataclass
class World:
    catalog: object
    items: list
    api: Api
    cmr: Cmr
    storage: FileServer

    def options(self, out, *more):
        where = ["--catalog", self.api.url, "--radar-catalog", f"{self.storage.url}/search", "--source", "aws"]
        area = ["--aoi", self.catalog.aoi, "--year", "2021", "--model", "null", "--threads", "1"]
        return ["embed", *area, *where, "--out", out, *more]


def test_live_catalogues_and_a_local_copy_give_the_same_bytes(world, tessera, tmp_path):
    local = tmp_path / "catalog" / "aws.json"
    features = [{**item, "assets": {k: {"href": h} for k, h in at(".", item).items()}} for item in world.items]
    local.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    where = ["--aoi", world.catalog.aoi, "--year", "2021", "--model", "null", "--threads", "1", "--source", "aws"]
    assert tessera("embed", *where, "--catalog", local, "--out", tmp_path / "local")[0] == 0
    code, stdout, stderr = tessera(*world.options(tmp_path / "live", "--json", "-vv"))
    assert code == 0, stderr
    rasters = sorted(path.name for path in (tmp_path / "local").glob("*.tif"))
    assert len(rasters) == 6
    for name in rasters:
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    with rasterio.open(next((tmp_path / "live").glob("*_counts.tif"))) as counts:
        assert [counts.read(band)[counts.read(band) != 65535].max() for band in (1, 2, 3)] == [4, 2, 1]
    told(stdout + stderr, tmp_path / "live")


@pytest.mark.parametrize("code", [401, 403])
def test_a_token_that_is_refused_ends_the_run_and_is_shown_to_nobody(world, tessera, tmp_path, code, monkeypatch):
    world.storage.faults = searched(world.cmr, always(status(code), "*S1A*"))
    exit_code, stdout, stderr = tessera(*world.options(tmp_path / "out", "--json", "-vv", "--debug"))
    assert exit_code == 77
    assert f"HTTP {code}" in stderr
    assert not list((tmp_path / "out").glob("*.tif"))
    told(stdout + stderr, tmp_path / "out")


def test_an_expired_token_ends_the_run_before_it_is_sent(world, tessera, tmp_path, monkeypatch):
    expired = jwt(-1)
    monkeypatch.setenv("EARTHDATA_TOKEN", expired)
    code, stdout, stderr = tessera(*world.options(tmp_path / "out", "--debug", "-vv"))
    assert code == 77
    assert "EARTHDATA_TOKEN expired on" in stderr
    assert not [exchange for exchange in world.storage.log if "Authorization" in exchange.request.headers]
    told(stdout + stderr, tmp_path / "out", expired)


def told(text, folder, secret=TOKEN):
    """The token stands nowhere."""
    assert secret not in text
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        assert secret.encode() not in (gzip.decompress(content) if path.suffix == ".gz" else content)
