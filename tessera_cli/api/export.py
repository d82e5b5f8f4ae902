"""`export`: embeddings in the forms that other programs open. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.exports.export import Exported


def export(
    folder: AnyPath,
    *,
    to: Literal["cog", "zarr", "npy", "geotessera", "torchgeo"],
    out: AnyPath,
    year: Years | None = None,
    window: Windows | None = None,
    crs: str | int | None = None,
    resolution: float | None = None,
    resampling: Literal["nearest", "bilinear"] = "nearest",
    dtype: Literal["float32", "int8"] | None = None,
    compress: Literal["zstd", "deflate", "none"] = "deflate",
    progress: AnyProgress | None = None,
) -> Exported:
    """Write a folder of embeddings in a form that other programs open.

    Args:
        folder: The folder that `embed` wrote.
        to: `cog`: a cloud-optimised GeoTIFF per zone and window. `zarr`: a Zarr store for xarray and geotessera. `npy`:
            arrays (H, W, R) per zone and window, and a raster that places them. `geotessera`: the tree of 0.1 degree
            cells that the geotessera package reads. `torchgeo`: `grid_LON_LAT_YEAR.tiff` for TorchGeo's
            TesseraEmbeddings.
        out: Folder, or store, to write. It appears whole or not at all. An earlier export of the same embeddings to the
            same target is replaced, unless it holds files that it did not write; anything else is refused.
        year: Calendar years, such as 2023, "2022,2023" or "2017-2024". Default: all windows of the folder. `geotessera`
            and `torchgeo` take calendar years alone.
        window: Ranges of dates such as "2023-07/2024-06", or names of windows such as "20230701-20240630".
        crs: `cog`: merge all zones in this coordinate system. Default: a file per zone, with the pixels as they are.
        resolution: With `crs`: size of a pixel in its units. Default: 10 m.
        resampling: With `crs`: `nearest` keeps vectors as they are, `bilinear` mixes the four around.
        dtype: `float32` values, or `int8` codes and scales. Default: float32 of `cog` and `torchgeo`, else int8.
        compress: Compression of rasters; most programs read deflate, zstd is faster.
        progress: A function of (done, total) pixels, a `tqdm` bar, or a `rich.progress.Progress`.

    Returns:
        Path, files, bytes and windows of what was written.

    Raises:
        TesseraError: UsageError for settings that do not go together and for what is no folder of ours,
            NothingToEmbedError where no tile has an embedding, IdentityError where `out` is another export,
            DiskFullError before anything is written if it will not fit, TileError if a file cannot be read.
    """
    from tessera_cli.api.arguments import check_choices, chosen_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.exports.export import export as run
    from tessera_cli.exports.request import Resampling, Target
    from tessera_cli.outputs.geotiff import Compress
    from tessera_cli.outputs.layers import Dtype

    check_choices(to=(to, Target), resampling=(resampling, Resampling), compress=(compress, Compress))
    if dtype is not None:
        check_choices(dtype=(dtype, Dtype))
    return run(
        EmbeddingFolder.open(folder, chosen_windows(year, window)),
        Path(out),
        to,
        dtype=dtype,
        crs=None if crs is None else str(crs),
        resolution=resolution,
        resampling=resampling,
        compress=compress,
        progress=Bar(progress),
    )
