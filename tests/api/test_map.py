"""`tessera_cli.map` end to end: polygons on a simulated folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import shapely

from tessera_cli.api.map import map as make
from tessera_cli.errors import UsageError
from tests.exports.folders import WEST, by_hand, lonlat, put


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map") / "f"
    put(folder, WEST)
    return folder


@pytest.fixture(scope="module")
def labels(folder):
    """Parcels of 6 x 6 pixels, a row of each class, all over the tile."""
    features = []
    for row in range(104, 290, 8):
        for column in range(34, 490, 8):
            corners = [lonlat(WEST, row + r - 0.5, column + c - 0.5) for r, c in ((0, 0), (0, 6), (6, 6), (6, 0))]
            name, height = ("beet", 1.5) if row < 200 else ("oats", 9.5)
            shape = shapely.geometry.mapping(shapely.Polygon(corners))
            features.append({"type": "Feature", "geometry": shape, "properties": {"crop": name, "height": height}})
    path = folder.parent / "fields.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_a_map_of_classes(folder, labels, tmp_path):
    made = make(folder, labels=labels, column="crop", out=tmp_path / "m.tif", samples=2000)
    _, scales = by_hand(folder, WEST)
    with rasterio.open(made.files[0]) as src:
        classes = src.read(1)
    assert np.array_equal(classes > 0, ~np.isnan(scales[100:300, 30:500]))
    told = made.about
    assert [each["name"] for each in told["classes"]] == ["beet", "oats"]
    assert (told["adapter"], told["labels"]["column"], told["labels"]["window"]) == ("logistic", "crop", "2023")
    assert told["accuracy"]["overall"]["of"] == told["labels"]["parcels"]
    assert told["accuracy"]["overall"]["low"] < told["accuracy"]["overall"]["accuracy"]


def test_a_map_of_numbers(folder, labels, tmp_path):
    made = make(folder, labels=labels, column="height", out=tmp_path / "m.tif", samples=1000, task="regression")
    with rasterio.open(made.files[0]) as src:
        assert (src.dtypes, src.descriptions) == (("float32",), ("value",))
        assert 1 < np.nanmean(src.read(1)) < 10
    assert made.about["accuracy"]["rmse"] > 0


def test_the_command_prints_the_map_and_its_accuracy(folder, labels, tmp_path, capsys):
    from tessera_cli.cli import app

    code = app.run(["map", str(folder), "--labels", str(labels), "--column", "crop", "-o", str(tmp_path / "m.tif")])
    assert code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'm.tif'}\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"column": "plant"}, "crop"),
        ({"adapter": "oak"}, "oak is not known"),
        ({"samples": 0}, "above 0"),
        ({"block": -1}, "above 0"),
        ({"adapter": "ridge", "column": "height", "out": "m.png"}, "ends in .tif"),
        ({"labels_of": 2019}, "no embeddings of 2019"),
    ],
)
def test_bad_input_in_one_line(folder, labels, tmp_path, given, says):
    given = {"labels": labels, "column": "crop", **given}
    with pytest.raises(UsageError, match=says) as error:
        make(folder, **{**given, "out": tmp_path / given.get("out", "m.tif")})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
