"""`preview`: a folder of embeddings as pictures and a page. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.pictures.make import Preview


def preview(
    path: AnyPath,
    *,
    year: Years | None = None,
    window: Windows | None = None,
    out: AnyPath | None = None,
    progress: Any = None,
) -> Preview:
    """Draw a folder of embeddings: a picture per window, and a page to look at them. Files of an earlier one go.

    Colours are the first three principal components of embeddings from all tiles and windows, the same everywhere. Each
    window gets a Cloud-Optimized GeoTIFF with overviews (`preview_2023.tif`: RGB, nodata 0, in the zone of most pixels,
    else Web Mercator; pixels of other zones by nearest neighbour) and a PNG; `preview.html` shows them all with the
    observation counts, loads nothing, and has less than 15 MB. The same folder gives the same bytes.

    Args:
        path: The folder that `embed` wrote, of any format. Tiles without a place on the map are laid side by side.
        year: Calendar year, or several, as of `embed`. Default: all windows of the folder.
        window: Range of months or days, ends included; or several.
        out: Write to this folder instead of `path`.
        progress: Called with (pixels done, pixels in all); or a `tqdm` bar or a `rich.progress.Progress`.

    Returns:
        Paths of the page and, by window, of the pictures; the share of the variance that they show.

    Raises:
        TesseraError: UsageError if the folder holds no embeddings or lacks a window, or `out` cannot be written,
            NothingToEmbedError if no tile has any, TileError if a file is damaged, DiskFullError.
    """
    from tessera_cli.api.arguments import as_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.pictures.make import make_preview
    from tessera_cli.runs.collection import write_collection
    from tessera_cli.runs.folder import TileFolder

    bar = Bar(progress)
    windows = None if year is None and window is None else as_windows(year, window)
    folder = EmbeddingFolder.open(Path(path), windows)
    made = make_preview(folder, Path(path if out is None else out), start=bar.start, advance=bar.advance)
    if out is None:
        write_collection(TileFolder.open(folder.path))
    return made
