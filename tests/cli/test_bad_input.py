"""Bad input: one clear line (what, why, what to do), the right exit code, nothing written."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import shapely
import torch

from tests.conftest import box_geojson
from tests.helpers.vectors import NOT_FINITE, TIN, multipatch, write_layer, write_wkb

SQUARE = shapely.box(5.0, 51.0, 5.02, 51.01)


def fails(result, code, *words):
    """The exit code, and one line on stderr besides warnings that holds the words."""
    exit_code, stdout, stderr = result
    errors = [line for line in stderr.splitlines() if line.startswith("tessera: error: ")]
    assert exit_code == code, stderr
    assert len(errors) == 1, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    for word in words:
        assert word in errors[0], errors[0]


@pytest.fixture
def embed(catalog, tessera, tmp_path):
    """Run `embed` on the small catalogue with some options replaced; assert that a refusal writes nothing."""
    out = tmp_path / "out"

    def call(code, *words, extra=(), **replaced):
        options = dict(zip(*[iter(catalog.options(out))] * 2, strict=True))
        options |= {f"--{name.replace('_', '-')}": value for name, value in replaced.items()}
        arguments = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        fails(tessera("embed", *arguments, *extra), code, *words)
        assert not out.exists()

    return call


def write(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


# --- the area --------------------------------------------------------------------------------------------------------


def test_missing_aoi_file(embed, tmp_path):
    embed(2, "no such file", "--bbox", aoi=tmp_path / "none.geojson")


def test_no_area_or_two(embed):
    embed(2, "Exactly one area", aoi=None)
    embed(2, "Exactly one area", extra=["--bbox", "5", "51", "6", "52"])


@pytest.mark.parametrize("name", ["x.geojson", "x.gpkg", "x.shp", "x.txt"])
def test_unreadable_aoi_file(embed, tmp_path, name):
    embed(2, "x.", aoi=write(tmp_path / name, "rubbish"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_aoi_file(embed, tmp_path):
    path = write(tmp_path / "x.geojson", SQUARE.__geo_interface__)
    path.chmod(0)
    embed(2, "cannot be read", aoi=path)


def test_a_folder_as_aoi(embed, tmp_path):
    embed(2, "cannot be read", aoi=tmp_path)


def test_an_unknown_layer(embed, tmp_path):
    path = write_layer(write_layer(tmp_path / "x.gpkg", "west", [SQUARE]), "east", [SQUARE])
    embed(2, "no layer north with geometries", "west, east", aoi=path, layer="north")


def test_a_layer_of_what_has_none(embed, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    embed(2, "GeoJSON, which has no layers", layer="fields")
    embed(2, "standard input has none", aoi="-", layer="fields")
    embed(2, "chooses a layer of a file", aoi=None, layer="x", extra=["--bbox", "5", "51", "6", "52"])


def test_surfaces_in_space(embed, tmp_path):
    embed(2, "x.gpkg holds a TIN", aoi=write_wkb(tmp_path / "x.gpkg", TIN, "TIN"))
    embed(2, "feature 1, holds a TIN", aoi=multipatch(tmp_path / "x.shp"))


def test_positions_that_are_not_finite(embed, tmp_path):
    nan = json.dumps(shapely.geometry.mapping(SQUARE)).replace("51.01", "NaN", 1)
    embed(2, "x.geojson: feature 1 has the position", aoi=write(tmp_path / "x.geojson", nan))
    embed(2, "feature 1 has the position", aoi=write_wkb(tmp_path / "x.gpkg", NOT_FINITE, "POLYGON"))


def test_very_deep_json(embed, tmp_path):
    text = '{"type": "Polygon", "coordinates": ' + "[" * 100_000 + "]" * 100_000 + "}"
    embed(2, "x.geojson is not GeoJSON: it is nested too deeply", aoi=write(tmp_path / "x.geojson", text))


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (None, 2, "standard input is empty"),
        (b"", 2, "standard input is empty"),
        (b"\xff\xfe\x00\xd8", 2, "standard input is not GeoJSON"),
        (bytes(range(256)), 2, "standard input is not GeoJSON"),
        (b"[" * 100_000, 2, "standard input is not GeoJSON: it is nested too deeply"),
        (b"\xef\xbb\xbf", 2, "standard input is empty"),
        (json.dumps({"type": "Feature", "geometry": None}).encode("utf-16"), 3, "standard input holds no geometry"),
    ],
    ids=["closed", "empty", "half a letter", "binary", "deep", "only a mark", "null"],
)
def test_standard_input_that_is_no_area(embed, monkeypatch, given, code, words):
    monkeypatch.setattr(sys, "stdin", None if given is None else io.TextIOWrapper(io.BytesIO(given), "utf-8"))
    embed(code, words, aoi="-")


def test_standard_input_that_cannot_be_read(embed, monkeypatch, tmp_path):
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Broken(), "utf-8"))  # type: ignore[type-var]
    embed(2, "Standard input cannot be read", aoi="-")


def test_empty_geometry(embed, tmp_path):
    embed(3, "no geometry", aoi=write(tmp_path / "x.geojson", {"type": "Polygon", "coordinates": []}))
    embed(3, "no geometry", aoi=write(tmp_path / "y.geojson", {"type": "FeatureCollection", "features": []}))


def test_a_point(embed, tmp_path):
    embed(2, "Point", "buffer", aoi=write(tmp_path / "x.geojson", {"type": "Point", "coordinates": [5, 51]}))


def test_swapped_longitude_and_latitude(embed, tmp_path):
    box = shapely.geometry.mapping(shapely.box(51.0, 105.0, 51.01, 105.02))
    embed(2, "swapped", aoi=write(tmp_path / "x.geojson", box))
    embed(2, "swapped", aoi=None, extra=["--bbox", "51", "105", "52", "106"])


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_vector_file_without_crs(embed, tmp_path, suffix):
    path = tmp_path / f"field{suffix}"
    pyogrio.raw.write(path, np.array([shapely.to_wkb(SQUARE)]), [], [], geometry_type="Polygon", crs=None)
    embed(2, "no CRS", aoi=path)


def test_area_of_zero_pixels(embed, tmp_path):
    tiny = box_geojson(600001, 5800001, 600003, 5800003)
    embed(3, "no centre of a 10 m pixel", aoi=write(tmp_path / "x.geojson", tiny))


def test_a_self_intersecting_polygon_is_repaired_and_embedded(catalog, tessera, tmp_path):
    west, north = catalog.origin
    corners = box_geojson(west + 32, north - 360, west + 367, north - 32)["coordinates"][0]
    bowtie = {"type": "Polygon", "coordinates": [[corners[0], corners[2], corners[1], corners[3], corners[0]]]}
    options = catalog.options(tmp_path / "out")
    options[1] = str(write(tmp_path / "x.geojson", bowtie))
    code, _, stderr = tessera("embed", *options)
    assert code == 0
    assert "repaired" in stderr


def test_mask_that_cannot_be_used(embed, tmp_path):
    embed(2, "no such file", mask=tmp_path / "none.tif")
    embed(2, "cannot be read", mask=write(tmp_path / "x.tif", "rubbish"))


# --- the time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("year", "words"), [(2014, "2015"), (2999, "future"), ("x", "is no year")])
def test_years(embed, year, words):
    embed(2, words, year=year)


def test_no_time(embed):
    embed(2, "--year", year=None)


def test_windows(embed):
    embed(2, "--window", year=None, window="2021")
    embed(2, "366", year=None, window="2020-01/2021-12")


# --- the model -------------------------------------------------------------------------------------------------------


def test_unknown_model(embed):
    embed(2, "v2-nano", "Did you mean", model="v2-nanno")


def test_dims_that_the_model_lacks(embed):
    embed(2, "16, 32, 64, 128", dims=100)
    embed(2, "16, 32, 64, 128", dims=0)


@pytest.mark.parametrize("kind", ["absent", "empty", "truncated", "foreign", "text"])
def test_checkpoints_that_are_none(embed, tmp_path, kind):
    path = tmp_path / "student.pt"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind in ("truncated", "foreign"):
        torch.save({"something": torch.zeros(4, 4), "else": {"x": 1}}, path)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-200])
    embed(2, "student.pt", model=None, weights=path)


def test_checkpoint_whose_tensors_do_not_fit(embed, tmp_path):
    from tessera_cli.models import EncoderConfig
    from tessera_cli.models.encoder import Encoder
    from tessera_cli.models.layout import official_names

    config = EncoderConfig.of(latent=8, layers=1, heads=4, feedforward=16)
    state = {official_names(name, config)[0]: t for name, t in Encoder(config).state_dict().items()}
    args = {
        "repr_dim": 128,
        "latent_dim": 8,
        "num_layers": 1,
        "nhead": 4,
        "dim_feedforward": 32,
        "max_seq_len": 256,
        "matryoshka_dims": "16,32,64,128",
    }
    path = tmp_path / "student.pt"
    torch.save({"args": args, "model": state}, path)
    embed(2, "student.pt", "linear1.weight is 16 x 32, where 32 x 32 is needed", model=None, weights=path)


def test_published_weights_without_network(embed, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    embed(75, "TESSERA-V-2.0-2B-N", "--weights", model="v2-nano")


# --- the catalogue and its files -------------------------------------------------------------------------------------


def test_catalogue_that_is_not_stac(embed, tmp_path):
    embed(2, "not STAC", catalog=write(tmp_path / "x.json", {"type": "Topology"}))
    embed(2, "not JSON", catalog=write(tmp_path / "y.json", "<html>"))
    embed(2, "no such file", catalog=tmp_path / "none.json")


def test_catalogue_without_matching_items(embed, tmp_path):
    embed(3, "no scene", "2019", year=2019)
    embed(3, "no scene", catalog=write(tmp_path / "x.json", {"type": "FeatureCollection", "features": []}))
    embed(3, "no scene", aoi=None, extra=["--bbox", "5", "51", "5.01", "51.01"])


def test_no_radar_at_all(catalog, embed, tessera, tmp_path):
    catalog.edit(lambda items: [i for i in items if i["collection"] == "sentinel-2-l2a"])
    embed(3, "no Sentinel-1", "--allow-no-radar")
    assert tessera("embed", *catalog.options(tmp_path / "out"), "--allow-no-radar")[0] == 0


def broken(catalog, tessera, out, *words):
    """A file at fault: its tiles fail, no raster or record of a tile is left."""
    code, _, stderr = tessera("embed", *catalog.options(out))
    assert code == 4
    errors = [line for line in stderr.splitlines() if line.startswith("tessera: error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in (*words, "--allow-missing"))
    left = {path.name for path in out.iterdir()} if out.exists() else set()
    assert left <= {"run.json", "runs", "scenes.ndjson.gz"}


def test_asset_missing_from_an_item(catalog, tessera, tmp_path):
    def drop(items):
        for item in items:
            if item["id"] == "S2A_2021-07-01":
                del item["assets"]["B05"]
        return items

    catalog.edit(drop)
    broken(catalog, tessera, tmp_path / "out", "S2A_2021-07-01", "B05")


@pytest.mark.parametrize(
    "asset", ["S2A_2021-07-01/B02", "S2A_2021-07-01/B11", "S2A_2021-07-01/SCL", "S1A_2021-03-05/vv"]
)
@pytest.mark.parametrize("how", ["absent", "cut in the header", "cut in the data", "empty", "html"])
def test_image_truncated_or_absent(catalog, tessera, tmp_path, asset, how):
    path = catalog.folder / "cogs" / f"{asset}.tif"
    content = path.read_bytes()
    if how == "absent":
        path.unlink()
    else:
        cut = {
            "cut in the header": content[:60],
            "cut in the data": content[: len(content) - 300],
            "empty": b"",
            "html": b"<html><body>busy</body></html>",
        }
        path.write_bytes(cut[how])
    broken(catalog, tessera, tmp_path / "out", *asset.split("/"), "absent" if how == "absent" else "broken")


@pytest.mark.parametrize("how", ["cut behind the header", "without CRS"])
def test_image_that_opens_and_is_none(catalog, tessera, tmp_path, how):
    import rasterio

    path = catalog.folder / "cogs" / "S2A_2021-07-01" / "B02.tif"
    if how == "without CRS":
        profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint16"}
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path, "w", **profile) as dst:
            dst.write(np.ones((1, 4, 4), "uint16"))
    else:
        path.write_bytes(path.read_bytes()[:260])
    broken(catalog, tessera, tmp_path / "out", "S2A_2021-07-01", "B02", "broken")


def odd(item, how):
    """Items that real catalogues hold."""
    item = json.loads(json.dumps(item))
    if how == "no projection":
        item["properties"].pop("proj:epsg")
        item["stac_extensions"] = []
        for asset in item["assets"].values():
            del asset["proj:shape"], asset["proj:transform"]
    elif how == "epsg null":
        item["properties"]["proj:epsg"] = None
    elif how == "one asset without shape":
        asset = next(iter(item["assets"].values()))
        del asset["proj:shape"], asset["type"]
    elif how == "no geometry":
        item["geometry"] = None
    elif how == "no version":
        item.pop("stac_version")
    elif how == "wrong footprint of the file":
        for asset in item["assets"].values():
            asset["proj:transform"] = [10, 0, 0, 0, -10, 0]
    elif how == "null and foreign assets":
        item["assets"] |= {"thumb": None, "odd": {"title": "no href"}}
    return item


@pytest.mark.parametrize(
    "how",
    [
        "no projection",
        "epsg null",
        "one asset without shape",
        "no geometry",
        "no version",
        "wrong footprint of the file",
        "null and foreign assets",
    ],
)
@pytest.mark.parametrize("which", ["all", "one"])
def test_odd_items_give_the_same_pixels(catalog, tessera, tmp_path, how, which):
    plain, out = tmp_path / "plain", tmp_path / "out"
    tessera("embed", *catalog.options(plain))
    chosen = ("S2A_2021-07-01", "S1A_2021-03-05")
    catalog.edit(lambda items: [odd(i, how) if which == "all" or i["id"] in chosen else i for i in items])
    code, _, stderr = tessera("embed", *catalog.options(out))
    assert code == 0, stderr
    for path in plain.glob("*.tif"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_mask_with_nan(catalog, tessera, tmp_path):
    import rasterio
    from affine import Affine

    west, north = catalog.origin
    values = np.full((40, 40), np.nan, "float32")
    values[:, 20:] = 1
    path = tmp_path / "mask.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=40,
        height=40,
        count=1,
        dtype="float32",
        crs="EPSG:32630",
        transform=Affine(10, 0, west, 0, -10, north),
    ) as dst:
        dst.write(values, 1)
    code, stdout, _ = tessera("plan", *catalog.options(tmp_path / "out"), "--mask", path, "--json")
    assert code == 0
    assert json.loads(stdout)["tiles"] == 1


# --- the output ------------------------------------------------------------------------------------------------------


def mounted(path, *options):
    """Mount a tmpfs; skip where that is not permitted."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")


def unmount(path):
    subprocess.run(["umount", str(path)], check=True)


def test_read_only_mount(catalog, tessera, tmp_path):
    mount = tmp_path / "ro"
    mounted(mount, "-o", "ro,size=1m")
    try:
        fails(tessera("embed", *catalog.options(mount / "out")), 2, "cannot be created", "--out")
        fails(tessera("embed", *catalog.options(mount)), 2, "--out")
    finally:
        unmount(mount)


def test_disk_full(catalog, tessera, tmp_path):
    mount = tmp_path / "small"
    mounted(mount, "-o", "size=64k")
    try:
        fails(tessera("embed", *catalog.options(mount / "out")), 4, "disk is full", "Make room")
        assert not list((mount / "out").glob("*.part"))
        assert not list((mount / "out").glob("*_2021.json"))
    finally:
        unmount(mount)
    assert tessera("embed", *catalog.options(tmp_path / "roomy"))[0] == 0


def test_out_is_a_file(catalog, tessera, tmp_path):
    path = write(tmp_path / "file", "x")
    fails(tessera("embed", *catalog.options(path)), 2, "--out")
    assert path.read_text() == "x"


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "--nonsense"],
        ["nonsense"],
        ["embed", "--bbox", "1", "2", "3"],
        ["embed", "--bbox", "1,2,3,x"],
        ["embed", "--threads", "x"],
        ["info"],
        ["embed", "--compress", "lzw"],
    ],
)
def test_usage(tessera, arguments):
    fails(tessera(*arguments), 2, "--help")


def test_negative_minimum(embed):
    embed(2, "--min-s2", min_s2=-1)


def test_unknown_source(embed):
    embed(2, "mpc", source="aws-2")


def test_crs_that_is_no_utm(embed):
    embed(2, "UTM", crs="EPSG:4326")


def test_info_of_something_else(tessera, tmp_path):
    fails(tessera("info", tmp_path), 2, "no output folder")
    fails(tessera("info", tmp_path / "none"), 2, "no such file")
    fails(tessera("info", write(tmp_path / "x.json", "{}")), 2, "not the record")
    fails(tessera("info", write(tmp_path / "x.tif", "x")), 2, "neither a raster")


def test_tracebacks_only_for_debug(catalog, tmp_path):
    command = [sys.executable, "-m", "tessera_cli", "embed", *catalog.options(tmp_path / "out"), "--dims", "100"]
    plain = subprocess.run(command, capture_output=True, text=True)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert plain.returncode == debug.returncode == 2


def test_a_folder_whose_name_is_not_utf_8(catalog, tessera, tmp_path):
    code, _, stderr = tessera("embed", *catalog.options(tmp_path / "f\udcfc"))
    assert code == 2
    assert "is not UTF-8, or not taken for it here. Rename it" in stderr
