"""`tessera preview`: a folder of embeddings as pictures and a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tessera_cli.api import preview as library
from tessera_cli.cli.options import OUTPUT, STORED, Out, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

OUT = option(Out, OUTPUT, "Write here instead of into the folder itself.", short=("-o",), metavar="DIR", env=False)


@contextmanager
def bars(terminal: Terminal, doing: str = "drawing") -> Iterator[Any]:
    """Yield a bar, on a terminal; else None."""
    if not terminal.draws:
        yield None
        return
    from rich.progress import BarColumn, TimeRemainingColumn

    shown = terminal.start_bars(doing, BarColumn(bar_width=30), "{task.percentage:>3.0f} %", TimeRemainingColumn())
    try:
        yield shown
    finally:
        shown.stop()


@verb(library.preview, **STORED, out=OUT)
def preview(terminal: Terminal, **given: Any) -> None:
    """Draw a folder of embeddings.

    Writes preview.html, one page to open in a browser, and per window a picture as GeoTIFF (for QGIS) and as PNG;
    prints their paths, the page first. Similar colours are similar embeddings, in all tiles and windows.

    Examples:

      tessera preview field_2023_v2-medium

      tessera preview alps --year 2018-2024

      tessera preview --json alps | jq -r .page
    """
    with bars(terminal) as progress:
        made = library.preview(**given, progress=progress)
    files = [made.page, *(file for path in made.pictures.values() for file in (path, path.with_suffix(".png")))]
    terminal.tell(made.to_dict(), map(str, files))
    terminal.suggest(f"open {made.page} in a browser")
