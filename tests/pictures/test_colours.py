"""Colours of embeddings, against numpy's SVD and landscapes whose components are known."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.extent.grid import Tile
from tessera_cli.pictures import colours as module
from tessera_cli.pictures.colours import Colours, blocks, sample_pixels
from tests.helpers.landscapes import YEARS, axes, put
from tests.helpers.outputs import PLACED, values

WEST, EAST = Tile(32631, 112, 1098), Tile(32631, 113, 1098)


def test_components_are_those_of_numpy_s_svd():
    rng = np.random.default_rng(0)
    sample = (rng.normal(size=(3000, 20)) * np.linspace(3, 0.5, 20) + rng.normal(size=20)).astype(np.float32)
    found = Colours.of(sample)
    centred = sample.astype(np.float64) - sample.mean(axis=0, dtype=np.float64)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(np.abs((found.axes * right[:3]).sum(axis=1)) - 1).max() < 1e-9
    assert found.explained == pytest.approx(singular[:3] ** 2 / (singular**2).sum(), abs=1e-12)
    scores = sample @ found.axes.T
    assert np.allclose((found.low, found.high), np.percentile(scores, (2, 98), axis=0))


def test_two_planted_components_are_found_in_closed_form():
    """x = 3 a u + b v with independent a and b of variance 1: axes u and v, shares 9/10 and 1/10."""
    u, v, _ = axes(6)
    a, b = (each.ravel() for each in np.meshgrid([-1.0, 1.0] * 50, [-1.0, 1.0] * 50))
    found = Colours.of(3 * a[:, None] * u + b[:, None] * v + 5)
    assert np.abs(found.axes[0] @ u) == pytest.approx(1)
    assert np.abs(found.axes[1] @ v) == pytest.approx(1)
    assert found.explained == pytest.approx((0.9, 0.1, 0), abs=1e-12)


def test_the_sign_of_an_axis_does_not_hang_on_the_solver():
    sample = np.random.default_rng(1).normal(size=(500, 8)) * np.arange(8, 0, -1)
    for found in (Colours.of(sample), Colours.of(-sample), Colours.of(sample[::-1])):
        assert (np.take_along_axis(found.axes, np.abs(found.axes).argmax(axis=1)[:, None], 1) > 0).all()
    assert np.allclose(Colours.of(sample).axes, Colours.of(-sample).axes)


def test_scores_become_1_to_255_and_nothing_becomes_0():
    found = Colours(np.eye(3, 4), np.array([0.0, -1, 10]), np.array([1.0, 1, 20]), (0.5, 0.3, 0.1))
    stored = np.zeros((4, 1, 5), np.float32)
    stored[0, 0] = [-9, 0, 0.5, 1, 9]
    stored[2, 0] = 15
    assert found.paint(stored).tolist() == [[[1, 1, 128, 255, 255]], [[128] * 5], [[128] * 5]]
    stored[3, 0, 1] = np.nan  # of a dimension that no colour shows
    stored[1, 0, 4] = np.nan
    assert found.paint(stored)[:, 0, 4].tolist() == [0, 0, 0]
    codes, scales = np.full((4, 2, 2), 2, np.int8), np.array([[0.25, np.nan], [0.5, 0.0]], np.float32)
    assert found.paint(codes, scales)[0].tolist() == [[128, 0], [255, 1]]


def test_few_dimensions_and_no_variance():
    one = Colours.of(np.arange(100.0)[:, None])
    assert one.explained == (1.0,)
    painted = one.paint(np.array([[[0.0, 50, 99]]], np.float32))
    assert painted[0].tolist() == [[1, 129, 255]]
    assert painted[1:].tolist() == [[[128] * 3]] * 2
    same = Colours.of(np.ones((10, 5)))
    assert same.explained == (0, 0, 0)
    assert (same.paint(np.ones((5, 2, 2), np.float32)) == 128).all()


@pytest.mark.parametrize("format", ["geotiff", "npy"])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_the_sample_holds_embeddings_of_all_tiles_and_nothing_else(tmp_path, format, dtype):
    few, many = np.zeros((2, 512, 512), bool)
    few[5:20, 100:400] = many[300:400, 100:400] = True
    arrays = [put(tmp_path, EAST, requested=few, dtype=dtype, format=format)]
    arrays += [put(tmp_path, WEST, window, requested=many, dtype=dtype, format=format) for window in YEARS]
    tiles = EmbeddingFolder.open(tmp_path).tiles
    sample = sample_pixels(tiles, 2000)
    assert np.isfinite(sample).all()
    due = {value.tobytes() for made in arrays for value in values(made)[:, made["requested"]].T}
    assert all(value.tobytes() in due for value in sample)
    share = 2000 / 64_500
    assert len(sample) == sum(round(share * n) for n in (30_000, 30_000, 4500))
    assert np.array_equal(sample, sample_pixels(tiles, 2000))
    assert not np.array_equal(sample, sample_pixels(tiles, 2000, seed=1))


def test_all_pixels_are_taken_where_there_are_few(tmp_path):
    arrays = put(tmp_path, PLACED)
    sample = sample_pixels(EmbeddingFolder.open(tmp_path).tiles, 10**6)
    assert np.array_equal(sample, values(arrays).reshape(8, -1).T)


def test_a_pixel_is_drawn_from_a_few_tiles_of_very_many(tmp_path, monkeypatch):
    for column in range(5):
        put(tmp_path, Tile(32631, column, 1100), dims=3)
    tiles, read = EmbeddingFolder.open(tmp_path).tiles, []
    monkeypatch.setattr(module, "MOST_TILES", 2)
    monkeypatch.setattr(module, "_of_tile", lambda tile, *_: read.append(tile) or np.zeros((1, 3), np.float32))
    sample_pixels(tiles)
    assert len(read) == 2


def test_blocks_cover_a_tile_and_are_small(tmp_path, monkeypatch):
    put(tmp_path, WEST)
    (tile,) = EmbeddingFolder.open(tmp_path).tiles
    for most, rows in ((1 << 24, 512), (8 * 512 * 300, 256), (8 * 512 * 10, 10), (1, 1)):
        monkeypatch.setattr(module, "BLOCK", most)
        boxes = list(blocks(tile))
        assert [box[0].start for box in boxes] == list(range(0, 512, rows))
        assert boxes[-1][0].stop == 512
