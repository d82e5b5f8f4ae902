"""Codes, scales and counts of one tile as GeoTIFF, built in memory, written whole, read back.

GDAL's COG driver ignores INTERLEAVE=BAND (3.10), so the plain driver writes the same layout: tiled, the directory in
front (all tags are set before the first block), no overviews (512 px need none), blocks without data left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from tessera_cli import __version__
from tessera_cli.atomic import write_bytes
from tessera_cli.errors import TileError
from tessera_cli.grid import Tile
from tessera_cli.outputs.item import (
    CODE_NODATA,
    COUNT_NODATA,
    FORMULA,
    PUBLISHED,
    ROLES,
    Asset,
    Role,
    band_names,
    model_url,
    raster_name,
)
from tessera_cli.window import Window

Compress = Literal["zstd", "deflate", "none"]
BLOCK = 256

_FORMAT: Mapping[Role, tuple[str, float]] = {
    "emb": ("int8", CODE_NODATA),
    "scales": ("float32", float("nan")),
    "counts": ("uint16", COUNT_NODATA),
}
"""Role -> dtype, nodata."""


def output_tags(
    *, tile: Tile, window: Window, model: str, dims: int, source: str, preprocessing: str, demo: bool = False
) -> dict[str, str]:
    """The tags of a tile's rasters, under the names that geotessera's tools know (`spec/outputs.md` 2.4).

    The dataset version holds the model's size and the variant our source, so that geotessera refuses to merge
    what does not belong together.
    """
    name = PurePath(model).name  # rasters hold no paths
    family, _, size = name.partition("-")
    version = PUBLISHED.get(family)
    dataset = name if version is None else "-".join([version] + ([size] if size and size != source else []))
    return {
        "TESSERA_YEAR": window.name,
        "TESSERA_WINDOW": f"{window.start}/{window.end}",
        "TESSERA_MODEL": model_url(name),
        "TESSERA_MODEL_NAME": name,
        "TESSERA_SOURCE": source,
        "TESSERA_BANDS": ",".join(map(str, range(dims))),
        "TESSERA_BUILD_VERSION": __version__,
        "TESSERA_DATASET_VERSION": dataset,
        "TESSERA_DATASET_VERSION_PATH": family if version else name,
        "TESSERA_DATASET_VARIANT": f"local-{source}",
        "TESSERA_PREPROCESSING": preprocessing,
        "TESSERA_DEQUANTIZE": f"{FORMULA} (band 1 of {raster_name(tile, window, 'scales')})",
        **({"TESSERA_NOTE": "demonstration only"} if demo else {}),
    }


def embedding_tif(codes: np.ndarray, tile: Tile, tags: Mapping[str, str], compress: Compress = "zstd") -> bytes:
    """Codes int8 (R, H, W), -128 in every band where there is no embedding -> GeoTIFF."""
    return _tif("emb", codes, tile, tags, compress)


def scales_tif(scales: np.ndarray, tile: Tile, tags: Mapping[str, str], compress: Compress = "zstd") -> bytes:
    """Scales float32 (H, W), NaN where there is no embedding -> GeoTIFF."""
    return _tif("scales", scales[None], tile, tags, compress)


def counts_tif(
    counts: np.ndarray, requested: np.ndarray, tile: Tile, tags: Mapping[str, str], compress: Compress = "zstd"
) -> bytes:
    """Counts uint16 (3, H, W), only defined where `requested` bool (H, W) -> GeoTIFF, 65535 elsewhere.

    A nodata value keeps "not asked for" apart from "never seen", which is 0.
    """
    return _tif("counts", np.where(requested, counts, np.uint16(COUNT_NODATA)), tile, tags, compress)


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
    """Build, write and read back the three rasters of a tile (arrays as above)."""
    data: Mapping[Role, bytes] = {
        "emb": embedding_tif(codes, tile, tags, compress),
        "scales": scales_tif(scales, tile, tags, compress),
        "counts": counts_tif(counts, requested, tile, tags, compress),
    }
    assets = tuple(Asset.of(role, raster_name(tile, window, role), content) for role, content in data.items())
    for asset in assets:
        write_bytes(folder / asset.name, data[asset.role])
    read_back(folder, tile, window, dims=len(codes), requested=requested, assets=assets)
    return assets


def read_back(
    folder: Path, tile: Tile, window: Window, *, dims: int, requested: np.ndarray, assets: tuple[Asset, ...]
) -> None:
    """Check a tile's three rasters on disk: bytes, layout, and that they agree with each other; TileError if not.

    `requested` bool (H, W) are the pixels asked for; `assets` hold the checksums of what was written.
    """
    by_role = {asset.role: asset for asset in assets}
    if by_role.keys() != set(ROLES):
        raise TileError(f"{tile.id} {window.name}: rasters {sorted(by_role)} recorded, not {sorted(ROLES)}.")
    codes, scales, counts = (_read(folder / by_role[role].name, by_role[role], tile, dims) for role in ROLES)

    missing = (codes == CODE_NODATA).all(axis=0)
    emb, scale, count = (by_role[role].name for role in ROLES)
    if ((codes == CODE_NODATA) & ~missing).any():
        raise _unsound(folder / emb, "some pixels are nodata in a part of the bands only")
    if not np.array_equal(np.isnan(scales[0]), missing):
        raise _unsound(folder / scale, "scales are not missing exactly where codes are")
    if not (np.isfinite(scales[0][~missing]) & (scales[0][~missing] > 0)).all():
        raise _unsound(folder / scale, "some scales are not finite and positive")
    if (~missing & ~requested).any():
        raise _unsound(folder / emb, "pixels outside the requested ones hold embeddings")
    if not ((counts != COUNT_NODATA) == requested).all():
        raise _unsound(folder / count, "counts are not present exactly in the requested pixels")


def _tif(role: Role, data: np.ndarray, tile: Tile, tags: Mapping[str, str], compress: Compress) -> bytes:
    dtype, nodata = _FORMAT[role]
    if data.dtype != dtype or data.shape[1:] != tile.shape:
        raise ValueError(f"{role}: {data.dtype} {data.shape} given, {dtype} (bands, {tile.shape}) due")
    packing: dict[str, Any] = {"zstd": {"zstd_level": 1}, "deflate": {"zlevel": 6}, "none": {}}[compress]
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=len(data),
            height=tile.shape[0],
            width=tile.shape[1],
            dtype=dtype,
            nodata=nodata,
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
            for band, name in enumerate(band_names(role, len(data)), start=1):
                dataset.set_band_description(band, name)
            dataset.write(data)
        return bytes(memory.getbuffer())


def _read(path: Path, asset: Asset, tile: Tile, dims: int) -> np.ndarray:
    """The raster (bands, H, W), after comparing its bytes and its layout."""
    dtype, nodata = _FORMAT[asset.role]
    bands = band_names(asset.role, dims)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != asset.sha256:
            raise _unsound(path, f"its SHA-256 is {digest[:12]}..., not {asset.sha256[:12]}...")
        with rasterio.open(path) as dataset:
            layout = {
                "bands": (dataset.descriptions, bands),
                "size": (dataset.shape, tile.shape),
                "type": (set(dataset.dtypes), {dtype}),
                "nodata": (str(dataset.nodata), str(float(nodata))),
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
