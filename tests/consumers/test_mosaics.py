"""Old and new GDAL, QGIS and R show the values of the tiles, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tessera_cli.extent.grid import tile_name
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tessera_cli.runs.mosaic import write_mosaics
from tests.helpers.outputs import GAP, WINDOW, arrays, encoded, identity, record, write_record

DIMS = 6
AREA = [573440 + 3000, 5621760 - 4000, 573440 + 9000, 5621760 + 4900]
"""West, south, east, north: a part of the three tiles, and of the gap between them."""
PRODUCT, CODES, SCALES = "utm31n_2023.vrt", "utm31n_2023_codes.vrt", "utm31n_2023_scales.vrt"
TYPES = {PRODUCT: np.float32, CODES: np.int16, SCALES: np.float32}
NAMES = [f"Tessera_Band_{i}" for i in range(DIMS)]


@pytest.fixture(scope="module", params=[64, 2], ids=["one file", "blocks"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder of three tiles, and what its VRTs are to hold, put together from the tiles by hand."""
    path = tmp_path_factory.mktemp("made")
    folder = TileFolder(path, identity(DIMS))
    folder.start_run("0", {"names": [tile_name(tile, WINDOW) for tile in GAP], "areas": {"32631": AREA}}, None)
    codes = np.full((DIMS, 1024, 1024), -128, np.int16)
    scales = np.full((1, 1024, 1024), np.nan, np.float32)
    for seed, tile in enumerate(GAP):
        requested = np.random.default_rng(seed).random((512, 512)) < 0.7
        requested[:300, :300] = False  # a block of the file that is not there
        assets = formats.write(path, encoded(arrays(seed, DIMS, requested), tile))
        write_record(folder, record(tile=tile, identity=folder.identity, assets=assets, requested=requested))
        x, y = (tile.column - 112) * 512, (1098 - tile.row) * 512
        for role, whole in (("emb", codes), ("scales", scales)):
            with rasterio.open(path / f"{tile_name(tile, WINDOW)}_{role}.tif") as dataset:
                whole[:, y : y + 512, x : x + 512] = dataset.read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tessera_cli.outputs.vrt.files.MAX_TILES", request.param)
        patch.setattr("tessera_cli.outputs.vrt.files.SIDE", 2)
        assert write_mosaics(folder, [WINDOW]) == (path / PRODUCT,)
    frame = slice(None), slice(22, 912), slice(300, 900)
    codes, scales = codes[frame], scales[frame]
    return path, {PRODUCT: codes.astype(np.float32) * scales, CODES: codes, SCALES: scales}


def same(file: Path, expected: np.ndarray, dtype: Any) -> None:
    """Compare bit by bit, but for the kind of NaN, after rounding to the type of `expected`."""
    with np.errstate(invalid="ignore"):  # of NA of R
        found = np.fromfile(file, dtype).reshape(expected.shape).astype(expected.dtype)
    np.testing.assert_array_equal(found, expected)
    if expected.dtype.kind == "f":
        assert (np.signbit(found) == np.signbit(expected))[~np.isnan(expected)].all()  # zeros too


RASTERIO = """
import json, sys, rasterio
with rasterio.open(sys.argv[1]) as dataset:
    dataset.read().tofile(sys.argv[2])
    print(json.dumps([dataset.crs.to_epsg(), dataset.bounds, dataset.descriptions, dataset.dtypes[0],
                      str(dataset.nodata), rasterio.__gdal_version__]))
"""
GDAL = """
import json, sys
from osgeo import gdal
gdal.UseExceptions()
dataset = gdal.Open(sys.argv[1])
dataset.ReadAsArray().tofile(sys.argv[2])
band, (west, width, _, north, _, height) = dataset.GetRasterBand(1), dataset.GetGeoTransform()
bounds = [west, north + height * dataset.RasterYSize, west + width * dataset.RasterXSize, north]
names = [dataset.GetRasterBand(i + 1).GetDescription() for i in range(dataset.RasterCount)]
dtype = gdal.GetDataTypeName(band.DataType).lower()
epsg = int(dataset.GetSpatialRef().GetAuthorityCode(None))
print(json.dumps([epsg, bounds, names, dtype, str(band.GetNoDataValue()), gdal.__version__]))
"""
PYTHONS = {
    "rasterio-1_3_9": (RASTERIO, "3.6."),
    "rasterio-1_3_11": (RASTERIO, "3.9."),
    "rasterio-1_4": (RASTERIO, "3.10."),
    "rasterio-1_5": (RASTERIO, "3.12."),
    "gdal": (GDAL, "3.6.2"),
}


@pytest.mark.parametrize("vrt", [PRODUCT, CODES, SCALES])
@pytest.mark.parametrize("name", list(PYTHONS))
def test_gdal(made: Any, consumer: Any, tmp_path: Path, name: str, vrt: str) -> None:
    folder, expected = made
    code, version = PYTHONS[name]
    epsg, bounds, names, dtype, nodata, gdal = consumer(name, code, folder / vrt, tmp_path / "found")
    assert (epsg, bounds) == (32631, AREA)
    assert names == (["scale"] if vrt == SCALES else NAMES)
    assert (dtype, nodata) == (np.dtype(TYPES[vrt]).name, "-128.0" if vrt == CODES else "nan")
    assert gdal.startswith(version)
    same(tmp_path / "found", expected[vrt], TYPES[vrt])


TERRA = """
args <- commandArgs(trailingOnly = TRUE)
r <- terra::rast(args[1])
writeBin(as.vector(terra::values(r)), args[2], size = 8)
e <- as.vector(terra::ext(r))
cat(jsonlite::toJSON(list(epsg = terra::crs(r, describe = TRUE)$code, ext = unname(e), names = names(r)),
                     auto_unbox = TRUE, digits = NA))
"""
STARS = """
args <- commandArgs(trailingOnly = TRUE)
r <- stars::read_stars(args[1], proxy = FALSE)
writeBin(as.vector(r[[1]]), args[2], size = 8)
e <- sf::st_bbox(r)
cat(jsonlite::toJSON(list(epsg = sf::st_crs(r)$epsg, ext = unname(e[c(1, 3, 2, 4)]),
                          names = stars::st_get_dimension_values(r, "band")), auto_unbox = TRUE, digits = NA))
"""


@pytest.mark.parametrize("vrt", [PRODUCT, CODES])
@pytest.mark.parametrize("code", [TERRA, STARS], ids=["terra", "stars"])
def test_r(made: Any, consumer: Any, tmp_path: Path, code: str, vrt: str) -> None:
    """R asks for doubles: GDAL does not round the products then, and its NA is a NaN."""
    folder, expected = made
    west, south, east, north = AREA
    told = consumer("r", code, folder / vrt, tmp_path / "found")
    assert (int(told["epsg"]), told["ext"], told["names"]) == (32631, [west, east, south, north], NAMES)
    values = np.where(expected[vrt] == -128, np.nan, expected[vrt]) if vrt == CODES else expected[vrt]
    same(tmp_path / "found", values.astype(np.float32), np.float64)


QGIS = """
import json, sys
from qgis.core import (QgsApplication, QgsMapRendererSequentialJob, QgsMapSettings, QgsPointXY, QgsRaster,
                       QgsRasterLayer)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "embeddings")
assert layer.isValid()
provider = layer.dataProvider()
with open(sys.argv[2], "wb") as file:
    for band in range(1, layer.bandCount() + 1):
        block = provider.block(band, layer.extent(), layer.width(), layer.height())
        file.write(bytes(block.data()))
found = provider.identify(QgsPointXY(*json.loads(sys.argv[4])), QgsRaster.IdentifyFormatValue).results()
settings = QgsMapSettings()
settings.setLayers([layer])
settings.setExtent(layer.extent())
settings.setOutputSize(QSize(layer.width(), layer.height()))
settings.setDestinationCrs(layer.crs())
settings.setBackgroundColor(QColor(255, 255, 255))
job = QgsMapRendererSequentialJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(sys.argv[3])
print(json.dumps([layer.crs().authid(), [layer.bandName(i + 1) for i in range(layer.bandCount())],
                  [found[i + 1] for i in range(layer.bandCount())]]))
"""


def test_qgis(made: Any, consumer: Any, tmp_path: Path) -> None:
    """Values as blocks and at a point; and a picture, with the background where there is no embedding."""
    folder, expected = made
    values = expected[PRODUCT]
    row, column = np.argwhere(~np.isnan(values[0]))[1000]
    point = [AREA[0] + 10 * column + 5, AREA[3] - 10 * row - 5]
    crs, names, there = consumer(
        "qgis", QGIS, folder / PRODUCT, tmp_path / "found", tmp_path / "drawn.png", [float(each) for each in point]
    )
    assert crs == "EPSG:32631"
    assert [name.split(": ")[1] for name in names] == NAMES
    np.testing.assert_array_equal(np.float32(there), values[:, row, column])
    same(tmp_path / "found", values, np.float32)
    with rasterio.open(tmp_path / "drawn.png") as dataset:
        drawn = dataset.read([1, 2, 3])
    gaps = np.isnan(values[:3]).any(axis=0)
    assert (drawn[:, gaps] == 255).all()
    assert len(np.unique(drawn[:, ~gaps].reshape(3, -1).T, axis=0)) > 10_000
