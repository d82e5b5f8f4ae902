"""Whether what lies on disk is whole and sound, and what it is: `tessera verify` and `tessera info`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import typer
from typer.testing import CliRunner

from tessera_cli.catalog import Scenes, get_source
from tessera_cli.cli.verify import verify as verb
from tessera_cli.dpixels import write_folder, write_store
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import NothingToEmbedError, PartialFailureError, TileError, UsageError
from tessera_cli.extent.grid import AnyTile, Tile, TileRequest, pack_mask
from tessera_cli.folders.checks import Check
from tessera_cli.folders.failures import note_failure
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.identity import dpixel_folder
from tessera_cli.inspection.info import describe
from tessera_cli.inspection.verify import verify
from tessera_cli.outputs import formats
from tessera_cli.outputs.item import TileRecord
from tessera_cli.runs.fetch import store
from tessera_cli.runs.mosaic import write_mosaics
from tests.dpixels.test_stores import sample
from tests.helpers.builders import s2_item
from tests.helpers.outputs import (
    NAME,
    NOWHERE,
    PLACED,
    REQUESTED,
    TILE,
    WINDOW,
    arrays,
    encoded,
    foreign,
    identity,
    record,
    write_record,
)
from tests.outputs.test_records import validate

OTHER = Tile(32631, 113, 1098)


def finish(folder: TileFolder, tile: AnyTile = TILE) -> str:
    """Write a tile's files and record; its name."""
    made = arrays(0, 5) if isinstance(tile, Tile) else foreign(tile)
    own = folder.identity
    ready = encoded(
        made, tile, own["dtype"], own["format"], identity=own, pixels=int((~np.isnan(made["scales"])).sum())
    )
    written = replace(
        ready.record,
        assets=formats.write(folder.path, ready),
        note="for demonstration only",
        counts=made["counts"] if own["format"] == "npy" else None,
    )
    write_record(folder, written)
    return written.name


@pytest.fixture(params=["geotiff-int8", "geotiff-float32", "npy-int8", "npy-float32"])
def folder(request: Any, tmp_path: Path) -> TileFolder:
    """An output folder with one finished tile of the grid, one official tile and one without any embedding."""
    format, dtype = request.param.split("-")
    folder = TileFolder(tmp_path / "out", identity(5, dtype, format))
    names = [f"{tile.id}_2023" for tile in (TILE, OTHER)] + ["field"]
    folder.start_run("a", {"names": names}, None)
    finish(folder)
    finish(folder, PLACED)
    write_record(folder, record(tile=OTHER, identity=folder.identity, status="empty", pixels=0, assets=()))
    write_mosaics(folder, [WINDOW])
    return folder


def fail(folder: TileFolder, tile: Tile, pixels: np.ndarray, reason: str) -> None:
    request = TileRequest(tile, WINDOW, pack_mask(pixels))
    note_failure(folder.path, "a", request, TileError(reason), allow_missing=0)


def told(path: Path) -> dict[str, str]:
    return {check.name: check.status for check in verify(path).checks}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def call(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_whole_folder_is_sound(folder: TileFolder) -> None:
    seen: list[Check] = []
    found = verify(folder.path, report=seen.append)
    assert tuple(seen) == found.checks
    assert found.error() is None
    assert found.to_dict() == {
        "path": str(folder.path),
        "sound": True,
        "checked": {"sound": 2, "empty": 1},
        "by_name": {
            "field": {"status": "sound"},
            NAME: {"status": "sound"},
            f"{OTHER.id}_2023": {"status": "empty"},
        },
    }


def test_every_file_counts(folder: TileFolder) -> None:
    files = [path for path in folder.path.iterdir() if path.name.startswith(NAME) and path.suffix != ".json"]
    assert len(files) == {"geotiff": 2, "npy": 1}[folder.identity["format"]] + (folder.identity["dtype"] == "int8")
    for path in files:
        good = path.read_bytes()
        for damage in (flip, Path.unlink, cut):
            damage(path)
            found = verify(folder.path)
            (bad,) = (check for check in found.checks if not check.is_sound)
            assert (bad.name, bad.status) == (NAME, "damaged")
            assert path.name in bad.reason
            error = found.error()
            assert isinstance(error, PartialFailureError)
            assert str(error) == (f"{folder.path} is not sound: 1 damaged. Run the command that made it again.")
            path.write_bytes(good)
    assert verify(folder.path).error() is None


def test_what_viewers_left_beside_rasters(tmp_path: Path) -> None:
    folder = TileFolder(tmp_path, identity(5))
    folder.start_run("a", {"names": [NAME]}, None)
    finish(folder)
    write_mosaics(folder, [WINDOW])
    (tmp_path / "mine.tif").touch()
    rasters = [f"{NAME}_emb.tif", f"{NAME}_scales.tif", "utm31n_2023.vrt", "mine.tif"]
    for raster in rasters:
        (tmp_path / f"{raster}.aux.xml").touch()
    assert told(tmp_path) == {NAME: "sound", **{f"{raster}.aux.xml": "beside" for raster in rasters[:3]}}
    os.utime(tmp_path / f"{NAME}_emb.tif.aux.xml", (0, 0))
    stale = f"{NAME}_emb.tif.aux.xml"
    assert told(tmp_path)[stale] == "stale"
    assert told(tmp_path / f"{NAME}.json")[stale] == "stale"
    assert told(tmp_path)["utm31n_2023.vrt.aux.xml"] == "beside"
    os.utime(tmp_path / "utm31n_2023.vrt.aux.xml", (0, 0))
    done = call(tmp_path)
    assert done.exit_code == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()[:2]] == [
        [stale, "stale"],
        ["utm31n_2023.vrt.aux.xml", "stale"],
    ]
    assert "older than what it describes" in done.stdout
    assert f"{NAME}_scales.tif.aux.xml" not in done.stdout


def test_a_tile_by_any_of_its_files(folder: TileFolder) -> None:
    for name in ("field", NAME):
        for path in folder.path.glob(f"{name}*"):
            assert told(path) == {name: "sound"}
    (emb,) = (
        path for path in folder.path.glob("field*") if path.suffix != ".json" and path.stem in ("field", "field_emb")
    )
    flip(emb)
    assert told(folder.path / "field.json") == {"field": "damaged"}
    assert told(emb) == {"field": "damaged"}


def test_what_failed_and_what_is_missing(tmp_path: Path) -> None:
    folder = TileFolder(tmp_path, identity(5))
    names = [NAME, f"{OTHER.id}_2023", "field", "other"]
    folder.start_run("a", {"names": names}, None)
    finish(folder)
    fail(folder, OTHER, REQUESTED, "B05 is absent")
    fail(folder, TILE, np.ones((512, 512), bool), "no")
    assert told(tmp_path) == {NAME: "failed", names[1]: "failed", "field": "missing", "other": "missing"}
    reasons = {check.name: check.reason for check in verify(tmp_path).checks}
    assert reasons[names[1]] == "B05 is absent"
    assert reasons[NAME] == "no"  # what is there was made for a run that asked for less
    text = str(verify(tmp_path).error())
    assert "2 failed" in text
    assert "2 missing" in text
    (tmp_path / f"{NAME}.json").unlink()
    assert told(tmp_path / f"{NAME}_emb.tif") == {NAME: "failed"}


def damaged_record(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        path = out / f"{NAME}.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


@pytest.mark.parametrize(
    ("damage", "name", "reason"),
    [
        (lambda out: (out / f"{NAME}.json").write_text("{"), NAME, "is not the record of a tile"),
        (damaged_record(lambda item: item | {"id": f"{OTHER.id}_2023"}), NAME, "is the record of utm31n_c0113"),
        (damaged_record(lambda item: item | {"assets": {}}), NAME, "recorded, not"),
        (lambda out: finish(TileFolder(out, identity(5, seed=3))), NAME, "other settings: seed"),
        (lambda out: (out / "runs" / "b.json").write_text("["), "runs/b.json", "cannot be read"),
        (lambda out: (out / "run.json").write_text("{"), "run.json", "which settings"),
    ],
)
def test_records_and_lists_count(tmp_path: Path, damage: Callable[[Path], Any], name: str, reason: str) -> None:
    folder = TileFolder(tmp_path, identity(5))
    folder.start_run("a", {"names": [NAME]}, None)
    finish(folder)
    write_mosaics(folder, [WINDOW])
    assert verify(tmp_path).error() is None
    damage(tmp_path)
    (bad,) = (check for check in verify(tmp_path).checks if not check.is_sound)
    assert (bad.name, bad.status) == (name, "damaged")
    assert reason in bad.reason
    if name == NAME:
        assert told(tmp_path / f"{NAME}.json") == {NAME: "damaged"}


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (Path.unlink, "missing"),
        (lambda vrt: vrt.write_bytes(b"garbage"), "damaged"),
        (lambda vrt: vrt.write_bytes(b"\xff\xfe"), "damaged"),
        (lambda vrt: vrt.write_text(vrt.read_text().replace('xOff="0"', 'xOff="5"', 1)), "damaged"),
        (cut, "damaged"),
    ],
)
@pytest.mark.parametrize("part", ["", "_codes", "_scales"])
def test_mosaics_count(tmp_path: Path, damage: Callable[[Path], Any], status: str, part: str) -> None:
    """And a run writes them anew."""
    folder = TileFolder(tmp_path, identity(5))
    folder.start_run("a", {"names": [NAME]}, None)
    finish(folder)
    (product,) = write_mosaics(folder, [WINDOW])
    vrt = product.with_stem(product.stem + part)
    assert told(tmp_path) == {NAME: "sound"}
    damage(vrt)
    assert told(tmp_path) == {NAME: "sound", vrt.name: status}
    assert isinstance(verify(tmp_path).error(), PartialFailureError)
    write_mosaics(folder, [WINDOW])
    assert told(tmp_path) == {NAME: "sound"}
    write_record(folder, record(identity=folder.identity, status="empty", pixels=0, assets=()))
    gone = {path.name: "damaged" for path in tmp_path.glob("*.vrt")}  # they show what is gone
    assert len(gone) == 3
    assert told(tmp_path) == {NAME: "empty", **gone}


def test_a_folder_without_a_tile_is_not_called_sound(tmp_path: Path) -> None:
    TileFolder(tmp_path, identity(5)).start_run("a", {"names": []}, None)
    with pytest.raises(NothingToEmbedError, match="nothing to verify") as caught:
        verify(tmp_path)
    assert caught.value.exit_code == 3


def test_a_tile_that_is_being_replaced_is_said_to_be(tmp_path: Path) -> None:
    """By a run that has died in the middle: the next one goes on."""
    folder = TileFolder(tmp_path, identity(5, format="npy"))
    folder.start_run("a", {"names": [NAME]}, None)
    finish(folder)
    held = tmp_path / f"{NAME}.next" / "000000000000-1-1-00000000"
    (held / "files").mkdir(parents=True)
    for path in (tmp_path / f"{NAME}.npy", tmp_path / f"{NAME}.json"):
        (held / "files" / path.name).write_bytes(path.read_bytes())
    note = {
        "marker": f"{NAME}.json",
        "replaces": hashlib.sha256((tmp_path / f"{NAME}.json").read_bytes()).hexdigest(),
        "remove": [],
    }
    (held / "note.json").write_text(json.dumps(note))
    (tmp_path / f"{NAME}.npy").unlink()
    (bad,) = verify(tmp_path).checks
    assert (bad.name, bad.status) == (NAME, "damaged")
    assert "is being replaced" in bad.reason
    folder.tidy()
    assert told(tmp_path) == {NAME: "sound"}


def test_the_scene_list_counts(tmp_path: Path) -> None:
    item = s2_item(tmp_path / "cogs", "S2A_1", "2023-02-10T10:56:31Z")
    scenes = Scenes.from_items([item], get_source("mpc"))
    out = tmp_path / "out"
    folder = TileFolder(out, identity(5))
    folder.start_run("a", {"names": [NAME], "scenes": ["S2A_1"]}, scenes)
    finish(folder)
    write_mosaics(folder, [WINDOW])
    assert told(out) == {NAME: "sound"}
    folder.start_run("b", {"names": [NAME], "scenes": ["S2A_1", "S2A_2"]}, None)
    assert told(out)["scenes.ndjson.gz"] == "damaged"
    (out / "scenes.ndjson.gz").write_bytes(b"no gzip")
    assert told(out)["scenes.ndjson.gz"] == "damaged"
    (out / "scenes.ndjson.gz").unlink()
    assert told(out)["scenes.ndjson.gz"] == "missing"


def test_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "a").write_bytes(b"PK\x03\x04 no weights")
    np.save(tmp_path / "a.npy", np.zeros(3))
    for path, what in (
        (tmp_path, "it has no run.json"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "a.json", "is not ours"),
        (tmp_path / "a.tif", "is not ours"),
        (tmp_path / "a.npy", "is not ours"),
        (tmp_path / "a.txt", "is not ours"),
        (tmp_path / "a", "is not ours"),
    ):
        with pytest.raises(UsageError, match=what):
            verify(path)


def test_weights(tmp_path: Path) -> None:
    path = tmp_path / "demo.safetensors"
    path.write_bytes(resources.files("tessera_cli.models").joinpath("data/demo.safetensors").read_bytes())
    assert verify(path).checks == (Check("demo.safetensors", "sound", "not a published file"),)
    assert call(path).stdout == "demo.safetensors  sound  not a published file\n1 sound\n"
    path.write_bytes(path.read_bytes()[:-10])
    found = verify(path)
    assert [check.status for check in found.checks] == ["damaged"]
    assert "Get it again." in str(found.error())
    (tmp_path / "page.pt").write_text("<html>")
    assert told(tmp_path / "page.pt") == {"page.pt": "damaged"}


def test_the_verb(tmp_path: Path) -> None:
    folder = TileFolder(tmp_path, identity(5))
    folder.start_run("a", {"names": [NAME, "field"]}, None)
    finish(folder)
    finish(folder, PLACED)
    write_mosaics(folder, [WINDOW])
    done = call(tmp_path)
    assert (done.exit_code, done.stdout) == (0, "2 sound\n")
    assert call(tmp_path, "-v").stdout == f"field  sound\n{NAME}  sound\n2 sound\n"
    assert call(tmp_path / "field.json").stdout == "field  sound\n1 sound\n"
    done = call(tmp_path, "--json")
    assert json.loads(done.stdout) == verify(tmp_path).to_dict()
    flip(tmp_path / "field_emb.tif")
    done = call(tmp_path)
    assert isinstance(done.exception, PartialFailureError)  # `app.run` makes 4 of it
    assert done.exception.exit_code == 4
    bad, summary = done.stdout.splitlines()
    assert bad.startswith("field  damaged  ")
    assert "its SHA-256 is" in bad
    assert summary == "1 damaged, 1 sound"
    done = call(tmp_path, "--json")
    assert json.loads(done.stdout)["by_name"]["field"]["status"] == "damaged"
    assert done.exception.exit_code == 4
    assert call(tmp_path / "none").exception.exit_code == 2
    help_text = call("--help").stdout
    assert help_text.count("tessera verify") >= 3


def test_folders_may_move(folder: TileFolder, tmp_path: Path) -> None:
    moved = shutil.move(folder.path, tmp_path / "moved")
    assert verify(Path(moved)).error() is None


# --- info -------------------------------------------------------------------------------------------------------------


def test_info_of_a_folder(folder: TileFolder) -> None:
    found = describe(folder.path)
    assert found["windows"] == ["2023"]
    assert found["tiles"] == {"done": 2, "empty": 1}
    files = [path for path in folder.path.iterdir() if path.suffix in (".tif", ".npy")]
    assert found["bytes"] == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("tile", [NOWHERE, replace(PLACED, id="a_2023")])
def test_info_of_an_official_tile_and_its_arrays(tmp_path: Path, tile: AnyTile) -> None:
    folder = TileFolder(tmp_path, identity(5, format="npy"))
    folder.start_run("a", {"names": [tile.id]}, None)
    name = finish(folder, tile)
    where = {"crs": tile.crs, "bounds": None if tile is NOWHERE else [300010.0, 6199650.0, 305010.0, 6200020.0]}
    found = describe(tmp_path / f"{name}.json")
    assert (found["tile"], found["window"], found["status"]) == (tile.id, None, "done")
    assert {key: found[key] for key in where} == where
    assert found["files"] == {"emb": f"{name}.npy", "scales": f"{name}_scales.npy"}
    found = describe(tmp_path / f"{name}.npy")
    assert found == {
        "array": f"{name}.npy",
        "tile": name,
        **where,
        "model": "v2-medium",
        "note": "for demonstration only",
        "shape": [*tile.shape, 5],
        "dtype": "int8",
    }
    assert describe(tmp_path / f"{name}_scales.npy")["dtype"] == "float32"
    assert describe(tmp_path)["windows"] == []
    (tmp_path / f"{name}.npy").write_bytes(b"torn")
    with pytest.raises(UsageError, match="is damaged"):
        describe(tmp_path / f"{name}.npy")
    (tmp_path / f"{name}.json").unlink()
    with pytest.raises(UsageError, match=r"no tile's \.json beside it"):
        describe(tmp_path / f"{name}.npy")


# --- d-pixels ---------------------------------------------------------------------------------------------------------

STORED = "utm31n_c0112_r1098_2023"


@pytest.fixture(params=["zarr", "npy"])
def fetched(request: Any, tmp_path: Path, dpixels: DPixels) -> TileFolder:
    """A folder of d-pixels with one tile, which lies at `<folder>/<name>` or `<folder>/<name>.zarr`."""
    folder = dpixel_folder(tmp_path / "d", source="mpc", preprocessing="official", format=request.param)
    folder.start_run("a", {"names": [STORED]}, None)
    store(folder, dpixels)
    return folder


@pytest.fixture(scope="module")
def dpixels() -> DPixels:
    return sample(2, 1, 1)


def store_of(folder: TileFolder) -> Path:
    return folder.path / (STORED + {"zarr": ".zarr", "npy": ""}[folder.identity["format"]])


def test_a_whole_folder_of_dpixels_is_sound(fetched: TileFolder) -> None:
    store = store_of(fetched)
    for path in (fetched.path, fetched.path / f"{STORED}.json", store):
        assert verify(path).to_dict() == {
            "path": str(path),
            "sound": True,
            "checked": {"sound": 1},
            "by_name": {STORED: {"status": "sound"}},
        }
    moved = Path(shutil.move(fetched.path, fetched.path.with_name("moved")))
    assert verify(moved).error() is None
    assert call(moved / store.name).stdout == f"{STORED}  sound\n1 sound\n"


def test_every_byte_of_stored_dpixels_counts(fetched: TileFolder) -> None:
    """Anywhere in any file, and files that are lost, cut or too many."""
    store, rng = store_of(fetched), np.random.default_rng(0)
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) == {"zarr": 1 + 10 * 2, "npy": 8}[fetched.identity["format"]]
    for path in files:
        size = path.stat().st_size
        for position in {0, size - 1, *rng.integers(0, size, 2).tolist()}:
            with path.open("r+b") as file:
                file.seek(position)
                byte = file.read(1)[0]
                file.seek(position)
                file.write(bytes([byte ^ (1 << int(rng.integers(8)))]))
            assert told(fetched.path) == {STORED: "damaged"}, (path, position)
            assert told(store) == {STORED: "damaged"}
            with path.open("r+b") as file:
                file.seek(position)
                file.write(bytes([byte]))
        aside = path.rename(fetched.path / "aside")
        (bad,) = verify(fetched.path).checks
        assert (bad.status, path.name in bad.reason) == ("damaged", True)
        aside.rename(path)
    assert verify(fetched.path).error() is None
    (store / "more").write_bytes(b"")
    (bad,) = verify(fetched.path).checks
    assert (bad.status, "the record does not list it" in bad.reason) == ("damaged", True)
    (store / "more").unlink()
    shutil.rmtree(store)
    assert told(fetched.path) == {STORED: "damaged"}


def test_a_record_that_is_not_of_its_store(fetched: TileFolder) -> None:
    """Its files have the checksums that it lists, and hold something else than it says."""
    file = fetched.path / f"{STORED}.json"
    item = json.loads(file.read_text())
    good = item["properties"]
    packed = base64.b64encode(pack_mask(np.ones((512, 512), bool))).decode()
    observations = good["tessera:observations"]
    frames = {**observations, "s2": {**observations["s2"], "frames": 9}}
    wrong: dict[str, Any] = {"pixels": {"tessera:requested": packed}, "frames": {"tessera:observations": frames}}
    another = {"tessera:identity": {**good["tessera:identity"], "source": "aws"}}
    if fetched.identity["format"] == "zarr":  # arrays know no more
        wrong |= {"input digest": {"tessera:input_digest": "another"}, "scenes": {"tessera:scenes": ["another"]}}
        wrong |= {"identity": another}
        (fetched.path / "run.json").unlink()
    for what, change in wrong.items():
        file.write_text(json.dumps(item | {"properties": good | change}))
        (bad,) = verify(file).checks
        assert (bad.status, f"its {what} are not those of its record" in bad.reason) == ("damaged", True), what
    moved = {"dpixels": item["assets"]["dpixels"] | {"href": "./elsewhere"}}
    for wrong_item in (
        item | {"id": f"{TILE.id}_2022"},
        item | {"assets": moved},
        item | {"assets": {}},
        item | {"properties": good | {"tessera:files": {}}},
    ):
        with pytest.raises(UsageError, match="not the record of a tile"):
            TileRecord.from_item(wrong_item)
    file.write_text(json.dumps(item | {"properties": good | another}))
    (fetched.path / "run.json").write_text(json.dumps({"identity": dict(fetched.identity)}))
    (bad,) = verify(fetched.path).checks
    assert (bad.status, "other settings: source" in bad.reason) == ("damaged", True)


def before_items(item: dict[str, Any]) -> dict[str, Any]:
    """A record of d-pixels as it was written before those were STAC items."""
    p = item["properties"]
    tile, _, window = item["id"].rpartition("_")
    return {
        "content": "d-pixels",
        "tile": tile,
        "window": window,
        "store": item["assets"]["dpixels"]["href"].removeprefix("./"),
        "identity": p["tessera:identity"],
        "software": p["processing:software"]["tessera-embed"],
        "pixels": p["tessera:pixels"],
        "requested": p["tessera:requested"],
        "observations": p["tessera:observations"],
        "scenes": p["tessera:scenes"],
        "holes": p["tessera:holes"],
        "warnings": p["tessera:warnings"],
        "input_digest": p["tessera:input_digest"],
        "files": p["tessera:files"],
    }


def test_earlier_records_of_dpixels_are_read(fetched: TileFolder, dpixels: DPixels) -> None:
    file = fetched.path / f"{STORED}.json"
    item = json.loads(file.read_text())
    seen = [describe(path) for path in (file, store_of(fetched), fetched.path)]
    old = before_items(item)
    assert TileRecord.from_item(old).to_item() == item
    file.write_text(json.dumps(old))
    request = TileRequest(TILE, WINDOW, pack_mask(dpixels.requested))
    assert fetched.finished(request, allow_missing=1)
    np.testing.assert_array_equal(fetched.previously_requested(request), dpixels.requested)
    assert told(fetched.path) == told(store_of(fetched)) == {STORED: "sound"}
    assert [describe(path) for path in (file, store_of(fetched), fetched.path)] == seen
    for change in ({"window": "2022"}, {"store": "elsewhere"}, {"files": {}}, {"content": "bread"}):
        with pytest.raises(UsageError, match="not the record of a tile"):
            TileRecord.from_item(old | change)


def test_a_record_of_another_content_does_not_make_a_tile_finished(fetched: TileFolder, dpixels: DPixels) -> None:
    request = TileRequest(TILE, WINDOW, pack_mask(dpixels.requested))
    assert fetched.finished(request, allow_missing=1)
    assert TileFolder(fetched.path, identity(5)).finished(request, allow_missing=1) is None


def test_the_record_of_dpixels_is_a_stac_item(fetched: TileFolder, dpixels: DPixels) -> None:
    file = fetched.path / f"{STORED}.json"
    item = validate(json.loads(file.read_text()))
    item.set_self_href(str(file))
    assert (item.id, item.datetime) == (STORED, None)
    assert item.properties["start_datetime"] == "2023-01-01T00:00:00Z"
    assert item.properties["proj:code"] == "EPSG:32631"
    assert shapely.box(*item.bbox or ()).covers(shapely.geometry.shape(item.geometry))
    assert list(item.assets) == ["dpixels"]
    store = Path(item.assets["dpixels"].get_absolute_href() or "")
    assert store == store_of(fetched)
    sizes = {path.relative_to(fetched.path).as_posix(): path.stat().st_size for path in store.rglob("*.*")}
    assert sizes.items() <= {name: listed["size"] for name, listed in item.properties["tessera:files"].items()}.items()
    assert item.assets["dpixels"].extra_fields["file:size"] == sum(
        listed["size"] for listed in item.properties["tessera:files"].values()
    )


def test_dpixels_that_failed_or_are_missing(fetched: TileFolder) -> None:
    names = [STORED, f"{OTHER.id}_2023", "utm31n_c0114_r1098_2023"]
    fetched.start_run("b", {"names": names}, None)
    fail(fetched, OTHER, REQUESTED, "B05 is absent")
    assert told(fetched.path) == dict(zip(names, ["sound", "failed", "missing"], strict=True))
    found = describe(fetched.path)
    assert found["tiles"] == {"done": 1, "failed": 1, "missing": 1}
    assert found["by_tile"][names[1]] == {"status": "failed", "reason": "B05 is absent"}
    text = str(verify(fetched.path).error())
    assert "1 failed, 1 missing. Run the command that made it again" in text
    (fetched.path / f"{STORED}.json").unlink()  # the store is there, and nothing says that it is whole
    assert told(fetched.path)[STORED] == "missing"


def test_stored_dpixels_without_a_record(tmp_path: Path, dpixels: DPixels) -> None:
    """Chunks of Zarr stores have checksums; of official folders only the layout can be checked."""
    store, folder = write_store(tmp_path, dpixels), write_folder(tmp_path / "n", dpixels)
    (check,) = verify(store).checks
    assert (check.status, "checksums of their own" in check.reason) == ("sound", True)
    (check,) = verify(folder).checks
    assert (check.status, "only the layout" in check.reason) == ("sound", True)
    shutil.move(folder, tmp_path / "official")
    assert told(tmp_path) == {"official": "sound", store.name: "sound"}
    rng = np.random.default_rng(1)
    data = [path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(data) == 10
    for path in data:
        good = path.read_bytes()
        for position in {len(good) - 1, *rng.integers(0, len(good), 1).tolist()}:
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            assert told(store) == {store.name: "damaged"}, (path, position)
        path.write_bytes(good)
    assert told(store) == {store.name: "sound"}
    cut(tmp_path / "official" / "bands.npy")
    assert told(tmp_path)["official"] == "damaged"


def test_info_of_stored_dpixels(fetched: TileFolder, dpixels: DPixels) -> None:
    store = store_of(fetched)
    due = {
        "content": "d-pixels",
        "tile": TILE.id,
        "window": "2023",
        "crs": "EPSG:32631",
        "bounds": [573440, 5621760, 578560, 5626880],
        "store": store.name,
        "source": "mpc",
        "preprocessing": "official",
        "pixels": int(dpixels.requested.sum()),
        "bytes": sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        "observations": {
            "s2": {"frames": 2, "first": "2023-01-03", "last": "2023-01-08", "longest_gap_days": 357},
            "s1_asc": {"frames": 1, "first": "2023-01-03", "last": "2023-01-03", "longest_gap_days": 362},
            "s1_desc": {"frames": 1, "first": "2023-01-03", "last": "2023-01-03", "longest_gap_days": 362},
        },
        "holes": {"S2A_a": "B04 is absent (404)"},
    }
    assert describe(store) == describe(fetched.path / f"{STORED}.json") == due
    found = describe(fetched.path)
    assert (found["content"], found["windows"], found["tiles"]) == ("d-pixels", ["2023"], {"done": 1})
    assert (found["pixels"], found["bytes"], found["identity"]) == (due["pixels"], due["bytes"], fetched.identity)
    assert found["by_tile"][STORED]["holes"] == due["holes"]
    assert not {"model", "mosaics"} & found.keys()
    (fetched.path / f"{STORED}.json").unlink()
    if fetched.identity["format"] == "npy":  # arrays say neither year nor source, and no reason for holes
        nothing = {"first": None, "last": None, "longest_gap_days": None}
        frames = {name: {**nothing, "frames": seen["frames"]} for name, seen in due["observations"].items()}
        due |= {"tile": STORED, "window": None, "source": None, "observations": frames, "holes": {}}
    assert describe(store) == due
