"""Tables: what other programs read from them, and that a file is there whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import sys

import numpy as np
import pytest
import shapely
from pyarrow import parquet

from tessera_cli.errors import TileError, UsageError
from tessera_cli.tables.hilbert import hilbert_order
from tessera_cli.tables.places import Places
from tessera_cli.tables.samples import Samples
from tessera_cli.tables.write import write_table
from tests.helpers.vectors import EAST, WEST

WINDOWS = ("2022", "2023")


def points() -> Samples:
    """Three points, of which one has no geometry, in two windows; columns of every kind, two with names of ours."""
    rng = np.random.default_rng(0)
    columns = {
        "crop": np.array(["wheat", None, 'ö "x", y\nz'], object),
        "window": np.array([1, 2, 3]),
        "sown": np.array(["2022-10-01", "NaT", "2022-11-01"], "datetime64[D]"),
        "yield": np.array([0.1, np.nan, 3.0]),
        "organic": np.array([True, False, True]),
        "Tessera_Band_0": np.array([9, 9, 9]),
    }
    geometries = np.array([shapely.Point(5.1, 51.2), None, shapely.Point(-179.25, -16.5)], object)
    places = Places("x", "point", geometries, np.array(["a", "b", "c"], object), columns)
    values = rng.normal(size=(3, 2, 4)).astype(np.float32)
    values[1] = np.nan
    counts = np.array([[[12, 0, 3]] * 2, [[np.nan] * 3] * 2, [[1, 2, 65534]] * 2], np.float32)
    status = np.array([["ok", "ok"], ["outside", "outside"], ["ok", "none"]], object)
    return Samples(places, WINDOWS, values, None, counts, np.isfinite(values[..., 0]).astype(int), status, status)


def polygons() -> Samples:
    made = points()
    places = Places("x", "polygon", np.array([WEST, None, EAST], object), made.places.ids, made.places.columns)
    return Samples(
        places, WINDOWS, made.values, made.values * 2, made.counts / 2, made.pixels * 17, made.status, made.tiles
    )


def test_csv_reads_back_as_the_same_numbers(tmp_path):
    made = points()
    write_table(tmp_path / "x.csv", [made])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "id", "window", "status", "tile", "lon", "lat", "s2", "s1_asc", "s1_desc",
        "crop", "file_window", "sown", "yield", "organic", "file_Tessera_Band_0",
        "Tessera_Band_0", "Tessera_Band_1", "Tessera_Band_2", "Tessera_Band_3",
    ]  # fmt: skip
    assert [(row["id"], row["window"]) for row in rows] == [(i, w) for i in "abc" for w in WINDOWS]
    assert rows[0] | {"lon": "5.1", "lat": "51.2", "s2": "12", "s1_asc": "0", "sown": "2022-10-01"} == rows[0]
    assert rows[0] | {"yield": "0.1", "organic": "True", "file_window": "1"} == rows[0]
    assert rows[4]["crop"] == 'ö "x", y\nz'
    assert {rows[2][name] for name in ("lon", "s2", "crop", "sown", "yield", "Tessera_Band_0")} == {""}
    back = np.array([[row[f"Tessera_Band_{i}"] or "nan" for i in range(4)] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(back, made.values.reshape(6, 4))


def test_geoparquet_has_types_geometries_and_boxes(tmp_path):
    made = points()
    write_table(tmp_path / "x.parquet", [made, made])
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    table = file.read()
    types = {field.name: str(field.type) for field in table.schema}
    due = {"id": "string", "s2": "uint16", "lon": "double", "file_window": "int64", "Tessera_Band_3": "float"}
    due |= {"sown": "date32[day]", "organic": "bool", "geometry": "binary"}
    assert types | due == types
    assert file.metadata.num_row_groups == 2
    assert table.column("s2").to_pylist()[:4] == [12, 12, None, None]
    assert table.column("crop").to_pylist()[:4] == ["wheat", "wheat", None, None]
    assert table.column("Tessera_Band_1").to_pylist()[2] is None
    band = table.column("Tessera_Band_1").to_numpy()
    np.testing.assert_array_equal(band[:6], made.values[..., 1].ravel())
    assert table.column("bbox").to_pylist()[4] == {"xmin": -179.25, "ymin": -16.5, "xmax": -179.25, "ymax": -16.5}
    assert table.column("bbox").to_pylist()[2] is None
    assert shapely.from_wkb(table.column("geometry").to_pylist()[0]).equals(shapely.Point(5.1, 51.2))
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"][geo["primary_column"]]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_tables_of_polygons_have_deviations_and_pixels(tmp_path):
    made = polygons()
    write_table(tmp_path / "x.parquet", [made])
    write_table(tmp_path / "x.csv", [made])
    table = parquet.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(table.column("Tessera_Band_2_std").to_numpy(), made.std[..., 2].ravel())
    assert table.column("pixels").to_pylist() == made.pixels.ravel().tolist()
    assert str(table.schema.field("s2").type) == "float"
    assert shapely.from_wkb(table.column("geometry").to_pylist()[0]).equals(WEST)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["pixels"] == "17"
    assert rows[0]["s1_desc"] == "1.5"
    assert WEST.contains(shapely.Point(float(rows[0]["lon"]), float(rows[0]["lat"])))


@pytest.mark.parametrize("make", [points, polygons])
def test_geopandas_reads_it_and_skips_by_box(tmp_path, make):
    geopandas = pytest.importorskip("geopandas")
    made = make()
    write_table(tmp_path / "x.parquet", [made])
    frame = geopandas.read_parquet(tmp_path / "x.parquet")
    assert frame.crs == "EPSG:4326"
    assert len(frame) == 6
    assert [each is None for each in frame.geometry] == [False, False, True, True, False, False]
    west, south, east, north = made.places.geometries[0].bounds
    near = geopandas.read_parquet(tmp_path / "x.parquet", bbox=(west, south, (west + east) / 2, north))
    assert set(near["id"]) == {"a"}


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_a_table_is_written_whole_or_not_at_all(tmp_path, name):
    def breaking():
        yield points()
        raise TileError("a file is damaged")

    path = tmp_path / "new" / name
    with pytest.raises(TileError, match="a file is damaged"):
        write_table(path, breaking())
    assert list(path.parent.iterdir()) == []
    path.write_text("before")
    with pytest.raises(TileError):
        write_table(path, breaking())
    assert path.read_text() == "before"
    write_table(path, [points()])
    assert [each.name for each in path.parent.iterdir()] == [name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_that_no_table_can_have(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"names no format of tables\. Give a name that ends with \.parquet or \.csv"):
        write_table(tmp_path / "x.xlsx", [points()])
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_table(tmp_path / "y.csv", [points()])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'Parquet needs another package\. Run: pip install "tessera-embed\[tables\]"'):
        write_table(tmp_path / "x.parquet", [points()])
    write_table(tmp_path / "x.csv", [points()])


def test_the_hilbert_curve_visits_neighbours_one_after_the_other():
    grid = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0)), axis=-1).reshape(-1, 2)
    shuffled = np.random.default_rng(0).permutation(grid)
    steps = np.abs(np.diff(shuffled[hilbert_order(shuffled)], axis=0)).sum(axis=1)
    assert steps.tolist() == [1] * 255
    some = np.array([[5.0, 51], [math.nan, math.nan], [5, 51]])
    assert hilbert_order(some).tolist() == [0, 2, 1]
    assert hilbert_order(some[1:2]).tolist() == [0]
