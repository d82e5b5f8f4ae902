"""sample: values at points and over polygons against rasterio, and plain numpy over every pixel."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer

from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import ForeignTile, Tile, from_utm, to_utm
from tessera_cli.folders.folder import TileFolder
from tessera_cli.tables import sample as module
from tessera_cli.tables.places import Places
from tessera_cli.tables.sample import sample
from tessera_cli.tables.samples import Samples
from tests.helpers.outputs import FORMATS, NOWHERE, PLACED, TILE, record, values, write_record
from tests.tables.folders import DIMS, EVERYWHERE, centre, constant_tile, in_degrees, opened, put, random_tile

EAST = Tile(32631, 113, 1098)
LEFT_HALF = np.arange(512)[None, :].repeat(512, 0) < 256


@pytest.fixture(autouse=True)
def _hear_everything(caplog):
    caplog.set_level(logging.INFO, logger="tessera_cli")


def sampled(folder, given) -> Samples:
    (found,) = sample(opened(folder), Places.of(given))
    return found


def by_hand(folder, name: str, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and counts at positions (N, 2) in metres, by rasterio alone."""
    with (
        rasterio.open(folder / f"{name}_emb.tif") as codes,
        rasterio.open(folder / f"{name}_scales.tif") as scales,
        rasterio.open(folder / f"{name}_counts.tif") as counts,
    ):
        found = [np.array(list(dataset.sample(xy))) for dataset in (codes, scales, counts)]
    return found[0].astype(np.float32) * found[1], found[2]


def pixels_within(polygon, tile: Tile, made) -> np.ndarray:
    """The embeddings of the pixels of a tile whose centre lies in a polygon (metres), one by one: (N, R)."""
    found, embeddings = [], values(made)
    for row in range(512):
        y = centre(tile, row, 0)[1]
        if not polygon.bounds[1] <= y <= polygon.bounds[3]:
            continue
        for column in range(512):
            x = centre(tile, row, column)[0]
            if polygon.bounds[0] <= x <= polygon.bounds[2] and polygon.contains(shapely.Point(x, y)):
                found.append(embeddings[:, row, column])
    inside = np.array(found, np.float64).reshape(-1, DIMS)
    return inside[~np.isnan(inside[:, 0])]


# --- points -----------------------------------------------------------------------------------------------------------


def test_points_have_the_values_that_rasterio_reads_there(tmp_path):
    for tile, seed in ((TILE, 1), (EAST, 2)):
        for window in ("2022", "2023"):
            put(tmp_path, tile, random_tile(seed + int(window)), window=window)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(112 * 5120, 114 * 5120, 300), rng.uniform(1098 * 5120, 1099 * 5120, 300)
    found = sampled(tmp_path, np.stack(from_utm(32631).transform(x, y), axis=-1))
    assert found.windows == ("2022", "2023")
    for tile, mine in ((TILE, x < EAST.bounds[0]), (EAST, x >= EAST.bounds[0])):
        for window, name in enumerate(found.windows):
            due, counts = by_hand(tmp_path, f"{tile.id}_{name}", np.stack([x, y], axis=-1)[mine])
            np.testing.assert_array_equal(found.values[mine, window], due)
            np.testing.assert_array_equal(found.counts[mine, window], counts)
            there = ~np.isnan(due[:, 0])
            assert found.status[mine, window].tolist() == np.where(there, "ok", "none").tolist()
            assert found.pixels[mine, window].tolist() == there.tolist()
            assert set(found.tiles[mine, window]) == {tile.id}
    assert {"ok", "none"} == set(found.status.ravel().tolist())


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_every_format_gives_the_same(tmp_path, format, dtype):
    made = random_tile(3)
    put(tmp_path, TILE, made, format=format, dtype=dtype)
    rows, columns = np.array([[0, 511, 255, 256, 100], [0, 511, 256, 255, 300]])
    x, y = np.transpose([centre(TILE, row, column) for row, column in zip(rows, columns, strict=True)])
    found = sampled(tmp_path, np.stack(from_utm(32631).transform(x, y), axis=-1))
    np.testing.assert_array_equal(found.values[:, 0], values(made)[:, rows, columns].T)
    there = ~np.isnan(found.values[:, 0, 0])
    assert there.any()
    np.testing.assert_array_equal(found.counts[there, 0], made["counts"][:, rows, columns].T[there])
    square = in_degrees(shapely.box(*np.array(centre(TILE, 300, 250)) - 27, *np.array(centre(TILE, 300, 250)) + 27))
    mean = sampled(tmp_path, [square])
    part = values(made)[:, 298:303, 248:253].reshape(DIMS, -1)
    np.testing.assert_allclose(mean.values[0, 0], np.nanmean(part.astype(np.float64), axis=1), rtol=1e-6)
    assert mean.pixels[0, 0] == np.isfinite(part[0]).sum()


def test_a_position_on_the_edge_of_tiles_belongs_to_one(tmp_path):
    put(tmp_path, TILE, constant_tile(1))
    put(tmp_path, EAST, constant_tile(2))
    line = EAST.bounds[0]
    x, y = np.array([line - 0.01, line + 0.01]), np.full(2, TILE.bounds[1] + 1000.0)
    found = sampled(tmp_path, np.stack(from_utm(32631).transform(x, y), axis=-1))
    assert found.values[:, 0, 0].tolist() == [1, 2]


def test_what_is_outside_or_has_no_geometry_is_kept(tmp_path):
    put(tmp_path, TILE, constant_tile(7, LEFT_HALF))
    inside, right = (in_degrees(shapely.Point(centre(TILE, 9, column))) for column in (9, 400))
    given = [shapely.Point(120, -40), None, inside, right, shapely.Point(-175, 46), shapely.Point(3, 90)]
    found = sampled(tmp_path, given)
    assert found.status[:, 0].tolist() == ["outside", "outside", "ok", "none", "outside", "outside"]
    assert np.isnan(found.values[[0, 1, 3, 4, 5]]).all()
    assert np.isnan(found.counts[[0, 1, 3, 4, 5]]).all()
    assert found.tiles[:, 0].tolist() == ["", "", TILE.id, TILE.id, "", ""]


def test_only_the_blocks_that_are_needed_are_read(tmp_path, monkeypatch):
    put(tmp_path, TILE, random_tile(1))
    put(tmp_path, EAST, random_tile(2))
    read = []
    real = module.Block.read
    monkeypatch.setattr(module.Block, "read", lambda tile, box: read.append((tile.name, box)) or real(tile, box))
    places = [in_degrees(shapely.Point(centre(TILE, row, column))) for row, column in ((5, 5), (8, 9), (300, 5))]
    sampled(tmp_path, places)
    name = f"{TILE.id}_2023"
    assert read == [(name, (slice(5, 9), slice(5, 10))), (name, (slice(300, 301), slice(5, 6)))]


def test_places_come_in_batches_in_their_order(tmp_path, monkeypatch):
    put(tmp_path, TILE, random_tile(4))
    rng = np.random.default_rng(1)
    x, y = rng.uniform(112 * 5120, 113 * 5120, 50), rng.uniform(1098 * 5120, 1099 * 5120, 50)
    lonlat = np.stack(from_utm(32631).transform(x, y), axis=-1)
    whole = sampled(tmp_path, lonlat)
    monkeypatch.setattr(module, "BATCH", 7 * 4 * DIMS)
    parts = list(sample(opened(tmp_path), Places.of(lonlat)))
    assert [len(part.places) for part in parts] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), whole.values)
    assert np.concatenate([part.places.ids for part in parts]).tolist() == list(range(50))


# --- zones and overlaps -----------------------------------------------------------------------------------------------

BORDER = (6.0, 51.05)
"""Between the zones 31 and 32."""


def tile_at(epsg: int, lon: float, lat: float) -> Tile:
    x, y = to_utm(epsg).transform(lon, lat)
    return Tile(epsg, int(x // 5120), int(y // 5120))


def test_the_own_zone_comes_first_and_the_other_where_it_has_nothing(tmp_path):
    west, east = tile_at(32631, *BORDER), tile_at(32632, *BORDER)
    points = np.array(BORDER) + np.array([[-0.001, 0], [0.001, 0]])
    put(tmp_path / "both", west, constant_tile(1))
    put(tmp_path / "both", east, constant_tile(2))
    found = sampled(tmp_path / "both", points)
    assert found.values[:, 0, 0].tolist() == [1, 2]
    assert found.tiles[:, 0].tolist() == [west.id, east.id]
    put(tmp_path / "hole", west, constant_tile(1))
    put(tmp_path / "hole", east, constant_tile(2, ~EVERYWHERE | (np.indices((512, 512)).sum(0) == 0)))
    found = sampled(tmp_path / "hole", points)
    assert found.values[:, 0, 0].tolist() == [1, 1]
    put(tmp_path / "one", east, constant_tile(2))
    assert sampled(tmp_path / "one", points).values[:, 0, 0].tolist() == [2, 2]


def test_a_polygon_across_zones_counts_its_ground_once(tmp_path):
    west, east = tile_at(32631, *BORDER), tile_at(32632, *BORDER)
    square = shapely.box(BORDER[0] - 0.006, BORDER[1] - 0.003, BORDER[0] + 0.004, BORDER[1] + 0.003)  # more of it in 31
    in_31 = shapely.transform(shapely.segmentize(square, 1e-4), to_utm(32631).transform, interleaved=False)
    put(tmp_path / "both", west, constant_tile(1))
    put(tmp_path / "both", east, constant_tile(2))
    found = sampled(tmp_path / "both", [square])
    due = len(pixels_within(in_31, west, constant_tile(1)))
    assert due > 4000
    assert (found.values[0, 0, 0], found.std[0, 0, 0], found.pixels[0, 0]) == (1, 0, due)
    mirrored = shapely.box(BORDER[0] - 0.004, BORDER[1] - 0.003, BORDER[0] + 0.006, BORDER[1] + 0.003)
    assert sampled(tmp_path / "both", [mirrored]).values[0, 0, 0] == 2
    # zone 31 up to the border, zone 32 from there: as two areas of interest would be embedded
    put(tmp_path / "cut", west, constant_tile(1, lonlat_of(west)[0] < BORDER[0]))
    put(tmp_path / "cut", east, constant_tile(2))
    found = sampled(tmp_path / "cut", [square])
    left = shapely.clip_by_rect(square, 0, 50, BORDER[0], 52)
    right = shapely.clip_by_rect(square, BORDER[0], 50, 10, 52)
    ones = within(left, west).sum()
    twos = within(right, east).sum()
    assert found.pixels[0, 0] == pytest.approx(ones + twos, abs=120)  # grids meet at an angle: a pixel per row
    assert found.values[0, 0, 0] == pytest.approx((ones + 2 * twos) / (ones + twos), abs=0.01)
    assert found.tiles[0, 0] == west.id


def lonlat_of(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    columns, rows = np.meshgrid(np.arange(512), np.arange(512))
    return from_utm(tile.epsg).transform(*centre(tile, rows, columns))


def within(polygon, tile: Tile) -> np.ndarray:
    """bool (H, W): pixels whose centre lies in a polygon in degrees, longitudes 0..360."""
    lon, lat = lonlat_of(tile)
    return shapely.contains_xy(polygon, np.mod(lon, 360), lat)


@pytest.mark.parametrize("written", ["across", "split", "beyond"])
def test_a_polygon_across_the_antimeridian(tmp_path, written):
    tile = tile_at(32760, 179.9999, -17.0)
    made = random_tile(5)
    put(tmp_path, tile, made)
    whole = shapely.box(179.995, -17.004, 180.004, -16.998)
    split = shapely.MultiPolygon(
        [shapely.box(179.995, -17.004, 180, -16.998), shapely.box(-180, -17.004, -179.996, -16.998)]
    )
    jumping = shapely.Polygon([(179.995, -17.004), (-179.996, -17.004), (-179.996, -16.998), (179.995, -16.998)])
    given = {"across": jumping, "split": split, "beyond": whole}[written]
    found = sampled(tmp_path, [given])
    inside = values(made)[:, within(whole, tile)].astype(np.float64)
    kept = ~np.isnan(inside[0])
    assert kept.sum() > 3000
    assert abs(int(found.pixels[0, 0]) - int(kept.sum())) <= 2
    np.testing.assert_allclose(found.values[0, 0], inside[:, kept].mean(axis=1), rtol=1e-3, atol=1e-4)
    lon, lat = lonlat_of(tile)
    point = sampled(tmp_path, [(np.mod(lon[10, 500], 360), lat[10, 500]), (lon[10, 20], lat[10, 20])])
    np.testing.assert_array_equal(point.values[:, 0], values(made)[:, [10, 10], [500, 20]].T)


def test_the_zone_of_a_polygon_across_the_antimeridian(tmp_path):
    place = (179.9999, -17.0)
    west = tile_at(32760, *place)
    for tile in (west, Tile(west.epsg, west.column - 1, west.row)):
        put(tmp_path, tile, constant_tile(60))
    put(tmp_path, tile_at(32701, *place), constant_tile(1))
    mostly_west, mostly_east = shapely.box(179.996, -17, 180.003, -16.998), shapely.box(179.997, -17, 180.004, -16.998)
    assert sampled(tmp_path, [mostly_west, mostly_east]).values[:, 0, 0].tolist() == [60, 1]


def test_tiles_off_the_grid_that_overlap_count_once(tmp_path):
    shifted = ForeignTile("next", PLACED.shape, PLACED.crs, PLACED.transform * Affine.translation(0, 20))
    everywhere = np.ones(PLACED.shape, bool)
    put(tmp_path, PLACED, constant_tile(1, everywhere), window=None)
    put(tmp_path, shifted, constant_tile(2, everywhere), window=None)
    west, _, _, north = PLACED.bounds
    polygon = in_degrees(shapely.box(west + 2, north - 402, west + 98, north - 2), 32733)
    found = sampled(tmp_path, [polygon])
    assert found.windows == ("",)
    assert found.pixels[0, 0] == 40 * 10  # 37 rows of the one, 3 more of the other
    assert found.values[0, 0, 0] == pytest.approx((37 * 1 + 3 * 2) / 40)
    point = sampled(tmp_path, [polygon.centroid])
    assert point.values[0, 0, 0] == 1


def test_tiles_without_a_place_are_refused_or_left_out(tmp_path, caplog):
    put(tmp_path / "none", NOWHERE, random_tile(1, np.ones((3, 4), bool)), window=None, format="npy")
    with pytest.raises(UsageError, match=r"its tiles have no CRS"):
        sampled(tmp_path / "none", [shapely.Point(5, 51)])
    put(tmp_path / "some", NOWHERE, random_tile(1, np.ones((3, 4), bool)), window=None, format="npy")
    put(tmp_path / "some", PLACED, constant_tile(3, np.ones(PLACED.shape, bool)), window=None, format="npy")
    west, _, _, north = PLACED.bounds
    assert sampled(tmp_path / "some", [in_degrees(shapely.Point(west + 5, north - 5), 32733)]).values[0, 0, 0] == 3
    assert "1 tile without a CRS cannot be sampled" in caplog.text


# --- polygons ---------------------------------------------------------------------------------------------------------


def test_polygons_have_mean_and_deviation_of_their_pixels(tmp_path):
    made = {TILE: random_tile(6), EAST: random_tile(7)}
    for tile, each in made.items():
        put(tmp_path, tile, each)
    corner = np.array([EAST.bounds[0], TILE.bounds[1] + 2560.0])
    ring = shapely.Point(corner).buffer(300).difference(shapely.Point(corner + np.array([20, 30])).buffer(120))
    shapes = [
        ring,  # of two tiles and four blocks, with a hole
        shapely.affinity.rotate(shapely.box(*corner - 400, *corner - 250), 33),
        shapely.MultiPolygon(
            [shapely.box(*corner - [1000, 0], *corner - [950, -77]), shapely.box(*corner + 500, *corner + 561)]
        ),
        shapely.box(*corner - 33, *corner + 44),  # overlaps the first
    ]
    found = sampled(tmp_path, [in_degrees(shape) for shape in shapes])
    assert found.status[:, 0].tolist() == ["ok"] * 4
    for number, shape in enumerate(shapes):
        inside = np.concatenate([pixels_within(shape, tile, each) for tile, each in made.items()])
        assert found.pixels[number, 0] == len(inside) > 10
        np.testing.assert_allclose(found.values[number, 0], inside.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.std[number, 0], inside.std(axis=0), rtol=1e-6)


def test_counts_of_polygons_are_means_over_the_same_pixels(tmp_path):
    made = random_tile(8)
    put(tmp_path, TILE, made)
    west, _, _, north = TILE.bounds
    found = sampled(tmp_path, [in_degrees(shapely.box(west + 2501, north - 2600, west + 2599, north - 2501))])
    box = (slice(250, 260), slice(250, 260))
    there = ~np.isnan(made["scales"][box])
    np.testing.assert_allclose(found.counts[0, 0], made["counts"][:, *box][:, there].mean(axis=1), rtol=1e-6)


def test_deviation_is_stable_where_values_are_large_and_alike(tmp_path):
    made = constant_tile(100)
    made["codes"][0, ::2] = 101
    made["scales"][:] = np.float32(1e4)
    put(tmp_path, TILE, made)
    west, south, east, north = TILE.bounds
    found = sampled(tmp_path, [in_degrees(shapely.box(west + 1, south + 1, east - 1, north - 1))])
    assert found.pixels[0, 0] == 512 * 512
    assert found.values[0, 0, 0] == pytest.approx(1.005e6, rel=1e-7)
    assert found.std[0, 0, 0] == pytest.approx(5e3, rel=1e-6)


def test_a_polygon_smaller_than_a_pixel_has_the_pixel_under_it(tmp_path):
    made = constant_tile(9, LEFT_HALF)
    put(tmp_path, TILE, made)
    x, y = np.array(centre(TILE, 100, 100)) - 5
    plots = [shapely.box(x + east + 6, y + 6, x + east + 9, y + 9) for east in (0, 3000, 90000)]
    plots.append(shapely.box(x + 3, y + 3, x + 7, y + 7))
    found = sampled(tmp_path, [in_degrees(plot) for plot in plots])
    assert found.status[:, 0].tolist() == ["small", "none", "outside", "ok"]
    assert found.pixels[:, 0].tolist() == [1, 0, 0, 1]
    assert found.values[:, 0, 0].tolist()[::3] == [9, 9]
    assert found.std[:, 0, 0].tolist()[::3] == [0, 0]
    assert np.isnan(found.values[1:3]).all()
    assert np.isnan(found.std[1:3]).all()


def test_a_place_on_a_tile_where_nothing_was_observed_is_not_outside(tmp_path):
    put(tmp_path, TILE, random_tile(1))
    void = replace(TILE, column=TILE.column + 1)
    identity = opened(tmp_path).first.identity
    own = {"tile": void, "identity": identity, "status": "empty", "pixels": 0, "assets": ()}
    write_record(TileFolder(tmp_path, {}), record(**own))
    there = in_degrees(shapely.Point(centre(void, 3, 3)))
    beyond = in_degrees(shapely.Point(centre(replace(TILE, column=TILE.column + 2), 3, 3)))
    for plots in ([there, beyond], [in_degrees(shapely.Point(centre(void, 3, 3)).buffer(40))]):
        found = sampled(tmp_path, plots)
        assert found.status[:, 0].tolist() == ["none", "outside"][: len(plots)]
        assert found.tiles[0, 0] == void.id
        assert np.isnan(found.values).all()
        assert not found.pixels.any()


def test_a_polygon_over_a_centre_without_an_embedding_has_none(tmp_path):
    """Though the pixel under its middle has one, whose centre lies outside."""
    put(tmp_path, TILE, constant_tile(9, LEFT_HALF))
    west, _, _, north = TILE.bounds
    bar, spike = (2552, 100, 2565.5, 104), (2564.5, 104, 2565.5, 105.5)  # metres from the corner: right, down
    parts = [shapely.box(west + x0, north - y1, west + x1, north - y0) for x0, y0, x1, y1 in (bar, spike)]
    plot = in_degrees(shapely.union_all(parts))
    middle = sampled(tmp_path, [plot.point_on_surface()])
    assert middle.status[0, 0] == "ok"
    assert sampled(tmp_path, [plot]).status[0, 0] == "none"


def test_a_polygon_partly_without_embeddings_has_the_mean_of_the_rest(tmp_path):
    put(tmp_path, TILE, constant_tile(9, LEFT_HALF))
    west, south, east, north = TILE.bounds
    whole = in_degrees(shapely.box(west - 3000, south + 1, east - 1, north - 1))
    right = in_degrees(shapely.box(west + 2561, south + 1, east - 1, north - 1))
    found = sampled(tmp_path, [whole, right])
    assert found.pixels[:, 0].tolist() == [512 * 256, 0]
    assert found.values[0, 0, 0] == 9
    assert found.status[:, 0].tolist() == ["ok", "none"]
    assert found.tiles[:, 0].tolist() == [TILE.id, TILE.id]


def test_polygons_from_afar_and_around_the_world_do_not_matter(tmp_path):
    put(tmp_path, TILE, constant_tile(4))
    west, south, _, _ = TILE.bounds
    world = shapely.box(-80, -70, 90, 80)
    scattered = shapely.MultiPolygon(
        [
            in_degrees(shapely.box(west + 11, south + 11, west + 49, south + 49)),
            shapely.box(-170, 50, -160, 60),
            shapely.box(170, -40, 179, -30),
        ]
    )
    found = sampled(tmp_path, [world, scattered, shapely.box(-100, 30, -99, 31)])
    assert found.pixels[:, 0].tolist() == [512 * 512, 16, 0]
    assert found.status[:, 0].tolist() == ["ok", "ok", "outside"]
    far = sampled(tmp_path, [shapely.box(-100, 30, -99, 31), None])
    assert far.status[:, 0].tolist() == ["outside", "outside"]


def test_a_damaged_file_is_named(tmp_path):
    put(tmp_path, TILE, random_tile(1))
    path = tmp_path / f"{TILE.id}_2023_emb.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    west, south, east, north = TILE.bounds
    with pytest.raises(TileError, match=path.name):
        sampled(tmp_path, [in_degrees(shapely.box(west, south, east, north))])


def test_polygons_in_metres_are_where_they_were_drawn(tmp_path):
    """A polygon of 4 x 4 pixels in the CRS of the tile, by way of degrees."""
    from tessera_cli.extent.features import Features

    put(tmp_path, TILE, random_tile(11))
    west, _, _, north = TILE.bounds
    box = shapely.box(west + 100, north - 140, west + 140, north - 100)
    crs = Transformer.from_crs(32631, 4326).source_crs
    places = Places.of_features(Features("x", crs, np.array([box], object)))
    (found,) = sample(opened(tmp_path), places)
    part = values(random_tile(11))[:, 10:14, 10:14].reshape(DIMS, -1).astype(np.float64)
    np.testing.assert_allclose(found.values[0, 0], np.nanmean(part, axis=1), rtol=1e-6)
    assert found.pixels[0, 0] == np.isfinite(part[0]).sum()
