"""Maps: files, legend, confidence and record, against a model asked pixel by pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import DiskFullError, UsageError
from tessera_cli.evaluation.mapping.make import labelled_window, make_map
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.extent.grid import Tile
from tessera_cli.learning.adapters import fit
from tests.exports.folders import EAST, NEXT, REQUESTED, WEST, YEAR, by_hand, lonlat, put

NAMES = ("maize", "wheat & rye", "ülmo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tiles side by side."""
    folder = tmp_path_factory.mktemp("map") / "f"
    for seed, tile in enumerate((WEST, EAST)):
        put(folder, tile, seed=seed)
    return folder


def labelled(folder, *, task="classification", tile=WEST, count=400):
    """Samples of a tile; the class, or value, follows from the first dimension. Four pixels are a parcel."""
    codes, scales = by_hand(folder, tile)
    values = codes.astype(np.float32) * scales
    rows, columns = np.nonzero(~np.isnan(scales))
    at = np.sort(np.random.default_rng(1).choice(len(rows), count, replace=False))
    x = values[:, rows[at], columns[at]].T
    parcels = np.arange(count) // 4
    if task == "regression":
        y, names = 3 * x[:, 0].astype(np.float64), ()
    else:
        y, names = np.digitize(x[:, 0], [-2, 2]), NAMES
        x = x + 0
        y = y[parcels * 4].astype(np.int64)  # one label per parcel
        x[:, 0] = np.array([-5, 0, 5], np.float32)[y]
    places = np.array([lonlat(tile, *each) for each in zip(rows[at], columns[at], strict=True)])
    return LabelledSamples(
        task, "pixel", (FeatureSet("f", "embedding", np.ascontiguousarray(x)),), y, names, places, parcels, parcels
    )


def make(folder, out, samples, **given):
    given = {"adapter": "logistic", "labels": {"file": "fields.gpkg", "column": "crop"}, **given}
    return make_map(EmbeddingFolder.open(folder), samples, out, **given)


def whole(folder):
    """Both tiles side by side, cut to what was asked for: float32 (R, 200, 982), NaN for none."""
    both = [codes.astype(np.float32) * scales for codes, scales in (by_hand(folder, each) for each in (WEST, EAST))]
    return np.concatenate(both, axis=2)[:, 100:300, 30:1012]


def test_classes_and_confidence_are_those_of_the_model(folder, tmp_path):
    samples = labelled(folder)
    made = make(folder, tmp_path / "m.tif", samples, adapter="knn")
    assert made.files == (tmp_path / "m.tif",)
    values = whole(folder)
    there = ~np.isnan(values[0])
    model = fit("knn", "classification", samples.features[0].values, samples.targets, samples.groups, classes=3, seed=0)
    told = model.probabilities(np.ascontiguousarray(values[:, there].T))
    with rasterio.open(tmp_path / "m.tif") as src:
        assert (src.dtypes, src.descriptions, src.nodata) == (("uint8", "uint8"), ("class", "confidence"), 0)
        assert (src.crs.to_epsg(), src.transform.c) == (32631, WEST.bounds[0] + 300)
        classes, confidence = src.read()
        colours = src.colormap(1)
        assert src.colorinterp[0] == rasterio.enums.ColorInterp.palette
        assert src.colorinterp[1] != rasterio.enums.ColorInterp.alpha
        assert src.tags()["TESSERA_MAP"] == "classification"
        assert src.overviews(1) == [2, 4]
    assert np.array_equal(classes > 0, there)
    assert np.array_equal(classes[there], told.argmax(axis=1) + 1)
    assert np.array_equal(confidence[there], np.rint(100 * told.max(axis=1)))
    assert not confidence[~there].any()
    assert len({colours[code] for code in range(4)}) == 4
    with rasterio.open(tmp_path / "m.tif", overview_level=0) as src:
        assert src.colorinterp[1] != rasterio.enums.ColorInterp.alpha
    assert cog_validate(tmp_path / "m.tif", strict=True) == (True, [], [])


def test_names_of_classes_are_found_by_gdal_and_in_the_record(folder, tmp_path):
    from xml.etree import ElementTree

    made = make(folder, tmp_path / "m.tif", labelled(folder))
    root = ElementTree.parse(tmp_path / "m.tif.aux.xml")
    assert [each.text or "" for each in root.iter("Category")] == ["", *NAMES]
    record = json.loads((tmp_path / "m.json").read_text())
    assert record == json.loads(json.dumps(made.about))
    assert [(each["code"], each["name"]) for each in record["classes"]] == [(1, NAMES[0]), (2, NAMES[1]), (3, NAMES[2])]
    assert (record["adapter"], record["labels"]["file"], record["labels"]["parcels"]) == (
        "logistic",
        "fields.gpkg",
        100,
    )
    assert record["files"][0]["crs"] == "EPSG:32631"


@pytest.mark.parametrize(("adapter", "bands"), [("ridge", 1), ("forest", 2)])
def test_values_and_the_spread_of_trees(folder, tmp_path, adapter, bands):
    samples = labelled(folder, task="regression", count=120)
    make(folder, tmp_path / "v.tif", samples, adapter=adapter)
    values = whole(folder)
    there = ~np.isnan(values[0])
    x = np.ascontiguousarray(values[:, there].T)
    model = fit(adapter, "regression", samples.features[0].values, samples.targets, samples.groups, classes=0, seed=0)
    with rasterio.open(tmp_path / "v.tif") as src:
        assert (src.count, src.dtypes[0]) == (bands, "float32")
        found = src.read()
    assert np.array_equal(~np.isnan(found[0]), there)
    assert np.allclose(found[0][there], model.predict(x), rtol=1e-5, atol=1e-5)
    if adapter == "forest":
        trees = [tree.predict(x) for tree in model.model.fitted.estimators_]
        assert np.allclose(found[1][there], np.std(trees, axis=0), rtol=1e-4, atol=1e-4)
        assert found[1][there].max() > 0
    assert not (tmp_path / "v.tif.aux.xml").exists()


def test_a_file_per_zone_and_window(tmp_path):
    folder = tmp_path / "f"
    put(folder, WEST)
    put(folder, WEST, NEXT, seed=1)
    put(folder, Tile(32632, 40, 1098), seed=2)
    made = make(folder, tmp_path / "m.tif", labelled(folder))
    names = ["m_utm31n_2023.tif", "m_utm31n_2024.tif", "m_utm32n_2023.tif"]
    assert [file.name for file in made.files] == names
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".tif") == names
    for file, code in zip(made.files, (32631, 32631, 32632), strict=True):
        with rasterio.open(file) as src:
            assert src.crs.to_epsg() == code
            assert src.read(1).any()


def test_the_window_that_labels_are_of_must_be_said_where_there_are_several(tmp_path):
    for window in (YEAR, NEXT):
        put(tmp_path / "f", WEST, window)
    opened = EmbeddingFolder.open(tmp_path / "f")
    with pytest.raises(UsageError, match=r"2 windows: 2023, 2024\. Say which one the labels are of: --labels-of 2024"):
        labelled_window(opened, None)
    assert labelled_window(opened, "2023") == "2023"
    with pytest.raises(UsageError, match="no embeddings of 2022"):
        labelled_window(opened, "2022")


def test_maps_are_replaced_and_nothing_else(folder, tmp_path):
    make(folder, tmp_path / "m.tif", labelled(folder))
    (tmp_path / "m.tif.ovr").write_bytes(b"of a viewer")
    make(folder, tmp_path / "m.tif", labelled(folder), adapter="constant")
    assert json.loads((tmp_path / "m.json").read_text())["adapter"] == "constant"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.json", "m.tif", "m.tif.aux.xml"]
    (tmp_path / "n.tif").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"n\.tif exists and is no map"):
        make(folder, tmp_path / "n.tif", labelled(folder))
    (tmp_path / "o.json").write_text('{"type": "FeatureCollection"}')
    with pytest.raises(UsageError, match=r"o\.json exists and is no record of a map"):
        make(folder, tmp_path / "o.tif", labelled(folder))
    assert (tmp_path / "n.tif").read_bytes() == b"mine"
    with pytest.raises(UsageError, match=r"ends in \.tif"):
        make(folder, tmp_path / "m.png", labelled(folder))


def test_a_full_disk_leaves_the_old_map(folder, tmp_path, monkeypatch):
    make(folder, tmp_path / "m.tif", labelled(folder))
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def full(part):
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr("tessera_cli.evaluation.mapping.write.sync", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        make(folder, tmp_path / "m.tif", labelled(folder), adapter="constant")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_more_classes_than_a_byte_holds(folder, tmp_path):
    samples = labelled(folder, count=400)
    many = tuple(f"class {number}" for number in range(300))
    from dataclasses import replace

    samples = replace(samples, classes=many, targets=samples.targets * 100 + 99)
    make(folder, tmp_path / "m.tif", samples)
    with rasterio.open(tmp_path / "m.tif") as src:
        assert src.dtypes == ("uint16", "uint16")
        assert set(np.unique(src.read(1))) == {0, 100, 200, 300}
        assert src.colormap(1)[300] != src.colormap(1)[299]


def test_progress_counts_the_pixels_of_the_map(folder, tmp_path):
    class Bar:
        total = done = 0

        def start(self, total):
            self.total = total

        def advance(self, count):
            self.done += count

    bar = Bar()
    make(folder, tmp_path / "m.tif", labelled(folder), progress=bar)
    assert bar.total == bar.done == 200 * 982
    assert REQUESTED.any()
