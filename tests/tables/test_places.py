"""Places: points and polygons from every kind of file, and what is refused by name."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from pyarrow import parquet
from pyproj import CRS

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import to_utm
from tessera_cli.tables.places import Places
from tests.helpers.vectors import EAST, SQUARE, WEST, write_kml, write_layer

POINTS = list(shapely.points([[5.001, 51.001], [5.002, 51.002], [5.019, 51.009]]))
LONLAT = np.array([[5.001, 51.001], [5.002, 51.002], [5.019, 51.009]])


@pytest.fixture(autouse=True)
def _hear_everything(caplog):
    caplog.set_level(logging.INFO, logger="tessera_cli")


def vector(path, shapes=POINTS, **more):
    more.setdefault("kind", "Point")
    return write_layer(path, "plots" if path.suffix == ".gpkg" else None, shapes, crop=["wheat", "öats", "rye"], **more)


# --- vector files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb"])
def test_points_of_vector_files(tmp_path, suffix):
    places = Places.read(vector(tmp_path / f"x{suffix}", yield_t=[7.5, 8.25, 1.0]))
    order = np.argsort(places.lonlat[:, 0])  # FlatGeobuf has its own
    assert places.kind == "point"
    np.testing.assert_allclose(places.lonlat[order], LONLAT, atol=1e-12)
    assert places.columns["crop"][order].tolist() == ["wheat", "öats", "rye"]
    assert places.columns["yield_t"][order].tolist() == [7.5, 8.25, 1.0]
    assert places.ids.tolist() == [0, 1, 2]


def test_the_crs_of_the_file_is_honoured(tmp_path):
    metres = list(shapely.points(np.stack(to_utm(32631).transform(*LONLAT.T), axis=-1)))
    points = Places.read(vector(tmp_path / "x.gpkg", metres, crs="EPSG:32631"))
    np.testing.assert_allclose(points.lonlat, LONLAT, atol=1e-9)
    square = shapely.transform(shapely.segmentize(SQUARE, 1e-3), to_utm(32631).transform, interleaved=False)
    polygon = Places.read(write_layer(tmp_path / "y.gpkg", "y", [square], crs="EPSG:32631"))
    assert polygon.kind == "polygon"
    assert shapely.symmetric_difference(polygon.geometries[0], SQUARE).area < 1e-9


def test_a_layer_is_chosen_where_there_are_several(tmp_path):
    path = vector(tmp_path / "x.gpkg")
    write_layer(path, "fields", [WEST, EAST])
    with pytest.raises(UsageError, match=r"several layers with geometries: plots, fields\. Choose one with --layer"):
        Places.read(path)
    assert len(Places.read(path, layer="fields")) == 2
    assert Places.read(path, layer="plots").kind == "point"


def test_gpx_has_empty_layers_beside_that_of_points(tmp_path):
    points = "".join(f'<wpt lat="{lat}" lon="{lon}"/>' for lon, lat in LONLAT)
    path = tmp_path / "x.gpx"
    path.write_text(f'<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1">{points}</gpx>')
    np.testing.assert_array_equal(Places.read(path).lonlat, LONLAT)
    path.write_text('<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1"></gpx>')
    with pytest.raises(UsageError, match="holds no geometry"):
        Places.read(path)


def test_kml_with_heights_and_groups_of_one_point(tmp_path):
    path = tmp_path / "x.kml"
    text = "<Placemark><name>a</name><Point><coordinates>5.001,51.001,17</coordinates></Point></Placemark>"
    path.write_text(f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{text}</Document></kml>')
    places = Places.read(path)
    assert not places.geometries[0].has_z
    assert places.columns["Name"].tolist() == ["a"]
    single = write_layer(tmp_path / "m.gpkg", "m", [shapely.MultiPoint([POINTS[0]])], kind="MultiPoint")
    assert Places.read(single).geometries[0].equals(POINTS[0])
    assert Places.read(write_kml(tmp_path / "y.kml", a=WEST)).kind == "polygon"


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([POINTS[0], SQUARE], r"mixes 1 Point, 1 Polygon\. Give points and polygons in files of their own"),
        ([POINTS[0], shapely.LineString(LONLAT)], r"holds a LineString \(feature 2\); points or polygons are needed"),
        ([shapely.MultiPoint(LONLAT)], r"holds a MultiPoint \(feature 1\)"),
        ([None, None], r"holds no geometry"),
        ([shapely.Point(51.0, 95.0)], r"not longitudes and latitudes\."),
        ([shapely.Point(5.0, 151.0)], r"Longitude and latitude look swapped"),
        ([shapely.Point(5.0, float("inf"))], r"feature 1 has the position 5 inf, which is nowhere"),
    ],
)
def test_what_is_no_place_is_refused_by_name(shapes, told):
    with pytest.raises(UsageError, match=told):
        Places.of(shapes)


def test_rows_without_a_geometry_are_kept(tmp_path, caplog):
    places = Places.read(vector(tmp_path / "x.gpkg", [POINTS[0], None, POINTS[2]]))
    assert len(places) == 3
    assert np.isnan(places.lonlat[1]).all()
    assert "1 of 3 rows have no geometry" in caplog.text


def test_files_that_are_not_there_or_no_data(tmp_path):
    with pytest.raises(UsageError, match=r"no such file\. Give points or polygons"):
        Places.read(tmp_path / "x.gpkg")
    (tmp_path / "y.gpkg").write_text("no")
    with pytest.raises(UsageError, match="cannot be read as vector data"):
        Places.read(tmp_path / "y.gpkg")


# --- ids and columns --------------------------------------------------------------------------------------------------


def test_a_column_of_ids_is_used_if_it_tells_rows_apart(tmp_path, caplog):
    places = Places.read(vector(tmp_path / "x.geojson", ID=["a", "b", "c"]))
    assert places.ids.tolist() == ["a", "b", "c"]
    assert list(places.columns) == ["crop"]
    assert not caplog.records
    places = Places.read(vector(tmp_path / "y.geojson", id=["a", "b", "b"]))
    assert places.ids.tolist() == [0, 1, 2]
    assert places.columns["id"].tolist() == ["a", "b", "b"]
    assert "column id has empty or equal values, so rows are numbered from 0" in caplog.text


def test_columns_are_numbers_dates_or_text(tmp_path):
    path = tmp_path / "x.geojson"
    properties = [
        {"n": 1, "f": 0.5, "d": "2023-05-01", "t": True, "list": [1, 2], "gap": 3, "none": None},
        {"n": 2, "f": 1.5, "d": "2023-06-01", "t": False, "list": [], "gap": None, "none": None},
    ]
    features = [
        {"type": "Feature", "properties": each, "geometry": shapely.geometry.mapping(point)}
        for each, point in zip(properties, POINTS, strict=False)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    columns = Places.read(path).columns
    skipped = pyogrio.__version__.startswith("0.9.") and "list" not in columns  # which it logs
    lists = {} if skipped else {"list": "O"}
    assert {name: values.dtype.kind for name, values in columns.items()} == {
        "n": "i", "f": "f", "d": "M", "t": "b", "gap": "f", "none": "O", **lists
    }  # fmt: skip
    assert columns["gap"][0] == 3
    assert np.isnan(columns["gap"][1])
    assert columns["none"].tolist() == [None, None]
    assert all(isinstance(value, str) for name in lists for value in columns[name])


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"lon,lat,crop\n5.001,51.001,wheat\n5.002,51.002,\xc3\xb6ats\n5.019,51.009,rye\n",
        b"\xef\xbb\xbfLatitude;Longitude;crop\r\n51,001;5,001;wheat\r\n51,002;5,002;\xc3\xb6ats\r\n51.009;5.019;rye\r\n",
        "crop\tX\tY\nwheat\t5.001\t51.001\nöats\t5.002\t51.002\n\nrye\t5.019\t51.009".encode("utf-16"),
        'lng , lat , crop\n5.001 , 51.001,wheat\n5.002,51.002,"öats"\n5.019,51.009,rye\n'.encode("cp1252"),
        b'"crop","lon","lat"\n"wheat","5.001","51.001"\n"\xc3\xb6ats",5.002,51.002\nrye,5.019,51.009,\n',
    ],
)
def test_csv_as_programs_write_it(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    places = Places.read(tmp_path / "x.csv")
    np.testing.assert_allclose(places.lonlat, LONLAT)
    assert list(places.columns) == ["crop"]
    assert places.columns["crop"].tolist() == ["wheat", "öats", "rye"]


def test_names_of_csv_that_are_empty_or_there_twice(tmp_path):
    (tmp_path / "x.csv").write_text('"","lon","lat","n","n"\n"1",5,51,2,3\n')  # the first as R writes it
    columns = Places.read(tmp_path / "x.csv").columns
    assert {name: values.tolist() for name, values in columns.items()} == {"column_1": [1], "n": [2], "column_5": [3]}


def test_columns_of_csv_keep_what_they_say(tmp_path):
    text = "lon,lat,n,f,code,gap,mixed,none\n5,51,1,0.5,007,1,x,\n5,51.1,-20,NA,010,,3,\n"
    (tmp_path / "x.csv").write_text(text)
    columns = Places.read(tmp_path / "x.csv").columns
    assert columns["n"].tolist() == [1, -20]
    assert columns["code"].tolist() == ["007", "010"]
    assert columns["mixed"].tolist() == ["x", "3"]
    assert columns["gap"][0] == 1
    assert np.isnan([columns["f"][1], columns["gap"][1]]).all()
    assert columns["none"].tolist() == ["", ""]


def test_names_of_plots_in_csv_are_no_numbers(tmp_path):
    names = {"id": ["1_1", "1_2"], "long": ["12345678901234567891", "12345678901234567892"], "part": ["2_0", ""]}
    rows = [f"5,51,{a},{b},{c}" for a, b, c in zip(*names.values(), strict=True)]
    (tmp_path / "x.csv").write_text("\n".join([f"lon,lat,{','.join(names)}", *rows]))
    places = Places.read(tmp_path / "x.csv")
    assert places.ids.tolist() == names["id"]
    assert [places.columns[name].tolist() for name in ("long", "part")] == [names["long"], names["part"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lon,lat\n5_0,51\n", r'line 2: "5_0" is no number of degrees'),
        ('lon,lat,n\n5,51,"a\n5,51.1,b\n', r"x\.csv, line 3: it is no CSV: unexpected end of data"),
        ("lon,lat\n5,51\n5,here\n", r'x\.csv, line 3: "here" is no number of degrees\. Write 5\.0123\.'),
        ("lon,lat\n5,51\n\n5,51,8\n", r"x\.csv, line 4: 3 cells, and the header has 2"),
        ("easting,northing\n5,51\n", r"has no columns lon and lat .* It has: easting, northing\."),
        ("lon,lat\n", r"has a header and no rows"),
        ("", r"is empty"),
        ("lon,lat\n500000,5600000\n", r"not longitudes and latitudes"),
        ('lon,lat,n\n5,51,"' + "x" * 200_000 + '"\n', r"line 2: it is no CSV"),
        ("x,y\n5,inf\n", r"feature 1 has the position 5 inf"),
    ],
)
def test_csv_that_cannot_be_used_is_refused_with_the_line(tmp_path, text, told):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        Places.read(tmp_path / "x.csv")


def test_empty_positions_of_csv_are_kept(tmp_path):
    (tmp_path / "x.csv").write_text("lon,lat,n\n5,51,1\n,,2\nNA,51,3\n")
    places = Places.read(tmp_path / "x.csv")
    assert shapely.is_missing(places.geometries).tolist() == [False, True, True]
    assert places.columns["n"].tolist() == [1, 2, 3]


# --- Parquet and objects ----------------------------------------------------------------------------------------------


def geo(crs: object, **more: object) -> dict[str, str]:
    column = {"encoding": "WKB", "geometry_types": [], "crs": crs, **more}
    return {"geo": json.dumps({"version": "1.1.0", "primary_column": "geom", "columns": {"geom": column}})}


def write_parquet(path, metadata, geometries=POINTS, **columns):
    table = pa.table({"geom": pa.array(shapely.to_wkb(geometries)), **columns})
    parquet.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_geoparquet_in_any_crs(tmp_path):
    metres = shapely.points(np.stack(to_utm(32631).transform(*LONLAT.T), axis=-1))
    crs = CRS(32631).to_json_dict()
    path = write_parquet(
        tmp_path / "x.parquet", geo(crs), metres, crop=["a", None, "c"], box=[{"xmin": 1}] * 3, n=[1, None, 3]
    )
    places = Places.read(path)
    np.testing.assert_allclose(places.lonlat, LONLAT, atol=1e-9)
    assert places.columns["crop"].tolist() == ["a", None, "c"]
    assert list(places.columns) == ["crop", "n"]
    metadata = json.loads(geo(None)["geo"])
    del metadata["columns"]["geom"]["crs"]  # then longitude and latitude are meant
    path = write_parquet(tmp_path / "y.parquet", {"geo": json.dumps(metadata)})
    np.testing.assert_array_equal(Places.read(path).lonlat, LONLAT)


def test_plain_parquet_has_columns_of_positions(tmp_path):
    parquet.write_table(pa.table({"Lat": LONLAT[:, 1], "Lon": LONLAT[:, 0], "n": [1, 2, 3]}), tmp_path / "x.parquet")
    places = Places.read(tmp_path / "x.parquet")
    np.testing.assert_array_equal(places.lonlat, LONLAT)
    assert list(places.columns) == ["n"]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (geo(None), "declares no CRS"),
        (geo("EPSG:99999"), "declares a CRS that is not known"),
        (geo("EPSG:4326", encoding="point"), "geometries are encoded as point, and WKB is read"),
        ({"geo": "[]"}, "its GeoParquet metadata are not whole"),
        ({"geo": "{"}, "cannot be read as Parquet"),
        ({}, "has no columns lon and lat"),
    ],
)
def test_geoparquet_that_cannot_be_used(tmp_path, metadata, told):
    with pytest.raises(UsageError, match=told):
        Places.read(write_parquet(tmp_path / "x.parquet", metadata))


def test_parquet_that_is_none_and_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        Places.read(tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'Run: pip install "tessera-embed\[tables\]", or give GeoPackage or CSV'):
        Places.read(tmp_path / "x.parquet")


class Frame:
    """What of a GeoDataFrame is used, without geopandas."""

    crs = "EPSG:32631"
    columns = ("crop", "geom")
    index = ("a", "b", "c")

    def __init__(self, crs=crs):
        self.crs = crs
        metres = np.stack(to_utm(32631).transform(*LONLAT.T), axis=-1)
        self.geometry = Series(list(shapely.points(metres)))

    def to_crs(self, crs): ...

    def __getitem__(self, name):
        return np.array(["wheat", float("nan"), "rye"], object)


class Series(list):
    name = "geom"


def test_frames_geometries_and_positions():
    frame = Places.of(Frame())
    np.testing.assert_allclose(frame.lonlat, LONLAT, atol=1e-9)
    assert frame.columns["crop"].tolist() == ["wheat", None, "rye"]
    assert frame.ids.tolist() == ["a", "b", "c"]
    for given in (POINTS, np.array(POINTS), LONLAT, LONLAT.tolist()):
        np.testing.assert_array_equal(Places.of(given).lonlat, LONLAT)
    assert Places.of(frame) is frame
    np.testing.assert_allclose(Places.of([(181.5, -17), (-200, 5)]).lonlat, [[-178.5, -17], [160, 5]])
    with pytest.raises(UsageError, match="The places declare no CRS"):
        Places.of(Frame(None))
    for wrong in (5, {"a": 1}, ["a", "b"], np.zeros((2, 3)), None):
        with pytest.raises(UsageError, match="Places cannot be made of"):
            Places.of(wrong)
    with pytest.raises(UsageError, match="--layer a chooses a layer of a file"):
        Places.of(POINTS, layer="a")


def test_real_geopandas(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame({"crop": ["a", "b", "c"], "n": [1, 2, 3]}, geometry=POINTS, crs=4326).to_crs(3035)
    places = Places.of(frame)
    np.testing.assert_allclose(places.lonlat, LONLAT, atol=1e-9)
    assert places.columns["n"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(Places.of(frame.geometry).lonlat, LONLAT, atol=1e-9)
    frame.to_parquet(tmp_path / "x.parquet", write_covering_bbox=True)
    read = Places.read(tmp_path / "x.parquet")
    np.testing.assert_allclose(read.lonlat, LONLAT, atol=1e-9)
    assert list(read.columns) == ["crop", "n"]


def test_invalid_polygons_are_repaired_and_empty_ones_kept(caplog):
    bowtie = shapely.Polygon([(5, 51), (5.01, 51.01), (5.01, 51), (5, 51.01)])
    flat = shapely.Polygon([(5, 51), (5.01, 51.01), (5, 51)])
    places = Places.of([bowtie, flat, SQUARE])
    assert places.geometries[0].is_valid
    assert places.geometries[0].area > 0
    assert places.geometries[1] is None
    assert "repaired" in caplog.text


def test_the_library_reads_layers_without_areas_only_when_asked(tmp_path):
    from tessera_cli.extent.vector import read_vector

    path = vector(tmp_path / "x.gpkg")
    assert pyogrio.list_layers(path).shape == (1, 2)
    (found,) = read_vector(path, areas=False)
    assert [geometry.geom_type for geometry in found.geometries] == ["Point"] * 3
