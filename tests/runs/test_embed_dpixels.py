"""`tessera embed --dpixels`: stored d-pixels give what the catalogue gives, without it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from tessera_cli.catalog import get_source
from tessera_cli.dpixels import write_folder, write_store
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.imagery import Reader
from tessera_cli.net import Client
from tessera_cli.planning.scene_search import Request, search_scenes
from tessera_cli.runs.inputs import CatalogInputs, StoredInputs
from tests import reference


def fetched(catalog) -> list[DPixels]:
    """The d-pixels of the small catalogue's two tiles."""
    where = Request(Aoi.from_file(catalog.aoi), (Window.from_name("2021"),), get_source("mpc"), str(catalog.items))
    inputs = CatalogInputs(search_scenes(where, Client()), Reader(Client()))
    return [inputs.reading.read(request, ascending=True) for request in inputs.tile_requests]


def rasters(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tif"))}


def weights_of(folder: Path, family: str, **sizes) -> list[str]:
    """The options for random weights of a family, with the configuration that belongs to them."""
    config, tensors = reference.random_weights(family, 5, **sizes)
    torch.save(reference.official_payload(family, config, tensors), folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return ["--weights", str(folder / "weights.pt"), "--model-config", str(folder / "config.json")]


@pytest.fixture
def stores(catalog, tmp_path) -> Path:
    folder = tmp_path / "dpixels"
    folder.mkdir()
    for dpixels in fetched(catalog):
        write_store(folder, dpixels)
    return folder


@pytest.mark.parametrize("model", ["null", "v1_0_qat", "v1_1", "v2_student"])
def test_stores_give_the_bytes_of_the_direct_run(catalog, stores, tessera, tmp_path, model):
    direct, stored = tmp_path / "direct", tmp_path / "stored"
    chosen = ["--model", "null"] if model == "null" else weights_of(tmp_path, model, latent=4, layers=1)
    options = [o for o in catalog.options(direct) if o not in ("--model", "null")]
    assert tessera("embed", *options, *chosen)[0] == 0
    shutil.rmtree(catalog.folder)
    code, stdout, _ = tessera("embed", "--dpixels", stores, *chosen, "--out", stored, "--threads", 2)
    assert code == 0
    assert len(rasters(direct)) == 6
    assert rasters(stored) == rasters(direct)
    assert json.loads((stored / "run.json").read_text()) == json.loads((direct / "run.json").read_text())
    assert stdout.splitlines()[-1] == str(stored / "utm30n_2021.vrt")
    with rasterio.open(stored / "utm30n_2021.vrt") as ours, rasterio.open(direct / "utm30n_2021.vrt") as theirs:
        window = rasterio.windows.from_bounds(*ours.bounds, theirs.transform)
        np.testing.assert_array_equal(ours.read(), theirs.read(window=window))
    records = [
        json.loads((folder / f"{Path(name).stem[:-4]}.json").read_text())
        for folder in (direct, stored)
        for name in rasters(folder)
        if name.endswith("_emb.tif")
    ]
    assert records[:2] == records[2:]  # scenes, gaps, digests: all that the store keeps


def test_another_process_finds_stores_by_their_relative_path(stores, monkeypatch):
    """Though it works in another folder, as those of a cluster do."""
    monkeypatch.chdir(stores)
    inputs = StoredInputs.find([Path(path.name) for path in sorted(stores.iterdir())])
    travelled = pickle.dumps((inputs.recipe(TileFolder(Path("out"))), inputs.tile_requests))
    monkeypatch.chdir("/")
    recipe, requests = pickle.loads(travelled)
    reading = recipe.open(requests)
    assert [reading.read(request, ascending=True).name for request in requests] == [r.name for r in requests]


def test_a_second_run_does_nothing_and_a_direct_run_goes_on(catalog, stores, tessera, tmp_path):
    out = tmp_path / "out"
    one, other = sorted(stores.iterdir())
    assert tessera("embed", "--dpixels", one, "--model", "null", "--out", out)[0] == 0
    code, stdout, _ = tessera("embed", "--dpixels", one, other, "--model", "null", "--out", out, "--json")
    summary = json.loads(stdout.splitlines()[-1])
    assert (code, summary["tiles"]["present"], summary["tiles"]["done"]) == (0, 1, 1)
    before = rasters(out)
    code, stdout, _ = tessera("embed", *catalog.options(out), "--json")
    assert json.loads(stdout.splitlines()[-1])["tiles"]["present"] == 2
    assert rasters(out) == before


def test_formats_and_types_hold_the_same_values(stores, tessera, tmp_path):
    chosen = weights_of(tmp_path, "v2_student", latent=4, layers=1)
    made = {}
    for name, options in {"int8": [], "float32": ["--dtype", "float32"]}.items():
        for form in ("geotiff", "npy"):
            out = made[form, name] = tmp_path / f"{form}-{name}"
            options = [*options, "--format", form]
            assert tessera("embed", "--dpixels", stores, *chosen, *options, "--out", out)[0] == 0
    tile = sorted(made["npy", "int8"].glob("*_scales.npy"))[0].name.removesuffix("_scales.npy")
    names = {form: sorted(path.name.removeprefix(tile) for path in made[form].glob(f"{tile}*")) for form in made}
    assert names == {
        ("geotiff", "int8"): [".json", "_counts.tif", "_emb.tif", "_scales.tif"],
        ("geotiff", "float32"): [".json", "_counts.tif", "_emb.tif"],
        ("npy", "int8"): [".json", ".npy", "_scales.npy"],
        ("npy", "float32"): [".json", ".npy"],
    }

    def raster(folder: Path, role: str) -> np.ndarray:
        with rasterio.open(folder / f"{tile}_{role}.tif") as file:
            return file.read()

    values = np.load(made["npy", "float32"] / f"{tile}.npy")
    np.testing.assert_array_equal(raster(made["geotiff", "float32"], "emb").transpose(1, 2, 0), values)
    codes, scales = np.load(made["npy", "int8"] / f"{tile}.npy"), np.load(made["npy", "int8"] / f"{tile}_scales.npy")
    embedded = np.isfinite(values).all(axis=-1)
    assert 0 < embedded.sum() < embedded.size
    assert (codes[~embedded] == 0).all()
    assert np.isnan(scales[~embedded]).all()
    np.testing.assert_array_equal(raster(made["geotiff", "int8"], "scales")[0], scales)
    np.testing.assert_array_equal(raster(made["geotiff", "int8"], "emb").transpose(1, 2, 0)[embedded], codes[embedded])
    assert (np.abs(codes * scales[..., None] - values)[embedded].max(axis=-1) <= 0.501 * scales[embedded]).all()
    properties = json.loads((made["npy", "int8"] / f"{tile}.json").read_text())["properties"]
    packed = zlib.decompress(base64.b64decode(properties["tessera:counts"]))
    np.testing.assert_array_equal(
        np.frombuffer(packed, "<u2").reshape(3, *values.shape[:2]), raster(made["geotiff", "int8"], "counts")
    )


# --- official folders ------------------------------------------------------------------------------------------------


def test_an_official_folder_with_a_georeference_gives_rasters_there(catalog, tessera, tmp_path):
    dpixels = fetched(catalog)[0]
    folder = write_folder(tmp_path / "official", dpixels)
    out, direct = tmp_path / "out", tmp_path / "direct"
    code, stdout, stderr = tessera("embed", "--dpixels", folder, "--model", "null", "--out", out)
    assert (code, stderr.count("warning")) == (0, 0)
    tessera("embed", *catalog.options(direct))
    name = dpixels.tile.id
    for role in ("emb", "scales", "counts"):
        with (
            rasterio.open(out / f"{folder.name}_{role}.tif") as ours,
            rasterio.open(direct / f"{name}_2021_{role}.tif") as theirs,
        ):
            assert (ours.crs, ours.transform) == (theirs.crs, theirs.transform)
            np.testing.assert_array_equal(ours.read(), theirs.read())
    assert stdout.splitlines() == [str(out / f"{folder.name}_emb.tif")]


def test_without_a_georeference_there_is_no_raster(tessera, tmp_path):
    case = reference.load_case("v2_student")
    folder = official(tmp_path, case)
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", "--dpixels", folder, "--model", "null", "--out", out)
    assert code == 2
    assert "needs a georeference (roi.tiff). Use --format npy." in stderr
    assert not out.exists()


def official(folder: Path, case: reference.Case) -> Path:
    """A stored case as an official tile folder."""
    tile = folder / "a_tile"
    tile.mkdir()
    for name, array in case.arrays.items():
        np.save(tile / f"{name}.npy", array)
    return tile


def test_two_tiles_never_share_a_file(tessera, tmp_path):
    case = reference.load_case("v2_student")
    one = official(tmp_path, case)
    shutil.copytree(one, tmp_path / "a_tile_scales")
    options = ["--model", "null", "--format", "npy", "--out", tmp_path / "out"]
    code, _, stderr = tessera("embed", "--dpixels", one, tmp_path / "a_tile_scales", *options)
    assert code == 2
    assert "two tiles would share the file a_tile_scales.npy" in stderr
    assert tessera("embed", "--dpixels", one, *options)[0] == 0
    code, _, stderr = tessera("embed", "--dpixels", tmp_path / "a_tile_scales", *options)  # nor two runs
    assert (code, "two tiles would share" in stderr) == (2, True)


def test_a_tile_is_made_anew_from_other_dpixels(tessera, tmp_path):
    """Official folders of many places and years have one name."""
    case = reference.load_case("v2_student")
    tile = official(tmp_path, case)
    options = ["embed", "--dpixels", tile, "--model", "null", "--format", "npy", "--out", tmp_path / "out", "--json"]
    assert tessera(*options)[0] == 0
    before = np.load(tmp_path / "out" / "a_tile.npy")
    assert json.loads(tessera(*options)[1].splitlines()[-1])["tiles"]["present"] == 1
    np.save(tile / "bands.npy", case.arrays["bands"][:, ::-1])
    assert json.loads(tessera(*options)[1].splitlines()[-1])["tiles"]["done"] == 1
    assert not np.array_equal(np.load(tmp_path / "out" / "a_tile.npy"), before, equal_nan=True)


def test_the_official_draws_do_not_depend_on_what_is_asked_for(tessera, tmp_path):
    case = reference.load_case("v1_0_qat_seeded_repeat3")
    tile = official(tmp_path, case)
    torch.save(case.payload, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    options = [
        "--weights",
        tmp_path / "weights.pt",
        "--model-config",
        tmp_path / "config.json",
        "--format",
        "npy",
        "--dtype",
        "float32",
        "--legacy-draw",
        "--seed",
        case.seed,
        "--min-s2",
        0,
    ]
    assert tessera("embed", "--dpixels", tile, *options, "--out", tmp_path / "whole")[0] == 0
    roi = np.ones(case.defined.shape, np.uint8)
    roi[0, ::2] = 0
    profile = {"driver": "GTiff", "height": roi.shape[0], "width": roi.shape[1], "count": 1, "dtype": "uint8"}
    grid = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5800000)}
    with rasterio.open(tile / "roi.tiff", "w", **profile, **grid) as file:
        file.write(roi, 1)
    assert tessera("embed", "--dpixels", tile, *options, "--out", tmp_path / "part")[0] == 0
    whole, part = (np.load(tmp_path / out / "a_tile.npy") for out in ("whole", "part"))
    np.testing.assert_array_equal(part[roi == 1], whole[roi == 1])
    assert np.isnan(part[roi == 0]).all()


def test_a_folder_whose_tile_has_changed_its_size_is_made_anew(tessera, tmp_path):
    tile = official(tmp_path, reference.load_case("v2_student"))
    options = ["embed", "--dpixels", tile, "--model", "null", "--format", "npy", "--out", tmp_path / "out"]
    assert tessera(*options)[0] == 0
    for name in ("bands", "masks", "sar_ascending", "sar_descending"):
        array = np.load(tile / f"{name}.npy")
        np.save(tile / f"{name}.npy", np.concatenate([array, array], axis=1))
    assert tessera(*options)[0] == 0
    assert np.load(tmp_path / "out" / "a_tile.npy").shape[0] == array.shape[1] * 2


def test_v1_0_without_a_clear_observation(tessera, tmp_path):
    """Official folders keep what lies under clouds, and the official code falls back to it; our stores hold 0 there."""
    case = reference.load_case("v1_0_qat_deterministic")
    folder = official(tmp_path, case)
    torch.save(case.payload, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    options = [
        "--weights",
        tmp_path / "weights.pt",
        "--model-config",
        tmp_path / "config.json",
        "--format",
        "npy",
        "--dtype",
        "float32",
    ]
    unclear = ~(case.arrays["masks"] != 0).any(axis=0) & case.defined
    assert unclear.any()
    for minimum in (0, 1):
        out = tmp_path / f"out{minimum}"
        assert tessera("embed", "--dpixels", folder, *options, "--min-s2", minimum, "--out", out)[0] == 0
        found = np.isfinite(np.load(out / "a_tile.npy")).all(axis=-1)
        np.testing.assert_array_equal(found[unclear], minimum == 0)


# --- what does not belong together -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--year", "2021"], "--year"),
        (["--bbox", "1,2,3,4"], "--bbox"),
        (["--catalog", "items.json"], "--catalog"),
        (["--fill-bbox", "--crs", "32631"], "--crs, --fill-bbox"),
    ],
)
def test_what_the_stores_say_cannot_be_said_again(stores, tessera, tmp_path, options, named):
    code, _, stderr = tessera("embed", "--dpixels", stores, *options, "--out", tmp_path / "out")
    assert code == 2
    assert f"Leave out {named}" in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("recorded", "config", "option", "code", "source"),
    [
        ("mpc", None, None, 0, "mpc"),
        ("mpc", "mpc", "mpc", 0, "mpc"),
        (None, "aws", None, 0, "aws"),
        (None, None, "aws", 0, "aws"),
        (None, None, None, 2, "Say it with --source"),
        ("mpc", "aws", None, 5, "d-pixels of source aws, and these are of mpc"),
        ("mpc", None, "aws", 5, "the d-pixels say mpc"),
        (None, "aws", "mpc", 5, "d-pixels of source aws, and these are of mpc"),
    ],
)
def test_whose_statistics_a_v1_1_model_takes(catalog, tessera, tmp_path, recorded, config, option, code, source):
    dpixels = fetched(catalog)[0]
    store = write_store(tmp_path, dpixels) if recorded else write_folder(tmp_path, dpixels)
    weights = weights_of(tmp_path, "v1_1", latent=4, layers=1)
    said = json.loads((tmp_path / "config.json").read_text())
    said.pop("data_source", None)
    (tmp_path / "config.json").write_text(json.dumps({**said, **({"data_source": config} if config else {})}))
    options = ["--source", option] if option else []
    out = tmp_path / "out"
    found, _, stderr = tessera("embed", "--dpixels", store, *weights, *options, "--out", out)
    assert found == code
    if code:
        assert source in stderr
        assert not out.exists()
        return
    identity = json.loads((out / "run.json").read_text())["identity"]
    assert (identity["model"], identity["source"], identity["model_config"]["source"]) == ("v1.1-own", source, source)


def test_stores_of_two_sources_do_not_mix(catalog, tessera, tmp_path):
    one, other = fetched(catalog)
    write_store(tmp_path / "d", one)
    write_store(tmp_path / "d", dataclasses.replace(other, source="aws"))
    code, _, stderr = tessera("embed", "--dpixels", tmp_path / "d", "--model", "null", "--out", tmp_path / "out")
    assert code == 5
    assert "source is mpc in" in stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_record_does_not_take_its_neighbours_source(catalog, tessera, tmp_path):
    one, other = fetched(catalog)
    write_store(tmp_path / "d", one)
    write_folder(tmp_path / "d", other)
    options = ["embed", "--dpixels", tmp_path / "d", "--model", "null", "--out", tmp_path / "out"]
    code, _, stderr = tessera(*options)
    assert code == 2
    assert "does not record its source, others do" in stderr
    assert not (tmp_path / "out").exists()
    assert tessera(*options, "--source", "mpc")[0] == 0


def test_options_that_cannot_be_are_refused_before_anything_is_written(stores, tessera, tmp_path):
    weights = weights_of(tmp_path, "v1_0_qat", latent=4, layers=1)
    for options, said in (
        (["--source", "foo"], "--source foo is not known"),
        (["--legacy-draw", "--seed", 5 * 10**9], "the official generator takes 0 to 4294967295"),
        (["--device", "meta"], "only cpu and cuda can encode"),
    ):
        code, _, stderr = tessera("embed", "--dpixels", stores, *weights, *options, "--out", tmp_path / "out")
        assert (code, said in stderr) == (2, True), stderr
        assert not (tmp_path / "out").exists()


def test_holes_of_a_store_count(catalog, tessera, tmp_path):
    dpixels = dataclasses.replace(fetched(catalog)[0], missing_scenes={"S2A_x": "absent"})
    store = write_store(tmp_path, dpixels)
    options = ["embed", "--dpixels", store, "--model", "null", "--out", tmp_path / "out"]
    code, _, stderr = tessera(*options)
    assert code == 4
    assert "S2A_x: absent" in stderr
    assert tessera(*options, "--allow-missing", 1)[0] == 0
    assert tessera(*options)[0] == 4


def test_pixels_that_a_store_lacks_are_not_lost(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    dpixels = fetched(catalog)[0]
    requested = dpixels.requested.copy()
    requested[np.nonzero(requested)[0][0]] = False
    less = np.zeros_like(requested)
    less[0, 0] = True  # a pixel that the direct run did not ask for
    store = write_store(tmp_path, dataclasses.replace(dpixels, requested=requested | less))
    before = rasters(out)
    code, _, stderr = tessera("embed", "--dpixels", store, "--model", "null", "--out", out)
    assert code == 4
    assert "the output folder holds pixels that" in stderr
    assert rasters(out) == before


def test_a_damaged_store_fails_alone(stores, tessera, tmp_path):
    one, other = sorted(stores.iterdir())
    chunk = max((path for path in one.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-50])
    code, stdout, stderr = tessera("embed", "--dpixels", stores, "--model", "null", "--out", tmp_path / "out")
    assert code == 4
    assert one.name in stderr
    assert [Path(line).name for line in stdout.splitlines()] == [f"{other.stem}_emb.tif", "utm30n_2021.vrt"]


@pytest.mark.parametrize("file", ["roi/zarr.json", "zarr.json"])
def test_a_store_of_damaged_description_fails_alone(stores, tessera, tmp_path, file):
    first, second = sorted(store.name for store in stores.iterdir())
    (stores / first / file).write_bytes(b"{" + (stores / first / file).read_bytes())
    code, _, stderr = tessera("embed", "--dpixels", stores, "--model", "null", "--out", tmp_path / "out")
    assert code == 4, stderr
    assert f"{stores / first} is damaged" in stderr
    assert {name[: len("utm30n_c0000_r0000_2021")] for name in rasters(tmp_path / "out")} == {second[:-5]}


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_one_flipped_bit_in_a_header_fails_one_official_folder(tessera, tmp_path):
    case = reference.load_case("v2_student")
    (tmp_path / "dpixels").mkdir()
    for name in ("t1", "t2"):
        official(tmp_path / "dpixels", case).rename(tmp_path / "dpixels" / name)
    flip(tmp_path / "dpixels/t1/masks.npy", 40)
    code, _, stderr = tessera(
        "embed", "--dpixels", tmp_path / "dpixels", "--model", "null", "--out", tmp_path / "out", "--format", "npy"
    )
    assert code == 4, stderr
    assert "t1/masks.npy cannot be read as a NumPy array: its header is not that" in stderr
    assert (tmp_path / "out/t2.npy").exists()
    flip(tmp_path / "dpixels/t1/masks.npy", 40)  # repaired
    again = tessera(
        "embed", "--dpixels", tmp_path / "dpixels", "--model", "null", "--out", tmp_path / "out", "--format", "npy"
    )
    assert again[0] == 0, again
    assert tessera("verify", tmp_path / "out")[0] == 0


@pytest.mark.parametrize(("format", "file"), [("npy", "bands.npy"), ("npy", "roi.tiff"), ("zarr", "zarr.json")])
def test_what_fetch_has_recorded_is_compared_when_it_is_read(catalog, tessera, tmp_path, format, file):
    stored = tmp_path / "dpixels"
    assert tessera("fetch", *catalog.options(stored)[:-2], "--format", format)[0] == 0
    folder = min(each for each in stored.iterdir() if (each / file).exists())
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if format == "npy" else b" " + data)
    code, _, stderr = tessera(
        "embed", "--dpixels", stored, "--model", "null", "--format", "npy", "--out", tmp_path / "o"
    )
    assert code == 4, stderr
    assert f"{folder} is not what was fetched: of {folder.name}/{file}" in stderr


def test_the_folder_gets_the_name_of_the_stores(stores, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tessera("embed", "--dpixels", "dpixels", "--model", "null")[0] == 0
    assert (tmp_path / "dpixels_null" / "run.json").exists()


def test_the_teacher_gives_float32_only(stores, tessera, tmp_path):
    weights = weights_of(tmp_path, "v2_teacher", latent=4, layers=1)
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", "--dpixels", stores, *weights, "--out", out)
    assert code == 2
    assert "Add --dtype float32" in stderr
    assert not out.exists()
    assert tessera("embed", "--dpixels", stores, *weights, "--out", out, "--dtype", "float32")[0] == 0


def test_what_official_folders_do_not_say_the_user_may(catalog, tessera, tmp_path):
    dpixels = fetched(catalog)[0]
    write_folder(tmp_path / "npy", dpixels)
    write_store(tmp_path / "zarr", dpixels)
    common = ("--model", "null", "--source", "mpc", "--format", "npy")
    for given, made in (((), "official"), (("--preprocessing", "corrected"), "corrected")):
        out = tmp_path / made
        code, _, stderr = tessera("embed", "--dpixels", tmp_path / "npy", *common, *given, "--out", out)
        assert code == 0, stderr
        assert json.loads((out / "run.json").read_text())["identity"]["preprocessing"] == made
    code, _, stderr = tessera(
        "embed", "--dpixels", tmp_path / "zarr", *common, "--preprocessing", "corrected", "--out", tmp_path / "o"
    )
    assert (code, "the d-pixels say official" in stderr) == (5, True)
    assert not (tmp_path / "o").exists()
