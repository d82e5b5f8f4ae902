"""Files as other tools leave them: whatever the compression and wherever the directory lies, rasterio's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window as PixelWindow

from tessera_cli.imagery.files import Files
from tessera_cli.net import Client
from tests.helpers.servers import FileServer

WINDOWS = [PixelWindow(0, 0, 900, 700), PixelWindow(100, 50, 300, 400)]


@pytest.mark.parametrize("remote", [False, True], ids=["disk", "server"])
@pytest.mark.parametrize("tiled", [False, True], ids=["strips", "tiles"])
@pytest.mark.parametrize("compress", ["none", "packbits", "lzw", "zstd", "deflate"])
def test_a_directory_at_the_end_of_the_file(tmp_path, compress, tiled, remote):
    values = np.random.default_rng(1).integers(1, 5000, (700, 900)).astype("uint16")
    path = tmp_path / "edited.tif"
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {"tiled": False}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=900,
        height=700,
        count=1,
        dtype="uint16",
        crs="EPSG:32631",
        transform=from_origin(6e5, 5.6e6, 10, 10),
        compress=compress,
        **options,
    ) as dst:
        dst.write(values, 1)
    with rasterio.open(path, "r+") as dst:  # GDAL writes a new directory behind the pixels
        dst.update_tags(EDITED="1" * 2700)
        dst.nodata = 0
    with FileServer(tmp_path) as server:
        href = f"{server.url}/edited.tif" if remote else str(path)
        for window in WINDOWS:
            (top, bottom), (left, right) = window.toranges()
            found = Files(Client()).open(href).pixels(window)
            np.testing.assert_array_equal(found, values[top:bottom, left:right])
