"""odc.stac.load with our reader: the pixels of GDAL's warp, and every cause of failure told."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.enums import Resampling
from rasterio.env import GDALVersion
from rasterio.vrt import WarpedVRT

from tessera_cli.catalog.signing import PlanetaryComputerSigner
from tessera_cli.catalog.tokens import Token
from tessera_cli.errors import (
    AbsentError,
    CredentialsError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
    UsageError,
)
from tessera_cli.imagery.header import BrokenError
from tessera_cli.net import OPEN, RequestStats
from tessera_cli.odc import Driver
from tessera_cli.odc.driver import AnySigner
from tests.helpers import servers
from tests.helpers.builders import EPSG, ORIGIN, s2_item
from tests.helpers.servers import FileServer, Tokens, always, first, reset, status

SIZE = 300
PLACE = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])


@pytest.fixture
def server(tmp_path):
    with FileServer(tmp_path) as running:
        yield running


@pytest.fixture
def hurry(monkeypatch):
    servers.hurry(monkeypatch)


def write(path, values, *, step=10, **options):
    place = Affine(step, 0, ORIGIN[0], 0, -step, ORIGIN[1])
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", **options}
    shape = dict(zip(("height", "width"), values.shape, strict=True))
    crs = f"EPSG:{EPSG}"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype=values.dtype, crs=crs, transform=place, **shape, **options
    ) as dst:
        dst.write(values, 1)
    return path


def scattered(dtype="uint16", size=SIZE, seed=0, nodata=None):
    values = np.random.default_rng(seed).normal(0, 40, (size, size))
    values = np.abs(values).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)
    if nodata is not None:
        values[40:90, 30:80] = nodata
    return values


def geobox(crs, step, shift=(0.2, 0.3), shape=(200, 210)):
    """A box of pixels that begins inside the file (as a share of its sides) and may end outside."""
    bounds = rasterio.warp.transform_bounds(f"EPSG:{EPSG}", crs, *rasterio.transform.array_bounds(SIZE, SIZE, PLACE))
    west = bounds[0] + shift[0] * (bounds[2] - bounds[0])
    north = bounds[3] - shift[1] * (bounds[3] - bounds[1])
    return GeoBox(shape, Affine(step, 0, round(west / step) * step, 0, -step, round(north / step) * step), crs)


def by_gdal(path, box, resampling, fill):
    """A WarpedVRT of the whole file."""
    with (
        rasterio.open(path) as src,
        WarpedVRT(
            src,
            crs=str(box.crs),
            transform=box.transform,
            height=box.shape[0],
            width=box.shape[1],
            resampling=Resampling[resampling],
            add_alpha=src.nodata is None,
        ) as vrt,
    ):
        return vrt.read(1, masked=True).filled(fill)


def read(href, box, *, driver=None, resampling="nearest", fill=None, dtype=None, **more):
    load = RasterLoadParams(dtype=dtype, fill_value=fill, resampling=resampling, **more)
    roi, pixels = (driver or Driver(signer=OPEN)).open(RasterSource(str(href)), None).read(load, box)
    if pixels.size:
        assert box[roi].shape == pixels.shape == box.shape
    return pixels


def items(tmp_path, server=None, **more):
    bands = {"B02": scattered(), "B05": scattered(size=SIZE // 2, seed=1)}
    found = []
    for n, day in enumerate(("2021-07-01", "2021-07-11")):
        scl = np.random.default_rng(n).integers(0, 12, (SIZE // 2, SIZE // 2))
        item = s2_item(tmp_path, f"S{n}", f"{day}T11:00:00Z", bands, scl, size=SIZE, nodata=0, **more)
        text = json.dumps(item)
        found.append(
            pystac.Item.from_dict(json.loads(text if server is None else text.replace(str(tmp_path), server.url)))
        )
    return found


# --- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "step"),
    [
        (f"EPSG:{EPSG}", 10),
        (f"EPSG:{EPSG}", 5),
        (f"EPSG:{EPSG}", 25),
        (f"EPSG:{EPSG + 1}", 10),
        (f"EPSG:{EPSG - 1}", 20),
        ("EPSG:4326", 0.0002),
        ("EPSG:3857", 40),
        ("EPSG:3035", 10),
    ],
)
def test_any_grid_gets_what_a_vrt_of_the_whole_file_gives(tmp_path, server, crs, step):
    path = write(tmp_path / "a.tif", scattered(nodata=0), nodata=0)
    old = crs == "EPSG:3035" and GDALVersion.runtime() < GDALVersion(3, 10)  # its bilinear depends on the window there
    for shift in ((0.2, 0.3), (0.7, 0.7)) if old else ((0.2, 0.3), (-0.3, -0.2), (0.7, 0.7)):
        box = geobox(crs, step, shift)
        for resampling in ("nearest", "bilinear", "average"):
            expected = by_gdal(path, box, resampling, 9)
            assert len(np.unique(expected)) > 20
            for href in (path, f"{server.url}/a.tif"):
                found = read(href, box, resampling=resampling, fill=9)
                assert np.array_equal(found, expected), (shift, resampling)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None),
        ("uint8", 7),
        ("int8", -128),
        ("uint16", 0),
        ("uint16", 65535),
        ("int16", None),
        ("int32", -5),
        ("float32", None),
        ("float32", -9999),
        ("float64", np.nan),
    ],
)
def test_on_the_file_s_own_grid_pixels_are_the_file_s(tmp_path, resampling, dtype, nodata):
    values = scattered(dtype, nodata=nodata)
    path = write(tmp_path / "a.tif", values, nodata=nodata)
    box = GeoBox((250, 260), PLACE * Affine.translation(70, 90), f"EPSG:{EPSG}")
    fill = 77
    expected = np.full(box.shape, fill, dtype)
    expected[:210, :230] = values[90:, 70:]
    if nodata is not None:
        expected[np.isnan(expected) if np.isnan(nodata) else expected == nodata] = fill
    assert np.array_equal(read(path, box, resampling=resampling, fill=fill), expected)
    outside = np.ones(box.shape, bool)
    outside[:210, :230] = False if nodata is None else values[90:, 70:] == nodata
    if nodata is not None and np.isnan(nodata):
        outside[:210, :230] = np.isnan(values[90:, 70:])
    assert np.array_equal(np.isnan(read(path, box, resampling=resampling, dtype="float32")), outside)


def test_a_grid_of_half_the_globe(tmp_path):
    path = write(tmp_path / "a.tif", scattered() + np.uint16(1), nodata=0)
    box = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    found, expected = read(path, box), by_gdal(path, box, "nearest", 0)
    assert np.array_equal(found, expected)
    small = GeoBox((300, 300), Affine(0.01, 0, -3, 0, -0.01, 53.5), "EPSG:4326")
    assert np.array_equal(read(path, small), by_gdal(path, small, "nearest", 0))
    assert read(path, small).any()


def test_the_source_s_nodata_may_be_overridden(tmp_path):
    values = scattered(nodata=3)
    path = write(tmp_path / "a.tif", values)
    box = GeoBox(values.shape, PLACE, f"EPSG:{EPSG}")
    expected = np.where(values == 3, np.float32(np.nan), values)
    for option in ("src_nodata_override", "src_nodata_fallback"):
        found = read(path, box, dtype="float32", **{option: 3})
        assert np.array_equal(found, expected, equal_nan=True)


# --- odc.stac.load ----------------------------------------------------------------------------------------------------

LOAD = {
    "bands": ["B02", "B05", "SCL"],
    "groupby": "id",
    "resampling": {"SCL": "nearest", "*": "bilinear"},
    "stac_cfg": {"assets": {"*": {"data_type": "uint16", "nodata": 0}}},
}


@pytest.fixture
def expected(tmp_path):
    """By odc-stac's own driver: in the home zone all agree."""
    return odc.stac.load(items(tmp_path), geobox=geobox(f"EPSG:{EPSG}", 10), **LOAD)


def same(found, expected):
    assert list(found.data_vars) == list(expected.data_vars)
    for name in expected.data_vars:
        assert expected[name].any()
        assert found[name].dtype == expected[name].dtype
        assert np.array_equal(found[name], expected[name]), name
    return True


@pytest.mark.parametrize("driver", ["tessera_cli.odc.Driver", Driver(signer=OPEN)], ids=["name", "instance"])
def test_threads(tmp_path, server, expected, driver):
    box = geobox(f"EPSG:{EPSG}", 10)
    assert same(odc.stac.load(items(tmp_path, server), geobox=box, driver=driver, pool=8, **LOAD), expected)


def test_dask_reads_when_it_is_told_to(tmp_path, server, expected):
    driver = Driver()
    box = geobox(f"EPSG:{EPSG}", 10)
    lazy = odc.stac.load(items(tmp_path, server), geobox=box, driver=driver, chunks={"x": 100, "y": 90}, **LOAD)
    assert not server.log
    assert same(lazy.compute(scheduler="threads", num_workers=4), expected)
    assert driver.stats["reads"]["read"] > 18
    assert driver.stats["requests"] == len(server.log)
    assert driver.missing == {}


def test_other_processes(tmp_path, server, expected):
    driver = Driver(signer=OPEN)
    box = geobox(f"EPSG:{EPSG}", 10)
    lazy = odc.stac.load(items(tmp_path, server), geobox=box, driver=driver, chunks={}, **LOAD)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        assert same(lazy.compute(scheduler=executor), expected)
    paths = [exchange.path for exchange in server.log]
    assert len(paths) == 2 * len(set(paths))  # header and pixels: the copies of a driver share what they fetched
    assert driver.stats["requests"] == 0


def test_a_forked_process_reads_after_its_parent(tmp_path, server, expected):
    """A fork inherits pools whose threads are gone: it must not wait for them."""
    driver = Driver(signer=OPEN)
    load = {**LOAD, "geobox": geobox(f"EPSG:{EPSG}", 10), "driver": driver, "chunks": {}}
    assert same(odc.stac.load(items(tmp_path, server), **load).compute(scheduler="threads"), expected)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        found = executor.submit(load_in_child, items(tmp_path, server), load).result(timeout=60)
    assert same(found, expected)


def load_in_child(those, load):
    return odc.stac.load(those, **load).compute(scheduler="synchronous")


def test_copies_in_one_process_count_together(tmp_path):
    driver = Driver(signer=OPEN)
    copy = pickle.loads(pickle.dumps(driver))
    read(tmp_path / "none.tif", geobox(f"EPSG:{EPSG}", 10), driver=copy, fail_on_error=False, dtype="uint16")
    assert driver.missing == copy.missing == {str(tmp_path / "none.tif"): "absent"}
    assert Driver(signer=OPEN).missing == {}


def test_a_scene_that_is_missing_leaves_room_for_the_next(tmp_path, server, caplog, hurry):
    driver = Driver(signer=OPEN)
    both = items(tmp_path, server)
    (tmp_path / "S0" / "B02.tif").unlink()
    (tmp_path / "S0" / "B05.tif").write_bytes(b"damaged")
    load = {**LOAD, "bands": ["B02", "B05"], "geobox": geobox(f"EPSG:{EPSG}", 10), "groupby": lambda item, parsed, n: 1}
    found = odc.stac.load(both, driver=driver, fail_on_error=False, **load)
    assert same(found, odc.stac.load(items(tmp_path)[1:], **load))
    assert set(driver.missing) == {f"{server.url}/S0/B02.tif", f"{server.url}/S0/B05.tif"}
    assert driver.missing[f"{server.url}/S0/B02.tif"] == "absent"
    assert driver.missing[f"{server.url}/S0/B05.tif"].startswith("broken (it is not a TIFF")
    assert driver.stats["reads"] == {"read": 2, "absent": 1, "broken": 1, "refused": 0, "unknown": 0}
    assert f"{server.url}/S0/B02.tif is absent" in caplog.text


FAULTS = {
    "404": (status(404), AbsentError, "absent"),
    "410": (status(410), AbsentError, "absent"),
    "403": (status(403), CredentialsError, "refused"),
    "429": (status(429), SourceBusyError, "refused"),
    "400": (status(400), SourceRefusedError, "refused"),
    "503": (status(503), SourceUnavailableError, "unknown"),
    "reset": (reset, SourceUnavailableError, "unknown"),
    "page": (servers.page, SourceUnavailableError, "unknown"),
}


@pytest.mark.parametrize("fail_on_error", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_only_what_is_certain_is_a_missing_scene(tmp_path, server, hurry, fault, fail_on_error):
    what, error, outcome = FAULTS[fault]
    write(tmp_path / "a.tif", scattered())
    server.faults = always(what)
    driver, box = Driver(signer=OPEN), geobox(f"EPSG:{EPSG}", 10)
    more = {"driver": driver, "dtype": "uint16", "fail_on_error": fail_on_error}
    if outcome == "absent" and not fail_on_error:
        assert read(f"{server.url}/a.tif", box, **more).size == 0
    else:
        with pytest.raises(error) as caught:
            read(f"{server.url}/a.tif", box, **more)
        assert type(caught.value) is error
        assert f"{server.url}/a.tif" in str(caught.value)
    assert {name for name, count in driver.stats["reads"].items() if count} == {outcome}
    assert list(driver.missing) == ([f"{server.url}/a.tif"] if outcome == "absent" else [])


def test_bytes_that_do_not_decode(tmp_path, server, hurry):
    path = write(tmp_path / "a.tif", scattered())
    path.write_bytes(path.read_bytes()[:-2000])
    box = GeoBox((SIZE, SIZE), PLACE, f"EPSG:{EPSG}")
    with pytest.raises(BrokenError, match=r"a\.tif is broken"):
        read(f"{server.url}/a.tif", box)
    assert read(f"{server.url}/a.tif", box, dtype="uint16", fail_on_error=False).size == 0


def test_faults_that_pass_are_retried(tmp_path, server, hurry):
    path = write(tmp_path / "a.tif", scattered())
    server.faults = first(2, status(503))
    driver, box = Driver(signer=OPEN), geobox(f"EPSG:{EPSG}", 10)
    assert np.array_equal(read(f"{server.url}/a.tif", box, driver=driver), read(path, box))
    assert driver.stats["retries"]["server error"] >= 2


def test_what_the_driver_does_not_read(tmp_path):
    path, box = write(tmp_path / "a.tif", scattered()), geobox(f"EPSG:{EPSG}", 10)
    with pytest.raises(UsageError, match="first band"):
        Driver().open(RasterSource(str(path), band=2), None).read(RasterLoadParams(), box)
    with pytest.raises(UsageError, match="no resampling"):
        read(path, box, resampling="best")
    with pytest.raises(SourceRefusedError, match="only http, https and local"):
        read("s3://bucket/a.tif", box, fail_on_error=False)


# --- signatures -------------------------------------------------------------------------------------------------------


def test_signatures_are_renewed(tmp_path, hurry):
    tokens = Tokens(uses=5)
    with FileServer(tmp_path, tokens=tokens) as server:
        driver = Driver(signer=tokens)
        box = geobox(f"EPSG:{EPSG}", 10)
        found = odc.stac.load(items(tmp_path, server), geobox=box, driver=driver, pool=2, **LOAD)
    assert same(found, odc.stac.load(items(tmp_path), geobox=box, **LOAD))
    assert len(tokens.all) > 2
    assert driver.missing == {}
    told = repr((driver.stats, driver.missing, driver))
    assert not any(token in told for token in tokens.all)


def test_without_a_new_signature_reads_are_refused(tmp_path, hurry):
    tokens = Tokens(uses=2, renewable=False)
    with FileServer(tmp_path, tokens=tokens) as server, pytest.raises(CredentialsError):
        odc.stac.load(
            items(tmp_path, server),
            geobox=geobox(f"EPSG:{EPSG}", 10),
            driver=Driver(signer=tokens),
            fail_on_error=False,
            **LOAD,
        )


def test_who_signs_is_told_by_the_host(monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", "nasa")
    asked = []

    def ask(self, container):
        asked.append(container)
        return Token("sig=new", float("inf"))

    monkeypatch.setattr(PlanetaryComputerSigner, "_request", ask)
    signer = AnySigner(RequestStats())
    blob = "https://sentinel.blob.core.windows.net/s2/a.tif"
    assert signer.sign(blob).url == f"{blob}?sig=new"
    assert asked == ["sentinel/s2"]
    assert signer.renew(blob)
    assert signer.sign(blob).headers == {}
    nasa = signer.sign("https://datapool.asf.alaska.edu/RTC/a.tif")
    assert nasa.headers == {"Authorization": "Bearer nasa"}
    plain = signer.sign("https://example.org/a.tif")
    assert (plain.url, plain.headers) == ("https://example.org/a.tif", {})
    assert not signer.renew("https://example.org/a.tif")
    driver = Driver()
    assert driver.web_address(f"{blob}?st=1&se=2&sp=r&sig=old") == blob  # no part of the name
    given = driver.state.reader.client.given
    assert given.sign(blob).url == f"{blob}?st=1&se=2&sp=r&sig=old"
    assert given.renew(blob)
    assert given.sign(blob).url == f"{blob}?sig=new"  # when it has expired
    assert Driver(signer=OPEN).web_address(f"{blob}?sig=old") == f"{blob}?sig=old"


def test_importing_the_driver_imports_no_odc():
    code = "import sys, tessera_cli, tessera_cli.odc; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"odc", "dask", "xarray", "pystac", "torch"} & set(eval(done.stdout))
