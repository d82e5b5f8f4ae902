"""`tessera sample`: embeddings at points and over polygons, as a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.api import sample as library
from tessera_cli.cli.options import AREA, OUTPUT, STORED, Out, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb
from tessera_cli.errors import UsageError

PLACES = Annotated[
    Path,
    typer.Argument(
        metavar="PLACES",
        help="Points or polygons: GeoPackage, GeoJSON, Shapefile, KML, FlatGeobuf, GeoParquet, CSV (lon, lat).",
    ),
]
LAYER = option(str | None, AREA, "The layer of a file that has several.", metavar="NAME", env=False)
OUT = option(
    Out,
    OUTPUT,
    "The table: .parquet (GeoParquet) or .csv.  [default: CSV to standard output]",
    short=("-o",),
    metavar="FILE",
    env=False,
)
ORDER = option(
    library.Order,
    OUTPUT,
    "Rows as in the file, or neighbours beside each other, for large tables that are cut by area.",
    env=False,
)


@verb(library.sample, **STORED, places=PLACES, layer=LAYER, out=OUT, order=ORDER)
def sample(terminal: Terminal, **given: Any) -> None:
    """Look up embeddings at points, or average them over polygons.

    One row per place and window, with the file's own columns, the observations behind it, and a status: ok, none (no
    embedding there), outside (no tile there), small (a polygon without the centre of a pixel: the pixel under it).

    Examples:

      tessera sample field_2023_v2-medium plots.gpkg -o plots.parquet

      tessera sample field_2023_v2-medium points.csv > vectors.csv

      tessera sample zurich parcels.gpkg --layer crops --year 2022,2023 -o crops.csv
    """
    out = given.pop("out")
    if out is None and terminal.as_json:
        raise UsageError("--json describes the table that -o writes; without -o the table itself is printed. Give -o.")
    made = library.sample(**given, out=sys.stdout if out is None else out)
    if out is not None:
        terminal.tell(made.to_dict(), [str(made.path)])
