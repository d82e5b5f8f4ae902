"""Areas that are too large, too detailed or too tangled: refused in a moment, or cut in bounded time."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import shapely

from tessera_cli.errors import UsageError
from tessera_cli.extent import tiling, vector
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.crossings import check_crossings
from tessera_cli.extent.grid import MAX_TILES, TILE_METRES, Tile, tiles_touching
from tessera_cli.extent.tiling import areas_by_zone, rasterize, tile_requests
from tessera_cli.extent.window import Window

YEAR = [Window.from_name("2023")]


def touching_one_by_one(geometry: shapely.Geometry, epsg: int) -> list[Tile]:
    west, south, east, north = (round(value, 6) for value in geometry.bounds)
    columns = range(math.floor(west / TILE_METRES), math.floor(east / TILE_METRES) + 1)
    rows = range(math.floor(south / TILE_METRES), math.floor(north / TILE_METRES) + 1)
    tiles = [Tile(epsg, column, row) for row in reversed(rows) for column in columns]
    return [tile for tile in tiles if geometry.intersects(shapely.box(*tile.bounds))]


@pytest.mark.parametrize("seed", range(8))
def test_tiles_are_those_found_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, 2)) * 10 ** rng.uniform(2, 5) + (500_000, rng.choice([-30_000, 20, 5_000_000]))
    for geometry in (
        shapely.MultiPoint(points).convex_hull,
        shapely.union_all(shapely.buffer(shapely.points(points), 700)),
        shapely.box(5 * TILE_METRES, 7 * TILE_METRES, 9 * TILE_METRES, 8 * TILE_METRES),  # on the grid
        shapely.Point(points[0]).buffer(1),
    ):
        assert tiles_touching(geometry, 32631) == touching_one_by_one(geometry, 32631)


def test_pixels_of_a_detailed_area_are_those_of_each_tile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = np.linspace(0, 2 * np.pi, 3000)
    radius = 9000 * (1 + 0.2 * np.sin(40 * turn))
    geometry = shapely.Polygon(np.stack([500_000 + radius * np.cos(turn), 5e6 + radius * np.sin(turn)], axis=1))
    tiles = tiles_touching(geometry, 32631)
    for detailed in (10, 10**6):
        monkeypatch.setattr(tiling, "DETAILED", detailed)
        for tile, pixels in tiling._rasterized(geometry, tiles):
            np.testing.assert_array_equal(pixels, rasterize(geometry, tile))


def test_the_union_of_many_areas_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corners = rng.random((400, 2)) * 3000
    parts = list(shapely.box(*corners.T, *(corners + rng.random((400, 2)) * 120).T))
    monkeypatch.setattr(tiling, "MANY", 2)
    whole = shapely.unary_union(parts)
    made = tiling._united(parts)
    assert made.is_valid
    assert made.symmetric_difference(whole).area == pytest.approx(0, abs=1e-6)
    assert shapely.get_num_geometries(made) == shapely.get_num_geometries(whole)


def test_areas_without_a_centre_are_found_among_many(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    fields = [shapely.box(5 + 0.01 * n, 51, 5.0004 + 0.01 * n, 51.0004) for n in range(20)]
    slivers = [shapely.box(5 + 0.01 * n, 51.01, 5 + 0.01 * n + 2e-5, 51.01002) for n in range(5)]
    told = []
    for many in (1, 1000):
        monkeypatch.setattr(tiling, "MANY", many)
        tiling._parts_by_zone.cache_clear()
        areas_by_zone.cache_clear()
        caplog.clear()
        tile_requests(Aoi("fields", (*fields, *slivers)), YEAR)
        told.append([record.message for record in caplog.records if "no centre" in record.message])
    assert told[0] == told[1]
    assert len(told[0]) == 1


@pytest.mark.parametrize(
    ("box", "seconds"), [((-180, -80, 180, 84), 2), ((-120, -60, 100, 70), 2), ((0, -20, 40, 20), 2)]
)
def test_what_is_too_large_is_refused_with_its_number(box: tuple[float, ...], seconds: float) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match=rf"covers at least [\d,]+ tiles .* at most {MAX_TILES:,} make one run. Cut"):
        tile_requests(Aoi.from_bbox(*box), YEAR)
    assert time.monotonic() - started < 10 * seconds


def test_many_areas_that_are_too_large_together() -> None:
    boxes = tuple(shapely.box(6 * n, 0, 6 * n + 5.9, 20) for n in range(-10, 10))
    with pytest.raises(UsageError, match="at most 100,000 make one run"):
        tile_requests(Aoi("stripes", boxes), YEAR)


def test_a_polygon_around_the_earth() -> None:
    ring = [[-180, -80], [180, -80], [180, 84], [-180, 84], [-180, -80]]
    with pytest.raises(UsageError, match="a polygon goes around the Earth"):
        Aoi.of({"type": "Polygon", "coordinates": [ring]})


def tangle(points: int) -> shapely.Polygon:
    return shapely.Polygon(np.random.default_rng(0).random((points, 2)) + np.array([5, 51]))


def test_tangles_are_refused_and_bow_ties_are_not() -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"cross each other more than 1,000 times.*Correct or remove it"):
        Aoi.of(tangle(3000))
    assert time.monotonic() - started < 20
    check_crossings(tangle(40), "x")
    assert Aoi.of(shapely.Polygon([(5, 51), (5.1, 51.1), (5.1, 51), (5, 51.1)])).features


def test_corners_that_touch_are_no_crossings() -> None:
    zigzag = [corner for n in range(1500) for corner in ((2 * n, 2 * n), (2 * n + 2, 2 * n))]
    check_crossings(shapely.Polygon([*zigzag, (3000, 3000), *reversed([(x, y + 2) for x, y in zigzag[::2]])]), "x")


def test_geojson_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "aoi.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(shapely.box(5, 51, 5.1, 51.1))))
    assert Aoi.from_file(path).features
    monkeypatch.setattr(vector, "MAX_GEOJSON", 50)
    with pytest.raises(UsageError, match="at most 0 MB are read"):
        Aoi.from_file(path)


def test_geojson_that_would_fill_the_memory_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "aoi.geojson"
    path.write_text('{"type":"MultiPolygon","coordinates":[' + "[]," * 8_000_000 + "[]]}")
    with pytest.raises(UsageError, match=r"is too large: its values would take 1,\d+ MB .*Give a GeoPackage"):
        Aoi.from_file(path)


@pytest.mark.parametrize("suffix", [".zip", ".kmz"])
def test_a_zip_that_unpacks_to_too_much(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    path = tmp_path / f"aoi{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.kml", "w") as file:
        file.write(bytes(3_000_000))
    monkeypatch.setattr(vector, "MAX_MEMBER", 2_000_000)
    with pytest.raises(UsageError, match=r"a.kml has 3 MB unpacked, and at most 2 MB .* Unpack it"):
        Aoi.from_file(path)


@pytest.mark.parametrize("east", [1e300, 1e12])
def test_edges_that_are_longer_than_the_earth(tmp_path, east):
    path = tmp_path / "x.geojson"
    square = [[500000, 5600000], [500000, 5600100], [east, 5600100], [500000, 5600000]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [square], "crs": crs}))
    with pytest.raises(UsageError, match="longer together than any on Earth"):
        Aoi.from_file(path)
