"""`map`: what labels and embeddings say of every pixel. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.evaluation.mapping.make import Mapped

MapTask = Literal["classification", "regression"]
MapAdapter = Literal["constant", "ridge", "logistic", "knn", "forest", "mlp"]


def map(
    folder: AnyPath,
    *,
    labels: AnyPath,
    out: AnyPath,
    column: str | None = None,
    layer: str | None = None,
    task: MapTask | None = None,
    adapter: MapAdapter | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    labels_of: str | int | None = None,
    samples: int = 50_000,
    block: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: AnyProgress | None = None,
) -> Mapped:
    """Fit a light model on all labels and write what it says of every pixel of a folder, with its confidence.

    Args:
        folder: The folder that `embed` wrote, of format geotiff or npy.
        labels: Polygons or points with a column of classes or numbers, or a raster of classes.
        out: The map to write: a name in .tif. Cloud-optimised GeoTIFF of classes (band 1, 0: none; colours and names
            come with it) and confidence in percent (band 2); of numbers: value and, by `forest`, spread. Where the
            folder holds several UTM zones or windows there is a file for each, with both in its name. Beside it lies a
            record of the same name in .json. An earlier map is replaced, anything else is refused.
        column: That of the labels. Default: class, label, crop or name.
        layer: The layer of a file that has several.
        task: Default: told by the type of the column.
        adapter: The light model. Default: logistic for classes, ridge for numbers.
        year: Calendar years to map. Default: all windows of the folder.
        window: Ranges of dates to map, or names of windows.
        labels_of: The window that the labels are of, where several are mapped, such as 2023.
        samples: Labelled pixels to fit on, at most.
        block: Side in metres of the squares that are left out together when the accuracy is estimated.
            Default: as far as labels resemble each other.
        seed: Of the choice of pixels, the model and the folds.
        threads: Cores to fit with. Default: those that this process may use.
        progress: A function of (done, total) pixels, a `tqdm` bar, or a `rich.progress.Progress`.

    Returns:
        Paths of the rasters and of the record, and what the record says: classes and codes, accuracy of predictions of
        parcels that were left out, with exact intervals, and settings.

    Raises:
        TesseraError: UsageError for labels that cannot be used or lie elsewhere, for settings that do not go together
            and where something else is in the place of the map; NothingToEmbedError where no tile has an embedding;
            DiskFullError; TileError if a file of the folder cannot be read.
    """
    from tessera_cli import config
    from tessera_cli.api.arguments import check_choices, check_numbers, chosen_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.errors import UsageError
    from tessera_cli.evaluation.labelled import from_labels
    from tessera_cli.evaluation.mapping.make import labelled_window, make_map
    from tessera_cli.evaluation.sources.folder import folder_sources
    from tessera_cli.learning.adapters import HEADLINE
    from tessera_cli.learning.needed import check_packages

    if task is not None:
        check_choices(task=(task, MapTask))
    if adapter is not None:
        check_choices(adapter=(adapter, MapAdapter))
    check_numbers(seed=seed, threads=threads)
    if samples < 1 or (block is not None and not block > 0):
        raise UsageError("--samples and --block are above 0: pixels to fit on, and metres.")
    check_packages("A map of labels")
    opened = EmbeddingFolder.open(folder, chosen_windows(year, window))
    of = labelled_window(opened, None if labels_of is None else str(labels_of))
    source = folder_sources(Path(folder), of)[0]
    found = from_labels(
        [source], Path(labels), column=column, layer=layer, task=task, unit=None, samples=samples, seed=seed
    )
    return make_map(
        opened,
        found,
        Path(out),
        adapter=adapter or HEADLINE[found.task],
        labels={"file": Path(labels).name, "column": column, "layer": layer, "window": of},
        block=block,
        seed=seed,
        threads=threads or config.threads(),
        progress=Bar(progress),
    )
