"""Rasters on this machine: what is opened, and that nothing is opened along with it."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.vrt
from rasterio.errors import RasterioIOError
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.raster import is_tiff, open_raster
from tessera_cli.extent.tiling import _read_mask
from tests.helpers.listener import Listener

TILE = Tile(32631, 97, 1103)
VALUES = np.arange(64, dtype=np.uint8).reshape(8, 8)
PLACE = {"crs": "EPSG:32631", "transform": from_origin(TILE.bounds[0], TILE.bounds[3], 10, 10)}


def raster(driver, **more):
    with MemoryFile(ext=".tif" if driver == "GTiff" else ".jp2") as memory:
        with memory.open(driver=driver, width=8, height=8, count=1, dtype="uint8", **PLACE, **more) as file:
            file.write(VALUES, 1)
        return bytes(memory.getbuffer())


@pytest.mark.parametrize(
    ("driver", "more"),
    [("GTiff", {}), ("GTiff", {"BIGTIFF": "YES"}), ("GTiff", {"ENDIANNESS": "BIG"}), ("JP2OpenJPEG", {"QUALITY": 100})],
)
def test_formats_that_stand_for_themselves(tmp_path, driver, more):
    path = tmp_path / "x.dat"
    path.write_bytes(raster(driver, **more))
    assert is_tiff(path) == (driver == "GTiff")
    with open_raster(path) as file:
        assert file.crs == rasterio.CRS.from_epsg(32631)
        assert file.transform == PLACE["transform"]
        assert driver != "GTiff" or (file.read(1) == VALUES).all()


def vrt(url):
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32631</SRS><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">/vsicurl/{url}/x.tif</SourceFilename><SourceBand>1'
        "</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


def wms(url):
    return f"<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/${{z}}.png</ServerUrl></Service></GDAL_WMS>".encode()


@pytest.mark.parametrize("make", [vrt, wms, lambda url: b"", lambda url: b"P5 8 8 255\n" + bytes(64)])
def test_whatever_else_is_refused(tmp_path, make):
    with Listener() as listener:
        path = tmp_path / "roi.tiff"
        path.write_bytes(make(listener.url))
        assert not is_tiff(path)
        with pytest.raises(RasterioIOError, match="it is no GeoTIFF"), open_raster(path):
            pass
        with pytest.raises(UsageError, match=r"--mask .*roi.tiff cannot be read: it is no GeoTIFF"):
            _read_mask(path, TILE)
    assert listener.connections == 0


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path, made):
    made(tmp_path / "x.tif")
    with pytest.raises(OSError, match=r"pipe|folder"), open_raster(tmp_path / "x.tif"):
        pass


@pytest.mark.parametrize("where", ["/vsicurl/{}/o.tif", "{}/o.tif"])
def test_overviews_elsewhere_are_not_looked_for(tmp_path, where):
    """A GeoTIFF, or what lies beside it, may name them anywhere."""
    path = tmp_path / "x.tif"
    path.write_bytes(raster("GTiff"))
    with Listener() as listener:
        elsewhere = where.format(listener.url)
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=elsewhere)
        path.with_name("x.tif.aux.xml").write_text(
            f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{elsewhere}</MDI></Metadata>'
            "</PAMDataset>"
        )
        assert _read_mask(path, TILE)[:8, :8].sum() == 63
        with open_raster(path) as file:
            assert (file.read(1, masked=True) == VALUES).all()
    assert listener.connections == 0


def test_a_mask_wants_a_place(tmp_path):
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8", crs="EPSG:32631"):
        pass
    with pytest.raises(UsageError, match="has no georeference"):
        _read_mask(path, TILE)
