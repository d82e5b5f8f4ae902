"""`tessera evaluate`: what it prints, what it writes, and the command that it names next."""

from __future__ import annotations

import json
import shlex

import pytest
import rasterio
import shapely

from tessera_cli.cli.evaluate import _map_of
from tests.evaluation.rasters import write_geojson
from tests.exports.folders import WEST, lonlat, put


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of embeddings and labels: fields of 6 x 6 pixels of two crops."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "my fields", WEST)
    shapes = []
    for row in range(104, 290, 16):
        for column in range(34, 490, 32):
            corners = ((0, 0), (0, 6), (6, 6), (6, 0))
            shapes.append(shapely.Polygon([lonlat(WEST, row + r - 0.5, column + c - 0.5) for r, c in corners]))
    crops = ["beet" if number % 2 else "oats" for number in range(len(shapes))]
    write_geojson(tmp_path / "labels.geojson", shapes, crop=crops)
    return tmp_path


def test_the_map_that_is_named_next_can_be_made(here, tessera):
    asked = ("--labels", "labels.geojson", "--column", "crop", "--adapter", "logistic", "--budgets", "100")
    code, _, said = tessera(
        "evaluate", "my fields", *asked, "--samples", "400", "--folds", "2", "--year", "2023", "-o", "report"
    )
    assert code == 0
    assert json.loads((here / "report" / "report.json").read_text())["task"] == "classification"
    command = said.rpartition("map all of it: ")[2]
    words = shlex.split(command)
    assert words[:3] == ["tessera", "map", "my fields"]
    assert tessera(*words[1:], "--samples", "400")[0] == 0
    with rasterio.open(here / "my fields_map.tif") as written:
        assert written.descriptions == ("class", "confidence")


def test_no_map_is_named_of_what_map_does_not_take(here):
    given = dict.fromkeys(("layer", "column", "task", "year", "window"))
    labelled = {**given, "inputs": [here / "my fields"], "labels": here / "labels.geojson"}
    assert _map_of("regression", labelled) is not None
    assert _map_of("segmentation", labelled) is None
    assert _map_of("classification", {**labelled, "inputs": [here / "labels.geojson"]}) is None
    assert _map_of("classification", {**labelled, "labels": None}) is None
