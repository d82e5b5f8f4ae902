"""Cloud-optimised GeoTIFFs of any size: written box by box to a file beside their place, then put in order.

GDAL's COG driver interleaves by pixel below 3.11, so that three bands for a picture cost the decoding of all 128. The
plain driver, given a file with overviews, lays out the same file band by band (`COPY_SRC_OVERVIEWS`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from tessera_cli.embeddings.grid import Grid, pixels_in
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import DiskFullError, UsageError, reason
from tessera_cli.exports.opaque import make_opaque
from tessera_cli.exports.part import Advance
from tessera_cli.outputs.geotiff import BLOCK, Compress
from tessera_cli.outputs.layers import Layer

Read = Callable[[Box], np.ndarray | None]
"""Returns the bands (R, h, w) of a box; None where there is nothing."""
MOST_BLOCKS = 20_000_000
"""Blocks of all bands: GDAL keeps 16 bytes of each in memory. 128 bands of 100,000 x 100,000 pixels."""
CACHE = 64 << 20
"""Bytes of GDAL's cache of blocks."""
_DRAFT: Mapping[str, Any] = {"bigtiff": "YES", "compress": "zstd", "zstd_level": 1, "num_threads": 1}
_PACKING: Mapping[Compress, Mapping[str, Any]] = {
    "zstd": {"compress": "zstd", "zstd_level": 1},
    "deflate": {"compress": "deflate", "zlevel": 1},  # codes are close to noise: 6 takes twice as long for 0.1 %
    "none": {"compress": "none"},
}


@dataclass(frozen=True)
class Raster:
    """A GeoTIFF to be written."""

    grid: Grid
    layer: Layer
    dims: int
    tags: Mapping[str, str]
    compress: Compress = "deflate"
    colours: Mapping[int, tuple[int, int, int, int]] | None = None
    """Of the values of the first band: red, green, blue and opacity, 0..255. Of at most two bands."""

    @property
    def bands(self) -> tuple[str, ...]:
        return self.layer.bands(self.dims)

    @property
    def overviews(self) -> list[int]:
        """Return the factors of the overviews: halved until a side fits into a block."""
        factors: list[int] = []
        size = max(self.grid.shape)
        while size > BLOCK:
            size = -(-size // 2)
            factors.append(2 * (factors[-1] if factors else 1))
        return factors


APART = "Embed its parts into folders of their own."
"""What to do about tiles that lie too far apart for one raster."""


def check_size(grid: Grid, dims: int, remedy: str = APART) -> None:
    """Raise UsageError, which ends with what to do, for a raster with more blocks than GDAL can be given."""
    height, width = grid.shape
    if dims * -(-height // BLOCK) * -(-width // BLOCK) > MOST_BLOCKS:
        raise UsageError(
            f"a raster of {width:,} x {height:,} pixels is too large: its parts lie far apart, or on both sides of the "
            f"antimeridian. {remedy}"
        )


def write_raster(path: Path, raster: Raster, read: Read, advance: Advance) -> None:
    """Write a valid COG, band-interleaved, with overviews; blocks without data take no space.

    Overviews of codes and scales take the nearest pixel, since a mean of codes is none; those of values the mean of
    what is there. Takes about twice its size on the disk while it is written, and less than a gigabyte of memory.

    Args:
        path: its place, in a folder that the caller renames.
        read: returns the bands (R, h, w) of a box, or None where there is nothing.
        advance: told of the pixels that are done.

    Raises:
        DiskFullError: GDAL could not write, and does not say why: most likely the disk is full.
    """
    draft = path.with_name(f"{path.name}.draft")
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "band", "sparse_ok": True}
    options = {"bigtiff": "IF_SAFER", "num_threads": 1, **_PACKING[raster.compress]}
    try:
        with _bounded(), rasterio.open(draft, "w+", **_profile(raster), **layout, **_DRAFT) as dataset:
            dataset.update_tags(**raster.tags)
            if raster.colours is not None:
                dataset.write_colormap(1, raster.colours)
            for number, name in enumerate(raster.bands, start=1):
                dataset.set_band_description(number, name)
            for box in raster.grid.boxes():
                pixels = read(box)
                if pixels is not None:
                    dataset.write(pixels, window=RasterWindow.from_slices(*box))
                advance(pixels_in(box))
        if raster.overviews:
            with _bounded(), rasterio.open(draft, "r+") as dataset:
                mean = raster.layer.dtype == "float32" and raster.layer.role in ("emb", "map")
                dataset.build_overviews(raster.overviews, Resampling.average if mean else Resampling.nearest)
        with _bounded():
            rasterio.shutil.copy(draft, path, driver="GTiff", copy_src_overviews=True, **layout, **options)
        if raster.colours is not None and len(raster.bands) > 1:
            make_opaque(path)
    except RasterioError as error:
        raise DiskFullError(f"{path} cannot be written: {reason(error)}. Is the disk full? Then run again.") from error
    finally:
        draft.unlink(missing_ok=True)


def _bounded() -> rasterio.Env:
    """Return GDAL's settings: of itself it takes 5 % of the machine's memory, and orders blocks by how much that is."""
    return rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_NUM_THREADS=1)


def _profile(raster: Raster) -> dict[str, Any]:
    height, width = raster.grid.shape
    return {
        "driver": "GTiff",
        "count": len(raster.bands),
        "height": height,
        "width": width,
        "dtype": raster.layer.dtype,
        "nodata": raster.layer.nodata,
        "crs": raster.grid.crs,
        "transform": raster.grid.transform,
        **({} if raster.colours is None else {"photometric": "palette"}),
    }
