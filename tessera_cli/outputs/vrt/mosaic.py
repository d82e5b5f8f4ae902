"""A virtual raster of rasters side by side.

GDAL reads int8 since 3.7. Older versions take the bytes for unsigned, so codes pass through a table that maps both
readings to the codes, as Int16. Between its entries it is interpolated, which is exact for whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tessera_cli.outputs.geotiff import BLOCK
from tessera_cli.outputs.layers import VALUES, Layer
from tessera_cli.outputs.vrt.frame import Frame

LUT = "<LUT>-128:-128,127:127,128:-128,255:-1</LUT>"
VRT_BLOCK = 128
"""Side of the blocks in which GDAL reads a VRT."""


@dataclass(frozen=True)
class Source:
    """A raster of a layer that lies beside the VRT: a tile's, or another VRT."""

    file: str
    frame: Frame
    layer: Layer
    is_vrt: bool = False

    def shown(self, within: Frame, band: int) -> str:
        """Return the XML of one of its bands in a VRT of the box `within`; nothing if it lies outside.

        Codes and scales are not averaged when a VRT is read at a lower resolution: the product of two averages is no
        embedding.
        """
        before, after = self.around_band(within)
        return f"{before}{band}{after}" if before else ""

    def around_band(self, within: Frame) -> tuple[str, str]:
        """Return what `shown` gives before and after the number of a band, the same for all; nothing if outside."""
        if not (rectangles := within.rectangles(self.frame)):
            return "", ""
        dtype, block = (vrt_dtype(self.layer), VRT_BLOCK) if self.is_vrt else (_gdal_dtype(self.layer), BLOCK)
        table = LUT if dtype == "Int8" else ""
        kind = "ComplexSource" if table else "SimpleSource"
        nearest = "" if self.layer is VALUES else ' resampling="near"'
        return (
            f'<{kind}{nearest}><SourceFilename relativeToVRT="1">{self.file}</SourceFilename><SourceBand>',
            f'</SourceBand><SourceProperties RasterXSize="{self.frame.width}" RasterYSize="{self.frame.height}" '
            f'DataType="{dtype}" BlockXSize="{block}" BlockYSize="{block}"/>{rectangles}{table}</{kind}>',
        )


def vrt_dtype(layer: Layer) -> str:
    """Return the type of a layer in a VRT, as GDAL calls it."""
    return {"Int8": "Int16"}.get(_gdal_dtype(layer), _gdal_dtype(layer))


def _gdal_dtype(layer: Layer) -> str:
    """Return the type of a layer in its file. GDAL < 3.7 knows no Int8: it finds out when it reads the first pixel."""
    return layer.dtype.capitalize()


def mosaic_bands(layer: Layer, dims: int, frame: Frame, sources: Sequence[Source]) -> str:
    """Return the XML of the bands of `layer`, for embeddings of `dims` values: in each, that band of all sources."""
    around = [each for source in sources if (each := source.around_band(frame))[0]]
    return "\n".join(
        f"{band_head(layer, name, band)}{''.join(f'{a}{band}{z}' for a, z in around)}</VRTRasterBand>"
        for band, name in enumerate(layer.bands(dims), start=1)
    )


def band_head(layer: Layer, name: str, band: int, more: str = "") -> str:
    """Return the XML that a band begins with."""
    return (
        f'<VRTRasterBand dataType="{vrt_dtype(layer)}" band="{band}"{more}><Description>{escape(name)}</Description>'
        f"<NoDataValue>{layer.nodata:g}</NoDataValue>"
    )
