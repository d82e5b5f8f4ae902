"""AOIs from every kind of input, and the pixels of the grid they select."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import shapely.affinity
from affine import Affine
from shapely.geometry import mapping

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import (
    ForeignTile,
    Tile,
    TileRequest,
    from_utm,
    pack_mask,
    tiles_touching,
    to_utm,
    unpack_mask,
    utm_code,
    utm_zone,
)
from tessera_cli.extent.tiling import areas_by_zone, features_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tests.conftest import box_geojson

YEAR = Window.of_year(2023)
SQUARE = shapely.box(5.0, 51.0, 5.02, 51.01)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(mapping(SQUARE)),
        json.dumps({"type": "Feature", "properties": {}, "geometry": mapping(SQUARE)}),
        json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": mapping(SQUARE)}]}),
        "\x1e" + json.dumps({"type": "Feature", "geometry": mapping(SQUARE)}) + "\n\x1e" + json.dumps(mapping(SQUARE)),
        json.dumps({"type": "GeometryCollection", "geometries": [mapping(SQUARE)]}),
    ],
)
def test_every_root_type_of_geojson(text):
    aoi = Aoi.from_geojson(text)
    assert shapely.union_all(list(aoi.features)).equals(SQUARE)


def test_the_crs_member_of_old_geojson_is_obeyed():
    metres = shapely.transform(shapely.segmentize(SQUARE, 1e-3), to_utm(32631).transform, interleaved=False)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    collection = {
        "type": "FeatureCollection",
        "crs": crs,
        "features": [{"type": "Feature", "geometry": mapping(metres)}],
    }
    aoi = Aoi.from_geojson(json.dumps(collection))
    assert aoi.features[0].symmetric_difference(SQUARE).area < 1e-9


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_geopackage_and_shapefile_are_reprojected(tmp_path, suffix):
    metres = shapely.transform(shapely.segmentize(SQUARE, 1e-3), to_utm(32631).transform, interleaved=False)
    path = tmp_path / f"field{suffix}"
    pyogrio.raw.write(path, np.array([shapely.to_wkb(metres)]), [], [], geometry_type="Polygon", crs="EPSG:32631")
    aoi = Aoi.from_file(path)
    assert aoi.name == "field"
    assert aoi.features[0].symmetric_difference(SQUARE).area < 1e-9


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_vector_files_without_crs_are_refused(tmp_path, suffix):
    path = tmp_path / f"field{suffix}"
    pyogrio.raw.write(path, np.array([shapely.to_wkb(SQUARE)]), [], [], geometry_type="Polygon", crs=None)
    with pytest.raises(UsageError, match="no CRS"):
        Aoi.from_file(path)


def test_a_self_intersecting_polygon_is_repaired_and_said(caplog):
    bowtie = {"type": "Polygon", "coordinates": [[[5, 51], [5.02, 51.02], [5.02, 51], [5, 51.02], [5, 51]]]}
    aoi = Aoi.from_geojson(json.dumps(bowtie))
    assert aoi.features[0].is_valid
    assert aoi.features[0].area == pytest.approx(2 * 0.02 * 0.01 / 2)
    assert "repaired" in caplog.text


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", UsageError, "not GeoJSON"),
        ("", UsageError, "empty"),
        ("[1, 2]", UsageError, "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": "here"}', UsageError, "not GeoJSON"),
        ('{"type": "Banana"}', UsageError, "not GeoJSON"),
        ('{"type": "Point", "coordinates": [5, 51]}', UsageError, "area is needed"),
        ('{"type": "FeatureCollection", "features": []}', NothingToEmbedError, "no geometry"),
        ('{"type": "Polygon", "coordinates": []}', NothingToEmbedError, "no geometry"),
        (json.dumps(mapping(shapely.box(51.0, 105.0, 51.01, 105.02))), UsageError, "swapped"),
        (json.dumps(mapping(shapely.box(6e5, 5.8e6, 6.1e5, 5.9e6))), UsageError, "not longitudes"),
        (json.dumps(mapping(shapely.box(5.0, 85.0, 6.0, 86.0))), UsageError, "UTM ends"),
        (json.dumps(mapping(shapely.box(10.0, -84.1, 10.1, -84.0))), UsageError, "UTM ends.*swapped"),
    ],
)
def test_bad_areas(text, error, words):
    with pytest.raises(error, match=words):
        Aoi.from_geojson(text)


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ((5, 52, 6, 51), "south"),
        ((6, 51, 5, 52), "west lies east"),
        ((51, 105, 52, 106), "swapped"),
        ((5, 51, 5, 52), "west equals east"),
        ((5, float("nan"), 6, 52), "finite"),
    ],
)
def test_bad_boxes(bbox, words):
    with pytest.raises(UsageError, match=words):
        Aoi.from_bbox(*bbox)


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (5, 51, 31),
        (6, 51, 32),
        (180, 0, 60),
        (-180, 0, 1),
        (179.999, 0, 60),
        (5, 60, 32),
        (3, 56, 32),
        (2.9, 60, 31),
        (5, 64, 31),
        (5, 55.999, 31),
        (8.9, 75, 31),
        (9, 75, 33),
        (21, 78, 35),
        (33, 83.9, 37),
        (42, 75, 38),
        (10, 71, 32),
    ],
)
def test_utm_zones_with_norway_and_svalbard(lon, lat, zone):
    assert utm_zone(lon, lat) == zone


def test_a_feature_a_little_beyond_its_zone_stays_whole():
    assert set(areas_by_zone(Aoi.from_bbox(5.0, 50.0, 6.4, 50.1))) == {32631}


def test_a_feature_far_beyond_its_zone_is_cut_at_the_border():
    aoi = Aoi.from_bbox(5.0, 50.0, 7.0, 50.1)
    areas = areas_by_zone(aoi)
    assert set(areas) == {32631, 32632}
    for epsg, (west, east) in {32631: (5.0, 6.0), 32632: (6.0, 7.0)}.items():
        lonlat = shapely.transform(areas[epsg], from_utm(epsg).transform, interleaved=False)
        assert lonlat.bounds[0] == pytest.approx(west, abs=1e-6)
        assert lonlat.bounds[2] == pytest.approx(east, abs=1e-6)
    assert set(areas_by_zone(aoi, epsg=32631)) == {32631}


@pytest.mark.parametrize(
    "aoi",
    [
        Aoi.from_bbox(179.99, -17.0, -179.99, -16.99),
        Aoi.from_geojson(json.dumps(mapping(shapely.box(179.99, -17.0, 180.01, -16.99)))),
        Aoi.from_geojson(
            json.dumps(
                mapping(
                    shapely.MultiPolygon(
                        [shapely.box(179.99, -17, 180, -16.99), shapely.box(-180, -17, -179.99, -16.99)]
                    )
                )
            )
        ),
    ],
    ids=["bbox", "beyond 180", "RFC 7946"],
)
def test_the_antimeridian(aoi):
    requests = tile_requests(aoi, [YEAR])
    assert {r.tile.epsg for r in requests} == {32760, 32701}
    pixels = sum(r.count for r in requests)
    area = 0.02 * np.cos(np.radians(17)) * 111_320 * 0.01 * 110_650 / 100
    assert pixels == pytest.approx(area, rel=0.01)


def wrapped(*polygons):
    """With longitudes within -180..180, as most tools write them."""
    multi = shapely.MultiPolygon([shapely.segmentize(p, 0.003) for p in polygons])
    return shapely.transform(multi, lambda c: np.c_[(c[:, 0] + 180) % 360 - 180, c[:, 1]])


COAST = shapely.Polygon([(179.98, -17.0), (180.01, -17.01), (180.02, -16.98), (180.0, -16.985), (179.99, -16.97)])
ISLAND = shapely.box(179.95, -17.0, 179.96, -16.99)


@pytest.mark.parametrize("shape", [[COAST], [COAST, ISLAND]], ids=["coast", "coast and island"])
@pytest.mark.parametrize("kind", ["GeoJSON", "GeoPackage"])
def test_any_shape_across_the_antimeridian(tmp_path, shape, kind):
    if kind == "GeoJSON":
        aoi = Aoi.from_geojson(json.dumps(mapping(wrapped(*shape))))
    else:
        path = tmp_path / "x.gpkg"
        metres = shapely.transform(shapely.MultiPolygon(shape), to_utm(32760).transform, interleaved=False)
        geometry = np.array([shapely.to_wkb(metres)])
        pyogrio.raw.write(path, geometry, [], [], geometry_type="MultiPolygon", crs="EPSG:32760")
        aoi = Aoi.from_file(path)
    pixels = sum(r.count for r in tile_requests(aoi, [YEAR]))
    true = sum(p.area for p in shape) * np.cos(np.radians(17)) * 111_320 * 110_650 / 100
    assert pixels == pytest.approx(true, rel=0.01)


def test_a_polygon_around_a_pole_is_refused():
    ring = [(lon, 82.0) for lon in (-120, 0, 120)]
    with pytest.raises(UsageError, match="pole"):
        Aoi.from_geojson(json.dumps(mapping(shapely.Polygon(ring))))


def test_a_box_wider_than_half_the_globe_is_taken_as_given():
    assert Aoi.from_bbox(-100, 10, 90, 10.01).bounds == (-100, 10, 90, 10.01)


def test_tile_names_round_trip():
    for tile in (Tile(32631, 112, 1098), Tile(32760, 35, 1585), Tile(32601, 97, -3)):
        assert Tile.from_id(tile.id) == tile
    assert Tile(32631, 112, 1098).id == "utm31n_c0112_r1098"
    assert Tile(32731, 112, 1098).id == "utm31s_c0112_r1098"


def test_tiles_lie_where_their_numbers_say():
    tile = Tile(32631, 112, 1098)
    assert tile.transform * (0, 0) == (112 * 5120, 1099 * 5120)
    assert tile.transform * (512, 512) == (113 * 5120, 1098 * 5120)


def test_float_noise_at_a_border_adds_no_tile():
    west, south = 112 * 5120, 1098 * 5120
    noisy = shapely.box(west - 1e-9, south + 1e-9, west + 100, south + 100)
    assert len(tiles_touching(noisy, 32631)) == 1


def test_pixels_are_those_whose_centre_lies_inside():
    west, north = 600000, 5800020
    aoi = Aoi.from_geojson(json.dumps(box_geojson(west + 5.1, north - 34.9, west + 34.9, north - 5.1)))
    (request,) = tile_requests(aoi, [YEAR])
    rows, columns = np.nonzero(request.pixels)
    x, y = request.tile.transform * (columns + 0.5, rows + 0.5)
    assert sorted(set(x)) == [west + 15, west + 25]
    assert sorted(set(y)) == [north - 25, north - 15]


def test_fill_bbox_takes_the_box_in_metres():
    triangle = shapely.Polygon([(600000, 5800000), (600100, 5800000), (600000, 5800100)])
    lonlat = shapely.transform(triangle, from_utm(32630).transform, interleaved=False)
    aoi = Aoi.from_geojson(json.dumps(mapping(lonlat)))
    assert tile_requests(aoi, [YEAR])[0].pixels.sum() < 60
    assert tile_requests(aoi, [YEAR], fill_bbox=True)[0].pixels.sum() == 100


def test_the_mask_keeps_nonzero_pixels(tmp_path):
    west, north = 600000, 5800020
    values = np.zeros((4, 4), np.uint8)
    values[1, 2], values[3, 0] = 7, 1
    path = tmp_path / "mask.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=4,
        height=4,
        count=1,
        dtype="uint8",
        crs="EPSG:32630",
        transform=Affine(10, 0, west, 0, -10, north),
    ) as dst:
        dst.write(values, 1)
    aoi = Aoi.from_geojson(json.dumps(box_geojson(west, north - 60, west + 60, north)))
    (request,) = tile_requests(aoi, [YEAR], mask=path)
    rows, columns = np.nonzero(request.pixels)
    x, y = request.tile.transform * (columns + 0.5, rows + 0.5)
    assert sorted(zip(x - west, north - y, strict=True)) == [(5, 35), (25, 15)]
    elsewhere = Aoi.from_bbox(0.0, 51.0, 0.001, 51.001)
    with pytest.raises(NothingToEmbedError, match="mask"):
        tile_requests(elsewhere, [YEAR], mask=path)


def test_an_area_without_a_pixel_centre():
    aoi = Aoi.from_geojson(json.dumps(box_geojson(600001, 5800001, 600003, 5800003)))
    with pytest.raises(NothingToEmbedError, match="no centre"):
        tile_requests(aoi, [YEAR])


@pytest.mark.parametrize("text", ["EPSG:4326", "EPSG:3857", "32661", "utm31", ""])
def test_only_utm_is_a_grid(text):
    with pytest.raises(UsageError, match="UTM"):
        utm_code(text)


def test_windows_have_the_same_tiles_and_pixels():
    aoi = Aoi.from_geojson(json.dumps(box_geojson(600000, 5800000, 600100, 5800100)))
    windows = [YEAR, Window.from_name("20220701-20230630")]
    (once,) = tile_requests(aoi, [YEAR])
    requests = tile_requests(aoi, windows)
    assert [request.name for request in requests] == [
        f"{once.tile.id}_{name}" for name in ("2023", "20220701-20230630")
    ]
    assert [request.on_grid() for request in requests] == [(once.tile, window) for window in windows]
    assert requests[0].packed is requests[1].packed
    assert once.count == once.pixels.sum() == 100


def test_an_official_tile_is_not_on_the_grid():
    request = TileRequest(ForeignTile("field", (2, 3)), None, pack_mask(np.ones((2, 3), bool)))
    assert (request.name, request.count) == ("field", 6)
    with pytest.raises(ValueError, match="field is not a tile of the grid"):
        request.on_grid()


def test_masks_pack_and_unpack():
    mask = np.random.default_rng(0).random((512, 512)) > 0.5
    assert (unpack_mask(pack_mask(mask), mask.shape) == mask).all()
    assert len(pack_mask(np.ones((512, 512), bool))) < 200


def in_degrees(*boxes, epsg=32630):
    """An AOI of boxes in metres."""
    return Aoi("fields", tuple(shapely.geometry.shape(box_geojson(*box, epsg=epsg)) for box in boxes))


def test_areas_without_a_pixel_centre_are_counted_and_located(caplog):
    field, ribbon = (600000, 5800000, 600100, 5800100), (600102, 5800000, 600108, 5809000)
    speck, thread = (600201, 5800001, 600203, 5800003), (600306, 5800000, 600309, 5809000)
    aoi = in_degrees(field, speck, ribbon, thread)
    held = sum(r.count for r in tile_requests(aoi, [YEAR]))
    (line,) = [record.message for record in caplog.records]
    x, y = aoi.features[1].centroid.coords[0]
    assert "fields: no embedding for 2 of 4 areas, which hold no centre of a 10 m pixel" in line
    assert f"{-x:.4f} W {y:.4f} N" in line
    assert held == sum(r.count for r in tile_requests(in_degrees(field, ribbon), [YEAR]))


def test_areas_with_a_pixel_centre_in_a_corner_are_not_counted(caplog):
    hook = shapely.Polygon([(0, 0), (300, 0), (300, 13), (290, 13), (290, 3), (0, 3)])  # only the hook holds a centre
    metres = shapely.affinity.translate(hook, 600009, 5800001)
    aoi = Aoi("hook", (shapely.transform(metres, from_utm(32630).transform, interleaved=False),) * 2)
    assert metres.contains(shapely.Point(600305, 5800005))
    assert sum(r.count for r in tile_requests(aoi, [YEAR])) == 1
    assert not caplog.records


def test_filling_the_box_leaves_no_area_out(caplog):
    aoi = in_degrees((600000, 5800000, 600100, 5800100), (600201, 5800001, 600203, 5800003))
    tile_requests(aoi, [YEAR], fill_bbox=True)
    assert not caplog.records


def test_the_features_of_a_zone_are_counted():
    aoi = Aoi("x", (*(shapely.box(w, 51, w + 0.02, 51.02) for w in (5.5, 5.7, 6.1)), shapely.box(5, 50, 7, 50.1)))
    assert features_by_zone(aoi) == {32631: 3, 32632: 2}
    assert features_by_zone(aoi, epsg=32631) == {32631: 4}
