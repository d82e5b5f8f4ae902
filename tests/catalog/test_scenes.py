"""Which scenes lie on which tile: looked up, with the antimeridian in mind."""

import datetime as dt
import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from tessera_cli.catalog import MPC, Scenes
from tessera_cli.catalog.scene import Scene
from tessera_cli.extent.grid import Tile, to_utm, utm_epsg
from tessera_cli.extent.window import Window
from tests.helpers.builders import lies_on

YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))


def item(item_id, when="2021-07-01T11:00:00Z", **place):
    assets = {key: {"href": f"https://example.test/{item_id}/{key}.tif"} for key in MPC.s2_assets.values()}
    return {
        "type": "Feature",
        "id": item_id,
        "collection": MPC.s2_collection,
        "assets": assets,
        **place,
        "properties": {"datetime": when, "eo:cloud_cover": 1.0},
    }


def tile_around(lon, lat):
    epsg = utm_epsg(lon, lat)
    east, north = to_utm(epsg).transform(lon, lat)
    return Tile(epsg, int(east // 5120), int(north // 5120))


def wrapped(lon):
    return (lon + 180) % 360 - 180


def spelled(shape, spelling):
    """The `place` of an item: a shape whose longitudes run on, as catalogues write it."""
    west, south, east, north = shape.bounds
    if spelling == "bbox":
        return {"bbox": [wrapped(west), south, wrapped(east), north]}
    if spelling == "bbox with heights":
        return {"bbox": [wrapped(west), south, 0, wrapped(east), north, 100]}
    if spelling == "jumping":
        shape = shapely.transform(shape, lambda lon, lat: (wrapped(lon), lat), interleaved=False)
    elif spelling == "split":
        pieces = [
            affinity.translate(shape.intersection(shapely.box(turn - 180, -90, turn + 180, 90)), xoff=-turn)
            for turn in (-360, 0, 360)
        ]
        shape = shapely.union_all(pieces)
    return {"geometry": shapely.geometry.mapping(shape)}


SPELLINGS = ("running on", "jumping", "split", "bbox", "bbox with heights")
places = st.tuples(
    st.one_of(st.floats(-180, 179.99), st.floats(-1, 1).map(lambda offset: wrapped(180 + offset))),
    st.floats(-80, 83),
)


@st.composite
def shapes(draw, around):
    """A quadrangle of up to four degrees, near a place or on the other side of the globe."""
    lon, lat = around
    far = draw(st.sampled_from((0, 0, 0, 90, 178, 180, -180)))
    x, y = lon + far + draw(st.floats(-3, 3)), lat + draw(st.floats(-3, 3))
    width, height, slant = draw(st.floats(0.05, 4)), draw(st.floats(0.05, 2)), draw(st.floats(-0.5, 0.5))
    corners = [(x, y), (x + width, y + slant), (x + width, y + slant + height), (x, y + height)]
    return shapely.Polygon(corners)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_lookup_is_the_plain_rule_on_a_globe(data):
    place = data.draw(places)
    tile = tile_around(*place)
    drawn = data.draw(st.lists(st.tuples(shapes(place), st.sampled_from(SPELLINGS)), min_size=1, max_size=8))
    items, expected = [item("anywhere"), item("later", "2022-07-01T11:00:00Z")], {"anywhere"}
    for number, (shape, spelling) in enumerate(drawn):
        items.append(item(str(number), **spelled(shape, spelling)))
        covered = shapely.box(*shape.bounds) if spelling.startswith("bbox") else shape
        if any(affinity.translate(covered, xoff=turn).intersects(tile.outline) for turn in (-720, -360, 0, 360, 720)):
            expected.add(str(number))
    scenes = Scenes.from_items(items, MPC)
    found = [scene.id for scene in scenes.on(tile, YEAR).scenes]
    assert set(found) == expected
    assert found == [scene.id for scene in scenes.scenes if scene.id in expected]  # in mosaic order


@pytest.mark.parametrize(("lon", "lat"), [(25.0, -17.0), (-60.0, -17.0), (0.5, -17.0)])
def test_a_scene_across_the_antimeridian_does_not_reach_round_the_globe(lon, lat):
    crossing = shapely.box(179, -18, 181, -16)
    for spelling in SPELLINGS:
        scene = Scene.from_item(item("A", **spelled(crossing, spelling)), MPC)
        assert not lies_on(scene, tile_around(lon, lat))
        assert lies_on(scene, tile_around(179.9, lat))
        assert lies_on(scene, tile_around(-179.9, lat))


def test_a_footprint_all_round_the_globe_is_taken_at_its_word():
    scenes = Scenes.from_items([item("A", bbox=[-180, -18, 180, -16])], MPC)
    for lon in (-179.9, 0.5, 120, 179.9):
        assert len(scenes.on(tile_around(lon, -17), YEAR)) == 1
        assert len(scenes.on(tile_around(lon, -19), YEAR)) == 0


def test_no_scenes_and_none_with_a_footprint():
    tile = tile_around(3, 47)
    assert len(Scenes.from_items([], MPC).on(tile, YEAR)) == 0
    assert len(Scenes.from_items([item("A"), item("B")], MPC).on(tile, YEAR)) == 2


def test_a_large_area_is_split_quickly():
    """1000 tiles, 5000 scenes of a Sentinel-2 tile's size, of which about 100 lie on each tile."""
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 43), (9, 50), (5000, 2))
    items = [
        item(f"{n:04}", geometry=shapely.geometry.mapping(shapely.box(x, y, x + 1.4, y + 1)))
        for n, (x, y) in enumerate(corners)
    ]
    scenes = Scenes.from_items(items, MPC)
    tiles = [tile_around(x, y) for x, y in rng.uniform((1, 44), (9, 50), (1000, 2))]
    started = time.perf_counter()
    counts = [len(scenes.on(tile, YEAR)) for tile in tiles]
    assert time.perf_counter() - started < 20
    assert counts[7] == sum(shapely.box(x, y, x + 1.4, y + 1).intersects(tiles[7].outline) for x, y in corners)
    assert np.mean(counts) > 50


@pytest.mark.parametrize(
    ("footprint", "found"),
    [
        (shapely.box(179.5, -20, 180.5, -15), True),  # beyond 180
        (shapely.Polygon([(179.5, -20), (-179.5, -20), (-179.5, -15), (179.5, -15)]), True),  # edges that jump
        (shapely.box(-0.5, -20, 0.5, -15), False),
    ],
)
def test_static_items_are_found_across_the_antimeridian(footprint, found):
    from tessera_cli.catalog.boxes import search_boxes
    from tessera_cli.catalog.search import matching

    tile = Tile(32701, 35, 1585)
    feature = {
        "id": "x",
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(footprint),
        "properties": {"datetime": "2021-07-01T00:00:00Z"},
    }
    year = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
    assert bool(list(matching([feature], search_boxes([tile]), [year]))) is found
