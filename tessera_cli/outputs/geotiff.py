"""A tile as GeoTIFF: a raster per layer, built in memory band by band and written atomically.

In memory, because GDAL does not say why a file could not be written, and a full disk stops the run.

GDAL's COG driver ignores INTERLEAVE=BAND (3.10), so the plain driver writes the same layout: tiled, the directory in
front (all tags are set before the first block), no overviews (tiles need none), blocks without data left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from tessera_cli.extent.grid import AnyTile
from tessera_cli.extent.raster import open_raster
from tessera_cli.outputs.asset import check_layout, check_scales, check_uncertainty, damaged
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import (
    COUNTS,
    FORMULA,
    SCALES,
    UNCERTAINTY,
    Layer,
    Role,
    file_name,
    layers_of,
    requested_counts,
)
from tessera_cli.outputs.tags import model_tags, window_tags

Compress = Literal["zstd", "deflate", "none"]
BLOCK = 256


@contextmanager
def layer_bytes(layer: Layer, encoded: EncodedTile, compress: Compress) -> Iterator[memoryview]:
    """Yield the raster of a layer: nodata in every band where there is no embedding, counts where requested."""
    record = encoded.record
    tags = {**model_tags(record.identity, record.note), **window_tags(record.window)}
    if encoded.scales is not None:
        tags["TESSERA_DEQUANTIZE"] = f"{FORMULA} (band 1 of {file_name(record.name, 'scales', 'geotiff')})"
    with encoded_tif(layer, _bands(layer, encoded), record.dims, record.tile, tags, compress) as data:
        yield data


def read_back(record: TileRecord, paths: Mapping[Role, Path]) -> np.ndarray:
    """Return bool (H, W): pixels with an embedding in the rasters at `paths`.

    Raises TileError unless each has the expected layout and they agree with each other.
    """
    emb, *_ = layers_of(record.identity)
    with _open_checked(paths["emb"], emb, record) as dataset:
        missing = _gaps(dataset.read(1), emb)
        for band in dataset.indexes:
            values = dataset.read(band)
            if not np.array_equal(_gaps(values, emb), missing):
                raise damaged(paths["emb"], "some pixels are nodata in a part of the bands only")
            if not np.isfinite(values[~missing]).all():
                raise damaged(paths["emb"], "some values are infinite")
    if (~missing & ~record.requested).any():
        raise damaged(paths["emb"], "pixels outside the requested ones hold embeddings")

    if "scales" in paths:
        with _open_checked(paths["scales"], SCALES, record) as dataset:
            scales = dataset.read(1)
        if not np.array_equal(_gaps(scales, SCALES), missing):
            raise damaged(paths["scales"], "scales are not missing exactly where codes are")
        check_scales(paths["scales"], scales[~missing])

    if "uncertainty" in paths:
        with _open_checked(paths["uncertainty"], UNCERTAINTY, record) as dataset:
            check_uncertainty(paths["uncertainty"], dataset.read(1), missing)

    with _open_checked(paths["counts"], COUNTS, record) as dataset:
        counts = dataset.read()
    if not ((counts != COUNTS.nodata) == record.requested).all():
        raise damaged(paths["counts"], "counts are not present exactly in the requested pixels")
    return ~missing


def compression_of(path: Path) -> Compress:
    """Return how a raster of ours is compressed; TileError for one that cannot be read, or by another program."""
    try:
        with open_raster(path) as dataset:
            found = dataset.profile.get("compress", "none")
    except (OSError, RasterioError) as error:
        raise damaged(path, f"it cannot be read: {error}") from error
    if found not in get_args(Compress):
        raise damaged(path, f"its compression is {found}, in which nothing is written here")
    return found  # type: ignore[no-any-return]


@contextmanager
def encoded_tif(
    layer: Layer,
    bands: Iterable[np.ndarray],
    dims: int,
    tile: AnyTile,
    tags: Mapping[str, str],
    compress: Compress = "zstd",
) -> Iterator[memoryview]:
    """Yield the bytes of a GeoTIFF, valid within the block: one layer of a tile, its bands (H, W) in order.

    `dims` is the length of the embeddings.
    """
    height, width = tile.shape
    names = layer.bands(dims)
    packing: dict[str, Any] = {"zstd": {"zstd_level": 1}, "deflate": {"zlevel": 6}, "none": {}}[compress]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=len(names),
            height=height,
            width=width,
            dtype=layer.dtype,
            nodata=layer.nodata,
            crs=tile.crs,
            transform=tile.transform,
            tiled=True,
            blockxsize=_block(width),
            blockysize=_block(height),
            interleave="band",
            compress=compress,
            sparse_ok=True,
            bigtiff="IF_SAFER",
            num_threads=1,  # against GDAL_NUM_THREADS: bytes depend on the data alone
            **packing,
        ) as dataset:
            dataset.update_tags(**tags)
            for number, name in enumerate(names, start=1):
                dataset.set_band_description(number, name)
            for number, (_, band) in enumerate(zip(names, bands, strict=True), start=1):
                if band.dtype != layer.dtype or band.shape != tile.shape:
                    raise ValueError(f"{layer.role}: {band.dtype} {band.shape} given, {layer.dtype} {tile.shape} due")
                dataset.write(band, number)
        yield memoryview(memory.getbuffer())


def _bands(layer: Layer, encoded: EncodedTile) -> Iterator[np.ndarray]:
    """Yield the bands of a layer, (H, W) each."""
    if layer is COUNTS:
        yield from requested_counts(encoded.counts, encoded.record.requested)
        return
    one = {"scales": encoded.scales, "uncertainty": encoded.uncertainty}
    for values in (one[layer.role],) if layer.role in one else encoded.bands():
        band = np.full(encoded.record.tile.shape, layer.nodata, layer.dtype)
        band[encoded.pixels] = values
        yield band


def _block(size: int) -> int:
    """Return the block size for a raster side: a multiple of 16, as TIFF demands, not beyond the raster's edge."""
    return min(BLOCK, -(-size // 16) * 16)


@contextmanager
def _open_checked(path: Path, layer: Layer, record: TileRecord) -> Iterator[rasterio.DatasetReader]:
    """Open the raster at `path` after comparing its layout; TileError if it or its pixels are not as record."""
    try:
        with open_raster(path) as dataset:
            layout = {
                "bands": (dataset.descriptions, layer.bands(record.dims)),
                "size": (dataset.shape, record.tile.shape),
                "type": (set(dataset.dtypes), {layer.dtype}),
                "nodata": (str(dataset.nodata), str(float(layer.nodata or 0))),
                "interleave": (dataset.interleaving, Interleaving.band),
                "CRS": (dataset.crs, rasterio.CRS.from_user_input(record.tile.crs)),
                "position": (dataset.transform, record.tile.transform),
            }
            check_layout(path, layout)
            yield dataset
    except (OSError, RasterioError) as error:
        raise damaged(path, f"it cannot be read: {error}") from error


def _gaps(values: np.ndarray, layer: Layer) -> np.ndarray:
    """Return bool (H, W): where a band holds its layer's nodata value."""
    return np.isnan(values) if values.dtype.kind == "f" else values == layer.nodata
