"""The main job end to end on a small catalogue: what is written, resumed, refused, and that bytes repeat."""

import errno
import gzip
import hashlib
import json
import os
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely

from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.errors import DiskFullError, TileError
from tessera_cli.extent.grid import Tile, from_utm
from tessera_cli.files import write_bytes
from tessera_cli.models.quantise import dequantise
from tessera_cli.outputs.item import TileRecord
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS
from tests.conftest import box_geojson, make_catalog

WEST, EAST = Tile(32630, 116, 1132), Tile(32630, 117, 1132)


def hashes(folder, pattern="*.tif"):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(pattern))}


def read(folder, tile, role, window="2021"):
    with rasterio.open(folder / f"{tile.id}_{window}_{role}.tif") as src:
        return src.read()


def record(folder, tile, window="2021"):
    return TileRecord.from_item(json.loads((folder / f"{tile.id}_{window}.json").read_text()))


def test_a_run_writes_tiles_records_and_a_mosaic(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = tessera("embed", *catalog.options(out))
    assert code == 0, stderr
    names = {path.name for path in out.iterdir()}
    rasters = {f"{tile.id}_2021_{role}.tif" for tile in (WEST, EAST) for role in ("emb", "scales", "counts")}
    records = {f"{tile.id}_2021.json" for tile in (WEST, EAST)}
    lists = {"collection.json", "catalog.json", "items.parquet"}
    vrts = {"utm30n_2021.vrt", "utm30n_2021_codes.vrt", "utm30n_2021_scales.vrt"}
    assert names == rasters | records | lists | vrts | {"run.json", "runs", "scenes.ndjson.gz"}
    assert [line.rsplit("/", 1)[1] for line in stdout.splitlines()] == [
        f"{WEST.id}_2021_emb.tif",
        f"{EAST.id}_2021_emb.tif",
        "utm30n_2021.vrt",
    ]


def test_the_values_are_those_of_the_imagery(catalog, tessera, tmp_path):
    """The band means of the `null` model against an independent computation from the files."""
    out = tmp_path / "out"
    assert tessera("embed", *catalog.options(out))[0] == 0
    values = dequantise(np.moveaxis(read(out, EAST, "emb"), 0, -1), read(out, EAST, "scales")[0])
    step = read(out, EAST, "scales")[0]
    row, column = round((EAST.bounds[3] - catalog.origin[1]) / 10) + 17, 9  # pixel (17, 29) of the scenes
    dn, power = [], {"vv": [], "vh": []}
    for item in json.loads(catalog.items.read_text())["features"]:
        arrays = {}
        for key, asset in item["assets"].items():
            with rasterio.open(catalog.folder / asset["href"]) as src:
                arrays[key] = src.read(1)
        if "SCL" not in arrays:
            for pol in power:
                power[pol].append(arrays[pol][17, 29])
        elif arrays["SCL"][8, 14] == 4:
            fine = {
                band: arrays[band][17, 29] if arrays[band].shape[0] == 40 else arrays[band][8, 14] for band in S2_BANDS
            }
            dn.append([fine[band] for band in S2_BANDS])
    assert read(out, EAST, "counts")[:, row, column].tolist() == [len(dn), 2, 1]
    expected = (np.mean(dn, axis=0) - V2_STUDENT_STATISTICS.s2_mean) / V2_STUDENT_STATISTICS.s2_std
    np.testing.assert_allclose(values[row, column, :10], expected, atol=step[row, column] / 2 + 1e-5)


def test_pixels_outside_the_area_are_nodata(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    area = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    rows, columns = np.mgrid[:512, :512]
    x, y = EAST.transform * (columns + 0.5, rows + 0.5)
    lon, lat = from_utm(32630).transform(x, y)
    inside = shapely.contains_xy(area, lon, lat)
    codes, scales, counts = (read(out, EAST, role) for role in ("emb", "scales", "counts"))
    assert (codes[:, ~inside] == -128).all()
    assert np.isnan(scales[0][~inside]).all()
    assert (counts[:, ~inside] == 65535).all()
    assert record(out, EAST).requested.sum() == inside.sum() == (counts[0] != 65535).sum()
    seen = counts[0][inside] > 0
    assert (codes[0][inside] != -128).tolist() == seen.tolist()
    assert 0 < seen.sum() < seen.size  # some pixels are never clear: no Sentinel-2, no embedding


def test_minimum_observations(catalog, tessera, tmp_path):
    def valid(*options):
        out = tmp_path / "-".join(options)
        assert tessera("embed", *catalog.options(out), *options)[0] == 0
        return (read(out, EAST, "emb")[0] != -128), read(out, EAST, "counts").astype(int)

    default, counts = valid("--min-s2", "1")
    strict, _ = valid("--min-s2", "3")
    radar_only, _ = valid("--min-s2", "0")
    asked = counts[0] != 65535
    assert (default == (asked & (counts[0] >= 1))).all()
    assert (strict == (asked & (counts[0] >= 3))).all()
    assert (radar_only == asked).all()
    assert tessera("embed", *catalog.options(tmp_path / "much"), "--min-s1", "4")[0] == 3


def test_a_second_run_does_nothing(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tif")}
    shutil.rmtree(catalog.folder / "cogs")  # and reads no pixel
    code, stdout, _ = tessera("embed", *catalog.options(out), "--json")
    assert code == 0
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line.get("status") for line in lines[:-1]] == ["present", "present"]
    assert lines[-1]["tiles"] == {"done": 0, "empty": 0, "failed": 0, "present": 2}
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tif")} == before


@pytest.mark.parametrize("damage", ["emb.tif", "scales.tif", "json", "short"])
def test_a_rerun_makes_what_is_missing_and_only_that(catalog, tessera, tmp_path, damage):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    expected = hashes(out) | hashes(out, "*.json")
    other = (out / f"{WEST.id}_2021_emb.tif").stat().st_mtime_ns
    if damage == "json":
        (out / f"{EAST.id}_2021.json").unlink()
    elif damage == "short":
        path = out / f"{EAST.id}_2021_emb.tif"
        path.write_bytes(path.read_bytes()[:1000])
    else:
        (out / f"{EAST.id}_2021_{damage}").unlink()
    code, stdout, _ = tessera("embed", *catalog.options(out), "--json")
    assert code == 0
    assert [json.loads(line).get("status") for line in stdout.splitlines()[:2]] == ["present", "done"]
    assert hashes(out) | hashes(out, "*.json") == expected
    assert (out / f"{WEST.id}_2021_emb.tif").stat().st_mtime_ns == other


def test_the_scene_list_is_frozen(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    lines = [json.loads(line) for line in gzip.decompress((out / "scenes.ndjson.gz").read_bytes()).splitlines()]
    assert len(lines) == 7
    expected = hashes(out)
    for path in out.glob("*_2021*"):
        path.unlink()
    catalog.edit(lambda items: [i for i in items if i["id"] != "S2A_2021-07-01"])
    assert tessera("embed", *catalog.options(out))[0] == 0
    assert hashes(out) == expected  # the list of the first run counts
    for path in out.glob("*_2021*"):
        path.unlink()
    assert tessera("embed", *catalog.options(out), "--refresh")[0] == 0
    assert "S2A_2021-07-01" not in record(out, EAST).scenes


def test_plan_freezes_for_embed(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    options = catalog.options(out)
    code, stdout, _ = tessera("plan", *options, "--json")
    assert code == 0
    planned = json.loads(stdout)
    assert planned["tiles"] == 2
    assert planned["windows"]["2021"]["s2"]["dates"] == 4
    assert planned["windows"]["2021"]["s1_asc"]["by_month"] == {"2021-03": 1, "2021-10": 1}
    assert planned["windows"]["2021"]["s1_asc"]["longest_gap_days"] == 214
    catalog.items.unlink()
    assert tessera("embed", *options)[0] == 0
    assert planned["pixels"] == sum(int(record(out, tile).requested.sum()) for tile in (WEST, EAST))


# --- decision 3: a pixel's embedding depends on the pixel alone -------------------------------------------------------


def test_overlapping_areas_give_identical_bytes_where_they_overlap(catalog, tessera, tmp_path):
    west, north = catalog.origin
    smaller = catalog.folder / "smaller.geojson"
    smaller.write_text(json.dumps(box_geojson(west + 100, north - 300, west + 300, north - 120)))
    whole, part = tmp_path / "whole", tmp_path / "part"
    tessera("embed", *catalog.options(whole))
    options = catalog.options(part)
    options[1] = str(smaller)
    assert tessera("embed", *options)[0] == 0
    for tile in (WEST, EAST):
        both = record(part, tile).requested
        assert 0 < both.sum() < record(whole, tile).requested.sum()
        for role in ("emb", "scales", "counts"):
            a, b = read(whole, tile, role)[:, both], read(part, tile, role)[:, both]
            assert a.tobytes() == b.tobytes()


def test_a_larger_area_re_encodes_the_union(catalog, tessera, tmp_path):
    """First a part, then another part: the folder ends with the pixels of both, byte for byte as in one run."""
    west, north = catalog.origin
    out, once = tmp_path / "out", tmp_path / "once"
    boxes = [(west + 220, north - 200, west + 300, north - 100), (west + 260, north - 300, west + 380, north - 150)]
    for number, box in enumerate(boxes):
        aoi = catalog.folder / f"{number}.geojson"
        aoi.write_text(json.dumps(box_geojson(*box)))
        options = catalog.options(out)
        options[1] = str(aoi)
        assert tessera("embed", *options)[0] == 0
    geometries = [box_geojson(*box) for box in boxes]
    union = catalog.folder / "union.geojson"
    union.write_text(json.dumps({"type": "GeometryCollection", "geometries": geometries}))
    options = catalog.options(once)
    options[1] = str(union)
    tessera("embed", *options)
    assert hashes(out) == hashes(once)
    assert (record(out, EAST).requested == record(once, EAST).requested).all()


def test_what_was_asked_before_survives_a_crash_while_replacing(catalog, tessera, tmp_path):
    west, north = catalog.origin
    out = tmp_path / "out"
    options = catalog.options(out)
    tessera("embed", *options)
    expected = hashes(out)
    done = out / f"{EAST.id}_2021.json"
    done.rename(done.with_name(done.name + ".stale"))  # as set aside when the process died
    (out / f"{EAST.id}_2021_scales.tif").unlink()
    small = catalog.folder / "small.geojson"
    small.write_text(json.dumps(box_geojson(west + 260, north - 200, west + 300, north - 160)))
    options[1] = str(small)
    assert tessera("embed", *options)[0] == 0
    assert hashes(out) == expected
    assert not list(out.glob("*.stale"))


def test_thread_counts_and_tile_order_give_identical_bytes(catalog, tessera, tmp_path, monkeypatch):
    import torch

    from tessera_cli.models import EncoderConfig
    from tessera_cli.models.checkpoint import save_safetensors
    from tessera_cli.models.encoder import Encoder

    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_safetensors(weights, Encoder(EncoderConfig.of(latent=8, layers=2, heads=4, feedforward=64)), {"name": "tiny"})
    results = []
    for threads, order in ((1, 1), (3, 1), (2, -1)):
        out = tmp_path / f"out{threads}{order}"
        options = [str(weights) if o == "null" else o for o in catalog.options(out)]
        if order == -1:
            from tessera_cli.runs import inputs

            found = inputs.CatalogInputs.tile_requests.fget
            reverse = property(lambda self, found=found: found(self)[::-1])
            monkeypatch.setattr(inputs.CatalogInputs, "tile_requests", reverse)
        assert tessera("embed", *options, "--threads", threads)[0] == 0
        results.append(hashes(out))
    assert results[0] == results[1] == results[2]


# --- what a folder belongs to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"), [(["--min-s2", "2"], "min_s2"), (["--dims", "64"], "dims"), (["--min-s1", "1"], "min_s1")]
)
def test_another_identity_is_refused(catalog, tessera, tmp_path, options, field):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    before = hashes(out)
    code, _, stderr = tessera("embed", *catalog.options(out), *options)
    assert code == 5
    assert f"{field} is" in stderr
    assert hashes(out) == before


def test_years_share_a_folder(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    options = catalog.options(out)
    options[2:4] = ["--window", "2021-03/2021-10"]
    assert tessera("embed", *options)[0] == 0
    assert (out / "utm30n_20210301-20211031.vrt").exists()
    assert record(out, EAST).window.name == "2021"
    assert read(out, EAST, "counts", "20210301-20211031")[1].max(where=record(out, EAST).requested, initial=0) == 2


def test_gaps_are_warned_of_and_recorded(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    _, _, stderr = tessera("embed", *catalog.options(out))
    assert "s2-gap" in stderr
    assert record(out, EAST).warnings == (
        "s2-gap: 107 days without a usable observation",
        "s1-gap: 121 days without a usable observation",
    )


# --- holes -----------------------------------------------------------------------------------------------------------


def test_a_hole_fails_its_tile_and_no_other(tmp_path, tessera):
    catalog = make_catalog(tmp_path / "catalog")
    # a second scene of the date, east of the border only
    west_only = catalog.folder / "cogs" / "S2A_2021-07-01" / "B05.tif"
    west_only.unlink()
    out = tmp_path / "out"
    code, stdout, stderr = tessera("embed", *catalog.options(out), "--json")
    assert code == 4
    summary = json.loads(stdout.splitlines()[-1])
    assert summary["tiles"]["failed"] == 2
    assert summary["exit_code"] == 4
    assert "S2A_2021-07-01: B05 is absent" in stderr
    assert not list(out.glob("*.tif"))
    code, stdout, _ = tessera("info", out, "--json")
    tiles = json.loads(stdout)["by_tile"]
    assert {tile["status"] for tile in tiles.values()} == {"failed"}
    assert "B05 is absent" in tiles[f"{EAST.id}_2021"]["reason"]


def test_allowed_holes_are_recorded_and_filled_later(catalog, tessera, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    tessera("embed", *catalog.options(whole))
    path = catalog.folder / "cogs" / "S2A_2021-07-01" / "B05.tif"
    content = path.read_bytes()
    path.unlink()
    assert tessera("embed", *catalog.options(out), "--allow-missing", "1")[0] == 0
    assert record(out, EAST).missing_scenes == {"S2A_2021-07-01": "B05 is absent"}
    assert read(out, EAST, "counts")[0].min() < read(whole, EAST, "counts")[0].max()
    assert hashes(out) != hashes(whole)
    assert tessera("embed", *catalog.options(out))[0] == 4  # no hole is allowed now, and it is still there
    assert record(out, EAST).missing_scenes
    path.write_bytes(content)
    assert tessera("embed", *catalog.options(out))[0] == 0
    assert record(out, EAST).missing_scenes == {}
    assert hashes(out) == hashes(whole)


def test_the_next_scene_of_the_date_takes_over_for_a_hole(tmp_path, tessera):
    from tests.helpers.builders import block, s2_item
    from tests.helpers.builders import read as read_dpixels

    first = s2_item(tmp_path, "B", "2021-07-01T11:00:00Z", {"B02": 1200})
    second = s2_item(tmp_path, "A", "2021-07-01T11:00:00Z", {"B02": 1100})
    (tmp_path / "B" / "B12.tif").write_bytes(b"II*\x00 not a raster")
    dpixels = read_dpixels([first, second], allow_missing=1)
    assert (block(dpixels, "B02") == 1100).all()
    assert list(dpixels.missing_scenes) == ["B"]
    assert "broken" in dpixels.missing_scenes["B"]


# --- failures --------------------------------------------------------------------------------------------------------


def told(tessera, out, tile=EAST):
    """What `info` says of a tile."""
    return json.loads(tessera("info", out, "--json")[1])["by_tile"][f"{tile.id}_2021"]


def test_a_write_that_corrupts_puts_nothing_in_place(catalog, tessera, tmp_path, monkeypatch):
    """Neither rasters nor a record, nor a place in the mosaic; rasters of an earlier run stay as they are."""
    from tessera_cli.outputs import formats

    out, whole = tmp_path / "out", tmp_path / "whole"
    tessera("embed", *catalog.options(whole))
    write = formats.write_bytes

    def corrupting(path, data):
        write(path, bytes(data[:-1]) + bytes([data[-1] ^ 1]) if path.name == f"{EAST.id}_2021_emb.tif" else data)

    def names():
        return {path.name: path.read_bytes() for path in out.glob("*") if EAST.id in path.name}

    def mosaic():
        return (out / "utm30n_2021_codes.vrt").read_text()

    for _ in range(2):
        before = names()
        with monkeypatch.context() as patched:
            patched.setattr(formats, "write_bytes", corrupting)
            code, _, stderr = tessera("embed", *catalog.options(out))
        assert code == 4
        assert f"{out / EAST.id}_2021_emb.tif is damaged" in stderr
        assert names() == before
        assert told(tessera, out)["status"] == "failed"
        assert told(tessera, out, WEST)["status"] == "done"
        assert WEST.id in mosaic()
        assert EAST.id not in mosaic()
        assert tessera("embed", *catalog.options(out))[0] == 0
        assert hashes(out) == hashes(whole)
        assert told(tessera, out)["status"] == "done"
        for vrt in whole.glob("*.vrt"):
            assert (out / vrt.name).read_text() == vrt.read_text()
        (out / f"{EAST.id}_2021_counts.tif").unlink()  # so that the next run does the tile again


@pytest.mark.parametrize("kind", ["full", "read-only", "corrupt"])
def test_a_finished_tile_outlives_a_larger_run_that_cannot_write_it(catalog, tessera, tmp_path, monkeypatch, kind):
    from tessera_cli.outputs import formats

    west, north = catalog.origin
    out, options = tmp_path / "out", catalog.options(tmp_path / "out")
    small = catalog.folder / "small.geojson"
    small.write_text(json.dumps(box_geojson(west + 260, north - 200, west + 300, north - 160)))
    assert tessera("embed", *["--aoi", small, *options[2:]])[0] == 0
    before = {path.name: path.read_bytes() for path in out.glob("*") if EAST.id in path.name}

    def failing(path, data):
        if EAST.id in path.name and path.name.endswith("_counts.tif"):
            if kind == "corrupt":
                raise TileError(f"{path} is damaged")
            code = {"full": errno.ENOSPC, "read-only": errno.EROFS}[kind]
            raise OSError(code, os.strerror(code), str(path))
        write_bytes(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(formats, "write_bytes", failing)
        code, _, stderr = tessera("embed", *options)
    assert code == {"full": 4, "read-only": 2, "corrupt": 4}[kind]
    assert f"{EAST.id}_2021_counts.tif" in stderr.splitlines()[-1]
    assert ".part" not in stderr
    assert {path.name: path.read_bytes() for path in out.glob("*") if EAST.id in path.name} == before
    (status,) = json.loads(tessera("verify", out / f"{EAST.id}_2021_emb.tif", "--json")[1])["checked"]
    assert status == ("failed" if kind == "corrupt" else "sound")  # to make the larger one, which a run has noted
    code, stdout, _ = tessera("embed", *["--aoi", small, *options[2:]], "--json")
    assert json.loads(stdout.splitlines()[0])["status"] == "present"
    assert tessera("embed", *options)[0] == 0
    assert tessera("verify", out)[0] == 0


def test_a_full_disk_stops_the_run(catalog, tessera, tmp_path, monkeypatch):
    from tessera_cli.outputs import formats

    out = tmp_path / "out"

    def write(path, data):
        if path.name.endswith("_scales.tif"):
            raise DiskFullError(f"{path} cannot be written: the disk is full.")
        write_bytes(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(formats, "write_bytes", write)
        code, stdout, stderr = tessera("embed", *catalog.options(out))
    assert (code, stdout) == (4, "")
    assert stderr.splitlines()[-1].endswith("_scales.tif cannot be written: the disk is full.")
    names = {path.name for path in out.iterdir() if path.suffix != ".partial"}  # of the tile in hand
    assert names == {"run.json", "runs", "scenes.ndjson.gz"}
    assert tessera("embed", *catalog.options(out))[0] == 0
    assert not list(out.glob("*.partial"))


def test_a_tile_that_becomes_empty_loses_its_rasters(catalog, tessera, tmp_path):
    out, options = tmp_path / "out", catalog.options(tmp_path / "out")
    west, north = catalog.origin
    small = catalog.folder / "small.geojson"
    small.write_text(json.dumps(box_geojson(west + 260, north - 200, west + 300, north - 160)))
    tessera("embed", *["--aoi", small, *options[2:]])
    for path in (catalog.folder / "cogs").glob("*/SCL.tif"):
        with rasterio.open(path, "r+") as src:
            src.write(np.full((1, *src.shape), 9, np.uint8))  # all cloud
    assert tessera("embed", *options)[0] == 3
    assert told(tessera, out)["status"] == "empty"
    assert not list(out.glob("*.tif"))
    assert not list(out.glob("*.vrt"))


def test_rasters_without_a_record_are_in_no_mosaic(catalog, tessera, tmp_path):
    from tessera_cli.extent.window import Window
    from tessera_cli.folders.folder import TileFolder
    from tessera_cli.runs.mosaic import write_mosaics

    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    folder, windows = TileFolder.open(out), [Window.from_name("2021")]
    (out / f"{EAST.id}_2021.json").unlink()
    (path,) = write_mosaics(folder, windows)
    for part in ("codes", "scales"):
        shown = path.with_name(f"utm30n_2021_{part}.vrt").read_text()
        assert EAST.id not in shown
        assert WEST.id in shown
    (out / f"{WEST.id}_2021.json").unlink()
    assert write_mosaics(folder, windows) == ()
    assert not list(out.glob("*.vrt"))


def test_info_tells_a_failure_until_the_tile_is_done_as_it_was_asked(catalog, tessera, tmp_path):
    out, options = tmp_path / "out", catalog.options(tmp_path / "out")
    west, north = catalog.origin
    small = catalog.folder / "small.geojson"
    small.write_text(json.dumps(box_geojson(west + 260, north - 200, west + 300, north - 160)))
    assert tessera("embed", *["--aoi", small, *options[2:]])[0] == 0
    assert told(tessera, out)["status"] == "done"
    path = catalog.folder / "cogs" / "S2A_2021-07-01" / "B05.tif"
    content = path.read_bytes()
    path.unlink()

    assert tessera("embed", *options)[0] == 4  # asks for more than the small area
    failed = told(tessera, out)
    assert (failed["status"], failed["pixels"]) == ("failed", record(out, EAST).pixels)  # which are still there
    assert "B05 is absent" in failed["reason"]
    assert tessera("embed", *["--aoi", small, *options[2:]])[0] == 0  # is there already, and mends nothing
    assert told(tessera, out)["status"] == "failed"

    larger = catalog.folder / "larger.geojson"
    larger.write_text(json.dumps(box_geojson(west, north - 400, west + 400, north)))
    assert tessera("embed", *["--aoi", larger, *options[2:]], "--allow-missing", "1")[0] == 0
    assert told(tessera, out)["status"] == "failed"  # that run allowed no hole
    path.write_bytes(content)
    assert tessera("embed", *["--aoi", larger, *options[2:]])[0] == 0
    assert told(tessera, out)["status"] == "done"  # though the run that failed was not run again


def test_the_note_on_a_card_reaches_folder_records_and_rasters(catalog, tessera, tmp_path):
    """Whatever the model's name is."""
    from tessera_cli.models import EncoderConfig
    from tessera_cli.models.checkpoint import save_safetensors
    from tessera_cli.models.encoder import Encoder

    weights, out = tmp_path / "oak.safetensors", tmp_path / "out"
    encoder = Encoder(EncoderConfig.of(latent=8, layers=1, heads=4, feedforward=16))
    save_safetensors(weights, encoder, {"name": "oak", "demonstration_only": True})
    options = [str(weights) if o == "null" else o for o in catalog.options(out)]
    assert tessera("embed", *options)[0] == 0
    assert json.loads((out / "run.json").read_text())["note"] == "for demonstration only"
    assert record(out, EAST).note == "for demonstration only"
    for path in (out, out / f"{EAST.id}_2021.json", out / f"{EAST.id}_2021_emb.tif", out / "utm30n_2021.vrt"):
        assert json.loads(tessera("info", path, "--json")[1])["note"] == "for demonstration only"

    plain = tmp_path / "plain"
    tessera("embed", *catalog.options(plain))
    for path in (plain, plain / f"{EAST.id}_2021.json", plain / f"{EAST.id}_2021_emb.tif"):
        assert "note" not in json.loads(tessera("info", path, "--json")[1])


def test_a_plan_freezes_scenes_and_chooses_nothing(catalog, tessera, tmp_path):
    """Neither model nor precision nor type: those are the business of the run that follows."""
    out = tmp_path / "out"
    assert tessera("plan", *catalog.options(out))[0] == 0
    frozen = (out / "scenes.ndjson.gz").read_bytes()
    assert not (out / "run.json").exists()
    catalog.edit(lambda items: [])  # nothing is searched again
    options = ["--dtype", "float32", "--min-s2", "2"]
    assert tessera("embed", *catalog.options(out), *options)[0] == 0
    assert json.loads((out / "run.json").read_text())["identity"]["dtype"] == "float32"
    assert (out / "scenes.ndjson.gz").read_bytes() == frozen
    assert tessera("plan", *catalog.options(out))[0] == 0  # nor does it ask whose the folder is
    assert tessera("embed", *catalog.options(out))[0] == 5


def test_a_folder_of_another_model_names_the_settings_that_differ(catalog, tessera, tmp_path):
    """One by one: `model_config` is no value that a person compares."""
    from tessera_cli.models import EncoderConfig
    from tessera_cli.models.checkpoint import save_safetensors
    from tessera_cli.models.encoder import Encoder

    out = tmp_path / "out"
    for layers, code in ((1, 0), (2, 5)):
        weights = tmp_path / f"of{layers}.safetensors"
        encoder = Encoder(EncoderConfig.of(latent=8, layers=layers, heads=4, feedforward=16))
        save_safetensors(weights, encoder, {"name": weights.stem})
        options = [str(weights) if o == "null" else o for o in catalog.options(out)]
        found, _, stderr = tessera("embed", *options)
        assert found == code
    error = stderr.splitlines()[-1]
    assert "model is 'of1' there and 'of2' here" in error
    assert "model_config.s2.layers is 1 there and 2 here" in error
    assert "{" not in error
    assert len(error) < 600

    code, _, stderr = tessera("embed", *(o if o != "null" else "demo" for o in catalog.options(out)))
    error = stderr.splitlines()[-1]
    assert code == 5
    assert "model is 'of1' there and 'demo' here" in error
    assert "differ as well" in error
    assert "{" not in error


def test_progress_tells_the_files_of_each_tile(catalog, tmp_path):
    """As many as are counted in the summary; objects that know nothing of it are left alone."""
    import tessera_cli
    from tessera_cli.runs.results import Silent

    class Told(Silent):
        def __init__(self):
            self.told = []

        def reading(self, tile, files, planned, bytes):
            self.told.append((tile, files, planned, bytes))

    class Former:
        tiles = 0

        def begin(self, tiles, pixels): ...

        def advance(self, pixels): ...

        def tile(self, result):
            self.tiles += 1

    given = {"year": 2021, "catalog": str(catalog.items), "model": "null"}
    told = Told()
    summary = tessera_cli.embed(catalog.aoi, **given, out=tmp_path / "out", progress=told)
    ends = {}
    for tile, files, planned, received in told.told:
        before = ends.get(tile, (0, 4 * 11 + 3 * 2))
        assert files == before[0] + 1
        assert files <= planned <= before[1]
        assert received == 0  # the files are local
        ends[tile] = (files, planned)
    assert list(ends) == [f"{WEST.id}_2021", f"{EAST.id}_2021"]
    assert all(files == planned for files, planned in ends.values())
    assert sum(files for files, _ in ends.values()) == summary.network["reads"]["read"]
    former = Former()
    assert tessera_cli.embed(catalog.aoi, **given, out=tmp_path / "other", progress=former).error() is None
    assert former.tiles == 2


def test_a_plan_goes_by_the_preprocessing(catalog, tessera, tmp_path):
    """Which scenes it would use, and which it could not: copies of one acquisition, and unknown baselines."""
    copy = "S2A_MSIL2A_20210701T105031_N{}_R051_T30UXC_{}T000000"

    def reprocessed(items):
        (scene,) = (item for item in items if item["id"] == "S2A_2021-07-01")
        for item in items:
            item["properties"]["s2:processing_baseline"] = "03.01" if "07-01" in item["id"] else None
        newer = json.loads(json.dumps(scene))
        newer["properties"]["s2:processing_baseline"] = "05.00"
        scene["id"], newer["id"] = copy.format("0301", "20210701"), copy.format("0500", "20230101")
        return [*items, newer]

    catalog.edit(reprocessed)
    words = catalog.options(tmp_path / "out")
    official, corrected = (
        json.loads(tessera("plan", *words, "--preprocessing", name, "--json")[1]) for name in ("official", "corrected")
    )
    scenes = [made["windows"]["2021"]["s2"]["scenes"] for made in (official, corrected)]
    assert scenes[1] == scenes[0] - 1
    assert official["incomplete"] == {}
    assert len(corrected["incomplete"]) == scenes[1] - 1
    assert not [scene for scene in corrected["incomplete"] if "20210701" in scene]


def test_records_hold_the_identity_of_the_folder(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out), "--min-s2", "2")
    identity = json.loads((out / "run.json").read_text())["identity"]
    assert record(out, EAST).identity == identity
    assert (identity["source"], identity["preprocessing"], identity["min_s2"]) == ("mpc", "official", 2)


def summary_of(catalog, out):
    """A run through the library."""
    from tessera_cli.catalog import get_source
    from tessera_cli.extent.aoi import Aoi
    from tessera_cli.extent.window import Window
    from tessera_cli.folders.identity import EmbedSettings
    from tessera_cli.imagery import Reader
    from tessera_cli.models import load_model
    from tessera_cli.net import Client
    from tessera_cli.planning.scene_search import Request, search_scenes
    from tessera_cli.runs.embed import embed
    from tessera_cli.runs.inputs import CatalogInputs

    request = Request(Aoi.from_file(catalog.aoi), (Window.from_name("2021"),), get_source("mpc"), str(catalog.items))
    settings = EmbedSettings.checked(load_model("null"), "mpc")
    folder = settings.folder(out)
    return embed(CatalogInputs(search_scenes(request, Client(), folder), Reader(Client())), settings, folder)


def test_results_as_json(catalog, tmp_path, caplog):
    caplog.set_level("DEBUG", "tessera_cli.runs.embed")
    summary = summary_of(catalog, tmp_path / "out")
    tile = summary.results[0].to_dict()
    assert list(tile) == ["type", "schema", "tile", "window", "status", "path", "pixels", "tokens", "seconds", "bytes"]
    assert (tile["type"], tile["schema"], tile["tile"]) == ("tile", 1, WEST.id)
    assert json.loads(json.dumps(summary.to_dict())) == {
        "type": "summary",
        "schema": 1,
        "out": str(tmp_path / "out"),
        "tiles": {"done": 2, "empty": 0, "failed": 0, "present": 0},
        "pixels": sum(result.pixels for result in summary.results),
        "tokens": 0,
        "left": 0,
        "resources": dict(summary.resources),
        "seconds": round(summary.seconds, 3),
        "stages": {stage: round(seconds, 3) for stage, seconds in summary.stages.items()},
        "network": {  # on both tiles 4 times SCL and 10 bands, 3 times VV and VH
            "reads": {"read": 2 * (4 * 11 + 3 * 2), "absent": 0, "broken": 0, "refused": 0, "unknown": 0},
            "retries": {},
            "requests": 0,
            "bytes": 0,
            "local_bytes": summary.resources["read_bytes"],
        },
        "mosaics": [str(tmp_path / "out" / "utm30n_2021.vrt")],
        "exit_code": 0,
    }
    assert set(summary.stages) == {"start", "read", "encode", "write"}
    assert all(0 < seconds < summary.seconds for seconds in summary.stages.values())
    after = summary.seconds - summary.stages["start"]
    assert summary.encode_share == summary.stages["encode"] / after
    assert f"encode {summary.stages['encode']:.1f} s ({summary.encode_share:.0%} of the time after" in caplog.text
    assert replace(summary, stages={}).encode_share is None


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_tile_outlives_it(catalog, tmp_path, monkeypatch, fails):
    """Not even in the tracebacks of tiles that failed."""
    from tessera_cli.errors import TileError
    from tessera_cli.runs import encoding, reading

    held = []
    read_dpixels = reading.read_dpixels

    def watched(*arguments, **options):
        dpixels = read_dpixels(*arguments, **options)
        held.append(weakref.ref(dpixels))
        return dpixels

    def failing(*arguments, **options):
        try:
            raise ValueError
        except ValueError as error:
            raise TileError("broken") from error

    monkeypatch.setattr(reading, "read_dpixels", watched)
    if fails:
        monkeypatch.setattr(encoding, "encode", failing)
    summary = summary_of(catalog, tmp_path / "out")
    assert len(held) == 2
    assert [str(result.error) for result in summary.results] == ["broken" if fails else "None"] * 2
    assert not any(reference() for reference in held)


def frozen_ids(out):
    return {json.loads(line)["id"] for line in gzip.decompress((out / "scenes.ndjson.gz").read_bytes()).splitlines()}


def test_refresh_redoes_what_was_made_from_other_scenes(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    before = hashes(out)
    catalog.edit(lambda items: [i for i in items if i["id"] != "S2A_2021-05-20"])
    code, stdout, _ = tessera("embed", *catalog.options(out), "--refresh", "--json")
    assert code == 0
    assert json.loads(stdout.splitlines()[-1])["tiles"]["done"] == 2
    assert "S2A_2021-05-20" not in record(out, EAST).scenes
    refreshed = hashes(out)
    assert refreshed != before
    code, stdout, _ = tessera("embed", *catalog.options(out), "--json")  # and it stays refreshed
    assert json.loads(stdout.splitlines()[-1])["tiles"]["present"] == 2
    for path in out.glob("*_2021*"):
        path.unlink()
    tessera("embed", *catalog.options(out))
    assert hashes(out) == refreshed


def test_each_run_keeps_its_own_scenes(catalog, tessera, tmp_path):
    """A run that was frozen and killed is resumed with its own scenes, whatever another run searched since."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    tessera("embed", *catalog.options(alone))
    tessera("plan", *catalog.options(out))
    subset = catalog.folder / "subset.json"
    collection = json.loads(catalog.items.read_text())
    kept = [i for i in collection["features"] if i["id"] in ("S2A_2021-07-01", "S1A_2021-03-05")]
    subset.write_text(json.dumps({**collection, "features": kept}))
    west, north = catalog.origin
    small = catalog.folder / "small.geojson"
    small.write_text(json.dumps(box_geojson(west + 260, north - 200, west + 300, north - 160)))
    options = catalog.options(out)
    options[1], options[5] = str(small), str(subset)
    assert tessera("embed", *options)[0] == 0
    assert len(record(out, EAST).scenes) == 2
    assert tessera("embed", *catalog.options(out))[0] == 0
    assert len(record(out, WEST).scenes) == 7
    assert hashes(out) == hashes(alone)


def test_a_list_that_lost_scenes_is_searched_again(catalog, tessera, tmp_path):
    """Two runs begun in the same moment: the later list replaced the earlier."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    tessera("embed", *catalog.options(alone))
    tessera("plan", *catalog.options(out))
    path = out / "scenes.ndjson.gz"
    path.write_bytes(gzip.compress(b"\n".join(gzip.decompress(path.read_bytes()).splitlines()[:2])))
    code, _, stderr = tessera("embed", *catalog.options(out))
    assert code == 0
    assert "searching again" in stderr
    assert hashes(out) == hashes(alone)


@pytest.mark.parametrize("damage", ["short", "inside", "text"])
def test_a_damaged_list_is_said_and_can_be_refreshed(catalog, tessera, tmp_path, damage):
    out = tmp_path / "out"
    tessera("plan", *catalog.options(out))
    path = out / "scenes.ndjson.gz"
    content = path.read_bytes()
    path.write_bytes(
        {"short": content[:100], "inside": content[:60] + b"xxxx" + content[64:], "text": gzip.compress(b"[]\n1")}[
            damage
        ]
    )
    code, _, stderr = tessera("embed", *catalog.options(out))
    assert code == 2
    assert "--refresh" in stderr
    assert tessera("embed", *catalog.options(out), "--refresh")[0] == 0
    assert len(frozen_ids(out)) == 7


@pytest.mark.parametrize("meanwhile", ["encoded", "about to be written"])
def test_two_runs_that_share_a_tile_lose_no_pixel(catalog, tessera, tmp_path, monkeypatch, meanwhile):
    """While one run has the tile in hand, another one finishes it for other pixels."""
    import tessera_cli.runs.embed as run
    import tessera_cli.runs.encoding as encoding

    owner, name = (encoding, "encode") if meanwhile == "encoded" else (run.EmbedJob, "write")

    west, north = catalog.origin
    out, once = tmp_path / "out", tmp_path / "once"
    boxes = [(west + 220, north - 200, west + 300, north - 100), (west + 260, north - 300, west + 380, north - 150)]
    jobs = []
    for number, box in enumerate(boxes):
        aoi = catalog.folder / f"{number}.geojson"
        aoi.write_text(json.dumps(box_geojson(*box)))
        options = catalog.options(out)
        options[1] = str(aoi)
        jobs.append(options)
    stage, codes = getattr(owner, name), []

    def interrupted(*arguments, **options):
        monkeypatch.setattr(owner, name, stage)
        codes.append(tessera("embed", *jobs[1])[0])
        return stage(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)
    assert tessera("embed", *jobs[0])[0] == 0
    assert codes == [0]
    union = catalog.folder / "union.geojson"
    geometries = [box_geojson(*box) for box in boxes]
    union.write_text(json.dumps({"type": "GeometryCollection", "geometries": geometries}))
    options = catalog.options(once)
    options[1] = str(union)
    tessera("embed", *options)
    assert hashes(out) == hashes(once)


def test_a_raster_that_changed_on_disk_is_made_again(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    expected = hashes(out)
    path = out / f"{EAST.id}_2021_emb.tif"
    content = path.read_bytes()
    path.write_bytes(content[:-200] + bytes(200))
    assert tessera("embed", *catalog.options(out))[0] == 0
    assert hashes(out) == expected


def test_a_folder_of_another_format_is_refused(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    run = json.loads((out / "run.json").read_text())
    run["identity"]["format_version"] = 99
    (out / "run.json").write_text(json.dumps(run))
    assert tessera("embed", *catalog.options(out))[0] == 5
    (out / "run.json").write_text("[]")
    assert tessera("embed", *catalog.options(out))[0] == 2


def test_a_finished_read_only_folder_is_success(catalog, tessera, tmp_path):
    import subprocess

    from tests.cli.test_bad_input import mounted, unmount

    mount = tmp_path / "mount"
    mounted(mount)
    try:
        assert tessera("embed", *catalog.options(mount / "out"))[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        code, stdout, _ = tessera("embed", *catalog.options(mount / "out"))
        assert code == 0
        assert len(stdout.splitlines()) == 3
        *_, row = tessera("embed", *catalog.options(mount / "out"), "--min-s2", "2")[2].splitlines()
        assert "other settings" in row
    finally:
        unmount(mount)
