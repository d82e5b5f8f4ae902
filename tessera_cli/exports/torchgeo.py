"""Target `torchgeo`: `grid_LON_LAT_YEAR.tiff` of float32, which TorchGeo's TesseraEmbeddings and geotessera read."""

from __future__ import annotations

from collections.abc import Iterator

from tessera_cli.errors import UsageError
from tessera_cli.exports.cells import cells, check_years
from tessera_cli.exports.cog import raster_part
from tessera_cli.exports.part import Part
from tessera_cli.exports.request import ExportRequest

BANDS = 128


def parts(request: ExportRequest) -> Iterator[Part]:
    """Yield one raster per cell and year; windows that are no years, or fewer bands than 128, are a UsageError."""
    check_years(request.mosaics, "torchgeo")
    if request.dims != BANDS:
        raise UsageError(
            f"TorchGeo's TesseraEmbeddings reads {BANDS} bands, and these embeddings have {request.dims}. Use --to cog "
            "and its RasterDataset."
        )
    for cell in cells(request.mosaics):
        tags = {"TESSERA_TILE_LON": f"{cell.lon:.2f}", "TESSERA_TILE_LAT": f"{cell.lat:.2f}"}
        for mosaic in cell.mosaics:
            name = f"{cell.name}_{mosaic.window_name}.tiff"
            yield raster_part(request, name, cell.grid, mosaic, cell.grid.pixels, mosaic=mosaic, **tags)
