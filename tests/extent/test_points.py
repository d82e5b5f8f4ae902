"""Points as an area: which pixel of which tile in which zone holds them."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio.transform
import shapely
from pyproj import Transformer

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.place import Place
from tessera_cli.extent.points import zones_of_points
from tessera_cli.extent.tiling import areas_by_zone, features_by_zone, tile_requests
from tessera_cli.extent.window import Window

WINDOWS = [Window.of_year(2020), Window.of_year(2021)]


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (4.35, 52.0, 32631),
        (5.32, 60.39, 32632),  # Bergen: the exception of Norway
        (15.6, 78.2, 32633),  # Longyearbyen: that of Svalbard
        (36.8, -1.3, 32737),
        (36.8, 0.0, 32637),
        (180.0, -17.0, 32760),
        (-180.0, -17.0, 32701),
    ],
)
def test_the_zone_is_the_official_one(lon, lat, epsg):
    assert zones_of_points([(lon, lat)]).tolist() == [epsg]
    (request,) = tile_requests(Aoi.from_points([[lon, lat]]), WINDOWS[:1])
    assert request.tile.epsg == epsg


def test_the_pixels_are_those_where_rasterio_reads():
    """2,000 points over 60 x 60 km that two zones share."""
    rng = np.random.default_rng(0)
    lonlat = np.stack([rng.uniform(5.5, 6.5, 2000), rng.uniform(-0.3, 0.3, 2000)], axis=-1)
    requests = tile_requests(Aoi.from_points(lonlat), WINDOWS)
    assert [request.window for request in requests] == sorted(request.window for request in requests)
    due: dict[Tile, np.ndarray] = {}
    for (lon, lat), epsg in zip(lonlat.tolist(), zones_of_points(lonlat.tolist()).tolist(), strict=True):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
        tile = Tile(epsg, int(x // 5120), int(y // 5120))
        row, column = map(int, rasterio.transform.rowcol(tile.transform, x, y))
        due.setdefault(tile, np.zeros((512, 512), bool))[row, column] = True
    assert len({tile.epsg for tile in due}) == 4  # the equator lies between them, too
    for window in WINDOWS:
        found = {request.tile: request for request in requests if request.window == window}
        assert found.keys() == due.keys()
        assert list(found) == sorted(found, key=lambda tile: (tile.epsg, -tile.row, tile.column))
        for tile, pixels in due.items():
            np.testing.assert_array_equal(found[tile].pixels, pixels)


def test_a_forced_zone_holds_all_points():
    aoi = Aoi.from_points([[5.9, 50.0], [6.1, 50.0]])
    assert features_by_zone(aoi) == {32631: 1, 32632: 1}
    assert features_by_zone(aoi, epsg=32632) == {32632: 2}
    assert {request.tile.epsg for request in tile_requests(aoi, WINDOWS, epsg=32632)} == {32632}
    with pytest.raises(UsageError, match=r"cannot be projected to EPSG:32601\. Choose a nearer --crs"):
        tile_requests(Aoi.from_points([[-87.0, 0.0]]), WINDOWS, epsg=32601)


def test_areas_and_points_add_up():
    square = shapely.box(5.0, 51.0, 5.001, 51.001)
    areas = Aoi("both", (square,))
    both = Aoi("both", (square,), ((5.0005, 51.0005), (5.2, 51.1)))
    inside = {request.tile: request.pixels for request in tile_requests(areas, WINDOWS[:1])}
    of_both = {request.tile: request.pixels for request in tile_requests(both, WINDOWS[:1])}
    assert sum(map(np.sum, of_both.values())) == sum(map(np.sum, inside.values())) + 1
    assert all((of_both[tile] >= pixels).all() for tile, pixels in inside.items())


def test_what_a_run_is_called_by_does_not_depend_on_the_order_of_points():
    points = np.array([[5.0, 51.0], [6.0, 52.0], [5.0, 51.0]])
    aoi = Aoi.from_points(points)
    assert aoi.digest == Aoi.from_points(points[::-1][:2]).digest != Aoi.from_points(points[:1]).digest
    assert aoi.bounds == (5.0, 51.0, 6.0, 52.0)
    assert aoi.contents == "3 points"


def test_the_place_of_points_is_that_of_their_pixels():
    place = Place.of(areas_by_zone(Aoi.from_points([[179.9995, -17.0], [-179.9995, -17.0]])))
    assert place.lat == pytest.approx(-17.0, abs=1e-4)
    assert abs(place.lon) == pytest.approx(180.0, abs=1e-3)
    assert place.km2 == pytest.approx(2e-4, rel=2e-3)


@pytest.mark.parametrize(
    ("points", "error", "told"),
    [
        (np.empty((0, 2)), NothingToEmbedError, "there is no point"),
        ([[5.0, 84.5]], UsageError, "UTM ends at -80 and 84"),
        ([[51.0, 85.0]], UsageError, "swapped"),
    ],
)
def test_points_that_cannot_be_embedded(points, error, told):
    with pytest.raises(error, match=told):
        Aoi.from_points(points)
