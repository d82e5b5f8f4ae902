"""Codes, scales and counts of one tile as GeoTIFF, built in memory, written whole, read back.

GDAL's COG driver ignores INTERLEAVE=BAND (3.10), so the plain driver writes the same layout: tiled, the directory in
front (all tags are set before the first block), no overviews (512 px need none), blocks without data left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from tessera_cli.atomic import write_bytes
from tessera_cli.errors import TileError
from tessera_cli.grid import Tile
from tessera_cli.outputs.item import Asset
from tessera_cli.outputs.layers import COUNTS, EMB, FORMULA, LAYERS, SCALES, Layer, Role, raster_name
from tessera_cli.outputs.tags import window_tags
from tessera_cli.window import Window

Compress = Literal["zstd", "deflate", "none"]
BLOCK = 256


def write_rasters(
    folder: Path,
    tile: Tile,
    window: Window,
    *,
    codes: np.ndarray,
    scales: np.ndarray,
    counts: np.ndarray,
    requested: np.ndarray,
    tags: Mapping[str, str],
    compress: Compress = "zstd",
) -> tuple[Asset, ...]:
    """Build, write and read back the three rasters of a tile; if that fails, none of them is left.

    Codes int8 (R, H, W), -128 in every band where there is no embedding. Scales float32 (H, W), NaN there. Counts
    uint16 (3, H, W), of which only those in `requested`, bool (H, W), are written: a nodata value keeps "not asked
    for" apart from "never seen", which is 0. `tags` are the model's.
    """
    own = {
        **tags,
        **window_tags(window),
        "TESSERA_DEQUANTIZE": f"{FORMULA} (band 1 of {raster_name(tile, window, 'scales')})",
    }
    data: Mapping[Role, bytes] = {
        "emb": encode_tif(EMB, codes, tile, own, compress),
        "scales": encode_tif(SCALES, scales[None], tile, own, compress),
        "counts": encode_tif(COUNTS, np.where(requested, counts, np.uint16(COUNTS.nodata)), tile, own, compress),
    }
    assets = tuple(Asset.of(role, raster_name(tile, window, role), content) for role, content in data.items())
    try:
        for asset in assets:
            write_bytes(folder / asset.name, data[asset.role])
        read_back(folder, tile, window, dims=len(codes), requested=requested, assets=assets)
    except BaseException:
        remove_rasters(folder, tile, window)
        raise
    return assets


def remove_rasters(folder: Path, tile: Tile, window: Window) -> None:
    """Remove those of a tile's rasters that are there and can be removed."""
    for role in LAYERS:
        with suppress(OSError):
            (folder / raster_name(tile, window, role)).unlink()


def read_back(
    folder: Path, tile: Tile, window: Window, *, dims: int, requested: np.ndarray, assets: tuple[Asset, ...]
) -> None:
    """Check a tile's three rasters on disk: bytes, layout, and that they agree with each other; TileError if not.

    `requested` bool (H, W) are the pixels asked for; `assets` hold the checksums of what was written.
    """
    by_role = {asset.role: asset for asset in assets}
    if by_role.keys() != LAYERS.keys():
        raise TileError(f"{tile.id} {window.name}: rasters {sorted(by_role)} recorded, not {sorted(LAYERS)}.")
    codes, scales, counts = (_read(folder, by_role[role], layer, tile, dims) for role, layer in LAYERS.items())

    missing = (codes == EMB.nodata).all(axis=0)
    emb, scale, count = (by_role[role].name for role in LAYERS)
    if ((codes == EMB.nodata) & ~missing).any():
        raise _unsound(folder / emb, "some pixels are nodata in a part of the bands only")
    if not np.array_equal(np.isnan(scales[0]), missing):
        raise _unsound(folder / scale, "scales are not missing exactly where codes are")
    if not (np.isfinite(scales[0][~missing]) & (scales[0][~missing] > 0)).all():
        raise _unsound(folder / scale, "some scales are not finite and positive")
    if (~missing & ~requested).any():
        raise _unsound(folder / emb, "pixels outside the requested ones hold embeddings")
    if not ((counts != COUNTS.nodata) == requested).all():
        raise _unsound(folder / count, "counts are not present exactly in the requested pixels")


def encode_tif(
    layer: Layer, data: np.ndarray, tile: Tile, tags: Mapping[str, str], compress: Compress = "zstd"
) -> bytes:
    """One layer of a tile, (bands, H, W), as the bytes of a GeoTIFF."""
    if data.dtype != layer.dtype or data.shape[1:] != tile.shape:
        raise ValueError(f"{layer.role}: {data.dtype} {data.shape} given, {layer.dtype} (bands, {tile.shape}) due")
    packing: dict[str, Any] = {"zstd": {"zstd_level": 1}, "deflate": {"zlevel": 6}, "none": {}}[compress]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=len(data),
            height=tile.shape[0],
            width=tile.shape[1],
            dtype=layer.dtype,
            nodata=layer.nodata,
            crs=tile.crs,
            transform=tile.transform,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            interleave="band",
            compress=compress,
            sparse_ok=True,
            bigtiff="IF_SAFER",
            num_threads=1,  # against GDAL_NUM_THREADS: bytes depend on the data alone
            **packing,
        ) as dataset:
            dataset.update_tags(**tags)
            for band, name in enumerate(layer.bands(len(data)), start=1):
                dataset.set_band_description(band, name)
            dataset.write(data)
        return bytes(memory.getbuffer())


def _read(folder: Path, asset: Asset, layer: Layer, tile: Tile, dims: int) -> np.ndarray:
    """The raster (bands, H, W), after comparing its bytes and its layout."""
    path = folder / asset.name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != asset.sha256:
            raise _unsound(path, f"its SHA-256 is {digest[:12]}..., not {asset.sha256[:12]}...")
        with rasterio.open(path) as dataset:
            layout = {
                "bands": (dataset.descriptions, layer.bands(dims)),
                "size": (dataset.shape, tile.shape),
                "type": (set(dataset.dtypes), {layer.dtype}),
                "nodata": (str(dataset.nodata), str(float(layer.nodata))),
                "interleave": (dataset.interleaving, Interleaving.band),
                "CRS": (dataset.crs, rasterio.CRS.from_epsg(tile.epsg)),
                "position": (dataset.transform, tile.transform),
            }
            for what, (found, due) in layout.items():
                if found != due:
                    raise _unsound(path, f"its {what} is {found}, not {due}")
            return dataset.read()
    except (OSError, RasterioError) as error:
        raise _unsound(path, f"it cannot be read: {error}") from error


def _unsound(path: Path, why: str) -> TileError:
    return TileError(f"{path} is not sound: {why}. Remove it and run again.")
