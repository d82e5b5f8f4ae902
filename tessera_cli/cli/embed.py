"""`tessera embed`: the main job."""

from __future__ import annotations

import shlex
from typing import Any

from tessera_cli.api import embed as library
from tessera_cli.cli.area import read_area
from tessera_cli.cli.follow import then
from tessera_cli.cli.options import AREA_ARGUMENT
from tessera_cli.cli.progress import RunProgress
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb


@verb(library.embed, area=AREA_ARGUMENT)
def embed(terminal: Terminal, **given: Any) -> None:
    """Turn an area and a year into embeddings.

    Writes int8 GeoTIFF tiles with a scale raster and prints the path of each. Run it again to do what is missing.
    With --points it writes no rasters but a table, a row per plot and window, and prints its path.

    Examples:

      tessera embed --aoi field.geojson --year 2023

      tessera embed --bbox 4.30 51.95 4.40 52.00 --window 2023-07/2024-06 --model v2-large --out delft

      tessera embed --points plots.gpkg --year 2023 --out plots

      tessera embed --dpixels tiles/* --weights v1_1.pt --source mpc --format npy --out vectors
    """
    with RunProgress(terminal, paths=given["points"] is None) as progress:
        summary = library.embed(**read_area(given), progress=progress)
    see = f"open {summary.mosaics[0]} in QGIS, or " if summary.mosaics else ""
    look = shlex.join(["tessera", "info" if summary.table else "preview", str(summary.out)])
    look = f"see {look}" if summary.table else f"look at them with {look}"
    if summary.preview is not None:
        look = f"open {summary.preview} in a browser"
    files = [*summary.mosaics, *filter(None, (summary.table, summary.preview))]
    terminal.end(summary, map(str, files), then(summary, f"{see}{look}"))
