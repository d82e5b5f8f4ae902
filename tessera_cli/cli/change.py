"""`tessera change`: what has changed on the ground between two windows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.api import change as library
from tessera_cli.cli.export import PixelBar
from tessera_cli.cli.options import MODEL, OUTPUT, STORED, TIME, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

logger = logging.getLogger(__name__)

OWN: dict[str, Any] = {
    "folder": STORED["folder"],
    "other": Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="A second folder, which holds the later window.")
    ],
    "before": option(
        str | None,
        TIME,
        "The window that comes first.  [default: the only one, or the earlier of two]",
        metavar="WINDOW",
        env=False,
    ),
    "after": option(
        str | None,
        TIME,
        "The window to compare it with.  [default: the only one, or the later of two]",
        metavar="WINDOW",
        env=False,
    ),
    "rate": option(float, MODEL, "Share of what is named that has not changed, about.", metavar="SHARE", env=False),
    "min_pixels": option(int, MODEL, "Pixels of a patch, at least.", metavar="N", min=1, env=False),
    "seed": option(int, MODEL, "Of the sample and the kinds of land.", metavar="N", min=0, env=False),
    "out": option(Path, OUTPUT, "The folder to write.", short=("-o",), metavar="DIR", env=False),
}


@verb(library.change, **OWN)
def change(terminal: Terminal, **given: Any) -> None:
    """Name what has changed between two windows.

    Scores every pixel by how far its embedding is from what has become of land that looked like it, beside what is
    ordinary, and names those that have changed, at a false-discovery rate. What is ordinary is learnt from the area, of
    which most must not have changed. Writes for each UTM zone rasters of scores and of what has changed, the changed
    patches as polygons, and a STAC item; change.html, a page to look at them, and a record (change.json). Prints their
    paths, the page first.

    Examples:

      tessera change delft --before 2022 --after 2023 -o delft_change

      tessera change delft_2022_v2-medium delft_2023_v2-medium -o delft_change --rate 0.01

      tessera change alps -o alps_change --json
    """
    with PixelBar(terminal, "comparing") as progress:
        made = library.change(**given, progress=progress)
    terminal.tell(made.to_dict(), map(str, (made.page, *made.files)))
    about = made.about
    logger.info(
        "%s of %s pixels have changed from %s to %s (false-discovery rate %.3g)",
        f"{about['changed']:,}",
        f"{about['pixels']:,}",
        about["before"],
        about["after"],
        about["false_discovery_rate"],
    )
    terminal.suggest(f"open {made.page} in a browser")
