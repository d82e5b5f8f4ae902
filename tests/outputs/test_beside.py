"""What viewers leave beside rasters goes when these are replaced, and does not count when they are read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from tessera_cli.outputs import formats
from tests.helpers.outputs import NAME, arrays, encoded

ENDINGS = (".ovr", ".aux.xml", ".msk")


def view(raster: Path) -> None:
    """Leave what QGIS does: pyramids and statistics."""
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(raster, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    raster.with_name(raster.name + ".aux.xml").write_text("<PAMDataset/>")
    assert raster.with_name(raster.name + ".ovr").exists()


def smaller(raster: Path) -> np.ndarray:
    """What viewers show of a raster from afar, which GDAL takes from its pyramids."""
    with rasterio.open(raster) as dataset:
        return np.asarray(dataset.read(1, out_shape=(dataset.height // 4, dataset.width // 4)))


def test_pyramids_go_with_the_raster_that_they_show(tmp_path: Path) -> None:
    raster = tmp_path / f"{NAME}_emb.tif"
    formats.write(tmp_path, encoded(arrays(0, 5)))
    view(raster)
    before = smaller(raster)
    formats.write(tmp_path, encoded(arrays(1, 5)))
    assert not list(tmp_path.glob("*.ovr"))
    assert not list(tmp_path.glob("*.aux.xml"))
    assert not np.array_equal(smaller(raster), before)


def test_what_lies_beside_other_files_stays(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (f"{NAME}_emb.tif.txt", "mine.tif.ovr", f"{NAME}_emb.qmd")]
    for path in kept:
        path.touch()
    formats.write(tmp_path, encoded(arrays(0, 5)))
    assert all(path.exists() for path in kept)


def test_what_is_removed_takes_all_along(tmp_path: Path) -> None:
    formats.write(tmp_path, encoded(arrays(0, 5)))
    for file in list(tmp_path.iterdir()):
        for ending in ENDINGS:
            file.with_name(file.name + ending).touch()
    formats.remove(tmp_path, NAME)
    assert not list(tmp_path.iterdir())


def test_rasters_are_judged_by_their_own_bytes(tmp_path: Path) -> None:
    """Statistics may hold a nodata value or a place that goes before the raster's."""
    tile = encoded(arrays(0, 5))
    assets = formats.write(tmp_path, tile)
    (tmp_path / f"{NAME}_emb.tif.aux.xml").write_text(
        "<PAMDataset><GeoTransform>0, 1, 0, 0, 0, -1</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    formats.read_back(tmp_path, replace(tile.record, assets=assets, pixels=int(tile.pixels.sum())))
