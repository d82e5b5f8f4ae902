"""`embed --points` and `fetch --points`: a row per plot, equal to that of an area, from the blocks that it needs."""

import csv
import hashlib
import importlib.util
import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import zarr
from pyproj import Transformer

import tessera_cli as tessera_api
from tessera_cli.extent.grid import Tile
from tessera_cli.folders.folder import TileFolder
from tests.conftest import box_geojson
from tests.helpers.builders import s1_item, s2_item
from tests.helpers.servers import FileServer

DATES = ("2021-02-10", "2021-05-20", "2021-09-15")


def imagery(folder, places, *, size=40, years=(2021,)):
    """A catalogue with scenes of noise over each place: {name: (EPSG code, west, north)} in metres."""
    rng, items = np.random.default_rng(1), []
    for name, (epsg, west, north) in places.items():
        where = {"size": size, "origin": (west, north), "epsg": epsg}
        for year in years:
            for day in (date.replace("2021", str(year)) for date in DATES):
                dn = {band: rng.integers(200, 4000, (size, size)) for band in ("B02", "B04", "B08")}
                scl = np.where(rng.random((size // 2, size // 2)) < 0.2, 9, 4)
                items.append(s2_item(folder / "cogs", f"S2_{name}_{day}", f"{day}T10:56:31Z", dn, scl, **where))
            power = {"vv": rng.gamma(4, 0.02, (size, size)), "vh": rng.gamma(4, 0.004, (size, size))}
            when = f"{year}-03-05T17:41:00Z"
            items.append(s1_item(folder / "cogs", f"S1_{name}_{year}", when, power, "descending", **where))
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = "./" + str(Path(asset["href"]).relative_to(folder))
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return folder / "items.json"


def degrees(epsg, east, north):
    """Longitude and latitude of positions in metres: (N, 2)."""
    return np.stack(Transformer.from_crs(epsg, 4326, always_xy=True).transform(east, north), axis=-1)


def write_points(path, lonlat):
    lines = ["plot,lon,lat", *(f"p{number},{lon!r},{lat!r}" for number, (lon, lat) in enumerate(lonlat.tolist()))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_areas(path, boxes):
    features = [{"type": "Feature", "properties": {}, "geometry": box} for box in boxes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def area_values(out, lonlat, zones, window="2021"):
    """What rasterio reads from the tiles of an area run at each point, in the zone given for it: float32 (N, R)."""
    found = []
    for (lon, lat), epsg in zip(lonlat.tolist(), zones, strict=True):
        east, north = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
        tile = Tile(epsg, int(east // 5120), int(north // 5120))
        with rasterio.open(out / f"{tile.id}_{window}_emb.tif") as src:
            (values,) = src.sample([(east, north)])
        if values.dtype == np.int8:
            with rasterio.open(out / f"{tile.id}_{window}_scales.tif") as src:
                (scale,) = src.sample([(east, north)])
            values = values.astype(np.float32) * scale
        found.append(values)
    return np.array(found)


def table(out):
    return pq.read_table(out / "points.parquet").to_pydict()


def vectors(found):
    """The bands of a table: float32 (N, R), NaN for null."""
    return np.array([values for name, values in found.items() if name.startswith("Tessera_Band_")], np.float32).T


def rows_of(found, window="2021"):
    """Plot -> vector float32 (R,) of a window."""
    rows = zip(found["plot"], vectors(found), found["window"], strict=True)
    return {plot: row for plot, row, of in rows if of == window}


SIZE = 10
"""Pixels across the areas."""
SCATTERED = {  # both sides of a zone border and of the antimeridian, and of a border between tiles
    "west_of_0": (32630, 704000.0, 5800020.0),
    "east_of_0": (32631, 296000.0, 5800020.0),
    "west_of_180": (32660, 690000.0, 1000020.0),
    "east_of_180": (32601, 310000.0, 1000020.0),
    "tiles": (32630, 117 * 5120 - 10.0 * SIZE, 5800020.0),
}
YEARS = ("2021", "2022")


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """A catalogue, areas over all its scenes, 4 points in each, and their zones."""
    folder = tmp_path_factory.mktemp("scattered")
    items = imagery(folder, SCATTERED, size=2 * SIZE, years=(2021, 2022))
    rng, lonlat, zones, boxes = np.random.default_rng(2), [], [], []
    for epsg, west, north in SCATTERED.values():
        reach = 15.0 * SIZE
        boxes.append(box_geojson(west + 50, north - reach, west + reach, north - 50, epsg))
        offsets = rng.uniform(55, reach - 5, (2, 4))
        lonlat.append(degrees(epsg, west + offsets[0], north - offsets[1]))
        zones += [epsg] * 4
    areas = write_areas(folder / "areas.geojson", boxes)
    return items, areas, np.concatenate(lonlat), zones


def options(items, *more, years=("2021",), model="null"):
    return ["--year", ",".join(years), "--catalog", items, "--model", model, "--threads", "1", *more]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_rows_equal_the_run_over_the_area_bit_for_bit(scattered, tessera, tmp_path, dtype):
    items, areas, lonlat, zones = scattered
    years = YEARS if dtype == "int8" else YEARS[:1]
    more = options(items, "--dtype", dtype, years=years, model="demo")
    code, _, stderr = tessera("embed", "--aoi", areas, *more, "--out", tmp_path / "area")
    assert code == 0, stderr
    plots, out = write_points(tmp_path / "plots.csv", lonlat), tmp_path / "points"
    code, stdout, stderr = tessera("embed", "--points", plots, *more, "--out", out)
    assert code == 0, stderr
    assert stdout == f"{out / 'points.parquet'}\n"
    assert not [*out.glob("*.tif"), *out.glob("*.vrt")]
    found = table(out)
    for window in years:
        rows, due = rows_of(found, window), area_values(tmp_path / "area", lonlat, zones, window)
        assert np.isfinite(due).any(axis=1).sum() > 15
        np.testing.assert_array_equal(np.array([rows[f"p{n}"] for n in range(len(lonlat))]), due)
    assert tessera("verify", out)[0] == 0
    code, stdout, _ = tessera("info", out, "--json")
    assert (code, json.loads(stdout)["pixels"]) == (0, sum(value is not None for value in found["Tessera_Band_0"]))


@pytest.fixture(scope="module")
def finished(scattered, tmp_path_factory):
    """A run over the points, from Python: its folder and its summary."""
    items, _, lonlat, _ = scattered
    out = tmp_path_factory.mktemp("finished") / "out"
    summary = tessera_api.embed(points=lonlat, year=2021, catalog=str(items), model="null", threads=1, out=out)
    return out, summary


def test_files_hold_the_pixels_asked_for_alone(finished):
    out, summary = finished
    assert summary.error() is None
    assert summary.table == out / "points.parquet"
    settings = json.loads((out / "run.json").read_text())["identity"]
    assert settings["format"] == "vectors"
    dims = settings["dims"]
    for result in summary.results:
        codes = np.load(out / f"{result.request.name}_vectors.npy")
        scales = np.load(out / f"{result.request.name}_vectors_scales.npy")
        assert (codes.dtype, codes.shape) == (np.int8, (result.request.count, dims))
        assert (scales.dtype, scales.shape) == (np.float32, (result.request.count,))
        assert np.isfinite(scales).sum() == result.pixels
        assert not codes[np.isnan(scales)].any()


def test_the_name_of_an_area_without_one_is_its_place(scattered, monkeypatch, tmp_path):
    items, _, lonlat, _ = scattered
    monkeypatch.chdir(tmp_path)
    summary = tessera_api.embed(points=lonlat[:1], year=2021, catalog=str(items), model="null")
    assert summary.out.name.startswith("points_")
    assert summary.out.name.endswith("_2021_null")


def bytes_of(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in (".npy", ".parquet")
    }


def test_a_run_that_died_goes_on_with_the_frozen_scenes(scattered, finished, tessera, tmp_path, monkeypatch):
    items, _, lonlat, _ = scattered
    plots, out = write_points(tmp_path / "plots.csv", lonlat), tmp_path / "out"
    replace, calls = TileFolder.replace, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return replace(*arguments)

    command = ["embed", "--points", plots, *options(items), "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr(TileFolder, "replace", dying)
        assert tessera(*command)[0] == 130
    assert len([*out.glob("*_vectors.npy")]) == 3
    assert not (out / "points.parquet").exists()
    code, _, stderr = tessera(*command, "-v")
    assert code == 0, stderr
    assert "using the frozen scene list" in stderr
    assert "3 tiles to do, 3 done before" in stderr
    due = {name: digest for name, digest in bytes_of(finished[0]).items() if name.endswith(".npy")}
    assert {name: digest for name, digest in bytes_of(out).items() if name.endswith(".npy")} == due


def test_more_points_add_what_is_missing_and_nothing_else(scattered, finished, tessera, tmp_path):
    items, _, lonlat, _ = scattered
    out, few = tmp_path / "out", write_points(tmp_path / "few.csv", lonlat[[0, 4, 5, 6, 7]])
    more = [*options(items), "--out", out]
    assert tessera("embed", "--points", few, *more)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*_vectors.npy")}
    code, stdout, _ = tessera("embed", "--points", write_points(tmp_path / "all.csv", lonlat), *more, "--json")
    assert code == 0
    tiles = {(line["tile"], line["status"]) for line in map(json.loads, stdout.splitlines()) if line["type"] == "tile"}
    assert len({tile for tile, status in tiles if status == "present"}) == 1  # all four points east of 0 were there
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*_vectors.npy")}
    assert {name for name in before if before[name] == after[name]} == {
        f"{tile}_2021_vectors.npy" for tile, status in tiles if status == "present"
    }
    due = {name: digest for name, digest in bytes_of(finished[0]).items() if name.endswith(".npy")}
    assert {name: digest for name, digest in bytes_of(out).items() if name.endswith(".npy")} == due
    assert len(table(out)["plot"]) == len(lonlat)


def test_a_later_file_has_a_table_of_its_own_rows(scattered, tessera, tmp_path):
    items, _, lonlat, _ = scattered
    more = [*options(items), "--out", tmp_path / "out"]
    assert tessera("embed", "--points", write_points(tmp_path / "a.csv", lonlat[:3]), *more)[0] == 0
    assert tessera("embed", "--points", write_points(tmp_path / "b.csv", lonlat[3:5]), *more)[0] == 0
    assert len(table(tmp_path / "out")["plot"]) == 2
    code, _, stderr = tessera("sample", tmp_path / "out", tmp_path / "a.csv", "--out", tmp_path / "a.parquet")
    assert code == 0, stderr
    assert len(pq.read_table(tmp_path / "a.parquet")) == 3


def test_without_pyarrow_the_table_is_csv(scattered, tessera, tmp_path, monkeypatch):
    items, _, lonlat, _ = scattered
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )
    plots, out = write_points(tmp_path / "plots.csv", lonlat[:2]), tmp_path / "out"
    code, stdout, stderr = tessera("embed", "--points", plots, *options(items), "--out", out)
    assert code == 0, stderr
    assert stdout == f"{out / 'points.csv'}\n"
    with (out / "points.csv").open() as lines:
        assert [row["plot"] for row in csv.DictReader(lines)] == ["p0", "p1"]


def test_polygons_have_the_mean_of_the_area_run(scattered, tessera, tmp_path):
    """A polygon over 5 x 4 pixels, and one between the centres of pixels, which has the pixel under it."""
    items, areas, _, _ = scattered
    epsg, west, north = SCATTERED["west_of_0"]
    field = box_geojson(west + 80, north - 120, west + 130, north - 80, epsg)
    sliver = box_geojson(west + 136, north - 139, west + 139, north - 136, epsg)
    fields, more = write_areas(tmp_path / "fields.geojson", [field, sliver]), [*options(items), "--out"]
    assert tessera("embed", "--aoi", areas, *more, tmp_path / "area")[0] == 0
    code, _, stderr = tessera("embed", "--points", fields, *more, tmp_path / "points")
    assert code == 0, stderr
    x, y = np.meshgrid(west + 85 + 10.0 * np.arange(5), north - 85 - 10.0 * np.arange(4))
    pixels = area_values(tmp_path / "area", degrees(epsg, x.ravel(), y.ravel()), [epsg] * 20)
    under = area_values(tmp_path / "area", degrees(epsg, [west + 137.5], [north - 137.5]), [epsg])
    assert np.isfinite(under).all()
    found = table(tmp_path / "points")
    bands = vectors({name: values for name, values in found.items() if not name.endswith("_std")})
    np.testing.assert_allclose(bands[0], np.nanmean(pixels.astype(float), axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(bands[1], under[0])
    assert found["pixels"][0] == np.isfinite(pixels[:, 0]).sum()
    assert found["status"] == ["ok", "small"]


def tiled(folder, block=64):
    """Write all imagery anew in blocks that are not compressed."""
    for path in folder.rglob("*.tif"):
        with rasterio.open(path) as src:
            profile, values = src.profile, src.read()
        profile.update(tiled=True, blockxsize=block, blockysize=block)
        with rasterio.open(path, "w", **profile) as dst:
            dst.write(values)


def blocks_around(path, east, north, reach):
    """First and last byte of the blocks that hold the pixels within `reach` of a position, as GDAL tells."""
    with rasterio.open(path) as src:
        row, column = map(int, src.index(east, north))
        size, side = np.dtype(src.dtypes[0]).itemsize * 64 * 64, src.width // 64
        around = range(-reach, reach + 1)
        near = {((row + down) // 64, (column + right) // 64) for down in around for right in around}
        starts = [int(src.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)) for y, x in near if max(x, y) < side]
    return [(start, start + size - 1) for start in starts]


def test_only_the_blocks_that_hold_the_points_are_fetched(tessera, tmp_path):
    west, north = 116 * 5120.0, 1133 * 5120.0
    imagery(tmp_path / "web", {"tile": (32630, west, north)}, size=512)
    tiled(tmp_path / "web")
    east, south = west + 3205.0, north - 4005.0
    plots = write_points(tmp_path / "plots.csv", degrees(32630, [east], [south]))
    with FileServer(tmp_path / "web") as server:
        code, _, stderr = tessera(
            "embed", "--points", plots, *options(f"{server.url}/items.json"), "--out", tmp_path / "out"
        )
        asked = [exchange for exchange in server.log if exchange.path.endswith(".tif")]
    assert code == 0, stderr
    files = {exchange.path for exchange in asked}
    assert len(files) == 3 * 11 + 2
    whole = sum((tmp_path / "web" / path.lstrip("/")).stat().st_size for path in files)
    beyond_headers = [exchange for exchange in asked if exchange.range[0] > 0]
    assert len(beyond_headers) >= len(files)
    for exchange in beyond_headers:
        near = blocks_around(tmp_path / "web" / exchange.path.lstrip("/"), east, south, 2)
        first, last = exchange.range
        assert min(start for start, _ in near) - 8 <= first <= last <= max(end for _, end in near) + 8
    assert sum(exchange.sent for exchange in beyond_headers) < 0.06 * whole


@pytest.mark.parametrize("form", ["zarr", "npy"])
def test_stores_hold_the_pixels_alone_and_embed_to_the_same_rows(
    scattered, finished, tessera, tmp_path, form, monkeypatch
):
    items, _, lonlat, _ = scattered
    monkeypatch.chdir(tmp_path)
    plots = write_points(tmp_path / "plots.csv", lonlat)
    code, stdout, stderr = tessera(
        *("fetch", "--points", plots, "--year", "2021", "--catalog", items, "--model", "null", "--format", form),
        *("--out", "dpixels"),
    )
    assert code == 0, stderr
    *stores, command = stdout.splitlines()
    asked = 0
    for store in stores:
        if form == "zarr":
            roi, masks = zarr.open(store)["roi"][:], zarr.open(store)["s2_mask"][:]
        else:
            with rasterio.open(Path(store) / "roi.tiff") as src:
                roi = src.read(1)
            masks = np.load(Path(store) / "masks.npy")
        assert not masks[:, roi == 0].any()
        assert masks[:, roi == 1].any()
        asked += int((roi == 1).sum())
    assert asked == len(lonlat)
    words = shlex.split(command)
    assert words[:4] == ["tessera", "embed", "--dpixels", "dpixels"]
    assert str(plots) in words
    code, stdout, stderr = tessera(*words[1:], "--threads", "1")
    assert code == 0, stderr
    due, found = table(finished[0]), pq.read_table(stdout.strip()).to_pydict()
    np.testing.assert_array_equal(vectors(found), vectors(due))


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_store_of_points_is_small(tessera, tmp_path):
    """20 pixels of a tile of which 200 x 200 have imagery: a chunk of 32 x 32 around each at most, nearly all zeros."""
    west, north = 116 * 5120.0, 1133 * 5120.0
    items = imagery(tmp_path / "web", {"tile": (32630, west, north)}, size=200)
    rng = np.random.default_rng(4)
    lonlat = degrees(32630, west + rng.uniform(0, 2000, 20), north - rng.uniform(0, 2000, 20))
    area = write_areas(tmp_path / "area.geojson", [box_geojson(west, north - 2000, west + 2000, north, 32630)])
    more = ["--year", "2021", "--catalog", items, "--model", "null", "--out"]
    assert tessera("fetch", "--aoi", area, *more, tmp_path / "area")[0] == 0
    assert tessera("fetch", "--points", write_points(tmp_path / "p.csv", lonlat), *more, tmp_path / "points")[0] == 0
    (whole,), (few,) = (tmp_path / "area").glob("*.zarr"), (tmp_path / "points").glob("*.zarr")
    assert size(few) < size(whole) / 20


def test_pretrain_takes_stores_of_points(tessera, tmp_path):
    west, north = 116 * 5120.0, 1133 * 5120.0
    items = imagery(tmp_path / "web", {"tile": (32630, west, north)}, size=64)
    rng = np.random.default_rng(5)
    lonlat = degrees(32630, west + rng.uniform(0, 640, 600), north - rng.uniform(0, 640, 600))
    plots = write_points(tmp_path / "plots.csv", lonlat)
    more = ["--year", "2021", "--catalog", items, "--model", "null", "--out", tmp_path / "dpixels"]
    assert tessera("fetch", "--points", plots, *more)[0] == 0
    code, _, stderr = tessera(
        *(
            "pretrain",
            tmp_path / "dpixels",
            "--preset",
            "tiny",
            "--steps",
            2,
            "--threads",
            1,
            "--out",
            tmp_path / "run",
        ),
        *("--set", "train.batch=16", "--set", "train.eval_every=2", "--set", "data.min_s2=1"),
        *("--set", "data.min_s1=1"),
    )
    assert code == 0, stderr
    with (tmp_path / "run" / "metrics.jsonl").open() as lines:
        assert json.loads(lines.readlines()[-1])["step"] == 2


def test_pixels_of_an_areas_stores_can_be_chosen(scattered, finished, tessera, tmp_path):
    items, areas, lonlat, _ = scattered
    more = ["--year", "2021", "--catalog", items, "--model", "null", "--out", tmp_path / "dpixels"]
    assert tessera("fetch", "--aoi", areas, *more)[0] == 0
    plots = write_points(tmp_path / "plots.csv", lonlat[2:6])
    stores = ["--dpixels", tmp_path / "dpixels", "--model", "null", "--threads", "1"]
    code, _, stderr = tessera("embed", *stores, "--points", plots, "--out", tmp_path / "out")
    assert code == 0, stderr
    assert sum(len(np.load(path)) for path in (tmp_path / "out").glob("*_vectors.npy")) == 4
    found, due = rows_of(table(tmp_path / "out")), table(finished[0])
    number = due["id"].index(2)
    np.testing.assert_array_equal(found["p0"], vectors(due)[number])
    far = write_points(tmp_path / "far.csv", np.array([[30.0, 10.0]]))
    code, _, stderr = tessera("embed", *stores, "--points", far, "--out", tmp_path / "none")
    assert code == 3
    assert "no store holds pixels of far" in stderr


def test_a_plan_counts_points(scattered, tessera, tmp_path):
    items, _, lonlat, _ = scattered
    plots = write_points(tmp_path / "plots.csv", np.concatenate([lonlat, lonlat[:1]]))
    code, stdout, stderr = tessera("plan", "--points", plots, *options(items), "--json")
    assert code == 0, stderr
    made = json.loads(stdout)
    assert (made["points"], made["areas"], made["pixels"], made["tiles"]) == (21, 0, 20, 6)
    assert made["by_zone"]["EPSG:32601"] == {"points": 4, "tiles": 1, "pixels": 4}
    code, stdout, stderr = tessera("plan", "--points", plots, *options(items))
    assert "21 points around" in stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--mask", "mask.tif"], "Leave out --mask"),
        (["--fill-bbox"], "Leave out --fill-bbox"),
        (["--format", "geotiff"], "Leave out --format"),
        (["--bbox", "5", "51", "6", "52"], "Exactly one area"),
        (["--aoi", "plots.csv"], "Exactly one area"),
    ],
)
def test_what_does_not_go_with_points_is_refused(tessera, tmp_path, monkeypatch, more, told):
    monkeypatch.chdir(tmp_path)
    write_points(tmp_path / "plots.csv", np.array([[5.0, 51.0]]))
    (tmp_path / "mask.tif").write_bytes(b"")
    code, _, stderr = tessera("embed", "--points", "plots.csv", *more, "--year", "2021", "--model", "null")
    assert code == 2
    assert told in stderr


def test_points_and_areas_do_not_share_a_folder(scattered, tessera, tmp_path):
    items, areas, lonlat, _ = scattered
    more = [*options(items), "--out", tmp_path / "out"]
    assert tessera("embed", "--aoi", areas, *more)[0] == 0
    code, _, stderr = tessera("embed", "--points", write_points(tmp_path / "plots.csv", lonlat), *more)
    assert code == 5
    assert "format is 'geotiff' there and 'vectors' here" in stderr


def test_a_damaged_file_of_vectors_is_found_and_made_again(scattered, tessera, tmp_path):
    items, _, lonlat, _ = scattered
    out = tmp_path / "out"
    command = ["embed", "--points", write_points(tmp_path / "plots.csv", lonlat), *options(items)]
    assert tessera(*command, "--out", out)[0] == 0
    path = sorted(out.glob("*_vectors.npy"))[0]
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert tessera("verify", out)[0] == 4
    assert tessera(*command, "--out", out)[0] == 0
    assert path.read_bytes() == before
    assert tessera("verify", out)[0] == 0


def test_the_order_of_points_does_not_matter_to_the_run(scattered, tessera, tmp_path):
    items, _, lonlat, _ = scattered
    out = tmp_path / "out"
    assert tessera("embed", "--points", write_points(tmp_path / "a.csv", lonlat), *options(items), "--out", out)[0] == 0
    again = write_points(tmp_path / "b.csv", np.concatenate([lonlat[::-1], lonlat[:2]]))
    code, _, stderr = tessera("embed", "--points", again, *options(items), "--out", out, "-v")
    assert code == 0
    assert "using the frozen scene list" in stderr
    assert len(list((out / "runs").glob("*.json"))) == 1


def test_plots_without_imagery_have_a_row_that_says_so(tessera, tmp_path):
    west, north = 116 * 5120.0, 1133 * 5120.0
    items = imagery(tmp_path / "web", {"tile": (32630, west, north)}, size=20)
    seen, unseen = degrees(32630, [west + 55], [north - 55]), degrees(32630, [west + 3000], [north - 3000])
    more = [*options(items), "--out", tmp_path / "out"]
    code, _, stderr = tessera("embed", "--points", write_points(tmp_path / "unseen.csv", unseen), *more)
    assert code == 3
    assert "No pixel has enough clear observations" in stderr
    assert tessera("embed", "--points", write_points(tmp_path / "seen.csv", seen), *more)[0] == 0
    assert table(tmp_path / "out")["status"] == ["ok"]
    code, _, stderr = tessera("embed", "--points", tmp_path / "unseen.csv", *more)
    assert code == 0
    assert "none of 1 point has an embedding" in stderr
    assert table(tmp_path / "out")["status"] == ["none"]
