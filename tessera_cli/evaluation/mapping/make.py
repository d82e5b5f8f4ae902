"""Make a map: fit on all labels, say what that is worth, and write every pixel, box by box."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.mapping.accuracy import accuracy, out_of_fold, split_of
from tessera_cli.evaluation.mapping.legend import Legend
from tessera_cli.evaluation.mapping.model import MapModel
from tessera_cli.evaluation.mapping.target import TAG, check, paths, record_of
from tessera_cli.evaluation.mapping.write import MapRaster, write
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.exports.mosaic import mosaics
from tessera_cli.exports.raster import check_size
from tessera_cli.extent.window import Window
from tessera_cli.learning.splits import Split
from tessera_cli.outputs.tags import SOFTWARE, model_tags, window_tags


@dataclass(frozen=True)
class Mapped:
    """What was written."""

    files: tuple[Path, ...]
    """A raster per zone and window."""
    record: Path
    """The JSON file beside them."""
    about: dict[str, Any]
    """Its content."""

    def to_dict(self) -> dict[str, Any]:
        return {**self.about, "files": [str(file) for file in self.files], "record": str(self.record)}


def labelled_window(folder: EmbeddingFolder, name: str | None) -> str | None:
    """Return the window that labels belong to, None for one that is not known; UsageError where that is not said."""
    names = sorted({tile.record.window.name for tile in folder.tiles if tile.record.window is not None})
    if name is None and len(names) > 1:
        raise UsageError(
            f"{folder.path} holds {len(names)} windows: {', '.join(names)}. Say which one the labels are of: "
            f"--labels-of {names[-1]}."
        )
    if name is None:
        return names[0] if names else None
    try:
        found = Window.from_name(name).name
    except ValueError:
        found = name
    if found not in names:
        raise UsageError(f"{folder.path} has no embeddings of {name}. Its windows: {', '.join(names) or 'none dated'}.")
    return found


def make_map(
    folder: EmbeddingFolder,
    samples: LabelledSamples,
    out: Path,
    *,
    adapter: str,
    labels: dict[str, Any],
    block: float | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Any = None,
) -> Mapped:
    """Fit `adapter` on the samples, and write a map of all tiles of the folder.

    Memory is that of the samples and of a box of 512 x 512 pixels, whatever the area. Files appear whole or not at
    all, the record last; an earlier map is replaced.

    Args:
        folder: what is mapped.
        samples: the labels, with the vectors of this kind of embeddings as their first set of features.
        out: a name in .tif; of several zones or windows, each file has them in its name.
        adapter: of `learning.adapters`.
        labels: what the record tells of the labels besides, such as file and column.
        block: side in metres of the squares of ground that the folds of the accuracy leave whole; None: as far as
            labels resemble each other.
        seed: of the model and of the folds.
        threads: of the fit.
        progress: has `start(total)` and `advance(count)`, in pixels.

    Raises:
        UsageError: something else is in the place of the map, or the adapter does not fit the task.
        DiskFullError: there is no room for it.
    """
    placed = mosaics(folder)
    files, record = paths(out, placed), record_of(out)
    check(files, record)
    for mosaic in placed:
        check_size(mosaic.grid, 2)
    split = split_of(samples, block, seed)
    model = MapModel.fit(samples, adapter, seed=seed, threads=threads)
    told = {
        "type": "map",
        "schema": 1,
        "task": samples.task,
        "adapter": model.fitted.adapter,
        "hyperparameters": {key: float(value) for key, value in model.fitted.chosen.items()},
        "bands": list(model.layer.names),
        "classes": [] if model.legend is None else _classes(model.legend, samples),
        "files": [
            {"name": file.name, "crs": mosaic.grid.crs, "window": mosaic.window_name, "pixels": mosaic.pixels}
            for file, mosaic in zip(files, placed, strict=True)
        ],
        "accuracy": None if split is None else _accuracy(samples, split, adapter, seed, threads),
        "labels": {
            **labels,
            "samples": len(samples),
            "parcels": len(np.unique(samples.parcels)),
            "left_out": list(samples.left_out),
        },
        "embeddings": dict(folder.first.identity),
        "seed": seed,
        "software": f"{SOFTWARE} {__version__}",
    }
    tags = {TAG: samples.task, "TESSERA_ADAPTER": model.fitted.adapter}
    rasters = [
        MapRaster(file, mosaic, {**model_tags(folder.first.identity), **window_tags(mosaic.window), **tags})
        for file, mosaic in zip(files, placed, strict=True)
    ]
    write(rasters, model, record, told, progress)
    return Mapped(tuple(files), record, told)


def _classes(legend: Legend, samples: LabelledSamples) -> list[dict[str, Any]]:
    """Return code, name, colour and number of samples of each class."""
    counts = np.bincount(samples.targets, minlength=len(legend.names)).tolist()
    return [{**each, "samples": count} for each, count in zip(legend.to_list(), counts, strict=True)]


def _accuracy(samples: LabelledSamples, split: Split, adapter: str, seed: int, threads: int) -> dict[str, Any]:
    found = out_of_fold(samples, split, adapter, seed=seed, threads=threads)
    about = {"split": split.kind, "block": split.size, "folds": split.count, "blocks": len(np.unique(split.blocks))}
    return {**about, **accuracy(samples, found)}
