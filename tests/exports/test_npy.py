"""Target npy: arrays per zone and window, and the raster that places them."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

import tessera_cli
from tests.exports.folders import EAST, WEST, by_hand, put


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_arrays_and_their_place(tmp_path, dtype):
    put(tmp_path / "f", WEST)
    put(tmp_path / "f", EAST, seed=1)
    made = tessera_cli.export(tmp_path / "f", to="npy", out=tmp_path / "a", dtype=dtype)
    names = ["utm31n_2023.npy", "utm31n_2023_scales.npy", "utm31n_2023_roi.tiff"]
    assert [path.name for path in made.files] == [name for name in names if dtype == "int8" or "scales" not in name]
    codes, scales = (
        np.concatenate(pair, -1)[..., 100:300, 30:1012]
        for pair in zip(by_hand(tmp_path / "f", WEST), by_hand(tmp_path / "f", EAST), strict=True)
    )
    got = np.load(made.files[0])
    assert (got.shape, got.dtype) == ((200, 982, 4), dtype)
    if dtype == "int8":
        assert np.array_equal(np.load(made.files[1]), scales, equal_nan=True)
        assert np.array_equal(got, np.moveaxis(np.where(np.isnan(scales), 0, codes), 0, -1))
    else:
        assert np.array_equal(got, np.moveaxis(codes.astype(np.float32) * scales, 0, -1), equal_nan=True)
    with rasterio.open(made.files[-1]) as src:
        assert np.array_equal(src.read(1), np.isfinite(scales))
        assert src.crs.to_epsg() == 32631
        assert src.transform * (0, 0) == (WEST.bounds[0] + 300, WEST.bounds[3] - 1000)
