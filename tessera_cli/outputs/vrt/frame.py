"""Boxes of whole pixels of a zone, and the XML that says where in a virtual raster they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from tessera_cli.extent.grid import RESOLUTION, TILE_SIZE, Tile

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """A box of pixels: its upper left corner in pixels from the zone's origin, x to the east and y to the south."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def around(cls, bounds: Bounds) -> Frame:
        """Return the box around west, south, east, north in metres, widened to whole pixels."""
        west, south, east, north = map(_pixels, bounds)
        left, top = math.floor(west), -math.ceil(north)
        return cls(left, top, math.ceil(east) - left, -math.floor(south) - top)

    @classmethod
    def of_tiles(cls, first: Tile, side: int = 1) -> Frame:
        """Return the box of `side` x `side` tiles of which `first` is the south-western one."""
        return cls(first.column * TILE_SIZE, -(first.row + side) * TILE_SIZE, side * TILE_SIZE, side * TILE_SIZE)

    def rectangles(self, other: Frame) -> str:
        """Return the XML of the part of `other` that lies in this box, in pixels of both; nothing if none does."""
        x, y = other.left - self.left, other.top - self.top
        x0, x1 = max(x, 0), min(x + other.width, self.width)
        y0, y1 = max(y, 0), min(y + other.height, self.height)
        if x0 >= x1 or y0 >= y1:
            return ""
        size = f'xSize="{x1 - x0}" ySize="{y1 - y0}"'
        return f'<SrcRect xOff="{x0 - x}" yOff="{y0 - y}" {size}/><DstRect xOff="{x0}" yOff="{y0}" {size}/>'

    def dataset(self, epsg: int, tags: Mapping[str, str], bands: str) -> str:
        """Return the XML of a virtual raster of this box."""
        geotransform = f"{self.left * RESOLUTION}, {RESOLUTION}, 0, {-self.top * RESOLUTION}, 0, -{RESOLUTION}"
        metadata = "".join(f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in tags.items())
        return (
            f'<VRTDataset rasterXSize="{self.width}" rasterYSize="{self.height}">\n'
            f'<SRS dataAxisToSRSAxisMapping="1,2">EPSG:{epsg}</SRS>\n<GeoTransform>{geotransform}</GeoTransform>\n'
            f"<Metadata>{metadata}</Metadata>\n{bands}</VRTDataset>\n"
        )


def _pixels(metres: float) -> float:
    return round(metres / RESOLUTION, 6)  # 1e-5 m: no pixel for float noise
