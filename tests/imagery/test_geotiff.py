"""Files as other tools leave them: whatever the compression and wherever the directory lies, rasterio's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window as PixelWindow

from tessera_cli.imagery.files import Files
from tessera_cli.imagery.header import BrokenError
from tessera_cli.net import Client
from tests.helpers.servers import FileServer, always, never, untold

WINDOWS = [PixelWindow(0, 0, 900, 700), PixelWindow(100, 50, 300, 400)]


def write(path, values, compress, tiled):
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


@pytest.mark.parametrize("place", ["disk", "server", "server that tells no size"])
@pytest.mark.parametrize("tiled", [False, True], ids=["strips", "tiles"])
@pytest.mark.parametrize("compress", ["none", "packbits", "lzw", "zstd", "deflate"])
def test_a_directory_at_the_end_of_the_file(tmp_path, compress, tiled, place):
    values = np.random.default_rng(1).integers(1, 5000, (700, 900)).astype("uint16")
    path = tmp_path / "edited.tif"
    write(path, values, compress, tiled)
    with rasterio.open(path, "r+") as dst:  # GDAL writes a new directory behind the pixels
        dst.update_tags(EDITED="1" * 2700)
        dst.nodata = 0
    with FileServer(tmp_path, faults=always(untold) if "no size" in place else never) as server:
        href = str(path) if place == "disk" else f"{server.url}/edited.tif"
        for window in WINDOWS:
            (top, bottom), (left, right) = window.toranges()
            found = Files(Client()).open(href).pixels(window)
            np.testing.assert_array_equal(found, values[top:bottom, left:right])


@pytest.mark.parametrize("kept", [200, 20_000, 100_000], ids=["of the header", "of the first blocks", "of many blocks"])
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate"])
def test_a_cut_file_of_unknown_size_is_broken(tmp_path, compress, kept):
    """No zeros in place of what lies behind its end."""
    values = np.random.default_rng(1).integers(1, 5000, (700, 900)).astype("uint16")
    path = tmp_path / "cut.tif"
    write(path, values, compress, tiled=True)
    path.write_bytes(path.read_bytes()[:kept])
    with FileServer(tmp_path, faults=always(untold)) as server, pytest.raises(BrokenError):
        Files(Client()).open(f"{server.url}/cut.tif").pixels(WINDOWS[0])
