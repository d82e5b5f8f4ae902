"""`search`: where else it looks like this. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.exports.results import Results
    from tessera_cli.tables.places import AnyPlaces


def search(
    folder: AnyPath,
    *,
    at: Sequence[float] | None = None,
    like: AnyPlaces | None = None,
    unlike: AnyPlaces | None = None,
    layer: str | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    out: AnyPath,
    share: float = 0.01,
    patches: int = 100,
    min_pixels: int = 10,
    seed: int = 0,
    progress: AnyProgress | None = None,
) -> Results:
    """Find places whose embeddings are like those of examples, and make a page to search on by clicks.

    Similarity is the cosine of a pixel's embedding and the mean of the examples, each of length 1, less a quarter of
    the mean of what it should be unlike (Rocchio 1971). A polygon is one example: the mean of its pixels.

    Args:
        folder: The folder that `embed` wrote, of format geotiff or npy.
        at: Longitude and latitude in degrees of one place to look for.
        like: Points or polygons to look for, as `sample` takes them: a file, a GeoDataFrame, shapely geometries or an
            array (N, 2) of degrees. Without `at` or `like` there is only the page.
        unlike: The same of what it should be unlike.
        layer: The layer of the files of `like` and `unlike`, where they have several.
        year: The calendar year to search. Default: the only window of the folder.
        window: Or another window of it.
        out: The folder to write: `search.html`, `search.json`, and per UTM zone `utm31n_similarity.tif`, a
            cloud-optimised GeoTIFF of float32, and `utm31n_patches.gpkg`, the most similar patches. Earlier results of
            `search` are replaced, a folder of anything else is refused.
        share: Share of the pixels that make up patches, the most similar ones: above 0, at most 1.
        patches: Patches to keep, the most similar ones.
        min_pixels: Pixels of a patch, at least.
        seed: Of the sample from which the page's short codes are learnt.
        progress: A function of (done, total) pixels, a `tqdm` bar, or a `rich.progress.Progress`.

    Returns:
        Paths of the page, the rasters and the patches, and what the record says.

    Raises:
        TesseraError: UsageError for a folder, examples or numbers that cannot be used; NothingToEmbedError where there
            is no embedding at an example; DiskFullError; TileError if a file cannot be read.
    """
    import numpy as np

    from tessera_cli.api.arguments import check_numbers, chosen_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.errors import UsageError
    from tessera_cli.similarity.examples import Examples
    from tessera_cli.similarity.make import search as run
    from tessera_cli.tables.places import Places

    check_numbers(seed=seed)
    if not 0 < share <= 1:
        raise UsageError(f"--share {share} is out of range. Give a share above 0 and at most 1, such as 0.01.")
    if patches < 1 or min_pixels < 1:
        raise UsageError("--patches and --min-pixels are 1 or more.")
    opened = EmbeddingFolder.open(folder, chosen_windows(year, window))
    opened.check_single("to search with --year or --window")
    if at is not None and (isinstance(at, str) or len(at) != 2):
        raise UsageError(f"--at {at!r} is no place. Give longitude and latitude in degrees, such as 4.3571 52.0116.")
    if layer is not None and like is None and unlike is None:
        raise UsageError("--layer chooses within the files of --like and --unlike. Give one, or leave it out.")
    wanted = [] if at is None else [Places.of(np.array([at], np.float64))]
    wanted += [] if like is None else [Places.of(like, layer=layer)]
    others = [] if unlike is None else [Places.of(unlike, layer=layer)]
    if others and not wanted:
        raise UsageError("What it should be unlike says nothing alone. Give --at or --like as well.")
    return run(
        opened,
        Examples.of(opened, wanted, others) if wanted else None,
        Path(out),
        share=share,
        patches=patches,
        min_pixels=min_pixels,
        seed=seed,
        progress=Bar(progress),
    )
