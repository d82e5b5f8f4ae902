"""Vector files: layers, folders and zips, geometries that are no areas, and warnings of other libraries."""

import json
import logging
import sqlite3
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from shapely.geometry import mapping

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import to_utm
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.vector import read_vector
from tessera_cli.extent.window import Window
from tests.helpers.listener import Listener
from tests.helpers.vectors import (
    CIRCLE,
    EAST,
    FACES,
    MEASURED,
    NOT_FINITE,
    OPEN,
    SQUARE,
    TIN,
    TRIANGLE,
    WEST,
    group_wkb,
    multipatch,
    write_kml,
    write_layer,
    write_wkb,
)

POINT = shapely.Point(5.0, 51.0)


@pytest.fixture(autouse=True)
def _no_raw_warnings():
    """Let a warning of another library fail the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(autouse=True)
def _hear_everything(caplog):
    caplog.set_level(logging.INFO, logger="tessera_cli")


def two_layers(folder: Path, kind: str) -> Path:
    if kind == "kml":
        return write_kml(folder / "two.kml", west=WEST, east=EAST)
    return write_layer(write_layer(folder / "two.gpkg", "west", [WEST]), "east", [EAST])


def covered(aoi: Aoi) -> shapely.Geometry:
    return shapely.union_all(list(aoi.features))


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpkg", "kml"])
def test_all_layers_are_used_and_named(tmp_path, caplog, kind):
    assert covered(Aoi.from_file(two_layers(tmp_path, kind))).equals(SQUARE)
    assert "all layers with areas are used: west, east" in caplog.text


@pytest.mark.parametrize("kind", ["gpkg", "kml"])
def test_one_layer_is_used_if_it_is_named(tmp_path, kind):
    aoi = Aoi.from_file(two_layers(tmp_path, kind), layer="east")
    assert covered(aoi).equals(EAST)
    assert aoi.name == "two-east"


def test_an_unknown_layer_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"no layer north with geometries. There are: west, east\."):
        Aoi.from_file(two_layers(tmp_path, "gpkg"), layer="north")


def test_layers_may_have_several_projections(tmp_path):
    path = write_layer(tmp_path / "x.gpkg", "degrees", [WEST])
    metres = shapely.transform(shapely.segmentize(EAST, 1e-3), to_utm(32631).transform, interleaved=False)
    write_layer(path, "metres", [metres], crs="EPSG:32631")
    assert covered(Aoi.from_file(path)).symmetric_difference(SQUARE).area < 1e-9


def test_layers_without_areas_are_left_out_with_their_number(tmp_path, caplog):
    path = write_layer(tmp_path / "x.gpkg", "samples", [POINT, POINT], kind="Point")
    write_layer(path, "fields", [SQUARE])
    assert covered(Aoi.from_file(path)).equals(SQUARE)
    assert "layer samples holds 2 Point, no area, and is left out" in caplog.text
    with pytest.raises(UsageError, match=r"holds a Point \(feature 1\); an area is needed"):
        Aoi.from_file(path, layer="samples")


def test_tables_and_styles_are_no_layers(tmp_path, caplog):
    path = write_layer(tmp_path / "x.gpkg", "fields", [SQUARE])
    db = sqlite3.connect(path)
    db.execute("create table layer_styles (id integer primary key, styleqml text)")
    db.execute("insert into gpkg_contents (table_name, data_type, identifier) values ('layer_styles','attributes','s')")
    db.commit()
    db.close()
    assert covered(Aoi.from_file(path)).equals(SQUARE)
    assert not caplog.records


def test_a_file_of_layers_without_any_area_is_refused(tmp_path):
    path = tmp_path / "x.gpx"
    path.write_text(
        '<gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1"><wpt lat="51" lon="5"/></gpx>'
    )
    with pytest.raises(UsageError, match="layer waypoints holds 1 Point; an area is needed"):
        Aoi.from_file(path)


def test_the_same_area_in_two_layers_counts_once(tmp_path):
    twice = Aoi.from_file(write_layer(write_layer(tmp_path / "x.gpkg", "a", [SQUARE]), "b", [SQUARE]))
    once = Aoi.from_file(write_layer(tmp_path / "y.gpkg", "a", [SQUARE]))
    counts = [sum(r.count for r in tile_requests(aoi, [Window.of_year(2023)])) for aoi in (twice, once)]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("given", ["GeoJSON", "geometry"])
def test_what_has_no_layers_is_given_none(tmp_path, given):
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps(mapping(SQUARE)))
    with pytest.raises(UsageError, match="Leave"):
        Aoi.of(path if given == "GeoJSON" else SQUARE, layer="fields")


# --- folders and zips -------------------------------------------------------------------------------------------------


def fill(folder: Path, kind: str) -> Path:
    """A folder with the west and the east half in two files, and what is no vector file."""
    folder.mkdir()
    for name, half in (("west", WEST), ("east", EAST)):
        if kind == "geojson":
            (folder / f"{name}.geojson").write_text(json.dumps(mapping(half)))
        else:
            write_layer(folder / f"{name}.{kind}", None, [half])
    (folder / "notes.txt").write_text("of a walk")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", ["geojson", "shp", "gpkg"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_file_of_a_folder_or_zip_is_used_and_named(tmp_path, caplog, kind, packed):
    path = fill(tmp_path / "fields", kind)
    if packed:
        with zipfile.ZipFile(tmp_path / "fields.zip", "w") as archive:
            for file in path.iterdir():
                archive.write(file, f"inner/{file.name}")
                archive.writestr(f"__MACOSX/inner/._{file.name}", b"nothing")
        path = tmp_path / "fields.zip"
    aoi = Aoi.from_file(path)
    assert covered(aoi).symmetric_difference(SQUARE).area < 1e-12
    assert aoi.name == "fields"
    assert f"2 files are used: east.{kind}, west.{kind}" in caplog.text
    with pytest.raises(UsageError, match="holds 2 files; --layer chooses within one"):
        Aoi.from_file(path, layer="west")


def test_what_a_folder_holds_besides_is_left_out_with_its_number(tmp_path, caplog):
    path = fill(tmp_path / "fields", "shp")
    (path / "south").mkdir()
    (path / "south" / "south.geojson").write_text(json.dumps(mapping(SQUARE)))
    (path / ".hidden").write_text("")
    Aoi.from_file(path)
    (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "left out: 3 other names (config.json, notes.txt, south)." in told


def test_a_zipped_shapefile_is_one_file(tmp_path, caplog):
    write_layer(tmp_path / "a.shp", None, [SQUARE])
    with zipfile.ZipFile(tmp_path / "a.shp.zip", "w") as archive:
        for file in tmp_path.glob("a.*"):
            if file.suffix != ".zip":
                archive.write(file, file.name)
    assert covered(Aoi.from_file(tmp_path / "a.shp.zip")).symmetric_difference(SQUARE).area < 1e-12
    assert not caplog.records


@pytest.mark.skipif("LIBKML" not in pyogrio.list_drivers(), reason="this pyogrio reads no zipped KML")
def test_a_zipped_kml_is_read(tmp_path):
    write_kml(tmp_path / "doc.kml", west=WEST, east=EAST)
    with zipfile.ZipFile(tmp_path / "x.kmz", "w") as archive:
        archive.write(tmp_path / "doc.kml", "doc.kml")
    assert covered(Aoi.from_file(tmp_path / "x.kmz")).equals(SQUARE)


def test_a_file_geodatabase_is_one_file(tmp_path, caplog):
    shape = np.array([shapely.to_wkb(SQUARE)], object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            tmp_path / "x.gdb", shape, [], [], geometry_type="Polygon", crs="EPSG:4326", driver="OpenFileGDB"
        )
    assert covered(Aoi.from_file(tmp_path / "x.gdb")).symmetric_difference(SQUARE).area < 1e-9
    assert not caplog.records


@pytest.mark.parametrize("content", [{}, {"notes.txt": "x"}, {"config.json": "{}"}])
def test_folders_and_zips_without_vector_files_are_refused(tmp_path, content):
    (tmp_path / "f").mkdir()
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        for name, text in content.items():
            (tmp_path / "f" / name).write_text(text)
            archive.writestr(name, text)
    for path in (tmp_path / "f", tmp_path / "f.zip"):
        with pytest.raises(UsageError, match=path.name) as error:
            Aoi.from_file(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x05\x06" + b"\xff" * 18])
def test_a_broken_zip_is_refused(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.zip cannot be read as vector data"):
        Aoi.from_file(tmp_path / "x.zip")


def test_an_empty_name_is_not_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "fields", "geojson"))
    with pytest.raises(UsageError, match="empty name"):
        Aoi.of("")


def test_a_name_that_no_disk_can_hold_is_refused():
    with pytest.raises(UsageError, match="cannot be read"):
        Aoi.of("x" * 5000)


# --- geometries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wkb", "kind"),
    [
        (TIN, "TIN"),
        (FACES, "PolyhedralSurface"),
        (TRIANGLE, "Triangle"),
        (group_wkb(1007, TIN), "GeometryCollection"),
    ],
)
def test_surfaces_in_space_are_refused_by_name(tmp_path, wkb, kind):
    name = "TIN" if kind == "GeometryCollection" else kind
    with pytest.raises(UsageError, match=rf"x.gpkg.* holds a {name}; an area is needed. Convert it to polygons\."):
        Aoi.from_file(write_wkb(tmp_path / "x.gpkg", wkb, kind.upper()))


def test_the_strips_of_a_multipatch_shapefile_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"x\.shp, feature 1, holds a TIN; an area is needed"):
        Aoi.from_file(multipatch(tmp_path / "x.shp"))


def test_a_layer_beside_one_of_surfaces_can_be_chosen(tmp_path):
    path = write_wkb(tmp_path / "x.gpkg", TIN, "TIN")
    write_layer(path, "fields", [SQUARE])
    assert covered(Aoi.from_file(path, layer="fields")).equals(SQUARE)
    with pytest.raises(UsageError, match="holds a TIN"):
        Aoi.from_file(path)


@pytest.mark.parametrize(("wkb", "kind"), [(MEASURED, "POLYGON"), (OPEN, "POLYGON")], ids=["measures", "open"])
def test_measures_and_open_rings_are_no_hindrance(tmp_path, caplog, wkb, kind):
    assert covered(Aoi.from_file(write_wkb(tmp_path / "x.gpkg", wkb, kind))).equals(SQUARE)
    assert not caplog.records


@pytest.mark.parametrize(("wkb", "kind"), [(CIRCLE, "CURVEPOLYGON"), (group_wkb(12, CIRCLE), "MULTISURFACE")])
def test_arcs_are_drawn(tmp_path, wkb, kind):
    aoi = Aoi.from_file(write_wkb(tmp_path / "x.gpkg", wkb, kind))
    assert covered(aoi).area == pytest.approx(3.14159265 * 0.005**2, rel=0.01)


def test_a_position_that_is_not_finite_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"x\.gpkg: feature 1 has the position 5.02 nan, which is nowhere"):
        Aoi.from_file(write_wkb(tmp_path / "x.gpkg", NOT_FINITE, "POLYGON"))


def test_features_without_a_geometry_are_counted(tmp_path, caplog):
    aoi = Aoi.from_file(write_layer(tmp_path / "x.gpkg", "c", [SQUARE, None, shapely.Polygon()]))
    assert len(aoi.features) == 1
    assert "left out without a geometry: 2 of 3 features" in caplog.text
    with pytest.raises(NothingToEmbedError, match="holds no geometry"):
        Aoi.from_file(write_layer(tmp_path / "y.gpkg", "c", [None, None]))


def test_polygons_that_enclose_nothing_are_counted(tmp_path, caplog):
    line = shapely.Polygon([(5, 51), (5.02, 51.01), (5, 51)])
    aoi = Aoi.from_file(write_layer(tmp_path / "x.gpkg", "c", [SQUARE, line]))
    assert len(aoi.features) == 1
    assert "left out since nothing is enclosed: 1 feature" in caplog.text


def test_points_and_lines_beside_polygons_are_told_of(tmp_path, caplog):
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps(mapping(shapely.GeometryCollection([SQUARE, POINT]))))
    assert covered(Aoi.from_file(path)).equals(SQUARE)
    assert "points and lines, which are no areas, of 1 collection" in caplog.text


def test_repairs_are_counted_in_one_line(tmp_path, caplog):
    tie = shapely.Polygon([(5, 51), (5.02, 51.02), (5.02, 51), (5, 51.02)])
    Aoi.from_file(write_layer(tmp_path / "x.gpkg", "c", [tie, tie, SQUARE]))
    (line,) = [record.message for record in caplog.records]
    assert "repaired: 2 polygons not valid (Self-intersection" in line


def test_other_libraries_are_quoted_with_the_name_of_the_file(tmp_path, caplog):
    def shout(*arguments, **more):
        warnings.warn("Something about the file", RuntimeWarning, stacklevel=1)
        return real(*arguments, **more)

    real = pyogrio.raw.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyogrio.raw, "read", shout)
        read_vector(write_layer(write_layer(tmp_path / "y.gpkg", "c", [SQUARE]), "d", [SQUARE]), "c")
        read_vector(tmp_path / "y.gpkg")
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{tmp_path / 'y.gpkg'}: Something about the file"] * 2  # once for each reading


# --- files that lead elsewhere ----------------------------------------------------------------------------------------

VRT = "<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>{}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
SCHEMA = "SERVICE=WFS&amp;REQUEST=DescribeFeatureType&amp;VERSION=1.1.0&amp;TYPENAME=t:a"
RING = "<gml:exterior><gml:LinearRing><gml:posList>51 5 51 6 52 6 51 5</gml:posList></gml:LinearRing></gml:exterior>"
REMOTE_SCHEMA = f"""<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs"
  xmlns:gml="http://www.opengis.net/gml" xmlns:t="http://t" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://t {{}}/wfs?{SCHEMA}"><gml:featureMember><t:a><t:g><gml:Polygon srsName="EPSG:4326">{RING}
  </gml:Polygon></t:g></t:a></gml:featureMember></wfs:FeatureCollection>"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((f"x.{suffix}", VRT) for suffix in ("gpkg", "kml", "gml", "fgb", "gpx", "dat")),
        ("x.kml", '<kml xmlns="http://www.opengis.net/kml/2.2"></kml>' + VRT),
        ("labels.geojson", '{"type": "FeatureCollection", "x": "' + VRT + '", "features": []}'),
        ("x.fgb", "fgb\x03fgb\x01" + VRT),
        ("x.kml", "<OGRWFSDataSource><URL>{}/wfs</URL></OGRWFSDataSource>"),
        ("x.gml", REMOTE_SCHEMA),
        ("x.kml", '<?xml version="1.0"?><!DOCTYPE kml [<!ENTITY x SYSTEM "file:///etc/passwd">]><kml>&x;</kml>{}'),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_leads_elsewhere_is_not_followed(tmp_path, name, text, zipped):
    with Listener() as listener:
        path = tmp_path / name
        path.write_text(text.replace("{}", listener.url if "{}/wfs" in text else f"{listener.url}/x.geojson"))
        if zipped:
            with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
                archive.write(path, name)
            path = tmp_path / "x.zip"
        if text is REMOTE_SCHEMA:  # which is not needed
            assert len(read_vector(path)) == 1
        else:
            with pytest.raises(UsageError, match=r"names data elsewhere, which is not followed|is none of"):
                read_vector(path)
    assert listener.connections == 0


@pytest.mark.parametrize("folder", [False, True])
def test_a_name_that_means_a_service_to_gdal_is_a_file(tmp_path, monkeypatch, folder):
    write_layer(tmp_path / "x.gpkg", "a", [SQUARE])
    (tmp_path / "x.gpkg").rename(tmp_path / "EEDA:x.gpkg")
    monkeypatch.chdir(tmp_path)
    assert len(read_vector(Path("." if folder else "EEDA:x.gpkg"))) == 1
