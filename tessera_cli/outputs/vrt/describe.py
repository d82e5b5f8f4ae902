"""What a virtual raster of ours says of itself, read without a look at the rasters that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from affine import Affine


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
    """Parse what this or an earlier version has written; ValueError for other XML."""
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
