"""One virtual raster per zone and window: the embeddings as float32, clipped to the AOI, for QGIS and rasterio.

Of float32 rasters it is a plain mosaic. Of codes and scales, a band is the product (`mul`, compiled into GDAL >= 3.7)
of two mosaics, one of codes and one of scales. `mul` takes all its sources at every pixel, so the tiles must be put
together before: each mosaic is a VRT of its own, written inside the source's file name. GDAL resolves the names in it
against the folder of the outer file, so the folder may move. Two things carry the gaps: the mosaics' nodata, and
`propagateNoData`, without which GDAL >= 3.12 would leave nodata factors out of the product (older versions ignore the
argument, and NaN times anything is NaN).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from affine import Affine

from tessera_cli.extent.grid import RESOLUTION, TILE_SIZE, Tile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs.geotiff import BLOCK
from tessera_cli.outputs.layers import CODES, SCALES, VALUES, Dtype, Layer, file_name
from tessera_cli.outputs.tags import window_tags

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Mosaic:
    """Tiles of one zone and window within a frame: its corner in pixels from the zone's origin, its size."""

    tiles: Sequence[Tile]
    window: Window
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def within(cls, bounds: Bounds, tiles: Sequence[Tile], window: Window) -> _Mosaic:
        west, south, east, north = bounds
        left, top = math.floor(_pixels(west)), math.ceil(_pixels(north))
        return cls(tiles, window, left, top, math.ceil(_pixels(east)) - left, top - math.floor(_pixels(south)))

    @property
    def extent(self) -> str:
        return f'rasterXSize="{self.width}" rasterYSize="{self.height}"'

    def product(self, band: int) -> str:
        """Return the XML of a band of codes x scales."""
        return (
            f'<PixelFunctionType>mul</PixelFunctionType><PixelFunctionArguments propagateNoData="true"/>'
            f"<SourceTransferType>Float32</SourceTransferType>\n"
            f"{self._factor(CODES, band)}{self._factor(SCALES, 1)}"
        )

    def _factor(self, layer: Layer, band: int) -> str:
        full = f'xOff="0" yOff="0" xSize="{self.width}" ySize="{self.height}"'
        mosaic = (
            f'<VRTDataset {self.extent}><VRTRasterBand dataType="{_gdal_type(layer)}" band="1">'
            f"<NoDataValue>{layer.nodata:g}</NoDataValue>{self.sources(layer, band)}</VRTRasterBand></VRTDataset>"
        )
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="0"><![CDATA[{mosaic}]]></SourceFilename>'
            f"<SourceBand>1</SourceBand>"
            f'<SourceProperties RasterXSize="{self.width}" RasterYSize="{self.height}" '
            f'DataType="{_gdal_type(layer)}" BlockXSize="128" BlockYSize="128"/>'
            f"<SrcRect {full}/><DstRect {full}/></SimpleSource>\n"
        )

    def sources(self, layer: Layer, band: int) -> str:
        """Return the XML of the tiles' rasters of a layer, side by side."""
        return "".join(self._source(tile, layer, band) for tile in self.tiles)

    def _source(self, tile: Tile, layer: Layer, band: int) -> str:
        """Return the XML of the part of a tile's raster within the frame, or nothing."""
        x, y = tile.column * TILE_SIZE - self.left, self.top - (tile.row + 1) * TILE_SIZE  # of its corner in the frame
        x0, x1 = max(x, 0), min(x + TILE_SIZE, self.width)
        y0, y1 = max(y, 0), min(y + TILE_SIZE, self.height)
        if x0 >= x1 or y0 >= y1:
            return ""
        file = file_name(tile_name(tile, self.window), layer.role, "geotiff")
        size = f'xSize="{x1 - x0}" ySize="{y1 - y0}"'
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SourceProperties RasterXSize="{TILE_SIZE}" RasterYSize="{TILE_SIZE}" DataType="{_gdal_type(layer)}" '
            f'BlockXSize="{BLOCK}" BlockYSize="{BLOCK}"/>'
            f'<SrcRect xOff="{x0 - x}" yOff="{y0 - y}" {size}/><DstRect xOff="{x0}" yOff="{y0}" {size}/></SimpleSource>'
        )


def embedding_vrt(
    tiles: Sequence[Tile], window: Window, *, dims: int, dtype: Dtype, tags: Mapping[str, str], bounds: Bounds
) -> str:
    """Return the XML of the virtual raster of `tiles`, all of one zone.

    Their rasters, of `dtype`, lie in the VRT's folder. `bounds` are west, south, east, north of the AOI in metres,
    widened here to whole pixels. `tags` are the model's.
    """
    if len({tile.epsg for tile in tiles}) != 1:
        raise ValueError("a VRT takes the tiles of one zone, and at least one")
    mosaic = _Mosaic.within(bounds, tiles, window)
    kind = ' subClass="VRTDerivedRasterBand"' if dtype == "int8" else ""
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{band}"{kind}>\n'
        f"<Description>{escape(name)}</Description><NoDataValue>nan</NoDataValue>"
        f"{mosaic.product(band) if dtype == 'int8' else mosaic.sources(VALUES, band)}</VRTRasterBand>\n"
        for band, name in enumerate(VALUES.bands(dims), start=1)
    )
    metadata = {**tags, **window_tags(window), "AREA_OR_POINT": "Area"}
    geotransform = f"{mosaic.left * RESOLUTION}, {RESOLUTION}, 0, {mosaic.top * RESOLUTION}, 0, -{RESOLUTION}"
    return (
        f"<VRTDataset {mosaic.extent}>\n"
        f'<SRS dataAxisToSRSAxisMapping="1,2">{tiles[0].crs}</SRS>\n<GeoTransform>{geotransform}</GeoTransform>\n'
        f"<Metadata>{''.join(_tag(*tag) for tag in metadata.items())}</Metadata>\n{bands}</VRTDataset>\n"
    )


def _tag(key: str, value: str) -> str:
    return f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>"


def _gdal_type(layer: Layer) -> str:
    return layer.dtype.capitalize()  # Int8, Float32


def _pixels(metres: float) -> float:
    return round(metres / RESOLUTION, 6)  # 1e-5 m: no pixel for float noise


@dataclass(frozen=True)
class Described:
    """What a VRT of ours says of itself."""

    crs: str
    transform: Affine
    shape: tuple[int, int]
    bands: int
    dtype: str
    nodata: str
    tags: Mapping[str, str]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        west, north = self.transform * (0, 0)
        east, south = self.transform * self.shape[::-1]
        return west, south, east, north


def describe_vrt(xml: str) -> Described:
    """Parse what `embedding_vrt` has written, without a look at the rasters that it names; ValueError for other XML."""
    if "<!" in xml.replace("<![CDATA[", ""):
        raise ValueError("it declares types of its own")
    try:
        root = ElementTree.fromstring(xml)
        bands = root.findall("VRTRasterBand")
        return Described(
            str(root.findtext("SRS")),
            Affine.from_gdal(*map(float, str(root.findtext("GeoTransform")).split(","))),
            (int(root.attrib["rasterYSize"]), int(root.attrib["rasterXSize"])),
            len(bands),
            bands[0].attrib["dataType"].lower(),
            str(bands[0].findtext("NoDataValue")),
            {tag.attrib["key"]: tag.text or "" for tag in root.findall("Metadata/MDI")},
        )
    except (ElementTree.ParseError, LookupError, TypeError, ValueError) as error:
        raise ValueError("it is no VRT of ours") from error
