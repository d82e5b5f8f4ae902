"""Patches of any raster against SciPy's components, in strips and where there is nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage

from tessera_cli.embeddings.grid import Grid
from tessera_cli.exports.patches import Patches


def found(values: np.ndarray, bands: np.ndarray, scratch: Path, least: int = 1) -> Patches:
    grid = Grid("EPSG:32633", Affine(10, 0, 500000, 0, -10, 5600000), values.shape)
    return Patches.of(
        grid, lambda box: values[box], lambda box: bands[:, *box], len(bands), scratch=scratch, least=least
    )


@pytest.mark.parametrize("seed", range(4))
def test_they_are_components_of_a_raster(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    shape = (700, 1100)  # four boxes
    mask = ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0.09
    bands = rng.normal(size=(3, *shape)).astype(np.float32)
    bands[1, rng.random(shape) < 0.3] = np.nan
    bands[2] = np.nan
    numbers, _ = ndimage.label(mask)
    patches = found(mask, bands, tmp_path / "mask.tif", 5)
    assert not (tmp_path / "mask.tif").exists()
    sizes = np.bincount(numbers.ravel())
    assert sorted(patches.pixels.tolist()) == sorted(sizes[1:][sizes[1:] >= 5].tolist())
    place = rasterize(
        [(outline, number + 1) for number, outline in enumerate(patches.outlines)],
        shape,
        transform=patches.grid.transform,
        dtype=np.int32,
    )
    at = np.arange(1, len(patches) + 1)
    assert ((place > 0) == (mask & (sizes[numbers] >= 5))).all()
    for band in (0, 1):
        there = np.where(np.isnan(bands[band]), 0, place)
        known = np.isin(at, there)
        np.testing.assert_allclose(patches.means[known, band], ndimage.mean(bands[band], there, at[known]), rtol=1e-5)
        np.testing.assert_array_equal(patches.most[known, band], ndimage.maximum(bands[band], there, at[known]))
        assert np.isnan(patches.means[~known, band]).all()
    assert np.isnan(patches.means[:, 2]).all()
    assert np.isnan(patches.most[:, 2]).all()


def test_nothing_is_a_table_without_rows(tmp_path: Path) -> None:
    patches = found(np.zeros((20, 30), bool), np.zeros((1, 20, 30)), tmp_path / "mask.tif")
    patches.write(tmp_path / "p.gpkg", {"score": np.empty(0)})
    assert pyogrio.read_info(tmp_path / "p.gpkg")["features"] == 0


def test_holes_and_corners(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), bool)
    mask[1:6, 1:6], mask[3, 3], mask[6, 6] = True, False, True  # a ring, and a pixel that touches its corner
    patches = found(mask, mask[None].astype(float), tmp_path / "mask.tif")
    assert sorted(patches.pixels.tolist()) == [1, 24]
    (ring,) = (each for each, count in zip(patches.outlines, patches.pixels, strict=True) if count == 24)
    assert len(ring.interiors) == 1
    patches.write(tmp_path / "p.gpkg", {"name": np.array(["a", "b"], object)})
    _, _, wkb, columns = pyogrio.raw.read(tmp_path / "p.gpkg")
    assert shapely.equals(shapely.from_wkb(wkb), patches.outlines).all()
    assert columns[-1].tolist() == ["a", "b"]


def test_a_ragged_patch_over_many_boxes_takes_seconds(tmp_path: Path) -> None:
    """One that percolates: its outline has hundreds of thousands of corners, few of them in one box."""
    rng = np.random.default_rng(1)
    mask = ndimage.gaussian_filter(rng.normal(size=(1200, 1200)), 1) > -0.11
    began = time.process_time()
    patches = found(mask, mask[None].astype(np.float32), tmp_path / "mask.tif", 4)
    assert time.process_time() - began < 60  # and six times as long if each box went through all of it
    assert patches.pixels.max() > 0.5 * mask.size
    np.testing.assert_allclose(patches.means, 1)
