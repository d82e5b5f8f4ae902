"""`tessera evaluate` end to end: the command, its files, its one line of JSON, and bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression

import tessera_cli
from tessera_cli.errors import UsageError
from tests.exports.folders import WEST, by_hand, lonlat, put

QUICK = ("--budgets", "100", "--adapter", "logistic", "--draws", "2")
KEYS = {"features", "adapter", "labels", "shots", "unit", "draws", "n_train", "metrics", "low", "high"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three crops that four columns nearly tell, four that do not, and a split."""
    rng = np.random.default_rng(3)
    count = 300
    crops = rng.integers(0, 3, count)
    good = 2 * np.eye(3, 4)[crops] + rng.normal(size=(count, 4))
    columns = {f"good_{i}": good[:, i] for i in range(4)} | {f"noise_{i}": rng.normal(size=count) for i in range(4)}
    columns |= {"crop": np.array(["beet", "oats", "rye"])[crops], "site": rng.integers(0, 60, count)}
    columns |= {"test": columns["site"] % 4 == 0, "yield": 3 * good[:, 0] + 1}
    path = tmp_path_factory.mktemp("table") / "vectors.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


def test_the_command_writes_the_report_and_prints_it_as_json(tessera, table, tmp_path):
    out = tmp_path / "report"
    given = ("--features", "good_", "--features", "noise_", "--column", "crop", "--split", "test", "--group", "site")
    code, stdout, stderr = tessera("evaluate", table, *given, *QUICK, "-o", out, "--json")
    assert code == 0, stderr
    (line,) = stdout.splitlines()
    printed, written = json.loads(line), json.loads((out / "report.json").read_text())
    assert printed["json"] == str(out / "report.json")
    assert {key: printed[key] for key in written} == written
    results = {(row["features"], row["adapter"]): row for row in written["results"] if row["labels"] == 1}
    assert {key[0] for key in results if key[1] == "logistic"} == {"good_", "noise_"}
    for row in written["results"]:
        assert set(row) >= KEYS
        for metric in row["metrics"]:
            assert row["low"][metric] <= row["metrics"][metric] <= row["high"][metric]
    read = parquet.read_table(table).to_pydict()
    test = np.array(read["test"])
    assert results["good_", "logistic"]["n_train"] == (~test).sum()
    # an independent fit is about as right; the strength of its penalty is not chosen here
    x, y = np.stack([read[f"good_{i}"] for i in range(4)], axis=1), np.array(read["crop"])
    right = (LogisticRegression().fit(x[~test], y[~test]).predict(x[test]) == y[test]).mean()
    assert results["good_", "logistic"]["metrics"]["accuracy"] == pytest.approx(right, abs=0.05)
    assert results["noise_", "logistic"]["metrics"]["accuracy"] < 0.5
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!")
    code, again, _ = tessera("evaluate", table, *given, *QUICK, "-o", out, "--json")
    assert code == 0  # a second run takes what is finished
    assert json.loads(again)["results"] == printed["results"]


def test_a_folder_with_labels_is_scored_as_it_is_stored(tmp_path):
    """The value to predict is the first dimension, codes times scales, read from the rasters by hand."""
    put(tmp_path / "f", WEST)
    codes, scales = by_hand(tmp_path / "f", WEST)
    rows, columns = np.nonzero(~np.isnan(scales[100:290:9, 30:490:9]))
    rows, columns = 100 + 9 * rows, 30 + 9 * columns
    truth = codes[0, rows, columns].astype(float) * scales[rows, columns]
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.Point(*np.ravel(lonlat(WEST, row, column)))),
            "properties": {"value": float(value)},
        }
        for row, column, value in zip(rows, columns, truth, strict=True)
    ]
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    made = tessera_cli.evaluate(
        tmp_path / "f",
        labels=tmp_path / "p.geojson",
        column="value",
        adapter=["ridge"],
        budgets=[100],
        block=500,
        draws=1,
        out=tmp_path / "report",
    )
    best = next(row for row in made.report["results"] if row["adapter"] == "ridge")
    assert best["metrics"]["r2"] > 0.999
    assert best["unit"] == "point"
    assert made.page.exists()


BAD = {
    "column": ({"column": "plant"}, "no column plant.*there are: good_0"),
    "features": ({"features": ["x_"]}, "no column that begins with 'x_'"),
    "split": ({"split": "part"}, "no column part. There are: good_0"),
    "group": ({"group": "farm"}, "no column farm. There are: good_0"),
    "left out": ({"leave_out": "region"}, "no column region. There are: good_0"),
    "left out and grouped": ({"leave_out": "site", "group": "site"}, "Leave out --group and --split"),
    "split of text": ({"split": "crop"}, "should say test"),
    "adapter": ({"adapter": ["oak"]}, "no such adapter"),
    "task": ({"task": "guessing"}, "--task guessing is not known"),
    "unit": ({"unit": "farm"}, "--unit farm is not known"),
    "no block": ({"block": 0}, "--block 0 is no length"),
    "block of NaN": ({"block": float("nan")}, "--block nan is no length"),
    "folds": ({"folds": 1}, "--folds 1 is too small"),
    "draws": ({"draws": 0}, "--draws 0 is too small"),
    "samples": ({"samples": 0}, "--samples 0 is too small"),
    "segmentation": ({"task": "segmentation", "adapter": None}, "is a table, and segmentation takes areas"),
    "regression of text": ({"task": "regression", "adapter": ["ridge"]}, "holds text"),
    "a file in the way": ({"out": "file"}, "is a file. Name a folder"),
    "below a file": ({"out": "file/report"}, "is a file. Name another folder"),
    "a folder of something else": ({"out": "full"}, "holds something else, which stays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_in_one_line_and_nothing_is_written(table, tmp_path, case):
    changes, words = BAD[case]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    given = {"features": ["good_"], "column": "crop", "adapter": ["logistic"], "budgets": "100", **changes}
    with pytest.raises(UsageError, match=words) as caught:
        tessera_cli.evaluate(table, **{**given, "out": tmp_path / given.get("out", "report")})
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("package", ["sklearn", "scipy"])
def test_a_missing_extra_is_named(table, tmp_path, monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"needs another package.*tessera-embed\[evaluate\]"):
        tessera_cli.evaluate(table, features=["good_"], column="crop", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_table_with_a_name_twice(tessera, tmp_path):
    columns = [np.arange(8.0), ["a", "b"] * 4, np.arange(8.0)]
    parquet.write_table(pa.table(columns, names=["e_0", "crop", "e_0"]), tmp_path / "t.parquet")
    code, stdout, stderr = tessera("evaluate", tmp_path / "t.parquet", "--features", "e_", "-o", tmp_path / "report")
    assert (code, stdout) == (2, "")
    assert 'has several columns called "e_0"' in stderr
