"""Older and newer GDAL, as the wheels of rasterio carry them."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["rasterio-1_3"])
def test_a_tile_is_read(name, consumer):
    assert consumer(name, "import json, rasterio; print(json.dumps(rasterio.__gdal_version__))") >= "3.6"
