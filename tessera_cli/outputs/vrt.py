"""One virtual raster per zone and window: codes x scales as float32, clipped to the AOI, for QGIS and rasterio.

A band is the product (`mul`, compiled into GDAL >= 3.7) of two mosaics, one of codes and one of scales. `mul` takes
all its sources at every pixel, so the tiles must be put together before: each mosaic is a VRT of its own, written
inside the source's file name. GDAL resolves the names in it against the folder of the outer file, so the folder may
move. Two things carry the gaps: the mosaics' nodata, and `propagateNoData`, without which GDAL >= 3.12 would leave
nodata factors out of the product (older versions ignore the argument, and NaN times anything is NaN).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from tessera_cli.grid import RESOLUTION, TILE_SIZE, Tile
from tessera_cli.outputs.geotiff import BLOCK
from tessera_cli.outputs.layers import EMB, SCALES, Layer, raster_name
from tessera_cli.outputs.tags import window_tags
from tessera_cli.window import Window

Bounds = tuple[float, float, float, float]


def embedding_vrt(tiles: Sequence[Tile], window: Window, *, dims: int, tags: Mapping[str, str], bounds: Bounds) -> str:
    """The XML of the virtual raster of `tiles`, all of one zone and with rasters in the VRT's own folder.

    `bounds` are west, south, east, north of the AOI in metres, widened here to whole pixels. `tags` are the model's.
    """
    if len({tile.epsg for tile in tiles}) != 1:
        raise ValueError("a VRT takes the tiles of one zone, and at least one")
    west, south, east, north = bounds
    left, top = math.floor(_pixels(west)), math.ceil(_pixels(north))
    width, height = math.ceil(_pixels(east)) - left, top - math.floor(_pixels(south))
    extent = f'rasterXSize="{width}" rasterYSize="{height}"'
    whole = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'

    def factor(layer: Layer, band: int) -> str:
        sources = "".join(_source(tile, window, layer, band, left, top, width, height) for tile in tiles)
        mosaic = (
            f'<VRTDataset {extent}><VRTRasterBand dataType="{_gdal_type(layer)}" band="1">'
            f"<NoDataValue>{layer.nodata:g}</NoDataValue>{sources}</VRTRasterBand></VRTDataset>"
        )
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="0"><![CDATA[{mosaic}]]></SourceFilename>'
            f"<SourceBand>1</SourceBand>"
            f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="{_gdal_type(layer)}" '
            f'BlockXSize="128" BlockYSize="128"/>'
            f"<SrcRect {whole}/><DstRect {whole}/></SimpleSource>\n"
        )

    scale = factor(SCALES, 1)
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{band}" subClass="VRTDerivedRasterBand">\n'
        f"<Description>{escape(name)}</Description><NoDataValue>nan</NoDataValue>"
        f'<PixelFunctionType>mul</PixelFunctionType><PixelFunctionArguments propagateNoData="true"/>'
        f"<SourceTransferType>Float32</SourceTransferType>\n"
        f"{factor(EMB, band)}{scale}</VRTRasterBand>\n"
        for band, name in enumerate(EMB.bands(dims), start=1)
    )
    metadata = {**tags, **window_tags(window), "AREA_OR_POINT": "Area"}
    geotransform = f"{left * RESOLUTION}, {RESOLUTION}, 0, {top * RESOLUTION}, 0, -{RESOLUTION}"
    return (
        f"<VRTDataset {extent}>\n"
        f'<SRS dataAxisToSRSAxisMapping="1,2">{tiles[0].crs}</SRS>\n<GeoTransform>{geotransform}</GeoTransform>\n'
        f"<Metadata>{''.join(_tag(*tag) for tag in metadata.items())}</Metadata>\n{bands}</VRTDataset>\n"
    )


def _source(tile: Tile, window: Window, layer: Layer, band: int, left: int, top: int, width: int, height: int) -> str:
    """The part of a tile's raster within the frame (pixels from the zone's origin), or nothing."""
    x, y = tile.column * TILE_SIZE - left, top - (tile.row + 1) * TILE_SIZE  # of the tile's corner in the frame
    x0, x1 = max(x, 0), min(x + TILE_SIZE, width)
    y0, y1 = max(y, 0), min(y + TILE_SIZE, height)
    if x0 >= x1 or y0 >= y1:
        return ""
    size = f'xSize="{x1 - x0}" ySize="{y1 - y0}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="1">{raster_name(tile, window, layer.role)}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SourceProperties RasterXSize="{TILE_SIZE}" RasterYSize="{TILE_SIZE}" DataType="{_gdal_type(layer)}" '
        f'BlockXSize="{BLOCK}" BlockYSize="{BLOCK}"/>'
        f'<SrcRect xOff="{x0 - x}" yOff="{y0 - y}" {size}/><DstRect xOff="{x0}" yOff="{y0}" {size}/></SimpleSource>'
    )


def _tag(key: str, value: str) -> str:
    return f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>"


def _gdal_type(layer: Layer) -> str:
    return layer.dtype.capitalize()  # Int8, Float32


def _pixels(metres: float) -> float:
    return round(metres / RESOLUTION, 6)  # 1e-5 m: no pixel for float noise
