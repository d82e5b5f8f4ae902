"""Faults of servers and of scenes, one by one, through the command: those that end leave no trace, those that stay are
called what they are, in bounded time, and no raster with wrong pixels is left by any."""

import functools
import gzip
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import rasterio

from tests.conftest import SmallCatalog, box_geojson, make_catalog
from tests.helpers import servers
from tests.helpers.servers import FileServer, Tokens, always, served, status

SCENE = "S2A_2021-07-01"
TILE = "utm30n_c0117_r1132_2021"
OUTCOMES = ("read", "absent", "broken", "refused", "unknown")

PASSING = {
    "429 with seconds": (status(429, {"Retry-After": "0"}), "busy"),
    "429 with a date": (status(429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), "busy"),
    **{str(code): (status(code), "server error") for code in (500, 502, 503, 504)},
    "reset": (servers.reset, "unreachable"),
    "reset midway": (servers.reset_midway, "truncated"),
    "truncated": (servers.truncated, "truncated"),
    "page": (servers.page, "error page"),
    "page as data": (servers.page_as_data, "error page"),
    "wrong range": (servers.wrong_range, "truncated"),
}
STALLS = {"silent": servers.silent, "stalled": servers.stalled, "too slow": servers.trickle(60)}
HARMLESS = {
    "whole file": servers.unranged,
    "no size": servers.untold,
    "late": servers.late(0.02),
    "slow": servers.trickle(0.1, pieces=4),
}
FINAL = {
    **{str(code): (status(code), 4, "absent") for code in (404, 410)},
    **{str(code): (status(code), 77, "refused") for code in (401, 403)},
    **{str(code): (status(code), 69, "refused") for code in (400, 416)},
    **{name: (fault, 75, "refused" if "429" in name else "unknown") for name, (fault, _) in PASSING.items()},
    **{name: (fault, 75, "unknown") for name, fault in STALLS.items()},
}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Headers and pixels are requested apart even in small files."""
    servers.hurry(monkeypatch)
    monkeypatch.setattr("tessera_cli.imagery.geotiff.FIRST_READ", 600)


def small_catalog(folder: Path) -> SmallCatalog:
    """Two scenes of Sentinel-2 and three of Sentinel-1, of which the east half counts: the area lies on one tile."""
    catalog = make_catalog(folder)
    catalog.edit(lambda items: [item for item in items if item["id"] not in ("S2A_2021-02-10", "S2A_2021-09-15")])
    west, north = catalog.origin
    catalog.aoi.write_text(json.dumps(box_geojson(west + 232, north - 369, west + 367, north - 32)))
    return catalog


@dataclass(frozen=True)
class Site:
    """A catalogue whose files are on a server."""

    catalog: SmallCatalog
    server: FileServer
    clean: dict[str, str]
    """SHA-256 of all that a run without faults writes for the tile."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    from tessera_cli.cli.app import run

    folder = tmp_path_factory.mktemp("site")
    catalog = small_catalog(folder / "catalog")
    with FileServer(catalog.folder) as server:
        served(catalog.items, server)
        assert run(options(catalog, folder / "clean")) == 0
        yield Site(catalog, server, hashes(folder / "clean"))


@pytest.fixture
def site(running):
    running.server.faults, running.server.tokens = servers.never, None
    running.server.forget()
    yield running
    running.server.faults, running.server.tokens = servers.never, None


def options(catalog: SmallCatalog, out: Path, *more: object) -> list[str]:
    return ["embed", *catalog.options(out), "--dims", "16", "--json", *map(str, more)]


def hashes(out: Path, *patterns: str) -> dict[str, str]:
    paths = [path for pattern in patterns or ("*.tif", f"{TILE}.json") for path in out.glob(pattern)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def rasters(out: Path) -> dict[str, str]:
    found = hashes(out, "*.tif")
    assert len(found) == 3
    return found


def summary(stdout: str) -> dict:
    return json.loads(stdout.splitlines()[-1])


def failed(result: tuple[int, str, str], code: int, outcome: str, *words: str) -> None:
    """The run ended with this code, one line that holds the words, and reads of this outcome."""
    found, stdout, stderr = result
    assert found == code, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("tessera: error:")]
    assert len(errors) == 1, stderr
    assert stderr.splitlines()[-1] == errors[0]
    assert all(word in errors[0] for word in words), errors[0]
    assert "Traceback" not in stderr
    reads = summary(stdout)["network"]["reads"]
    assert reads[outcome] >= 1
    assert {name for name in OUTCOMES if reads[name]} <= {"read", outcome}
    assert summary(stdout)["exit_code"] == code


def nothing_written(out: Path) -> None:
    assert hashes(out, "*.tif", "*.vrt", f"{TILE}.json", "*.part") == {}


# --- faults that end --------------------------------------------------------------------------------------------------


HIT = [f"cogs/{SCENE}/SCL.tif", f"cogs/{SCENE}/B05.tif", "cogs/S1A_2021-03-05/vv.tif"]
"""One file of each kind; faults meet its header and its pixels."""


@pytest.mark.parametrize(("fault", "cause"), PASSING.values(), ids=PASSING)
def test_a_fault_that_ends_leaves_no_trace(site, tessera, tmp_path, fault, cause):
    site.server.faults = lambda request: fault if request.path in HIT and request.nth < 2 else None
    code, stdout, stderr = tessera(*options(site.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert hashes(tmp_path / "out") == site.clean
    network = summary(stdout)["network"]
    met = sum(exchange.path in HIT and exchange.request.nth < 2 for exchange in site.server.log)
    assert met == 2 * 2 * len(HIT)
    assert network["retries"] == {cause: met}
    assert network["requests"] == len(site.server.log)
    assert network["reads"] == {**dict.fromkeys(OUTCOMES, 0), "read": network["reads"]["read"]}


@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS)
def test_a_stall_that_ends_leaves_no_trace(site, tessera, tmp_path, monkeypatch, fault):
    servers.hurry(monkeypatch, silence=1)
    site.server.faults = lambda request: fault if (request.path, request.nth) == (HIT[2], 0) else None
    code, stdout, stderr = tessera(*options(site.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert hashes(tmp_path / "out") == site.clean
    retries = summary(stdout)["network"]["retries"]
    assert retries.keys() == {"stalled"}
    assert retries["stalled"] >= 2


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS)
def test_what_is_odd_or_slow_and_no_fault(site, tessera, tmp_path, fault):
    site.server.faults = always(fault, "*SCL.tif")
    code, stdout, stderr = tessera(*options(site.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert hashes(tmp_path / "out") == site.clean
    assert summary(stdout)["network"]["retries"] == {}


def test_every_request_fails_once(site, tessera, tmp_path):
    troubles = [fault for fault, _ in PASSING.values()]
    site.server.faults = lambda request: None if request.nth else troubles[len(site.server.log) % len(troubles)]
    assert tessera(*options(site.catalog, tmp_path / "out"))[0] == 0
    assert hashes(tmp_path / "out") == site.clean


# --- faults that stay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINAL)
def test_a_fault_that_stays_is_called_what_it_is(site, tessera, tmp_path, monkeypatch, name):
    if name in STALLS:
        servers.hurry(monkeypatch, silence=0.5)
    stays(site, tessera, tmp_path / "out", *FINAL[name], f"{SCENE}/B05.tif")


@pytest.mark.parametrize("asset", [f"{SCENE}/SCL.tif", "S1A_2021-03-05/vv.tif"])
@pytest.mark.parametrize("name", ["404", "403", "503", "page"])
def test_wherever_it_strikes(site, tessera, tmp_path, name, asset):
    stays(site, tessera, tmp_path / "out", *FINAL[name], asset)


def stays(site, tessera, out, fault, code, outcome, asset):
    site.server.faults = always(fault, f"cogs/{asset}")
    started = time.monotonic()
    result = tessera(*options(site.catalog, out))
    assert time.monotonic() - started < 15
    scene, name = asset.removesuffix(".tif").split("/")
    words = [f"{scene}: {name} is absent", "--allow-missing 1"] if code == 4 else [f"{site.server.url}/cogs/{asset}"]
    failed(result, code, outcome, *words)
    nothing_written(out)


@pytest.mark.parametrize("name", ["403", "416", "429 with seconds", "503", "truncated", "page", "page as data"])
def test_what_is_not_proven_to_be_missing_never_counts_as_missing(site, tessera, tmp_path, name):
    fault, code, outcome = FINAL[name]
    site.server.faults = always(fault, f"cogs/{SCENE}/B05.tif")
    failed(tessera(*options(site.catalog, tmp_path / "out", "--allow-missing", 99)), code, outcome)
    nothing_written(tmp_path / "out")


def test_a_server_that_is_down(site, tessera, tmp_path):
    """Every request fails: the time is that of one read, not of all."""
    site.server.faults = always(servers.reset)
    started = time.monotonic()
    failed(tessera(*options(site.catalog, tmp_path / "out")), 75, "unknown", "cannot be reached")
    assert time.monotonic() - started < 8
    nothing_written(tmp_path / "out")


def test_a_server_that_falls_silent(site, tessera, tmp_path, monkeypatch):
    servers.hurry(monkeypatch, silence=0.5)
    site.server.faults = servers.after(30, servers.silent)
    failed(tessera(*options(site.catalog, tmp_path / "out")), 75, "unknown", "cannot be reached")
    nothing_written(tmp_path / "out")
    site.server.faults = servers.never
    servers.hurry(monkeypatch)
    assert tessera(*options(site.catalog, tmp_path / "out"))[0] == 0
    assert hashes(tmp_path / "out") == site.clean


# --- signatures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(site, monkeypatch):
    """The run's right to read is a signature that is good for so many requests."""

    def sign(uses: int, *, renewable: bool = True) -> Tokens:
        tokens = Tokens(uses, renewable=renewable)
        site.server.tokens = tokens
        monkeypatch.setattr("tessera_cli.planning.origin.signer_for", lambda *arguments, **more: tokens)
        return tokens

    return sign


def test_a_signature_that_expires_in_the_middle_is_renewed(site, signed, tessera, tmp_path):
    tokens = signed(uses=40)
    code, stdout, stderr = tessera(*options(site.catalog, tmp_path / "out"), "-vv")
    assert code == 0, stderr
    assert len(tokens.all) >= 2
    assert summary(stdout)["network"]["retries"].keys() == {"forbidden"}
    assert hashes(tmp_path / "out") == site.clean
    told_nobody(tokens, stdout + stderr, tmp_path)


@pytest.mark.parametrize(("uses", "renewable"), [(30, False), (0, True)])
def test_a_signature_that_expires_for_good(site, signed, tessera, tmp_path, uses, renewable):
    tokens = signed(uses, renewable=renewable)
    result = tessera(*options(site.catalog, tmp_path / "out"), "-vv", "--debug")
    assert result[0] == 77
    assert summary(result[1])["network"]["reads"]["refused"] >= 1
    assert result[2].splitlines()[-1].startswith(f"tessera: error: 1 of 1 tiles failed ({TILE}). {site.server.url}/")
    nothing_written(tmp_path / "out")
    told_nobody(tokens, result[1] + result[2], tmp_path)


@pytest.mark.parametrize("name", ["reset", "truncated", "503", "page", "404"])
def test_signatures_are_in_no_message_of_any_fault(site, signed, tessera, tmp_path, name):
    tokens = signed(uses=10_000)
    site.server.faults = always(FINAL[name][0], f"cogs/{SCENE}/B05.tif")
    code, stdout, stderr = tessera(*options(site.catalog, tmp_path / "out"), "-vv", "--debug")
    assert code == FINAL[name][1]
    told_nobody(tokens, stdout + stderr, tmp_path)


def told_nobody(tokens: Tokens, shown: str, folder: Path) -> None:
    assert tokens.all[0].startswith("secret-")
    assert "secret-" not in shown
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert b"secret-" not in (gzip.decompress(data) if path.suffix == ".gz" else data)


# --- files that are absent or broken ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A catalogue that a test may damage, on disk or on a server."""

    catalog: SmallCatalog
    remote: bool

    def file(self, scene: str, asset: str) -> Path:
        return self.catalog.folder / "cogs" / scene / f"{asset}.tif"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The rasters of clean runs on a catalogue, as if one of its scenes (or "") had never been taken."""
    from tessera_cli.cli.app import run

    @functools.cache
    def rasters_without(scene: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("without")
        catalog = small_catalog(folder / "catalog")
        catalog.edit(lambda items: [item for item in items if item["id"] != scene])
        assert run(options(catalog, folder / "out")) == 0
        return rasters(folder / "out")

    return rasters_without


@pytest.fixture(params=["local", "remote"])
def place(request, tmp_path):
    catalog = small_catalog(tmp_path / "catalog")
    if request.param == "local":
        yield Place(catalog, remote=False)
        return
    with FileServer(catalog.folder) as server:
        served(catalog.items, server)
        yield Place(catalog, remote=True)


def tiled(path: Path) -> None:
    """The same pixels, compressed, in blocks of 16 x 16."""
    with rasterio.open(path) as src:
        values, profile = src.read(), src.profile
    profile |= {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(values)


def spoil_block(path: Path, row: int, column: int) -> None:
    with rasterio.open(path) as src:
        start, length = (
            int(src.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)


def corrupt(path: Path) -> None:
    tiled(path)
    spoil_block(path, 1, 2)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [
    (SCENE, "SCL", Path.unlink, "absent"),
    (SCENE, "B08", Path.unlink, "absent"),
    ("S1A_2021-03-05", "vh", Path.unlink, "absent"),
    (SCENE, "SCL", halve, "broken"),
    ("S1A_2021-06-06", "vv", halve, "broken"),
    (SCENE, "B11", lambda path: path.write_bytes(b"II*\0 not a raster" * 100), "broken"),
    (SCENE, "B02", corrupt, "broken"),
    ("S1A_2021-06-06", "vh", corrupt, "broken"),
]


@pytest.mark.parametrize(("scene", "asset", "damage", "outcome"), DAMAGES)
def test_a_missing_scene(place, tessera, tmp_path, expected, scene, asset, damage, outcome):
    """Fails its tile; is left out where that is allowed; is filled when the file is there again."""
    out, path = tmp_path / "out", place.file(scene, asset)
    good = path.read_bytes()
    damage(path)
    words = f"{scene}: {asset} is {outcome}", "--allow-missing 1"
    failed(tessera(*options(place.catalog, out)), 4, outcome, *words)
    nothing_written(out)

    code, stdout, stderr = tessera(*options(place.catalog, out, "--allow-missing", 1))
    assert code == 0, stderr
    assert summary(stdout)["network"]["reads"][outcome] >= 1
    assert list(json.loads((out / f"{TILE}.json").read_text())["properties"]["tessera:holes"]) == [scene]
    assert rasters(out) == expected(scene)
    assert rasters(out) != expected("")

    path.write_bytes(good)
    assert tessera(*options(place.catalog, out))[0] == 0
    assert rasters(out) == expected("")


def test_an_empty_file(place, tessera, tmp_path):
    """On a server no range of it exists, which proves nothing."""
    place.file(SCENE, "B04").write_bytes(b"")
    result = tessera(*options(place.catalog, tmp_path / "out"))
    failed(result, 69, "refused", "416") if place.remote else failed(result, 4, "broken", "B04 is broken")
    nothing_written(tmp_path / "out")


@pytest.mark.parametrize("asset", ["B08", "vv"])
def test_a_corrupt_block_that_is_not_needed(place, tessera, tmp_path, expected, asset):
    """The tile lies east of the column of blocks that are damaged."""
    path = place.file(SCENE if asset == "B08" else "S1A_2021-03-05", asset)
    tiled(path)
    for row in range(3):
        spoil_block(path, row, 0)
    code, stdout, stderr = tessera(*options(place.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert summary(stdout)["network"]["reads"]["broken"] == 0
    assert rasters(tmp_path / "out") == expected("")


# --- odd items --------------------------------------------------------------------------------------------------------


def without_projection(items):
    def bare(thing):
        return {key: value for key, value in thing.items() if not key.startswith("proj:")}

    return [
        {
            **item,
            "properties": bare(item["properties"]),
            "assets": {key: bare(asset) for key, asset in item["assets"].items()},
        }
        for item in items
    ]


def without_datetime(items):
    def spanning(properties):
        time = properties["datetime"]
        return {**properties, "datetime": None, "start_datetime": time, "end_datetime": time[:17] + "59.999999Z"}

    return [{**item, "properties": spanning(item["properties"])} for item in items]


def twice(items):
    return [*items, *items[::-1]]


@pytest.mark.parametrize("odd", [without_projection, without_datetime, twice])
def test_odd_items_make_no_difference(place, tessera, tmp_path, expected, odd):
    place.catalog.edit(odd)
    code, _, stderr = tessera(*options(place.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert rasters(tmp_path / "out") == expected("")


def only_vv(assets):
    return {"vv": assets["vv"]}


def horizontal(assets):
    return {"hh": assets["vv"], "hv": assets["vh"]}


@pytest.mark.parametrize("polarisations", [only_vv, horizontal])
def test_radar_without_both_polarisations_is_skipped_and_counted(place, tessera, tmp_path, expected, polarisations):
    scene = "S1A_2021-10-05"
    place.catalog.edit(
        lambda items: [
            {**item, "assets": polarisations(item["assets"])} if item["id"] == scene else item for item in items
        ]
    )
    code, _, stderr = tessera(*options(place.catalog, tmp_path / "out"))
    assert code == 0, stderr
    assert "1 item skipped: without both VV and VH" in stderr
    assert rasters(tmp_path / "out") == expected(scene)


def test_a_scene_without_a_listed_asset_is_missing(place, tessera, tmp_path):
    place.catalog.edit(
        lambda items: [
            {**item, "assets": {k: a for k, a in item["assets"].items() if item["id"] != SCENE or k != "B11"}}
            for item in items
        ]
    )
    code, _, stderr = tessera(*options(place.catalog, tmp_path / "out"))
    assert code == 4
    assert f"{SCENE}: asset B11 is not listed" in stderr
    nothing_written(tmp_path / "out")


def test_all_missing_scenes_of_a_tile_are_told_at_once(tessera, tmp_path):
    """SCL of one scene, a band of another, radar of a third: one run tells what --allow-missing takes."""
    catalog = make_catalog(tmp_path / "catalog")
    cogs = catalog.folder / "cogs"
    (cogs / "S2A_2021-02-10" / "SCL.tif").unlink()
    (cogs / "S2A_2021-05-20" / "B02.tif").write_bytes(b"no raster")
    (cogs / "S1A_2021-03-05" / "vh.tif").unlink()
    (cogs / "S1A_2021-06-06" / "vv.tif").unlink()
    code, _, stderr = tessera("embed", *catalog.options(tmp_path / "out"))
    assert code == 4
    assert "--allow-missing 4" in stderr
    code, _, stderr = tessera("embed", *catalog.options(tmp_path / "out"), "--allow-missing", 4)
    assert code == 0, stderr


def test_the_summary_for_people_counts_it_all():
    from tessera_cli.net import RequestStats
    from tessera_cli.runs.results import network_text

    stats = RequestStats()
    assert network_text(stats.to_dict()) == ""
    for outcome, count in (("read", 1200), ("absent", 1)):
        for _ in range(count):
            stats.read(outcome)
    assert network_text(stats.to_dict()) == "files of scenes: 1,200 read, 1 absent; no requests"
    stats.request(2_500_000)
    stats.retry("busy")
    assert network_text(stats.to_dict()) == (
        "files of scenes: 1,200 read, 1 absent; 1 requests, 2.5 MB; asked again: busy 1"
    )
