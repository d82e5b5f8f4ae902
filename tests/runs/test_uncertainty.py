"""`tessera embed --uncertainty`: one more file of a tile, beside the same embeddings."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from tessera_cli import open_embeddings, sample
from tessera_cli.dpixels.zarr_store import read_store
from tessera_cli.inference.uncertainty import uncertainty
from tessera_cli.models import load_model
from tests.inspection.test_recompute import rewrite
from tests.runs.test_embed_dpixels import weights_of

DEMO = ["--model", "demo", "--threads", "1"]


@pytest.fixture
def embed(catalog, tessera):
    def call(out: Path, *more: object, name: str = "embed", model: bool = True):
        model = (DEMO if name == "embed" else DEMO[:2]) if model else []
        code, text, err = tessera(name, *catalog.options(out)[:6], "--out", out, *model, *more)
        return code, text, err

    return call


def test_the_file_and_what_it_says(embed, tessera, tmp_path):
    assert embed(tmp_path / "plain")[0] == 0
    assert embed(tmp_path / "out", "--uncertainty", 3)[0] == 0
    assert embed(tmp_path / "dpixels", name="fetch")[0] == 0
    model = load_model("demo").bind_source("mpc")
    for file in sorted((tmp_path / "plain").glob("*.tif")):
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()
    stores = sorted((tmp_path / "dpixels").glob("*.zarr"))
    assert len(stores) == 2
    for store in stores:
        with rasterio.open(tmp_path / "out" / f"{store.stem}_uncertainty.tif") as file:
            found, bands = file.read(1), file.descriptions
            assert (file.dtypes, bands, str(file.nodata)) == (("float32",), ("uncertainty",), "nan")
        dpixels = read_store(store)
        pixels = dpixels.embeddable(min_s2=1, min_s1=0)
        due = uncertainty(dpixels, model, pixels, draws=3)
        np.testing.assert_array_equal(found[pixels], due)
        assert np.isnan(found[~pixels]).all()
        item = json.loads((tmp_path / "out" / f"{store.stem}.json").read_text())
        assert item["assets"]["uncertainty"]["roles"] == ["data", "uncertainty"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["identity"]["uncertainty"] == 3
    assert "uncertainty" not in json.loads((tmp_path / "plain" / "run.json").read_text())["identity"]
    assert "uncertainty" in json.loads((tmp_path / "out" / "collection.json").read_text())["item_assets"]
    data = open_embeddings(tmp_path / "out", chunks=None)
    assert data["uncertainty"].dims == ("time", "y", "x")
    there = ~np.isnan(data["embedding"].values[0, 0])
    told = ~np.isnan(data["uncertainty"].values[0])
    assert told.any()
    assert not (told & ~there).any()
    assert "uncertainty" not in open_embeddings(tmp_path / "plain", chunks=None)
    assert tessera("verify", tmp_path / "out")[0] == 0


def test_a_folder_has_it_or_not(embed, tmp_path):
    assert embed(tmp_path / "out", "--uncertainty", 1)[0] == 0
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").glob("*.tif")}
    assert embed(tmp_path / "out", "--uncertainty", 1)[0] == 0
    code, _, err = embed(tmp_path / "out")
    assert code == 5
    assert "uncertainty" in err
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").glob("*.tif")}
    assert after == before
    code, _, err = embed(tmp_path / "new", "--uncertainty", 65)
    assert code == 2
    assert "--uncertainty 65 is out of range: give 1 to 64 times" in err


def test_models_that_draw_a_fixed_number_are_refused(embed, tmp_path):
    weights = weights_of(tmp_path, "v1_0_qat")
    code, _, err = embed(tmp_path / "out", *weights, "--uncertainty", 2, model=False)
    assert code == 2
    assert "models of v1.0 draw as many observations from half the dates as from all" in err


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_arrays(embed, tessera, tmp_path, dtype):
    assert embed(tmp_path / "tif", "--uncertainty", 1, "--dtype", dtype)[0] == 0
    assert embed(tmp_path / "npy", "--uncertainty", 1, "--dtype", dtype, "--format", "npy")[0] == 0
    assert tessera("verify", tmp_path / "npy")[0] == 0
    for path in (tmp_path / "tif").glob("*_uncertainty.tif"):
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(np.load(tmp_path / "npy" / path.with_suffix(".npy").name), file.read(1))


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [(0.7, True, "not within 0 and 0.5"), (-0.1, True, "not within 0 and 0.5"), (0.1, False, "without an embedding")],
)
def test_what_cannot_be_is_found(embed, tessera, tmp_path, value, where, why):
    assert embed(tmp_path / "out", "--uncertainty", 1)[0] == 0
    file = sorted((tmp_path / "out").glob("*_uncertainty.tif"))[0]

    def change(values):
        rows, columns = np.nonzero(~np.isnan(values[0]) == where)
        values[0, rows[0], columns[0]] = value
        return values

    rewrite(file, change, record=file.with_name(file.name.replace("_uncertainty.tif", ".json")))
    for path in ("collection.json", "catalog.json", "items.parquet"):
        (tmp_path / "out" / path).unlink(missing_ok=True)
    code, text, _ = tessera("verify", "--json", tmp_path / "out")
    assert code == 4
    assert why in text


def test_tables_have_it(embed, tessera, tmp_path):
    assert embed(tmp_path / "out", "--uncertainty", 2)[0] == 0
    (path,) = sorted((tmp_path / "out").glob("*_uncertainty.tif"))[:1]
    with rasterio.open(path) as file:
        values, transform, crs = file.read(1), file.transform, file.crs
    rows, columns = np.argwhere(~np.isnan(values))[[0, 40, 90]].T
    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
    lon, lat = to_degrees.transform(*(transform * (columns + 0.5, rows + 0.5)))
    points = sample(tmp_path / "out", places=np.stack([lon, lat], axis=-1))
    np.testing.assert_array_equal(points["uncertainty"].values[:, 0], values[rows, columns])
    top, left = rows[1], columns[1]
    west, north = transform * (left, top)
    square = shapely.box(west + 1, north - 29, west + 29, north - 1)
    ring = shapely.transform(square, to_degrees.transform, interleaved=False)
    (tmp_path / "places.geojson").write_text(shapely.to_geojson(ring))
    due = np.nanmean(values[top : top + 3, left : left + 3])
    assert sample(tmp_path / "out", places=[ring])["uncertainty"].values[0, 0] == pytest.approx(due, rel=1e-5)
    code, text, _ = tessera("sample", tmp_path / "out", tmp_path / "places.geojson")
    table = list(csv.DictReader(text.splitlines()))
    assert code == 0
    assert float(table[0]["uncertainty"]) == pytest.approx(due, rel=1e-5)
    assert embed(tmp_path / "plain")[0] == 0
    assert "uncertainty" not in sample(tmp_path / "plain", places=[ring])
    (tmp_path / "points.csv").write_text(f"lon,lat,uncertainty\n{lon[0]},{lat[0]},mine\n")
    code, text, _ = tessera("sample", tmp_path / "out", tmp_path / "points.csv")
    row = next(csv.DictReader(text.splitlines()))
    assert (float(row["uncertainty"]), row["file_uncertainty"]) == (pytest.approx(values[rows[0], columns[0]]), "mine")
