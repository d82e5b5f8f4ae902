"""The grid of a picture, against rasterio and pyproj."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.extent.grid import ForeignTile, Tile
from tessera_cli.pictures import canvas as module
from tessera_cli.pictures.canvas import Canvas
from tests.helpers.landscapes import put

TILE = Tile(32631, 112, 1098)
FAR_EAST = Tile(32632, 20, 1098)


def tiles_of(folder, *tiles, **more):
    for tile in tiles:
        put(folder, tile, dims=3, **more)
    return EmbeddingFolder.open(folder).tiles


def test_the_grid_is_the_tiles_own_around_what_was_asked_for(tmp_path):
    requested = np.zeros((512, 512), bool)
    requested[100:131, 30:41] = True
    canvas = Canvas.of(tiles_of(tmp_path, TILE, requested=requested), 1)
    assert (canvas.crs, canvas.shape, canvas.png, canvas.page) == ("EPSG:32631", (31, 11), 1, 1)
    assert canvas.transform == TILE.transform * Affine.translation(30, 100)
    rng = np.random.default_rng(0)
    values = rng.integers(1, 255, (2, 512, 512), np.uint8)
    place, taken = canvas.take(TILE, (slice(0, 512), slice(0, 512)), values, 0)
    assert place == (slice(0, 31), slice(0, 11))
    assert np.array_equal(taken, values[:, 100:131, 30:41])
    place, taken = canvas.take(TILE, (slice(120, 240), slice(0, 512)), values[:, 120:240], 0)
    assert place == (slice(20, 31), slice(0, 11))
    assert np.array_equal(taken, values[:, 120:131, 30:41])
    assert canvas.take(TILE, (slice(200, 240), slice(0, 512)), values[:, 200:240], 0) is None


def test_pixels_of_another_zone_are_gdal_s_nearest(tmp_path):
    near = Tile(32631, 139, 1098)  # near six degrees east, where the zones meet
    west = Transformer.from_crs(32631, 32632, always_xy=True).transform(*near.bounds[:2])
    other = Tile(32632, int(west[0] // 5120) + 1, int(west[1] // 5120))
    first = tiles_of(tmp_path, near)[0]
    tiles = tiles_of(tmp_path, other, requested=np.pad(np.ones((300, 300), bool), ((0, 212), (0, 212))))
    canvas = Canvas.of(tiles, 1)
    assert canvas.crs == "EPSG:32631"  # of most pixels
    assert first.name in {tile.name for tile in tiles}
    values = np.random.default_rng(0).integers(1, 255, (1, 512, 512), np.uint8)
    due = np.zeros((1, *canvas.shape), np.uint8)
    reproject(
        values, due, src_crs=other.crs, src_transform=other.transform, dst_crs=canvas.crs,
        dst_transform=canvas.transform, resampling=Resampling.nearest, src_nodata=0, dst_nodata=0, tolerance=0,
    )  # fmt: skip
    found = np.zeros_like(due)
    for rows in (slice(0, 200), slice(200, 512)):  # by blocks: every pixel once, no seam
        (place_rows, place_columns), taken = canvas.take(other, (rows, slice(0, 512)), values[:, rows], 0)
        there = found[:, place_rows, place_columns]
        assert not (there[taken > 0] > 0).any()
        there[...] = np.maximum(there, taken)
    assert (found > 0).sum() > 100_000
    assert ((found > 0) & (found != due)).sum() < 2e-3 * (found > 0).sum()  # centres near a border: GDAL interpolates


def test_zones_far_apart_meet_in_web_mercator(tmp_path, caplog):
    tiles = tiles_of(tmp_path, TILE, Tile(32635, 112, 1098))
    canvas = Canvas.of(tiles, 1)
    assert canvas.crs == "EPSG:3857"
    assert canvas.shape[0] * canvas.shape[1] <= 1.2 * module.LARGEST
    west, south, east, north = canvas.bounds
    for tile in tiles:
        bounds = rasterio.warp.transform_bounds(tile.record.tile.crs, canvas.crs, *tile.record.tile.bounds)
        assert west <= bounds[0] < bounds[2] <= east
        assert south <= bounds[1] < bounds[3] <= north


def test_an_area_that_is_too_large_gets_wider_pixels(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "LARGEST", 512 * 512)
    canvas = Canvas.of(tiles_of(tmp_path, TILE, Tile(32631, 115, 1098)), 1)
    assert canvas.transform.a == 20  # 4 tiles wide
    assert "pixels of the picture are" in caplog.text
    values = np.arange(512 * 512, dtype=np.int64).reshape(1, 512, 512)
    (rows, columns), taken = canvas.take(TILE, (slice(0, 512), slice(0, 512)), values, -1)
    x = canvas.transform.c + canvas.transform.a * (np.arange(columns.start, columns.stop) + 0.5)
    y = canvas.transform.f + canvas.transform.e * (np.arange(rows.start, rows.stop) + 0.5)
    i, j = np.floor((TILE.transform.f - y) / 10 + 1e-6), np.floor((x - TILE.transform.c) / 10 + 1e-6)
    inside = ((i >= 0) & (i < 512))[:, None] & ((j >= 0) & (j < 512))
    assert np.array_equal(taken[0], np.where(inside, i[:, None] * 512 + j, -1))


def test_png_and_page_divide_the_picture():
    for shape in ((37, 41), (5000, 300), (300, 5000), (25_600, 25_600)):
        for windows in (1, 2, 9):
            canvas = Canvas("EPSG:32631", TILE.transform, shape)._sized(windows)
            (height, width), png, page = canvas.shape, canvas.png, canvas.page
            assert 0 <= height - shape[0] < 2 * page
            assert 0 <= width - shape[1] < 2 * page
            assert page % png == height % page == width % page == 0
            assert width // png <= 2048
            assert height * width / png**2 <= 1.01 * 2048**2
            assert windows * height * width / page**2 <= 1.01 * module.PAGE_PIXELS
            if windows * height * width / page**2 > module.PAGE_PIXELS / 2:
                assert height % (2 * page) == width % (2 * page) == 0


def test_tiles_without_a_place_lie_side_by_side(tmp_path):
    shapes = [(30, 40), (5, 80), (30, 40), (7, 7)]
    tiles = tiles_of(tmp_path, *(ForeignTile(f"t{n}", shape) for n, shape in enumerate(shapes)), format="npy")
    canvas = Canvas.of(tiles, 1)
    assert canvas.crs is None
    seen = np.zeros(canvas.shape, int)
    for tile, shape in zip(tiles, shapes, strict=True):
        values = np.arange(shape[0] * shape[1]).reshape(1, *shape)
        (rows, columns), taken = canvas.take(tile.record.tile, tile.whole, values, -1)
        assert np.array_equal(taken, values)
        seen[rows, columns] += 1
    assert seen.max() == 1


@pytest.mark.parametrize("factor", [2, 3])
def test_a_coarser_grid_takes_the_pixel_at_each_centre(tmp_path, factor):
    requested = np.zeros((512, 512), bool)
    requested[: 60 * factor, : 50 * factor] = True
    canvas = Canvas.of(tiles_of(tmp_path, TILE, requested=requested), 1).coarser(factor)
    assert canvas.shape == (60, 50)
    values = np.arange(512 * 512).reshape(1, 512, 512)
    _, taken = canvas.take(TILE, (slice(0, 512), slice(0, 512)), values, -1)
    assert np.array_equal(taken, values[:, factor // 2 : 60 * factor : factor, factor // 2 : 50 * factor : factor])
