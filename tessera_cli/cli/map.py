"""`tessera map`: what labels and embeddings say of every pixel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from tessera_cli.api import map as library
from tessera_cli.cli.export import PixelBar
from tessera_cli.cli.options import AREA, MODEL, OUTPUT, STORED, TIME, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

logger = logging.getLogger(__name__)

OWN: dict[str, Any] = {
    **STORED,
    "labels": option(
        Path,
        AREA,
        "Polygons or points with a column of classes or numbers, or a raster of classes.",
        metavar="FILE",
        env=False,
    ),
    "column": option(
        str | None, AREA, "The labels' column.  [default: class, label, crop or name]", metavar="NAME", env=False
    ),
    "layer": option(str | None, AREA, "The layer of a file that has several.", metavar="NAME", env=False),
    "labels_of": option(
        str | None, TIME, "The window that the labels are of, where several are mapped.", metavar="YEAR", env=False
    ),
    "task": option(
        Literal["classification", "regression"] | None, MODEL, "[default: told by the column's type]", env=False
    ),
    "adapter": option(
        Literal["constant", "ridge", "logistic", "knn", "forest", "mlp"] | None,
        MODEL,
        "The light model.  [default: logistic for classes, ridge for numbers]",
        env=False,
    ),
    "samples": option(int, MODEL, "Labelled pixels to fit on, at most.", metavar="N", min=1, env=False),
    "block": option(
        float | None,
        MODEL,
        "Side in metres of the squares that are left out together to estimate the accuracy.  [default: as far as "
        "labels resemble each other]",
        metavar="METRES",
        env=False,
    ),
    "seed": option(int, MODEL, "Of the choice of pixels, the model and the folds.", metavar="N", min=0, env=False),
    "out": option(Path, OUTPUT, "The map to write: a name in .tif.", short=("-o",), metavar="FILE", env=False),
}


@verb(library.map, **OWN)
def map(terminal: Terminal, **given: Any) -> None:
    """Map classes or numbers from labels.

    Fits a light model on all labels and writes what it says of every pixel: class and confidence, or value and spread.
    Beside the map lies a record (.json) of classes and codes, and of how right labels were predicted that were left
    out. Of several UTM zones or windows there is a map for each. Prints the paths of the maps. `tessera evaluate` says
    first whether that is worth it.

    Examples:

      tessera map field_2023_v2-medium --labels fields.gpkg --column crop -o crops.tif

      tessera map alps --labels plots.csv --column biomass --adapter forest -o biomass.tif

      tessera map zurich --year 2022,2023 --labels fields.gpkg --column crop --labels-of 2022 -o crops.tif
    """
    with PixelBar(terminal, "mapping") as progress:
        made = library.map(**given, progress=progress)
    terminal.tell(made.to_dict(), [str(file) for file in made.files])
    logger.info("%s", _told(made.about))


def _told(about: dict[str, Any]) -> str:
    """Return a line on the accuracy."""
    found = about["accuracy"]
    if found is None:
        return "how right the map is could not be estimated"
    if about["task"] == "regression":
        return f"labels left out by blocks: RMSE {found['rmse']:.4g}, R2 {found['r2']:.2f}"
    overall = found["overall"]
    return (
        f"labels left out by blocks: {100 * overall['accuracy']:.1f} % of {overall['of']:,} right "
        f"[{100 * overall['low']:.1f}, {100 * overall['high']:.1f}]"
    )
