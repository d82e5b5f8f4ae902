"""`tessera evaluate`: what embeddings are worth, with few labels."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.api import evaluate as library
from tessera_cli.cli.evaluation_table import print_evaluation
from tessera_cli.cli.options import MODEL, OUTPUT, RUN, SOURCE, TIME, option
from tessera_cli.cli.preview import bars
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

LABELS, PROTOCOL = "Labels", "Protocol"

OWN: dict[str, Any] = {
    "inputs": Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT...",
            help="Folders that `tessera embed` wrote, GeoTIFFs of embeddings, geotessera downloads, side by side; or "
            "one table (Parquet, CSV, npz) of vectors or of time series.",
            show_default=False,
        ),
    ],
    "labels": option(
        Path | None, LABELS, "Polygons, points or a raster. Tables hold their own.", metavar="FILE", env=False
    ),
    "layer": option(str | None, LABELS, "The layer of a file that has several.", metavar="NAME", env=False),
    "column": option(
        str | None, LABELS, "The column to predict.  [default: class, label, crop or name]", metavar="NAME", env=False
    ),
    "task": option(library.TaskName | None, LABELS, "What is to be learned.  [default: told by the column]", env=False),
    "unit": option(
        library.UnitName | None,
        LABELS,
        "Predict pixels, or parcels by their mean vector.  [default: pixel]",
        env=False,
    ),
    "features": option(
        list[str] | None,
        SOURCE,
        "Of a table of vectors: the columns whose names begin so are one set of features; repeatable.",
        metavar="PREFIX",
        env=False,
    ),
    "columns": option(
        list[str] | None,
        SOURCE,
        "Of time series: what a column is, as in sample=field_id, or a TOML file; repeatable (docs/series.md).",
        metavar="KEY=NAME|FILE",
        env=False,
    ),
    "dpixels": option(
        list[Path] | None,
        SOURCE,
        "What `tessera fetch` wrote of the same place: adds raw baselines and robustness; repeatable.",
        metavar="PATH",
        env=False,
    ),
    "model": option(
        list[str] | None,
        MODEL,
        "Encode time series or d-pixels with this model; repeatable.",
        metavar="NAME|PATH",
        env=False,
    ),
    "beside": option(
        bool, MODEL, "Score the first 16, 32 and 64 dimensions, too, and float32 of what is encoded here."
    ),
    "year": option(
        list[str] | None, TIME, "Calendar year of folders and time series; repeatable.", metavar="YEAR", env=False
    ),
    "window": option(
        list[str] | None, TIME, "Months or days: 2023-07/2024-06; repeatable.", metavar="FROM/TO", env=False
    ),
    "test": option(
        list[Path] | None,
        PROTOCOL,
        "Test on this in place of OUT, such as another year; one for each OUT; repeatable.",
        metavar="OUT2",
        env=False,
    ),
    "split": option(
        str | None, PROTOCOL, "A column of the table that is true for test samples.", metavar="COLUMN", env=False
    ),
    "group": option(
        str | None, PROTOCOL, "A column whose values are never split: site, parcel.", metavar="COLUMN", env=False
    ),
    "leave_out": option(
        str | None, PROTOCOL, "A column whose values are left out in turn: region.", metavar="COLUMN", env=False
    ),
    "block": option(
        float | None,
        PROTOCOL,
        "Side of the blocks of ground in metres.  [default: from the variogram of the labels]",
        metavar="METRES",
        env=False,
    ),
    "folds": option(int, PROTOCOL, "Parts, of which one at a time is tested.", min=2, metavar="N", env=False),
    "budgets": option(str, PROTOCOL, "Percentages of the labels to learn from.", metavar="P,...", env=False),
    "shots": option(
        str | None, PROTOCOL, "Labels per class to learn from, beside them: 1,5,10,50.", metavar="N,...", env=False
    ),
    "draws": option(
        int | None,
        PROTOCOL,
        "Draws of labels of each budget.  [default: 10; of segmentation one per fold]",
        min=1,
        metavar="N",
        env=False,
    ),
    "adapter": option(
        list[str] | None,
        PROTOCOL,
        "ridge, logistic, knn, forest or mlp; repeatable.  [default: all of the task]",
        metavar="NAME",
        env=False,
    ),
    "samples": option(int, RUN, "Use at most so many samples.", min=10, metavar="N", env=False),
    "seed": option(int, RUN, "Of everything that is drawn.", min=0, metavar="N", env=False),
    "out": option(Path, OUTPUT, "Folder of the report.", short=("-o",), metavar="DIR", env=False),
}


@verb(library.evaluate, **OWN)
def evaluate(terminal: Terminal, **given: Any) -> None:
    """Measure what embeddings are worth, with few labels.

    Predicts labels from embeddings with light models, at 1 to 100 % of the labels, beside baselines on the same
    samples, splits and draws, and says what was shown and what was not. Writes report.html and report.json.

    Examples:

      tessera evaluate field_2023_v2-medium --labels fields.gpkg --column crop -o report

      tessera evaluate out_a out_b --labels fields.gpkg --dpixels field_2023_dpixels -o report

      tessera evaluate vectors.parquet --features tessera_ --features raw_ --column crop --group site -o report
    """
    with bars(terminal, "fitting") as progress:
        made = library.evaluate(**given, progress=progress)
    if terminal.as_json:
        terminal.result_json(made.to_dict())
    else:
        print_evaluation(made.report, terminal)
    terminal.suggest(f"open {made.page} in a browser")
    if (command := _map_of(made.report["task"], given)) is not None:
        terminal.suggest(f"map all of it: {command}")


def _map_of(task: str, given: Mapping[str, Any]) -> str | None:
    """Return the command that maps the first folder from the same labels; None where `map` does not take them."""
    from tessera_cli.outputs.layers import RUN as RECORD

    folder = given["inputs"][0]
    if given["labels"] is None or task == "segmentation" or not (folder / RECORD).is_file():
        return None
    options = {"labels": [given["labels"]], **{name: [given[name]] for name in ("layer", "column", "task")}}
    options |= {"year": given["year"] or [], "window": given["window"] or []}
    words = [word for name, values in options.items() for value in values if value for word in (f"--{name}", value)]
    return shlex.join(map(str, ["tessera", "map", folder, *words, "--out", f"{folder.name}_map.tif"]))
