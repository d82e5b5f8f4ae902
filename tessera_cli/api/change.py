"""`change`: what has changed on the ground between two windows. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.exports.results import Results


def change(
    folder: AnyPath,
    other: AnyPath | None = None,
    *,
    before: str | int | None = None,
    after: str | int | None = None,
    out: AnyPath,
    rate: float = 0.05,
    min_pixels: int = 10,
    seed: int = 0,
    progress: AnyProgress | None = None,
) -> Results:
    """Compare two windows pixel by pixel, and name what has changed beyond what is ordinary between them.

    What is ordinary is learnt from the area itself, of which most must not have changed: what has become of land that
    looked alike, and how far single pixels are from that. Uncertainties of the embeddings (`embed --uncertainty`) are
    told where both folders have them, and play no part in it.

    Args:
        folder: The folder that `embed` wrote, of format geotiff or npy.
        other: A second folder, of the same model and settings, that holds the later window.
        before: The window that comes first, such as 2022. Default: the only one of `folder`, or the earlier of two.
        after: The window to compare it with. Default: the only one of `other`, or the later of two.
        out: The folder to write: per UTM zone `utm31n_scores.tif` (cosine distance, euclidean distance, noise, distance
            from what was to be expected, z-score, p-value) and `utm31n_changed.tif` (1 changed, 0 not), both
            cloud-optimised, `utm31n_patches.gpkg` and the STAC item `utm31n_change.json`; `change.html` to look at, and
            `change.json`. An earlier comparison is replaced, a folder of anything else is refused.
        rate: Share of the pixels named as changed that have not (Benjamini and Hochberg 1995); docs/change.md says how
            well that held.
        min_pixels: Pixels of a patch, at least; smaller ones are in the rasters alone.
        seed: Of the sample and the kinds of land.
        progress: A function of (done, total) pixels, a `tqdm` bar, or a `rich.progress.Progress`.

    Returns:
        Paths of the page and of the other files, and what the record says.

    Raises:
        TesseraError: UsageError for folders that cannot be compared and where something else is in the place of `out`;
            NothingToEmbedError where no pixel is in both; DiskFullError; TileError if a file cannot be read.
    """
    from tessera_cli.api.arguments import check_numbers
    from tessera_cli.api.progress import Bar
    from tessera_cli.changes.make import compare
    from tessera_cli.changes.pairs import chosen, pairs
    from tessera_cli.errors import UsageError
    from tessera_cli.learning.needed import check_packages

    check_numbers(seed=seed)
    if not 0 < rate < 1:
        raise UsageError(f"--rate {rate} is out of range. Give a share above 0 and below 1, such as 0.05.")
    if min_pixels < 1:
        raise UsageError("--min-pixels is 1 or more.")
    check_packages("A comparison of windows")
    first, second = chosen(folder, other, before, after)
    return compare(pairs(first, second), Path(out), rate=rate, min_pixels=min_pixels, seed=seed, progress=Bar(progress))
