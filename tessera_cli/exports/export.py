"""Write a folder of embeddings in the form of a target."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli import __version__
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import UsageError
from tessera_cli.exports import cog, geotessera, npy, torchgeo, zarr
from tessera_cli.exports.destination import destination
from tessera_cli.exports.mosaic import mosaics
from tessera_cli.exports.part import Part
from tessera_cli.exports.request import ExportRequest, Resampling, Target
from tessera_cli.files import check_space
from tessera_cli.outputs.geotiff import Compress
from tessera_cli.outputs.layers import Dtype

logger = logging.getLogger(__name__)

PARTS: Mapping[Target, Callable[[ExportRequest], Iterator[Part]]] = {
    "cog": cog.parts,
    "zarr": zarr.parts,
    "npy": npy.parts,
    "geotessera": geotessera.parts,
    "torchgeo": torchgeo.parts,
}
DTYPES: Mapping[Target, tuple[Dtype, ...]] = {
    "cog": ("float32", "int8"),
    "zarr": ("int8",),
    "npy": ("int8", "float32"),
    "geotessera": ("int8",),
    "torchgeo": ("float32",),
}
"""The types that a target can hold, the default first."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    """The folder or store."""
    to: Target
    files: tuple[Path, ...]
    """Rasters and arrays, or groups of a store, in order of their names."""
    bytes: int
    windows: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "export",
            "schema": 1,
            "path": str(self.path),
            "to": self.to,
            "files": [str(file) for file in self.files],
            "bytes": self.bytes,
            "windows": list(self.windows),
        }


class Nothing:
    """Progress that nobody looks at."""

    def start(self, total: int, done: int = 0) -> None:
        """Begin with `done` of `total` pixels."""

    def advance(self, count: int) -> None:
        """Add `count` pixels."""


def export(
    folder: EmbeddingFolder,
    out: Path,
    to: Target,
    *,
    dtype: Dtype | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    resampling: Resampling = "nearest",
    compress: Compress = "deflate",
    progress: Any = None,
) -> Exported:
    """Write all windows of `folder` to `out`, whole or not at all. Memory: less than a gigabyte, whatever the area.

    `progress` has `start(total)` and `advance(count)`, in pixels. Errors as those of `tessera_cli.export`.
    """
    request = _request(folder, to, dtype, crs, resolution, resampling, compress)
    windows = tuple(sorted({mosaic.window_name for mosaic in request.mosaics}))
    about = {
        "to": to,
        "identity": dict(folder.first.identity),
        "dtype": request.dtype,
        "crs": crs,
        "windows": list(windows),
        "software": __version__,
    }
    bar = progress or Nothing()
    with destination(out, about) as part:
        planned = list(PARTS[to](request))
        needed = sum(each.bytes for each in planned) + max(each.scratch for each in planned)
        free = check_space(out, needed)
        logger.info("%s takes up to %.2f GB while it is written, %.0f GB are free", out, needed / 1e9, free / 1e9)
        bar.start(sum(each.pixels for each in planned))
        for each in planned:
            each.write(part, bar.advance)
    names = dict.fromkeys(name for each in planned for name in each.names)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(out, to, tuple(out / name for name in names), size, windows)


def _request(
    folder: EmbeddingFolder,
    to: Target,
    dtype: Dtype | None,
    crs: str | None,
    resolution: float | None,
    resampling: Resampling,
    compress: Compress,
) -> ExportRequest:
    """Return the request; UsageError for settings that do not go together."""
    dtype = dtype or DTYPES[to][0] if crs is None else dtype or "float32"
    if dtype not in DTYPES[to]:
        raise UsageError(f"--to {to} holds {' or '.join(DTYPES[to])}, not {dtype}. Leave --dtype out, or use --to cog.")
    if crs is not None and to != "cog":
        raise UsageError(f"--to {to} keeps the pixels where they are. Leave --crs out, or use --to cog.")
    if crs is not None and dtype == "int8":
        raise UsageError("codes cannot be reprojected: each pixel has a scale of its own. Use --dtype float32.")
    if crs is None and (resolution is not None or resampling != "nearest"):
        raise UsageError("--resolution and --resampling belong to --crs. Name the coordinate system of the result.")
    return ExportRequest(folder, mosaics(folder), dtype, compress, crs, resolution, resampling)
