"""`preview`: a folder of embeddings as pictures and a page. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.pictures.make import Preview


def preview(
    folder: AnyPath,
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
        folder: The folder that `embed` wrote, of any format. Tiles without a place on the map are laid side by side.
        year: Calendar years, such as 2023, "2022,2023" or "2017-2024". Default: all windows of the folder.
        window: Ranges of dates such as "2023-07/2024-06", or names of windows such as "20230701-20240630".
        out: Write to this folder instead of `folder`.
        progress: Called with (pixels done, pixels in all); or a `tqdm` bar or a `rich.progress.Progress`.

    Returns:
        Paths of the page and, by window, of the pictures; the share of the variance that they show.

    Raises:
        TesseraError: UsageError if the folder holds no embeddings or lacks a window, or `out` cannot be written,
            NothingToEmbedError if no tile has any, TileError if a file is damaged, DiskFullError.
    """
    from tessera_cli.api.arguments import chosen_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.folders.folder import TileFolder
    from tessera_cli.pictures.make import make_preview
    from tessera_cli.runs.collection import write_collection

    bar = Bar(progress)
    opened = EmbeddingFolder.open(folder, chosen_windows(year, window))
    made = make_preview(opened, Path(folder if out is None else out), start=bar.start, advance=bar.advance)
    if out is None:
        write_collection(TileFolder.open(opened.path))
    return made
