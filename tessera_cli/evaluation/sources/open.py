"""A path -> the sources that it holds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tessera_cli.embeddings.folder import Windows
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.sources.folder import FolderSource, folder_sources
from tessera_cli.evaluation.sources.geotessera import EMBEDDINGS, geotessera_sources
from tessera_cli.evaluation.sources.raster import TIFF, raster_sources, rasters_in
from tessera_cli.evaluation.sources.tiled import TiledSource
from tessera_cli.reading import is_there

AnySource = FolderSource | TiledSource


def open_source(path: Path, windows: Windows = None) -> tuple[AnySource, ...]:
    """Return what a path holds: the windows of a folder of `embed`, the years of a download, or rasters.

    Args:
        path: A folder that `embed` wrote, the root of a download of geotessera, a GeoTIFF (float32; int8 with
            `*_scales.tif` beside it or with scales of its bands; AlphaEarth) or a folder of such.
        windows: Those wanted of a folder of `embed`; None: all.

    Raises:
        UsageError: It is none of these, or mixes embeddings of different models or settings.
        NothingToEmbedError: A folder of `embed` without any embedding.
    """
    if not is_there(path):
        raise UsageError(f"{path}: no such file or folder. Give what `tessera embed` wrote, or a GeoTIFF.")
    if not path.is_dir():
        if path.suffix.lower() not in TIFF:
            raise UsageError(f"{path} is no raster of embeddings. Give a folder of `tessera embed`, or a GeoTIFF.")
        return raster_sources(path)
    if (path / EMBEDDINGS).is_dir():
        return geotessera_sources(path)
    if not any(path.glob("*.json")) and rasters_in(path):
        return raster_sources(path)
    return folder_sources(path, windows)


def open_sources(paths: Sequence[Path], windows: Windows = None) -> tuple[AnySource, ...]:
    """Return the sources of several paths, with no name twice: equal ones get the folder before, or a number."""
    found = [(path, source) for path in paths for source in open_source(path, windows)]
    names = Counter(source.name for _, source in found)
    made: list[AnySource] = []
    for path, source in found:
        name = source.name if names[source.name] == 1 else f"{path.resolve().parent.name}/{source.name}"
        taken, number = {each.name for each in made}, 2
        free = name
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        made.append(dataclasses.replace(source, name=free))
    return tuple(made)
