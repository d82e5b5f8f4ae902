"""The virtual raster that multiplies a mosaic of codes and one of scales on the fly.

`mul`, a pixel function that every GDAL has, takes all its sources at every pixel, so the tiles must be put together
before. The gaps are in the scales: NaN times anything is NaN. GDAL >= 3.12 would leave nodata factors out of the
product but for `propagateNoData`, which older versions ignore.
"""

from __future__ import annotations

from tessera_cli.outputs.layers import VALUES
from tessera_cli.outputs.vrt.frame import Frame
from tessera_cli.outputs.vrt.mosaic import Source, band_head

_DERIVED = ' subClass="VRTDerivedRasterBand"'
_MUL = (
    '<PixelFunctionType>mul</PixelFunctionType><PixelFunctionArguments propagateNoData="true"/>'
    "<SourceTransferType>Float32</SourceTransferType>"
)


def product_bands(dims: int, frame: Frame, codes: Source, scales: Source) -> str:
    """Return the XML of `dims` bands: each that of the codes times the scales."""
    return "\n".join(
        f"{band_head(VALUES, name, band, _DERIVED)}{_MUL}"
        f"{codes.shown(frame, band)}{scales.shown(frame, 1)}</VRTRasterBand>"
        for band, name in enumerate(VALUES.bands(dims), start=1)
    )
