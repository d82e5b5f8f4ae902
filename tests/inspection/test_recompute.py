"""Whether finished tiles come out the same when they are made again: `verify --recompute`, `verify --seams`."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.inspection.recompute import share_of
from tessera_cli.inspection.remake import settings_of
from tessera_cli.models import Model, ModelConfig, load_model
from tessera_cli.outputs.compare import Difference, compare
from tests.conftest import box_geojson, make_catalog
from tests.helpers.encoders import published

EQUAL = "made again, it is equal to the byte"
DEMO = ["--model", "demo", "--threads", "1"]
DEMO_FILE = resources.files("tessera_cli.models") / "data" / "demo.safetensors"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's size and time of change: whether anything was written."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def part(catalog, name: str, west: float, east: float) -> list[str]:
    """The options for a part of the small area, from `west` to `east` as shares of its width."""
    (x, y), path = catalog.origin, catalog.folder / f"{name}.geojson"
    path.write_text(json.dumps(box_geojson(x + 400 * west + 1, y - 399, x + 400 * east - 1, y - 1)))
    return ["--aoi", str(path), "--year", "2021", "--catalog", str(catalog.items)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    """A catalogue and folders over it, made once: name -> path."""
    from tessera_cli.cli.app import run

    folder = tmp_path_factory.mktemp("recompute")
    catalog = make_catalog(folder / "catalog")
    whole = catalog.options(Path())[:6]
    runs = {
        "zstd": ["embed", *whole, *DEMO],
        "deflate": ["embed", *whole, *DEMO, "--compress", "deflate", "--dtype", "float32"],
        "npy": ["embed", *whole, *DEMO, "--format", "npy"],
        "uncertain": ["embed", *whole, *DEMO, "--uncertainty", "2"],
        "zarr": ["fetch", *whole, "--model", "demo"],
        "official": ["fetch", *whole, "--model", "demo", "--format", "npy"],
        "stored": ["embed", "--dpixels", str(folder / "zarr"), *DEMO],
    }
    for name, arguments in runs.items():
        assert run([*arguments, "--out", str(folder / name), "-q"]) == 0
    return folder, catalog


@pytest.fixture
def copied(made, tmp_path):
    """A copy of one of the folders for a test that changes it."""

    def copy(name):
        lists = shutil.ignore_patterns("collection.json", "catalog.json", "items.parquet")  # of records as they were
        return shutil.copytree(made[0] / name, tmp_path / name, ignore=lists)

    return copy


@pytest.fixture
def verified(tessera):
    def call(*arguments):
        code, text, err = tessera("verify", "--json", *arguments)
        return code, json.loads(text.splitlines()[-1]) if text else {}, err

    return call


def sign(record: Path, file: Path) -> None:
    """Make the record vouch for what the file holds now."""
    item = json.loads(record.read_text())
    for asset in item["assets"].values():
        if asset["href"] == f"./{file.name}":
            asset["file:size"] = file.stat().st_size
            asset["file:checksum"] = "1220" + hashlib.sha256(file.read_bytes()).hexdigest()
    record.write_text(json.dumps(item))


def rewrite(file: Path, change=lambda values: values, record: Path | None = None, **profile) -> None:
    """Write a raster again, with other values or packed in another way, and let the record vouch for it."""
    with rasterio.open(file) as src:
        values, kept, tags, names = src.read(), src.profile, src.tags(), src.descriptions
    with rasterio.open(file, "w", **{**kept, **profile}) as dst:
        dst.update_tags(**tags)
        for number, name in enumerate(names, start=1):
            dst.set_band_description(number, name)
        dst.write(change(values))
    sign(record or file.with_name(file.name.replace("_emb.tif", ".json")), file)


@pytest.mark.parametrize("name", ["zstd", "deflate", "npy", "uncertain"])
def test_tiles_are_made_again_to_the_byte_and_nothing_is_written(made, verified, name):
    folder, catalog = made
    before = state(folder)
    code, found, _ = verified(folder / name, "--recompute", "100%", "--catalog", catalog.items)
    assert code == 0
    assert {check["reason"] for check in found["by_name"].values()} == {EQUAL}
    assert len(found["by_name"]) == 2
    assert state(folder) == before


def test_tiles_of_stored_d_pixels(made, verified):
    folder, catalog = made
    code, found, _ = verified(folder / "stored", "--recompute", "2", "--dpixels", folder / "zarr")
    assert code == 0
    assert {check["reason"] for check in found["by_name"].values()} == {EQUAL}
    code, _, err = verified(folder / "stored", "--recompute", "2", "--catalog", catalog.items)
    assert code == 2
    assert "--dpixels" in err
    code, found, _ = verified(folder / "stored", "--recompute", "2", "--dpixels", folder / "official")
    assert code == 4  # these were not what the tiles were made from
    assert {check["status"] for check in found["by_name"].values()} == {"failed"}


@pytest.mark.parametrize("name", ["zarr", "official"])
def test_d_pixels_are_read_again(made, verified, name):
    folder, catalog = made
    code, found, _ = verified(folder / name, "--recompute", "50%", "--catalog", catalog.items)
    assert code == 0
    reasons = sorted(check.get("reason", "") for check in found["by_name"].values())
    assert reasons == ["", "made again, it has the same values"]


def test_what_differs_is_damaged_and_said_how_much(copied, made, verified):
    folder = copied("zstd")
    file = sorted(folder.glob("*_emb.tif"))[0]

    def change(codes):
        rows, columns = np.nonzero(codes[0] != -128)
        for number, by in ((0, 1), (7, -3), (11, 2)):
            row, column = rows[number], columns[number]
            codes[5, row, column] = np.clip(int(codes[5, row, column]) + by, -127, 127)
        return codes

    with rasterio.open(file) as src:
        inner = src.read(6)
    rewrite(file, change)
    assert verified(folder)[0] == 0  # its record vouches for it
    with rasterio.open(file) as src:
        largest = np.abs(src.read(6).astype(int) - inner).max()
    code, found, err = verified(folder, "--recompute", "100%", "--catalog", made[1].items)
    assert code == 4
    assert "1 damaged" in err
    (bad,) = (check for check in found["by_name"].values() if check["status"] == "damaged")
    assert f"made again, 3 pixels differ: of codes the largest difference is {largest}" in bad["reason"]
    assert f"--overwrite --tile {file.name.removesuffix('_emb.tif')}" in bad["reason"]


def test_other_bytes_of_the_same_values_are_told_apart(copied, made, verified):
    folder = copied("zstd")
    file = sorted(folder.glob("*_emb.tif"))[0]
    before = file.read_bytes()
    rewrite(file, zstd_level=9)
    assert file.read_bytes() != before
    code, found, _ = verified(folder, "--recompute", "100%", "--catalog", made[1].items)
    assert code == 0
    reasons = sorted(check["reason"] for check in found["by_name"].values())
    assert reasons == ["made again, it has the same values, written by another GDAL", EQUAL]


def test_another_model_made_it(made, verified):
    folder, catalog = made
    code, _, err = verified(folder / "zstd", "--recompute", "1", "--catalog", catalog.items, "--model", "null")
    assert code == 5
    assert "not the model that made" in err
    code, _, _ = verified(folder / "zstd", "--recompute", "1", "--catalog", catalog.items, "--model", DEMO_FILE)
    assert code == 0


def test_a_catalogue_on_this_machine_is_asked_for(made, verified):
    code, _, err = verified(made[0] / "zstd", "--recompute", "1")
    assert code == 2
    assert "Give --catalog" in err.splitlines()[-1]


@pytest.mark.parametrize("option", [["--seed", "3"], ["--dpixels", "."], ["--model", "demo"]])
def test_options_of_recompute_are_not_passed_over_without_it(made, verified, option):
    code, found, err = verified(made[0] / "zstd", *option)
    assert code == 2
    assert f"Add it, or leave out {option[0]}." in err
    assert "by_name" not in found


def test_scenes_that_changed_or_went(copied, tmp_path, verified, tessera):
    catalog = make_catalog(tmp_path / "catalog")
    options = ["embed", *catalog.options(Path())[:6], "--model", "null", "--threads", "1"]
    assert tessera(*options, "--out", tmp_path / "out")[0] == 0
    again = [tmp_path / "out", "--recompute", "100%", "--catalog", catalog.items]
    assert verified(*again)[0] == 0
    band = sorted((catalog.folder / "cogs").rglob("*B02*"))[0]
    with rasterio.open(band) as src:
        profile, values = src.profile, src.read()
    with rasterio.open(band, "w", **profile) as dst:
        dst.write(values + 100)
    code, found, _ = verified(*again)
    assert code == 4
    assert {check["status"] for check in found["by_name"].values()} == {"damaged"}
    band.unlink()
    code, found, _ = verified(*again)
    assert code == 4
    assert {check["status"] for check in found["by_name"].values()} == {"failed"}
    assert all("cannot be made again" in check["reason"] for check in found["by_name"].values())


def test_a_scene_that_was_missing_stays_so(tmp_path, verified, tessera):
    catalog = make_catalog(tmp_path / "catalog")
    band = sorted((catalog.folder / "cogs").rglob("*B02*"))[0]
    away = band.rename(tmp_path / "away.tif")
    options = ["embed", *catalog.options(Path())[:6], "--model", "null", "--threads", "1", "--allow-missing", "1"]
    assert tessera(*options, "--out", tmp_path / "out")[0] == 0
    away.rename(band)
    code, found, _ = verified(tmp_path / "out", "--recompute", "100%", "--catalog", catalog.items)
    assert code == 0
    assert {check["reason"] for check in found["by_name"].values()} == {EQUAL}


def test_points(tmp_path, verified, tessera, catalog):
    x, y = catalog.origin
    from tessera_cli.extent.grid import from_utm
    from tests.helpers.builders import EPSG

    lonlat = [from_utm(EPSG).transform(x + step, y - 100) for step in (50, 150, 350)]
    (tmp_path / "points.csv").write_text("lon,lat\n" + "".join(f"{lon},{lat}\n" for lon, lat in lonlat))
    where = ["--points", tmp_path / "points.csv", "--year", "2021", "--catalog", catalog.items]
    assert tessera("embed", *where, "--model", "null", "--threads", "1", "--out", tmp_path / "out")[0] == 0
    code, found, _ = verified(tmp_path / "out", "--recompute", "100%", "--catalog", catalog.items)
    assert code == 0
    assert {check["reason"] for check in found["by_name"].values()} == {EQUAL}


def test_the_draw(made, verified):
    folder, catalog = made
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        _, found, _ = verified(folder / "zstd", "--recompute", "1", "--seed", seed, "--catalog", catalog.items)
        drawn.append([name for name, check in found["by_name"].items() if "reason" in check])
        assert len(drawn[-1]) == 1
    assert drawn[0] == drawn[1]
    assert len({name for (name,) in drawn}) == 2


@pytest.mark.parametrize(
    ("count", "share", "wanted"),
    [(100, "1%", 1), (101, "1%", 2), (3, "1%", 1), (10, "100%", 10), (10, 4, 4), (10, "40", 10), (1000, "0.5 %", 5)],
)
def test_shares(count, share, wanted):
    assert share_of(count, share) == wanted


@pytest.mark.parametrize("share", ["0", "0%", "101%", "some", "-1", "1/2", "", "1.5"])
def test_no_shares(share):
    with pytest.raises(UsageError, match="--recompute"):
        share_of(10, share)


def test_comparing():
    a = np.array([[1, 2], [3, 4]], np.int8)
    nan = np.array([[np.nan, 1.0], [2.0, 3.0]], np.float32)
    assert compare([("codes", a), ("scales", nan)], [("codes", a.copy()), ("scales", nan.copy())]) is None
    b = np.array([[-128, 2], [3, 127]], np.int8)
    found = compare([("codes", a), ("scales", nan)], [("codes", b), ("scales", nan + np.float32(0.5))])
    assert found == Difference(4, {"codes": 129.0, "scales": 0.5})
    inside = np.array([[False, True], [True, False]])
    assert compare([("codes", a)], [("codes", b)], inside) is None
    assert str(compare([("codes", a)], [("codes", b)], ~inside)) == (
        "2 pixels differ: of codes the largest difference is 129"
    )
    assert "one has none" in str(compare([("scales", nan)], [("scales", np.nan_to_num(nan))]))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        compare([("codes", a), ("codes", a)], [("codes", a)])


# --- seams ------------------------------------------------------------------------------------------------------------


def test_neighbouring_runs_agree_where_both_have_pixels(tmp_path, catalog, verified, tessera):
    for verb, more in (("embed", ["--model", "null", "--threads", "1"]), ("fetch", ["--model", "null"])):
        west, east, far = (tmp_path / f"{verb}-{name}" for name in ("west", "east", "far"))
        assert tessera(verb, *part(catalog, "west", 0, 0.7), *more, "--out", west)[0] == 0
        assert tessera(verb, *part(catalog, "east", 0.3, 1), *more, "--out", east)[0] == 0
        assert tessera(verb, *part(catalog, "far", 0.8, 1), *more, "--out", far)[0] == 0
        code, found, _ = verified(west, "--seams", east)
        assert code == 0
        seams = [check for name, check in found["by_name"].items() if " in " in name]
        # 16 of 40 columns lie in both: 8 on either side of the border of tiles
        assert [check["reason"] for check in seams] == ["320 pixels in common, all equal"] * 2
        code, _, err = verified(west, "--seams", far)
        assert code == 2
        assert "no pixel in common" in err


def test_neighbours_that_differ_are_named(tmp_path, catalog, verified, tessera):
    west, east, more = tmp_path / "west", tmp_path / "east", ["--model", "null", "--threads", "1"]
    assert tessera("embed", *part(catalog, "west", 0, 0.7), *more, "--out", west)[0] == 0
    catalog.edit(lambda items: [item for item in items if "2021-05-20" not in item["id"]])
    assert tessera("embed", *part(catalog, "east", 0.3, 1), *more, "--out", east)[0] == 0
    code, found, _ = verified(west, "--seams", east)
    assert code == 4
    reasons = [check["reason"] for name, check in found["by_name"].items() if " in " in name]
    assert len(reasons) == 2
    assert all("320 pixels in common, of which" in reason and "other scenes" in reason for reason in reasons)


def test_seams_of_other_settings_or_of_itself(made, verified):
    folder, _ = made
    code, _, err = verified(folder / "zstd", "--seams", folder / "deflate")
    assert code == 5
    assert "dtype is" in err
    code, _, err = verified(folder / "zstd", "--seams", folder / "zstd")
    assert code == 2
    assert "itself" in err
    assert verified(folder / "zstd", "--seams", folder)[0] == 2


# --- settings that no option of `verify` tells ------------------------------------------------------------------------


def unbound(folder: Path, family: str, seed: int) -> Model:
    """Return an official checkpoint as it is loaded: without the statistics of a source."""
    config = published(folder, family, seed, source="mpc")[0]
    return load_model(
        weights=folder / "checkpoint.pt", model_config=ModelConfig(config), device="cpu", precision="fp32"
    )


def test_settings_are_found_again(tmp_path):
    """The source whose statistics were used, and the official draws, show in the identity alone."""

    cases = [
        ("v1_1", {"source": "aws", "recorded": "mpc", "force_source": True}),
        ("v1_1", {"recorded": "mpc", "min_s1": 2}),
        ("v1_0_qat", {"recorded": "mpc", "legacy_draw": True, "seed": 7}),
        ("v2_student", {"recorded": None, "min_s2": 3, "dtype": "float32"}),
    ]
    for family, given in cases:
        model = unbound(tmp_path, family, 0)
        settings = EmbedSettings.checked(model, **given)
        found = settings_of(settings.folder(tmp_path), model)
        assert found.identity() == settings.identity()
        assert found.model.spec == settings.model.spec
    other = unbound(tmp_path, family, 1)
    with pytest.raises(IdentityError, match=r"not the model that made .*: weights_sha256 is"):
        settings_of(settings.folder(tmp_path), other)
