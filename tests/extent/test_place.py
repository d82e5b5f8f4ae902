"""Where an area lies: centre and size against geodesic truth, and what is said of it."""

import numpy as np
import pytest
import shapely
from pyproj import Geod

from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.place import Place
from tessera_cli.extent.tiling import areas_by_zone

GEOD = Geod(ellps="WGS84")


def place(aoi, **more):
    return Place.of(areas_by_zone(aoi, **more))


def geodesic_km2(geometry):
    dense = shapely.segmentize(shapely.orient_polygons(geometry), 0.01)
    return abs(GEOD.geometry_area_perimeter(dense)[0]) / 1e6


@pytest.mark.parametrize(
    ("shapes", "centre"),
    [
        ([shapely.box(5, 51, 5.1, 51.1)], (5.05, 51.05)),
        ([shapely.box(5.9, 51, 6.3, 51.1)], (6.1, 51.05)),
        ([shapely.box(5, 51, 5.1, 51.1), shapely.box(5.05, 51, 5.15, 51.1)], (5.075, 51.05)),
        ([shapely.Point(-70, -20).buffer(0.1).difference(shapely.Point(-70, -20).buffer(0.05))], (-70, -20)),
        ([shapely.box(-70, -20, -60, -10)], (-65, -15)),
    ],
    ids=["box", "two zones", "overlapping", "hole", "large"],
)
def test_centre_and_geodesic_area(shapes, centre):
    found = place(Aoi("x", tuple(shapes)))
    assert (found.lon, found.lat) == pytest.approx(centre, abs=0.06)
    assert found.km2 == pytest.approx(geodesic_km2(shapely.union_all(shapes)), rel=1e-5)


@pytest.mark.parametrize("epsg", [None, 32760])
def test_the_centre_of_an_area_across_the_antimeridian(epsg):
    found = place(Aoi.from_bbox(179.98, -17.0, -179.99, -16.99), epsg=epsg)
    assert np.abs(found.lon - 179.995) < 1e-3
    assert found.km2 == pytest.approx(geodesic_km2(shapely.box(-0.015, -17, 0.015, -16.99)), rel=1e-4)


def test_a_place_in_words():
    assert str(place(Aoi.from_bbox(5.0, 51.0, 5.02, 51.01))) == "5.0100 E 51.0050 N, 1.56 km2"
    assert str(place(Aoi.from_bbox(-70, -20, -60, -10))).startswith("65.0000 W 15.0")
    assert str(place(Aoi.from_bbox(-70, -20, -60, -10))).endswith(" S, 1,188,552 km2")


def test_only_a_place_of_the_grid_can_be_the_swapped_one():
    assert "swapped (51.0050 E 5.0050 N)?" in place(Aoi.from_bbox(5.0, 51.0, 5.01, 51.01)).swapped
    assert place(Aoi.from_bbox(120.0, 5.0, 120.01, 5.01)).swapped == ""
    assert place(Aoi.from_bbox(-85.0, 5.0, -84.99, 5.01)).swapped == ""
