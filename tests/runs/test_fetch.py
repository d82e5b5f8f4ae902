"""`tessera fetch`: what it stores, that the offline command gives the rasters of a direct run, and that it can die."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr

from tessera_cli.cli.app import run
from tessera_cli.errors import SourceRefusedError, SourceUnavailableError
from tessera_cli.extent.grid import Tile, from_utm
from tessera_cli.models import hub
from tests.conftest import SmallCatalog, box_geojson, make_catalog
from tests.helpers.fake_hub import environment
from tests.runs.test_embed_dpixels import rasters, weights_of

WEST, EAST = "utm30n_c0116_r1132_2021", "utm30n_c0117_r1132_2021"
TILES = [WEST, EAST]
ARRAYS = ("bands", "masks", "doys", "sar_ascending", "sar_ascending_doy", "sar_descending", "sar_descending_doy")
FORMATS = pytest.mark.parametrize("form", ["zarr", "npy"])
RUN_RECORDS = ("run.json", "runs", "scenes.ndjson.gz")


def options(catalog: SmallCatalog, out: Path, *more: object, aoi: Path | None = None, model: str = "null") -> list[str]:
    where = ["--aoi", aoi or catalog.aoi, "--year", "2021", "--catalog", catalog.items, "--model", model]
    return [str(word) for word in (*where, "--out", out, *more)]


def boxed(catalog: SmallCatalog, name: str, *box: float) -> Path:
    """An AOI file: a box in metres from the north-west corner of the scenes, of which the east half is on EAST."""
    west, north = catalog.origin
    left, top, right, bottom = box
    path = catalog.folder / f"{name}.geojson"
    path.write_text(json.dumps(box_geojson(west + left, north - bottom, west + right, north - top)))
    return path


def tree(folder: Path) -> dict[str, str]:
    """Every file below, with its SHA-256."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored(folder: Path) -> dict[str, str]:
    """The stores and their records, without what runs note."""
    return {name: digest for name, digest in tree(folder).items() if name.split("/")[0] not in RUN_RECORDS}


@dataclass(frozen=True)
class Fetched:
    """A catalogue that no test may change, and what was fetched from it."""

    catalog: SmallCatalog
    folder: Path

    def options(self, out: Path, form: str, *more: object) -> list[str]:
        return options(self.catalog, out, "--format", form, *more)

    def copy(self, form: str, to: Path) -> Path:
        return Path(shutil.copytree(self.folder / form, to))


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> Fetched:
    folder = tmp_path_factory.mktemp("fetched")
    made = Fetched(make_catalog(folder / "catalog"), folder)
    for form in ("zarr", "npy"):
        assert run(["fetch", *made.options(folder / form, form)]) == 0
    return made


def statuses(stdout: str) -> list[str]:
    return [json.loads(line).get("status") for line in stdout.splitlines()[:-1]]


def record(folder: Path, name: str) -> dict[str, Any]:
    """Our own fields of a tile's record."""
    properties = json.loads((folder / f"{name}.json").read_text())["properties"]
    return {key.removeprefix("tessera:"): value for key, value in properties.items()}


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["null", "v2_student"])
def test_the_printed_command_gives_the_rasters_of_a_direct_run(catalog, tessera, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    chosen = ["--model", "null"] if model == "null" else weights_of(tmp_path, model, latent=4, layers=1)
    where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", catalog.items, *chosen]
    assert tessera("embed", *where, "--out", "direct")[0] == 0
    code, stdout, stderr = tessera("fetch", *where, "--out", "it's $HOME; for you")
    assert code == 0, stderr
    *paths, command = stdout.splitlines()
    assert paths == [f"it's $HOME; for you/{name}.zarr" for name in TILES]
    shutil.rmtree(catalog.folder)  # what the offline machine does not have
    in_shell = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    words = shlex.split(command)
    assert in_shell.stdout.splitlines() == words
    assert words[:4] == ["tessera", "embed", "--dpixels", "it's $HOME; for you"]
    assert tessera(*words[1:])[0] == 0
    out = tmp_path / words[words.index("--out") + 1]
    assert out.name == ("aoi_2021_null" if model == "null" else "aoi_2021_v2-student-own")
    assert len(rasters(tmp_path / "direct")) == 6
    assert rasters(out) == rasters(tmp_path / "direct")


def test_the_command_says_what_the_stores_cannot(catalog, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", catalog.items]

    def command(*more: object) -> str:
        code, stdout, stderr = tessera("fetch", *where, *more)
        assert code == 0, stderr
        return stdout.splitlines()[-1]

    assert command("--model", "demo") == "tessera embed --dpixels aoi_2021_dpixels --model demo --out aoi_2021_demo"
    assert command("--model", "null", "--format", "npy", "--out", "n") == (
        "tessera embed --dpixels n --model null --source mpc --out aoi_2021_null"
    )
    assert command("--model", "null", "--format", "npy", "--out", "c", "--preprocessing", "corrected") == (
        "tessera embed --dpixels c --model null --source mpc --preprocessing corrected --out aoi_2021_null_corrected"
    )
    assert command("--model", "null", "--preprocessing", "corrected", "--out", "z", "--allow-missing", "2") == (
        "tessera embed --dpixels z --model null --allow-missing 2 --out aoi_2021_null_corrected"
    )
    weights = weights_of(tmp_path, "v2_student", latent=4, layers=1)
    assert command(*weights) == (
        f"tessera embed --dpixels aoi_2021_dpixels {shlex.join(weights)} --out aoi_2021_v2-student-own"
    )


def test_arrays_give_the_same_embeddings(catalog, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tessera("embed", *options(catalog, tmp_path / "direct"))[0] == 0
    code, stdout, _ = tessera("fetch", *options(catalog, tmp_path / "d", "--format", "npy", "--json"))
    assert code == 0
    words = shlex.split(json.loads(stdout.splitlines()[-1])["embed_command"])
    shutil.rmtree(catalog.folder)
    assert tessera(*words[1:])[0] == 0
    out = tmp_path / words[words.index("--out") + 1]
    assert sorted(rasters(out)) == sorted(rasters(tmp_path / "direct"))
    for name in rasters(out):
        with rasterio.open(out / name) as ours, rasterio.open(tmp_path / "direct" / name) as theirs:
            assert ours.read().tobytes() == theirs.read().tobytes()
            assert (ours.crs, ours.transform) == (theirs.crs, theirs.transform)
    assert json.loads((out / "run.json").read_text())["identity"]["source"] == "mpc"


# --- what is stored ---------------------------------------------------------------------------------------------------


def test_arrays_in_the_official_layout(fetched):
    """Against the Zarr stores as xarray opens them, and the area as shapely sees it."""
    area = shapely.geometry.shape(json.loads(fetched.catalog.aoi.read_text()))
    for name in TILES:
        folder = fetched.folder / "npy" / name
        assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{a}.npy" for a in ARRAYS), "roi.tiff"])
        with xr.open_zarr(fetched.folder / "zarr" / f"{name}.zarr", consolidated=False) as store:
            days = {sensor: store[f"{sensor}_time"].dt.dayofyear for sensor in ("s2", "s1_asc", "s1_desc")}
            due = {
                "bands": ("<u2", store.s2),
                "masks": ("|u1", store.s2_mask),
                "doys": ("<u2", days["s2"]),
                "sar_ascending": ("<i2", store.s1_asc),
                "sar_ascending_doy": ("<i2", days["s1_asc"]),
                "sar_descending": ("<i2", store.s1_desc),
                "sar_descending_doy": ("<i2", days["s1_desc"]),
            }
            assert [len(store.s2), len(store.s1_asc), len(store.s1_desc)] == [4, 2, 1]
            for array, (dtype, values) in due.items():
                with (folder / f"{array}.npy").open("rb") as file:
                    assert np.lib.format.read_magic(file) == (1, 0)
                    shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
                assert (shape, fortran, kind.str) == (values.shape, False, dtype), array
                np.testing.assert_array_equal(np.load(folder / f"{array}.npy"), values, err_msg=array)
            roi = store.roi.values
        assert np.load(folder / "doys.npy").tolist() == [41, 140, 182, 258]  # 10 February to 15 September
        assert np.load(folder / "bands.npy").shape[1:] == (512, 512, 10)
        with rasterio.open(folder / "roi.tiff") as file:
            assert (file.dtypes, file.count, file.crs.to_epsg()) == (("uint8",), 1, 32630)
            assert file.bounds == Tile.from_id(name.rpartition("_")[0]).bounds
            rows, columns = np.mgrid[:512, :512]
            lon, lat = from_utm(32630).transform(*(file.transform * (columns + 0.5, rows + 0.5)))
            np.testing.assert_array_equal(file.read(1), shapely.contains_xy(area, lon, lat).astype(np.uint8))
            np.testing.assert_array_equal(file.read(1), roi)


@FORMATS
def test_what_the_folder_holds(catalog, tessera, tmp_path, form):
    out = tmp_path / "out"
    code, stdout, _ = tessera("fetch", *options(catalog, out, "--format", form, "--json"))
    suffix = {"zarr": ".zarr", "npy": ""}[form]
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        *RUN_RECORDS,
        *("collection.json", "catalog.json", "items.parquet"),
        *(f"{name}.json" for name in TILES),
        *(name + suffix for name in TILES),
    }
    *tiles, summary = map(json.loads, stdout.splitlines())
    with gzip.open(out / "scenes.ndjson.gz") as lines:
        scenes = [json.loads(line)["id"] for line in lines]
    for name, tile in zip(TILES, tiles, strict=True):
        found = record(out, name)
        size = sum(path.stat().st_size for path in (out / (name + suffix)).rglob("*") if path.is_file())
        assert {key: tile[key] for key in tile if key != "seconds"} == {
            "type": "tile",
            "schema": 1,
            "tile": name.removesuffix("_2021"),
            "window": "2021",
            "status": "done",
            "path": str(out / (name + suffix)),
            "pixels": 578,
            "holes": 0,
            "bytes": size,
        }
        assert found["pixels"] == 578
        item = json.loads((out / f"{name}.json").read_text())
        assert item["assets"]["dpixels"]["href"] == f"./{name}{suffix}"
        assert sorted(found["scenes"]) == sorted(scenes)
        assert found["observations"]["s2"] == {
            "frames": 4,
            "first": "2021-02-10",
            "last": "2021-09-15",
            "longest_gap_days": 107,
        }
        assert found["files"] == {
            f"{name + suffix}/{path.relative_to(out / (name + suffix))}": {
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in (out / (name + suffix)).rglob("*")
            if path.is_file()
        }
    assert summary["tiles"] == {"done": 2, "empty": 0, "failed": 0, "present": 0}
    assert (summary["pixels"], summary["exit_code"], summary["network"]["reads"]["read"]) == (1156, 0, 100)
    assert not {"tokens", "mosaics", "weights_error"} & summary.keys()
    assert json.loads((out / "run.json").read_text())["identity"] == {
        "content": "d-pixels",
        "format_version": 1,
        "source": "mpc",
        "preprocessing": "official",
        "format": form,
    }


def test_windows_share_a_folder_which_has_a_name_of_its_own(catalog, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["--aoi", catalog.aoi, "--catalog", catalog.items, "--model", "null", "--year", "2021"]
    code, stdout, _ = tessera("fetch", *where, "--window", "2021-02/2021-07")
    assert code == 0
    names = [f"{name[:-5]}_{window}.zarr" for window in ("2021", "20210201-20210731") for name in TILES]
    out = "aoi_2021+20210201-20210731_dpixels"
    assert [*stdout.splitlines()][:-1] == [f"{out}/{name}" for name in sorted(names, key=lambda n: len(n))]
    assert tessera("verify", out)[:2] == (0, "4 sound\n")


# --- what is done is not done again -----------------------------------------------------------------------------------


@FORMATS
def test_a_second_run_reads_nothing(fetched, tessera, tmp_path, monkeypatch, form):
    monkeypatch.delattr("tessera_cli.runs.reading.read_dpixels")
    out = fetched.copy(form, tmp_path / "out")
    code, stdout, _ = tessera("fetch", *fetched.options(out, form))
    suffix = {"zarr": ".zarr", "npy": ""}[form]
    assert code == 0
    assert stdout.splitlines()[:-1] == [str(out / (name + suffix)) for name in TILES]
    assert stdout.splitlines()[-1].startswith("tessera embed ")
    _, stdout, _ = tessera("fetch", *fetched.options(out, form, "--json"))
    assert statuses(stdout) == ["present", "present"]
    assert tree(out) == tree(fetched.folder / form)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@FORMATS
@pytest.mark.parametrize("damage", ["flip", "cut", "lost file", "lost store", "lost record", "other record"])
def test_a_rerun_makes_what_is_missing_and_only_that(fetched, tessera, tmp_path, form, damage):
    out = fetched.copy(form, tmp_path / "out")
    store = out / (EAST + {"zarr": ".zarr", "npy": ""}[form])
    data = store / {"zarr": "s2/c/0/0/0/0", "npy": "bands.npy"}[form]
    untouched = [path.stat().st_mtime_ns for path in sorted(out.glob(f"{WEST}*"))]
    {
        "flip": lambda: flip(data),
        "cut": lambda: data.write_bytes(data.read_bytes()[:-20]),
        "lost file": data.unlink,
        "lost store": lambda: shutil.rmtree(store),
        "lost record": (out / f"{EAST}.json").unlink,
        "other record": lambda: shutil.copy(out / f"{WEST}.json", out / f"{EAST}.json"),
    }[damage]()
    code, stdout, _ = tessera("fetch", *fetched.options(out, form, "--json"))
    assert (code, sorted(statuses(stdout))) == (0, ["done", "present"])
    assert tree(out) == tree(fetched.folder / form)
    assert [path.stat().st_mtime_ns for path in sorted(out.glob(f"{WEST}*"))] == untouched


@FORMATS
def test_a_later_area_reads_the_union(catalog, tessera, tmp_path, form):
    out, once = tmp_path / "out", tmp_path / "once"
    boxes = [(220.0, 100.0, 300.0, 200.0), (260.0, 150.0, 380.0, 300.0)]
    aois = [boxed(catalog, str(number), *box) for number, box in enumerate(boxes)]
    for aoi in aois:
        assert tessera("fetch", *options(catalog, out, "--format", form, aoi=aoi))[0] == 0
    union = catalog.folder / "union.geojson"
    geometries = [json.loads(aoi.read_text()) for aoi in aois]
    union.write_text(json.dumps({"type": "GeometryCollection", "geometries": geometries}))
    assert tessera("fetch", *options(catalog, once, "--format", form, aoi=union))[0] == 0
    assert stored(out) == stored(once)
    assert record(out, EAST)["pixels"] == 8 * 10 + 12 * 15 - 4 * 5
    _, stdout, _ = tessera("fetch", *options(catalog, out, "--format", form, "--json", aoi=aois[0]))
    assert statuses(stdout) == ["present"]


def test_two_runs_that_share_a_tile_lose_no_pixel(catalog, tessera, tmp_path, monkeypatch):
    """While one run reads the tile, another one finishes it for other pixels."""
    import tessera_cli.runs.reading as reading

    out, once = tmp_path / "out", tmp_path / "once"
    aois = [boxed(catalog, "a", 220, 100, 300, 200), boxed(catalog, "b", 260, 150, 380, 300)]
    read, codes = reading.read_dpixels, []

    def interrupted(*arguments, **more):
        monkeypatch.setattr(reading, "read_dpixels", read)
        found = read(*arguments, **more)
        codes.append(tessera("fetch", *options(catalog, out, aoi=aois[1]))[0])
        return found

    monkeypatch.setattr(reading, "read_dpixels", interrupted)
    assert tessera("fetch", *options(catalog, out, aoi=aois[0]))[0] == 0
    assert codes == [0]
    for aoi in aois:
        tessera("fetch", *options(catalog, once, aoi=aoi))
    assert stored(out) == stored(once)


def test_what_was_asked_before_survives_a_crash_while_replacing(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("fetch", *options(catalog, out))
    expected = stored(out)
    done = out / f"{EAST}.json"
    done.rename(done.with_name(done.name + ".stale"))  # as set aside when the process died
    shutil.rmtree(out / f"{EAST}.zarr")
    assert tessera("fetch", *options(catalog, out, aoi=boxed(catalog, "small", 260, 160, 300, 200)))[0] == 0
    assert stored(out) == expected


def test_the_scene_list_is_frozen_before_a_pixel_is_read(catalog, tessera, tmp_path, monkeypatch):
    import tessera_cli.runs.reading as reading

    out, read, seen = tmp_path / "out", reading.read_dpixels, []

    def watched(*arguments, **more):
        seen.append(len(gzip.decompress((out / "scenes.ndjson.gz").read_bytes()).splitlines()))
        return read(*arguments, **more)

    monkeypatch.setattr(reading, "read_dpixels", watched)
    assert tessera("fetch", *options(catalog, out))[0] == 0
    assert seen == [7, 7]
    expected = stored(out)
    for name in TILES:
        shutil.rmtree(out / f"{name}.zarr")
    catalog.edit(lambda items: [i for i in items if i["id"] != "S2A_2021-07-01"])
    assert tessera("fetch", *options(catalog, out))[0] == 0
    assert stored(out) == expected  # the list of the first run counts
    _, stdout, _ = tessera("fetch", *options(catalog, out, "--refresh", "--json"))
    assert statuses(stdout) == ["done", "done"]
    assert "S2A_2021-07-01" not in record(out, EAST)["scenes"]
    _, stdout, _ = tessera("fetch", *options(catalog, out, "--refresh", "--json"))
    assert statuses(stdout) == ["present", "present"]


def test_a_plan_freezes_for_fetch(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    assert tessera("plan", *options(catalog, out))[0] == 0
    catalog.items.unlink()
    assert tessera("fetch", *options(catalog, out))[0] == 0


# --- holes and failures -----------------------------------------------------------------------------------------------


def test_a_tile_that_fails_does_not_stop_the_others(tessera, tmp_path):
    catalog = make_catalog(tmp_path / "catalog")

    def only_west(items):  # a file that is absent, of a scene whose footprint is said to end at the border
        (scene,) = (item for item in items if item["id"] == "S2A_2021-07-01")
        west, south, _, north = scene["bbox"]
        border = from_utm(32630).transform(117 * 5120.0 - 100, catalog.origin[1])[0]
        scene["geometry"] = shapely.geometry.mapping(shapely.box(west, south, border, north))
        scene["bbox"] = [west, south, border, north]
        return items

    catalog.edit(only_west)
    path = catalog.folder / "cogs" / "S2A_2021-07-01" / "B05.tif"
    content = path.read_bytes()
    path.unlink()
    out, whole = tmp_path / "out", tmp_path / "whole"
    code, stdout, stderr = tessera("fetch", *options(catalog, out, "--json"))
    assert (code, sorted(statuses(stdout))) == (4, ["done", "failed"])
    made, failed = (set(json.loads(line)) for line in stdout.splitlines()[:-1])
    assert made ^ failed == {"error"}
    assert "S2A_2021-07-01: B05 is absent" in stderr
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 4
    assert not (out / f"{WEST}.zarr").exists()
    found = json.loads(tessera("info", out, "--json")[1])
    assert found["tiles"] == {"failed": 1, "done": 1}
    assert "B05 is absent" in found["by_tile"][WEST]["reason"]
    assert tessera("verify", out)[0] == 4
    code, _, stderr = tessera("embed", "--dpixels", out, "--model", "null", "--out", tmp_path / "embedded")
    assert code == 0
    assert f"{out} lacks 1 tile(s) that were to be fetched ({WEST}); fetch again" in stderr
    path.write_bytes(content)
    assert tessera("fetch", *options(catalog, out))[0] == 0
    assert tessera("fetch", *options(catalog, whole))[0] == 0
    assert stored(out) == stored(whole)
    assert tessera("verify", out)[0] == 0
    assert "lacks" not in tessera("embed", "--dpixels", out, "--model", "null", "--out", tmp_path / "embedded")[2]


def test_allowed_holes_are_recorded_passed_on_and_filled_later(catalog, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, whole, direct = tmp_path / "out", tmp_path / "whole", tmp_path / "direct"
    tessera("fetch", *options(catalog, whole))
    path = catalog.folder / "cogs" / "S2A_2021-07-01" / "B05.tif"
    content = path.read_bytes()
    path.unlink()
    code, stdout, _ = tessera("fetch", *options(catalog, out, "--allow-missing", 1))
    assert code == 0
    assert record(out, EAST)["holes"] == {"S2A_2021-07-01": "B05 is absent"}
    assert tessera("embed", *options(catalog, direct, "--allow-missing", 1))[0] == 0
    assert tessera(*shlex.split(stdout.splitlines()[-1])[1:])[0] == 0
    assert rasters(tmp_path / "aoi_2021_null") == rasters(direct)
    assert tessera("fetch", *options(catalog, out))[0] == 4  # no hole is allowed now, and it is still there
    assert record(out, EAST)["holes"]
    path.write_bytes(content)
    assert tessera("fetch", *options(catalog, out))[0] == 0
    assert stored(out) == stored(whole)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (["fetch"], ["fetch", "--format", "npy"], "format is 'zarr'"),
        (["fetch"], ["fetch", "--preprocessing", "corrected"], "preprocessing is 'official'"),
        (["fetch"], ["embed"], "holds d-pixels, not embeddings"),
        (["embed"], ["fetch"], "holds embeddings, not d-pixels"),
        (["fetch"], ["plan", "--source", "aws", "--allow-no-radar"], "holds a scene list of source mpc, not aws"),
    ],
)
def test_another_identity_is_refused(catalog, tessera, tmp_path, first, second, field):
    out = tmp_path / "out"
    assert tessera(first[0], *options(catalog, out, *first[1:]))[0] == 0
    before = tree(out)
    code, _, stderr = tessera(second[0], *options(catalog, out, *second[1:]))
    assert code == 5
    assert [line for line in stderr.splitlines() if "error: " in line] == stderr.splitlines()[-1:]
    assert field in stderr.splitlines()[-1]
    assert tree(out) == before


def test_a_source_that_does_not_belong_to_the_model_is_refused_at_once(catalog, tessera, tmp_path):
    code, _, stderr = tessera("fetch", *options(catalog, tmp_path / "out", "--source", "aws", model="v1.1-mpc"))
    assert code != 0
    assert "v1.1-mpc" in stderr
    assert not (tmp_path / "out").exists()


# --- weights ----------------------------------------------------------------------------------------------------------


def test_a_wrong_model_fails_at_once(catalog, tessera, tmp_path):
    code, stdout, stderr = tessera("fetch", *options(catalog, tmp_path / "out", model="v2-mediun"))
    assert (code, stdout) == (2, "")
    assert "Did you mean v2-medium" in stderr
    assert not (tmp_path / "out").exists()


def test_weights_come_before_pixels_and_after_what_fails_quickly(catalog, tessera, tmp_path, monkeypatch):
    pulled = []

    def fetch(file):
        assert (tmp_path / "out" / "scenes.ndjson.gz").exists()
        assert not list((tmp_path / "out").glob("*.zarr"))
        pulled.append(file.path)
        return catalog.aoi

    monkeypatch.setattr(hub, "fetch", fetch)
    code, stdout, _ = tessera("fetch", *options(catalog, tmp_path / "out", model="v2-nano"))
    assert code == 0
    assert pulled == ["ckpt/student_nano.pt"]
    assert "--model v2-nano" in stdout.splitlines()[-1]
    catalog.items.unlink()
    assert tessera("fetch", *options(catalog, tmp_path / "other", model="v2-nano"))[0] == 2
    assert len(pulled) == 1


@pytest.mark.parametrize(("kind", "expected"), [(SourceUnavailableError, 75), (SourceRefusedError, 69)])
def test_without_the_hub_the_fetch_goes_on(catalog, tessera, tmp_path, monkeypatch, kind, expected):
    def fetch(file):
        raise kind("No way to the hub.")

    monkeypatch.setattr(hub, "fetch", fetch)
    out = tmp_path / "out"
    code, stdout, stderr = tessera("fetch", *options(catalog, out, model="v2-nano"))
    assert code == expected
    assert len(stdout.splitlines()) == 3
    assert "--model v2-nano" in stdout.splitlines()[-1]
    assert stderr.count("No way to the hub.") == 1
    assert stderr.splitlines()[-1] == (
        "tessera: error: No way to the hub. Of what was asked for only this is missing: `tessera weights pull v2-nano`."
    )
    code, stdout, _ = tessera("fetch", *options(catalog, out, "--json", model="v2-nano"))
    summary = json.loads(stdout.splitlines()[-1])
    assert (code, summary["exit_code"], summary["tiles"]["present"]) == (expected, expected, 2)
    assert summary["weights_error"].startswith("No way")


def test_a_machine_that_reaches_the_catalogue_but_not_the_hub(catalog, tmp_path):
    """The command itself, with a hub where nobody listens."""
    command = [sys.executable, "-m", "tessera_cli", "fetch", *options(catalog, tmp_path / "out", model="v2-nano")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path / "home", "http://127.0.0.1:9")
    )
    assert done.returncode == 75, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "tessera weights pull v2-nano" in done.stderr.splitlines()[-1]


@FORMATS
def test_without_a_model_there_are_no_weights_and_the_same_stores(catalog, tessera, tmp_path, monkeypatch, form):
    def fetch(file):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "fetch", fetch)
    out = tmp_path / "out"
    code, stdout, stderr = tessera("fetch", *options(catalog, out, "--format", form, model="none"))
    assert code == 0, stderr
    assert [Path(line).stem.removesuffix(".zarr") for line in stdout.splitlines()] == TILES
    assert f"tessera pretrain {out}" in stderr
    assert tessera("fetch", *options(catalog, tmp_path / "null", "--format", form))[0] == 0
    assert stored(out) == stored(tmp_path / "null")
    summary = json.loads(
        tessera("fetch", *options(catalog, out, "--format", form, "--json", model="none"))[1].splitlines()[-1]
    )
    assert (summary["exit_code"], summary["tiles"]["present"], summary["embed_command"]) == (0, 2, "")
    assert "weights_error" not in summary
    code, stdout, _ = tessera("embed", "--dpixels", out, "--model", "null", "--out", tmp_path / "embedded")
    assert code == 0


def test_none_is_for_fetch_alone(catalog, tessera, tmp_path):
    where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", catalog.items, "--model", "none"]
    for verb in ("embed", "plan"):
        code, _, stderr = tessera(verb, *where, "--out", tmp_path / "no")
        assert code == 2
        assert "none is no model: with it `tessera fetch` leaves weights out" in stderr.splitlines()[-1]
    code, _, stderr = tessera("weights", "pull", "none")
    assert (code, "none is no model" in stderr) == (2, True)
    code, _, stderr = tessera("fetch", *where, "--weights", tmp_path / "w.pt", "--out", tmp_path / "no")
    assert code == 2
    assert "--model none leaves weights out" in stderr.splitlines()[-1]
    code, _, stderr = tessera("fetch", *where, "--shard", "1/2", "--out", tmp_path / "no")
    assert code == 2
    advice = stderr.splitlines()[-1]
    assert "tessera plan" in advice
    assert "--model" not in advice  # the plan that freezes the same scenes
    assert not (tmp_path / "no").exists()


# --- interruption -----------------------------------------------------------------------------------------------------

DRIVER = """
import os, random, shutil, signal, sys
from tessera_cli.cli.app import run
import tessera_cli.runs.fetch, tessera_cli.runs.inputs, zarr, rasterio

EVENTS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")

def attempt(out, moment):
    'Run in a process of its own that is killed before its nth change of the file system; exit code and changes.'
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, int(os.read(reading, 10) or 0)
    count = 0
    def counted(call):
        def counting(*args, **more):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)
        return counting
    for event in EVENTS:
        setattr(os, event, counted(getattr(os, event)))
    code = run([*arguments, "--out", out])
    os.write(writing, str(count).encode())
    os._exit(code)

def copied(name):
    return shutil.copytree(base, os.path.join(where, name))

seed, base, where, *arguments = sys.argv[1:]
code, last = attempt(copied("undisturbed"), -1)
assert code == 0 and last > 20
for moment in sorted({*random.Random(seed).sample(range(1, last), 3), *range(last - 4, last + 1)}):
    out = copied(str(moment))
    print("killed", moment, attempt(out, moment)[0], attempt(out, -1)[0], flush=True)
"""


@FORMATS
def test_killed_at_any_moment_and_run_again(catalog, tessera, tmp_path, form):
    """While a store is replaced by one for a larger area: the hardest case."""
    base, where = tmp_path / "base", tmp_path / "killed"
    small, large = boxed(catalog, "small", 220, 100, 300, 200), boxed(catalog, "large", 240, 100, 320, 240)
    assert tessera("fetch", *options(catalog, base, "--format", form, aoi=small))[0] == 0
    arguments = options(catalog, base, "--format", form, aoi=large)[:-4]  # the folder is the driver's business
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, form, base, where, "fetch", *arguments, "--format", form],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    expected = tree(where / "undisturbed")
    assert record(where / "undisturbed", EAST)["pixels"] == 8 * 10 + 8 * 14 - 6 * 10
    codes = {line.split()[1]: line.split()[2:] for line in done.stdout.splitlines() if line.startswith("killed ")}
    assert len(codes) >= 6
    for moment, ended in codes.items():
        assert ended == ["-9", "0"], moment
        found = tree(where / moment)
        assert {name: digest for name, digest in found.items() if ".part" not in name} == expected, moment
    assert tessera("verify", where / moment)[:2] == (0, "1 sound\n")


def test_what_killed_runs_left_is_swept_unless_it_may_be_alive(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    long_ago = time.time() - 2 * 3600
    parts = [out / f"{name}.zarr.{word}.part" for name in TILES for word in ("dead", "live")]
    for part in parts:
        (part / "s2").mkdir(parents=True)
        (part / "s2" / "zarr.json").write_text("{")
        for path in (part / "s2" / "zarr.json", part / "s2", part):
            os.utime(path, (long_ago, long_ago))
        if "live" in part.name:  # deep inside something has happened
            os.utime(part / "s2" / "zarr.json")
    assert tessera("fetch", *options(catalog, out))[0] == 0
    assert sorted(out.glob("*.part")) == [part for part in parts if "live" in part.name]
    assert tessera("embed", "--dpixels", out, "--model", "null", "--out", tmp_path / "e")[0] == 0


def test_only_two_tiles_are_held_at_a_time(catalog, tessera, tmp_path, monkeypatch):
    import tessera_cli.runs.reading as reading

    read, held, most = reading.read_dpixels, [], []

    def watched(*arguments, **more):
        gc.collect()
        most.append(sum(reference() is not None for reference in held))
        found = read(*arguments, **more)
        held.append(weakref.ref(found))
        return found

    monkeypatch.setattr(reading, "read_dpixels", watched)
    where = ["--aoi", catalog.aoi, "--catalog", catalog.items, "--model", "null", "--out", tmp_path / "out"]
    windows = [word for month in (2, 5) for word in ("--window", f"2021-{month:02d}/2021-10")]
    assert tessera("fetch", *where, *windows)[0] == 0
    assert len(held) == 4
    assert max(most) == 1
    assert not any(reference() for reference in held)
