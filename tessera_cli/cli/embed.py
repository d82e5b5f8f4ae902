"""`tessera embed`: the main job."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera_cli.api import embed as library
from tessera_cli.api.embed_table import embed_table
from tessera_cli.cli.area import read_area
from tessera_cli.cli.follow import then
from tessera_cli.cli.options import AREA, AREA_ARGUMENT, option
from tessera_cli.cli.progress import RunProgress
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb
from tessera_cli.errors import UsageError

TABLE = option(
    Path | None,
    AREA,
    "Time series of points in place of an area, a row per sample and date: Parquet, GeoParquet or CSV. No network.",
    metavar="FILE",
    env=False,
)
COLUMNS = option(
    list[str] | None,
    AREA,
    "--table: what its columns are called and mean, as KEY=NAME or a TOML file (docs/series.md); repeatable.",
    metavar="KEY=NAME|FILE",
    env=False,
)


@verb(library.embed, area=AREA_ARGUMENT, table=TABLE, columns=COLUMNS)
def embed(terminal: Terminal, **given: Any) -> None:
    """Turn an area and a year into embeddings.

    Writes int8 GeoTIFF tiles with a scale raster and prints the path of each. Run it again to do what is missing.
    With --points it writes no rasters but a table, a row per plot and window, and prints its path.

    Examples:

      tessera embed --aoi field.geojson --year 2023

      tessera embed --bbox 4.30 51.95 4.40 52.00 --window 2023-07/2024-06 --model v2-large --out delft

      tessera embed --points plots.gpkg --year 2023 --out plots

      tessera embed --dpixels tiles/* --weights v1_1.pt --source mpc --format npy --out vectors

      tessera embed --table series.parquet --year 2023 --out vectors.parquet
    """
    table, columns = given.pop("table"), given.pop("columns")
    if table is not None:
        _embed_table(terminal, table, columns, given)
        return
    if columns:
        raise UsageError("--columns says how to read --table, and there is none. Leave it out.")
    with RunProgress(terminal, paths=given["points"] is None) as progress:
        summary = library.embed(**read_area(given), progress=progress)
    see = f"open {summary.mosaics[0]} in QGIS, or " if summary.mosaics else ""
    look = shlex.join(["tessera", "info" if summary.table else "preview", str(summary.out)])
    look = f"see {look}" if summary.table else f"look at them with {look}"
    if summary.preview is not None:
        look = f"open {summary.preview} in a browser"
    files = [*summary.mosaics, *filter(None, (summary.table, summary.preview))]
    terminal.end(summary, map(str, files), then(summary, f"{see}{look}"))


def _embed_table(terminal: Terminal, table: Path, columns: list[str] | None, given: dict[str, Any]) -> None:
    """Run on a table; UsageError for options that only an area, or d-pixels, can have."""
    known = inspect.signature(embed_table).parameters
    defaults = {name: each.default for name, each in inspect.signature(library.embed).parameters.items()}
    others = {name: value for name, value in given.items() if name not in known}
    if refused := [name for name, value in others.items() if value and value != defaults.get(name)]:
        names = ", ".join("AOI" if name == "area" else f"--{name.replace('_', '-')}" for name in refused)
        raise UsageError(f"--table holds all observations, and makes a table. Leave out {names}.")
    chosen = {name: value for name, value in given.items() if name in known}
    with _bars(terminal) as progress:
        made = embed_table(table, columns=columns, **chosen, progress=progress)
    terminal.tell(made.to_dict(), [str(made.path)])
    worth = f"tessera evaluate {shlex.quote(str(made.path))} --column NAME --out report"
    terminal.suggest(f"see what they are worth with {worth}")


@contextmanager
def _bars(terminal: Terminal) -> Iterator[Any]:
    """Yield bars of samples on a terminal, else None."""
    if not terminal.draws:
        yield None
        return
    from rich.progress import BarColumn, TimeRemainingColumn

    shown = terminal.start_bars("encoding", BarColumn(bar_width=30), "{task.percentage:>3.0f} %", TimeRemainingColumn())
    try:
        yield shown
    finally:
        shown.stop()
