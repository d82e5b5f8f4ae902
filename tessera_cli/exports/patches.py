"""Patches: the connected areas of a raster that are set, as polygons, with what other bands say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
from pyproj import Geod, Transformer
from rasterio.windows import Window as RasterWindow
from rasterio.windows import transform as window_transform

from tessera_cli.embeddings.grid import Grid
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import DiskFullError, plainly
from tessera_cli.outputs.geotiff import BLOCK

LAYER = "patches"
Mask = Callable[[Box], np.ndarray | None]
"""Returns bool (h, w) of a box; None where nothing is set."""
Bands = Callable[[Box], np.ndarray | None]
"""Returns float (B, h, w) of a box, NaN where nothing is known; None where nothing is."""


@dataclass(frozen=True, eq=False)
class Patches:
    """P patches: pixels that are connected along their edges. Patches that touch at a corner alone are two."""

    grid: Grid
    outlines: np.ndarray
    """object (P,): polygons along the edges of pixels, in the coordinate system of the grid."""
    pixels: np.ndarray
    """int64 (P,)."""
    means: np.ndarray
    """float64 (P, B): mean of each band over the pixels of a patch where it is known; NaN where it is not."""
    most: np.ndarray
    """float64 (P, B): largest value of each band."""

    @classmethod
    def of(cls, grid: Grid, mask: Mask, bands: Bands, count: int, *, scratch: Path, least: int = 1) -> Patches:
        """Find them; memory is that of a box of pixels and of the polygons.

        Args:
            grid: The raster.
            mask: Which pixels are set; asked box by box, each once.
            bands: What to tell of patches; asked for boxes in which any lies.
            count: How many bands that are.
            scratch: A file to write meanwhile: a bit per pixel.
            least: Pixels of a patch; smaller ones are left out.
        """
        outlines = np.array(_outlines(grid, mask, scratch, least), object)
        pixels = np.rint(shapely.area(outlines) / abs(grid.transform.a * grid.transform.e)).astype(np.int64)
        return cls(grid, outlines, pixels, *_measured(grid, outlines, bands, count))

    def __len__(self) -> int:
        return len(self.outlines)

    def take(self, rows: np.ndarray) -> Patches:
        """Return some of them, by number or as bool (P,)."""
        return Patches(self.grid, self.outlines[rows], self.pixels[rows], self.means[rows], self.most[rows])

    def write(self, path: Path, columns: Mapping[str, np.ndarray]) -> None:
        """Write a GeoPackage with the layer `patches`.

        A row each: number from 1 in this order, pixels, hectares on the ellipsoid, longitude and latitude of a point
        inside, and `columns`, (P,) each. DiskFullError if it cannot be written.
        """
        to_degrees = Transformer.from_crs(self.grid.crs, 4326, always_xy=True)
        inside = shapely.point_on_surface(self.outlines)
        lon, lat = to_degrees.transform(shapely.get_x(inside), shapely.get_y(inside))
        fields = {
            "patch": np.arange(1, len(self) + 1),
            "pixels": self.pixels,
            "hectares": np.array([_hectares(each, to_degrees) for each in self.outlines], np.float64).round(4),
            "lon": np.asarray(lon, np.float64).round(7),
            "lat": np.asarray(lat, np.float64).round(7),
            **columns,
        }
        try:
            pyogrio.raw.write(
                str(path.absolute()),
                geometry=shapely.to_wkb(self.outlines),
                field_data=list(fields.values()),
                fields=np.array(list(fields)),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self.grid.crs,
            )
        except (RuntimeError, ValueError) as error:
            raise DiskFullError(f"{path} cannot be written: {plainly(error)}. Is the disk full?") from error


def _outlines(grid: Grid, mask: Mask, scratch: Path, least: int) -> list[shapely.Polygon]:
    """Return the outlines of patches of at least `least` pixels."""
    height, width = grid.shape
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "sparse_ok": True, "bigtiff": "IF_SAFER"}
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "height": height, "width": width, **layout}
    smallest = (least - 0.5) * abs(grid.transform.a * grid.transform.e)
    try:
        with rasterio.open(scratch, "w", **profile, compress="deflate", transform=grid.transform) as raster:
            for box in grid.boxes():
                wanted = mask(box)
                if wanted is not None and wanted.any():
                    raster.write(wanted.astype(np.uint8), 1, window=RasterWindow.from_slices(*box))
        with rasterio.open(scratch) as raster:
            band = rasterio.band(raster, 1)  # read line by line, while polygons are closed
            shapes = rasterio.features.shapes(band, mask=band, connectivity=4, transform=grid.transform)
            found = (shapely.geometry.shape(shape) for shape, _ in shapes)
            return [outline for outline in found if outline.area >= smallest]
    finally:
        scratch.unlink(missing_ok=True)


def _measured(grid: Grid, outlines: np.ndarray, bands: Bands, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and maximum of each band over each patch, (P, B)."""
    sums, known = np.zeros((2, len(outlines), count))
    most = np.full((len(outlines), count), -np.inf)
    tree = shapely.STRtree(outlines)
    for box in grid.boxes():
        part = grid.part(box)
        near = np.sort(tree.query(shapely.box(*part.bounds)))
        values = bands(box) if len(near) else None
        if values is None:
            continue
        window = window_transform(RasterWindow.from_slices(*box), grid.transform)
        parts = shapely.clip_by_rect(outlines[near], *part.bounds)  # of a ragged one the edges here are few
        shapes = [(each, number + 1) for each, number in zip(parts, near, strict=True) if each.area]
        if not shapes:
            continue
        numbers = rasterio.features.rasterize(shapes, values.shape[1:], transform=window, dtype=np.int32)
        for band, one in enumerate(values):
            there = (numbers > 0) & ~np.isnan(one)
            patch, of_patch = numbers[there] - 1, one[there]
            sums[:, band] += np.bincount(patch, of_patch, len(outlines))
            known[:, band] += np.bincount(patch, minlength=len(outlines))
            np.maximum.at(most[:, band], patch, of_patch)
    with np.errstate(invalid="ignore"):
        return sums / known, np.where(known > 0, most, np.nan)


def _hectares(outline: shapely.Polygon, to_degrees: Transformer) -> float:
    degrees = shapely.transform(outline, to_degrees.transform, interleaved=False)
    return float(abs(Geod(ellps="WGS84").geometry_area_perimeter(degrees)[0])) / 1e4
