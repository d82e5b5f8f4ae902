"""The picture of a window as a Cloud-Optimized GeoTIFF, coarser copies of it, and the counts beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import TileError, reason
from tessera_cli.outputs.layers import NOT_REQUESTED
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import Colours, blocks

Report = Callable[[int], object]
BLOCK = 512
COG = {
    "driver": "COG",
    "compress": "DEFLATE",
    "predictor": "YES",
    "blocksize": BLOCK,
    "overview_resampling": "AVERAGE",
    "bigtiff": "IF_SAFER",
}


def write_picture(
    path: Path,
    canvas: Canvas,
    tiles: Sequence[StoredTile],
    colours: Colours,
    tags: Mapping[str, str],
    report: Report = lambda pixels: None,
) -> None:
    """Write the tiles as an RGB raster, nodata 0, with overviews; `report` is called with the pixels of each block.

    A block of one tile at a time is held. Until the end a file of three bytes per pixel lies beside it. GDAL loses
    what a full disk does not take, often without a word, so the raster is read back: TileError if it lacks anything.
    """
    height, width = canvas.shape
    plain = path.with_suffix(".tmp.tif")
    layout = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint8",
        "nodata": 0,
        "height": height,
        "width": width,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "pixel",
        "photometric": "RGB",
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
        **({} if canvas.crs is None else {"crs": canvas.crs, "transform": canvas.transform}),
    }
    total = 0
    with _without_place(), _written(path):
        with rasterio.open(plain, "w+", **layout) as picture:
            picture.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            picture.update_tags(**tags)
            for number, share in enumerate(colours.explained, start=1):
                picture.set_band_description(number, f"Component {number}, {share:.1%} of the variance")
            for tile in tiles:
                for box in blocks(tile):
                    painted = colours.paint(*tile.stored(box))
                    if (taken := canvas.take(tile.record.tile, box, painted, 0)) is not None:
                        place, pixels = taken
                        window = RasterWindow.from_slices(*place)
                        before = picture.read(window=window)  # of tiles of other zones, which may overlap
                        after = np.where(pixels > 0, pixels, before)
                        picture.write(after, window=window)
                        total += int(after.sum(dtype=np.int64)) - int(before.sum(dtype=np.int64))
                    report(painted[0].size)
        rasterio.shutil.copy(plain, path, **COG)
        plain.unlink()
        with rasterio.open(path, driver="GTiff", sharing=False) as picture:
            windows = (window for _, window in picture.block_windows(1))
            if total != sum(int(picture.read(window=window).sum(dtype=np.int64)) for window in windows):
                raise RasterioIOError("it does not hold what was written to it")


def read_picture(path: Path, canvas: Canvas, factor: int) -> np.ndarray:
    """Return uint8 (3, h, w), pixels `factor` times as wide: means of those with an embedding, 0 where none has."""
    height, width = canvas.shape
    with _without_place(), rasterio.open(path, driver="GTiff", sharing=False) as picture:
        return picture.read(out_shape=(3, height // factor, width // factor), resampling=Resampling.average)


def png(picture: np.ndarray) -> bytes:
    """Return uint8 (3, h, w) as the bytes of a PNG that is transparent where all bands are 0."""
    alpha = np.where(picture.any(axis=0), np.uint8(255), np.uint8(0))
    bands = np.concatenate([picture, alpha[None]])
    with _without_place(), MemoryFile() as memory:
        height, width = alpha.shape
        with memory.open(driver="PNG", count=4, dtype="uint8", height=height, width=width) as made:
            made.write(bands)
        return bytes(memory.getbuffer())


def read_counts(canvas: Canvas, tiles: Sequence[StoredTile]) -> np.ndarray:
    """Return the observations used, uint16 (3, h, w) in the order of SENSORS: those of the pixel at each centre."""
    counts = np.full((3, *canvas.shape), NOT_REQUESTED, np.uint16)
    for tile in tiles:
        taken = canvas.take(tile.record.tile, tile.whole, tile.counts(), NOT_REQUESTED)
        if taken is not None:
            (rows, columns), values = taken
            there = counts[:, rows, columns]
            there[...] = np.where(values != NOT_REQUESTED, values, there)
    return counts


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn what GDAL says while it writes, which is rarely the cause, into the error to show."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        told = "Is the disk full? Make room or choose another --out, then run again."
        raise TileError(f"{path.name} cannot be written: {reason(error)}. {told}") from error


@contextmanager
def _without_place() -> Iterator[None]:
    """Keep rasterio from warning of pictures that have no georeference, which is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
