"""Tables of `sample`, as others read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tessera_cli.tables.places import Places
from tessera_cli.tables.samples import Samples
from tessera_cli.tables.write import write_table
from tests.consumers.conftest import CLEAN, program
from tests.tables.test_write import points, polygons
from tests.test_docs import ROOT, blocks

MAKERS = pytest.mark.parametrize("make", [points, polygons])


@MAKERS
def test_the_files_are_conformant_geoparquet(tmp_path, make):
    write_table(tmp_path / "x.parquet", [make()])
    validator = Path(program("tables")[0]).with_name("geoparquet-validator")
    command = [validator, "check", tmp_path / "x.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, check=False)
    assert done.returncode == 0, done.stdout
    assert "core: " in done.stdout
    assert "covering: 6 pass, 0 fail" in done.stdout
    assert "FAIL" not in done.stdout


def test_the_recipe_learns_from_a_table(tmp_path, consumer):
    """The block of docs/tables.md, on plots whose crop is the sign of their first band."""
    recipe = next(text for _, text in blocks(ROOT / "docs/tables.md", "python") if "sklearn" in text)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 1, 8)).astype(np.float32)
    crops = np.where(values[:, 0, 0] > 0, "wheat", "rye").astype(object)
    places = Places.of(rng.uniform(0, 1, (60, 2)))
    places = Places("x", "point", places.geometries, places.ids, {"crop": crops})
    ok = np.full((60, 1), "ok", object)
    made = Samples(places, ("2023",), values, None, np.ones((60, 1, 3), np.float32), np.ones((60, 1), int), ok, ok)
    write_table(tmp_path / "plots.parquet", [made])
    code = f"import os, sys; os.chdir(sys.argv[1])\n{recipe}\nprint(scores.mean())"
    assert consumer("tables", code, tmp_path) > 0.8


READ = """
import json, sys, duckdb, geopandas, pandas
path = sys.argv[1]
frame, text = geopandas.read_parquet(path + ".parquet"), pandas.read_csv(path + ".csv")
bands = [name for name in frame if name.startswith("Tessera_Band_")]
where = "select id, Tessera_Band_1 from read_parquet('" + path + ".parquet') where bbox.xmin > 5 order by 1, 2"
print(json.dumps({
    "crs": frame.crs.to_epsg(),
    "kinds": frame.geometry.geom_type.dropna().unique().tolist(),
    "parquet": frame[bands].astype("float64").fillna(-1).values.tolist(),
    "csv": text[bands].astype("float32").astype("float64").fillna(-1).values.tolist(),
    "duckdb": duckdb.sql(where).fetchall(),
}))
"""


@MAKERS
def test_geopandas_pandas_and_duckdb_read_the_same_numbers(tmp_path, make, consumer):
    made = make()
    write_table(tmp_path / "x.parquet", [made])
    write_table(tmp_path / "x.csv", [made])
    found = consumer("tables", READ, tmp_path / "x")
    bands = [made.values] if made.std is None else [made.values, made.std]
    due = np.nan_to_num(np.concatenate(bands, axis=2).astype(np.float64), nan=-1)
    assert found["crs"] == 4326
    assert found["kinds"] == ["Point" if made.std is None else "Polygon"]
    np.testing.assert_array_equal(found["parquet"], due.reshape(6, -1))
    np.testing.assert_array_equal(found["csv"], due.reshape(6, -1))
    inside = [i for i, each in enumerate(made.places.geometries) if each is not None and each.bounds[0] > 5]
    assert found["duckdb"] == sorted(
        [made.places.ids[i], float(made.values[i, w, 1])] for i in inside for w in range(2)
    )
