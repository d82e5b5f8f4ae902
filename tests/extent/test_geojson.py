"""GeoJSON text in every encoding, and text that is none."""

import json
import warnings

import pytest
import shapely
from shapely.geometry import mapping

from tessera_cli.errors import UsageError
from tessera_cli.extent.aoi import Aoi
from tests.helpers.vectors import SQUARE

TEXT = json.dumps({"type": "Feature", "properties": {"name": "Køge"}, "geometry": mapping(SQUARE)}, ensure_ascii=False)


@pytest.fixture(autouse=True)
def _no_raw_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def polygon(*positions, **more):
    return json.dumps({"type": "Polygon", "coordinates": [list(positions)], **more})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("way", ["text", "file"])
def test_any_encoding(tmp_path, encoding, way):
    data = TEXT.encode(encoding)
    if way == "file":
        (tmp_path / "x.geojson").write_bytes(data)
        aoi = Aoi.from_file(tmp_path / "x.geojson")
    else:
        aoi = Aoi.from_geojson(data)
    assert aoi.features[0].equals(SQUARE)


@pytest.mark.parametrize(
    "positions",
    [
        [[5, 51], [5.02, 51, 3], [5.02, 51.01], [5, 51.01, 1]],
        [[5, 51, 1, 2], [5.02, 51, 1, 2], [5.02, 51.01, 1, 2], [5, 51.01, 1, 2]],
        [[5, 51], [5.02, 51], [5.02, 51.01], [5, 51.01]],
    ],
    ids=["mixed length", "measures", "not closed"],
)
def test_positions_of_any_length_and_open_rings(positions):
    assert Aoi.from_geojson(polygon(*positions)).features[0].equals(SQUARE)


def test_a_collection_of_geometries_of_mixed_length():
    parts = [mapping(SQUARE), json.loads(polygon([6, 51], [6.02, 51, 3], [6.02, 51.01]))]
    inner = {"type": "GeometryCollection", "geometries": parts}
    aoi = Aoi.from_geojson(json.dumps({"type": "GeometryCollection", "geometries": [inner]}))
    assert aoi.bounds == (5, 51, 6.02, 51.01)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_by_name(number):
    features = [{"type": "Feature", "geometry": mapping(SQUARE)}] * 2
    text = json.dumps({"type": "FeatureCollection", "features": features})
    at = text.rindex("51.01")
    with pytest.raises(UsageError, match=r"feature 2 has the position .*, which is nowhere"):
        Aoi.from_geojson(text[:at] + number + text[at + 5 :])


def test_a_height_that_is_not_finite_is_no_hindrance():
    text = polygon([5, 51, 0], [5.02, 51, 1], [5.02, 51.01, 0], [5, 51.01, 0]).replace("51, 1]", "51, NaN]")
    assert Aoi.from_geojson(text).features[0].equals(SQUARE)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Polygon", "coordinates": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[" * 100_000,
        '{"type": "GeometryCollection", "geometries": [' * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_very_deep_json_is_refused(text):
    with pytest.raises(UsageError, match="nested too deeply"):
        Aoi.from_geojson(text)


def test_collections_as_deep_as_the_parser_allows():
    for depth in (50, 200, 450, 480, 490, 495):
        text = '{"type": "GeometryCollection", "geometries": [' * depth + json.dumps(mapping(SQUARE)) + "]}" * depth
        try:
            assert Aoi.from_geojson(text).features[0].equals(SQUARE)
        except UsageError as error:
            assert "nested too deeply" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "FeatureCollection", "features": 5}', "a feature is no object"),
        ('{"type": "FeatureCollection", "features": [null]}', "a feature is no object"),
        ('{"type": "Feature", "geometry": "here"}', "feature 1, is not GeoJSON: .* malformed"),
        ('{"type": "Feature", "geometry": [1]}', "malformed"),
        ('{"type": ["Polygon"]}', "malformed"),
        ('{"type": "GeometryCollection", "geometries": null}', "malformed"),
        ('{"type": "GeometryCollection", "geometries": [null]}', "malformed"),
        ('{"type": "Polygon", "coordinates": {"a": 1}}', "malformed"),
        ('{"type": "Polygon", "coordinates": [[[5, 51], [6, 51], 5]]}', "not GeoJSON"),
        (polygon([5, 51], [5.02, 51]), "at least 4 coordinates"),
        (polygon([5], [6], [7]), "not GeoJSON"),
        ("9" * 5000, "not GeoJSON"),
        (polygon([5, 51], [10**400, 51], [5, 52]), "not GeoJSON"),
        (b"\xff\xfe\x00\xd8", "not GeoJSON"),
        (bytes(range(256)), "not GeoJSON"),
        (b"\xef\xbb\xbf", "empty"),
    ],
)
def test_text_that_is_no_geojson(text, words):
    with pytest.raises(UsageError, match=words) as error:
        Aoi.from_geojson(text)
    assert "\n" not in str(error.value)


def test_features_without_a_geometry_are_counted(caplog):
    features = [{"type": "Feature", "geometry": g} for g in (None, mapping(SQUARE), mapping(shapely.Polygon()))]
    Aoi.from_geojson(json.dumps({"type": "FeatureCollection", "features": features}), origin="fields")
    assert "fields: left out without a geometry: 2 of 3 features" in caplog.text


def test_positions_of_holes_are_degrees_too():
    hole = [[4.1004, 65535], [4.1002, 50.6004], [4.1002, 50.6002], [4.1004, 65535]]
    square = [[4.1, 50.6], [4.1, 50.601], [4.101, 50.601], [4.101, 50.6], [4.1, 50.6]]
    with pytest.raises(UsageError, match="are not longitudes and latitudes"):
        Aoi.of({"type": "Polygon", "coordinates": [square, hole]})


RING = [[4.1, 50.6], [4.1, 50.601], [4.101, 50.601], [4.1, 50.6]]


@pytest.mark.parametrize("odd", [None, 5, "x", {}, True])
@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("Polygon", lambda odd: [RING, odd]),
        ("Polygon", lambda odd: odd),
        ("MultiPolygon", lambda odd: [[RING, odd]]),
        ("MultiPolygon", lambda odd: [[RING], odd]),
        ("MultiPolygon", lambda odd: odd),
        ("MultiLineString", lambda odd: [RING, odd]),
    ],
)
def test_rings_that_are_no_lists(kind, coordinates, odd):
    """GEOS ends the process at some of them."""
    with pytest.raises(UsageError, match="is not GeoJSON"):
        Aoi.of({"type": kind, "coordinates": coordinates(odd)})
    with pytest.raises(UsageError, match="is not GeoJSON"):
        Aoi.of({"type": "GeometryCollection", "geometries": [{"type": kind, "coordinates": coordinates(odd)}]})


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [("Polygon", [RING, []]), ("Polygon", [[]]), ("MultiPolygon", [[RING, []]]), ("MultiPolygon", [[RING], [[]]])],
)
def test_rings_that_are_empty(kind, coordinates):
    with pytest.raises(UsageError, match="is not GeoJSON"):
        Aoi.of({"type": kind, "coordinates": coordinates})
