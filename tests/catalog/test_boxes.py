"""How scattered tiles are searched: few requests, all scenes of the tiles, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tessera_cli.catalog import MPC, search
from tessera_cli.catalog.boxes import joined, search_boxes
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tests.helpers.fake_catalogs import Api

YEAR = Window.of_year(2021)


def around(lon: float, lat: float, side: float = 0.05) -> tuple[float, float, float, float]:
    return (lon - side / 2, lat - side / 2, lon + side / 2, lat + side / 2)


def scattered(count: int, west: float, south: float, east: float, north: float) -> list[tuple[float, ...]]:
    rng = np.random.default_rng(3)
    return [around(*at) for at in np.stack([rng.uniform(west, east, count), rng.uniform(south, north, count)], -1)]


PLACES = {
    "one": ([around(5, 51)], 1),
    "30 km apart": ([around(5, 51), around(5.4, 51)], 1),
    "in the corners of a continent": ([around(lon, lat) for lon in (-8, 30) for lat in (37, 68)], 4),
    "1,000 in a country": (scattered(1000, 6, 47.5, 15, 55), 1),
    "two countries": (scattered(300, 6, 47.5, 8, 49) + scattered(300, 22, 61, 24, 63), 2),
    "both sides of the antimeridian": ([around(179.9, -17), around(-179.9, -17)], 2),
}


@pytest.mark.parametrize(("boxes", "searches"), PLACES.values(), ids=PLACES)
def test_boxes_that_list_the_same_scenes_are_joined(boxes, searches):
    made = joined(boxes)
    assert len(made) == searches
    whole = shapely.union_all([shapely.box(*box) for box in made])
    assert all(whole.contains(shapely.box(*box)) for box in boxes)


def test_a_border_is_not_searched_with_all_that_it_encloses():
    """Plots along a circle of 9 degrees: boxes around all of it would list three times what lies near them."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    boxes = [around(20 + 9 * np.cos(angle), 9 * np.sin(angle)) for angle in angles]
    made = joined(boxes)
    assert 4 < len(made) < 60
    assert sum(shapely.box(*box).area for box in made) < 0.5 * 18**2
    whole = shapely.union_all([shapely.box(*box) for box in made])
    assert all(whole.contains(shapely.box(*box)) for box in boxes)


def test_many_that_lie_far_apart_take_no_minutes():
    boxes = scattered(3000, -170, -60, 170, 75)
    made = joined(boxes)
    assert len(made) < len(boxes)
    tree = shapely.STRtree([shapely.box(*box).buffer(1e-9) for box in made])
    found, _ = tree.query([shapely.box(*box) for box in boxes], predicate="within")
    assert len(np.unique(found)) == len(boxes)


def test_the_scenes_are_those_of_the_tiles_and_of_no_place_between_them():
    rng = np.random.default_rng(6)
    aoi = Aoi.from_points(np.stack([rng.uniform(6, 9, 40), rng.uniform(48, 50, 40)], axis=-1))
    tiles = [request.tile for request in tile_requests(aoi, [YEAR])]
    items = []
    for lon in np.arange(4, 11, 0.31):
        for lat in np.arange(46, 52, 0.29):
            footprint = shapely.box(lon, lat, lon + 0.3, lat + 0.3)
            items.append(
                {
                    "type": "Feature",
                    "stac_version": "1.0.0",
                    "id": f"S2_{lon:.2f}_{lat:.2f}",
                    "collection": "sentinel-2-l2a",
                    "links": [],
                    "geometry": shapely.geometry.mapping(footprint),
                    "properties": {"datetime": "2021-07-01T10:00:00Z", "eo:cloud_cover": 5.0},
                    "assets": {
                        key: {"href": f"https://example.test/{lon:.2f}/{lat:.2f}/{key}"}
                        for key in MPC.s2_assets.values()
                    },
                }
            )
    boxes = search_boxes(tiles)
    due = {
        item["id"]
        for item in items
        if any(shapely.geometry.shape(item["geometry"]).intersects(shapely.box(*box)) for box in boxes)
    }
    with Api(items, page=1000) as api:
        found = search(tiles, [YEAR], MPC, client=Client(), catalog=api.url)
        assert len(api.asked) == 1
    assert {scene.id for scene in found.scenes} == due
    assert 20 < len(due) < 0.5 * len(items)
