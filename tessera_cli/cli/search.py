"""`tessera search`: where else it looks like this."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tessera_cli.api import search as library
from tessera_cli.cli.export import PixelBar
from tessera_cli.cli.options import AREA, MODEL, OUTPUT, STORED, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

logger = logging.getLogger(__name__)

OWN: dict[str, Any] = {
    **STORED,
    "at": option(tuple[float, float] | None, AREA, "A place to look for, in degrees.", metavar="LON LAT", env=False),
    "like": option(
        Path | None, AREA, "Points or polygons to look for; a polygon is one example.", metavar="FILE", env=False
    ),
    "unlike": option(Path | None, AREA, "Points or polygons of what it should be unlike.", metavar="FILE", env=False),
    "layer": option(str | None, AREA, "The layer of files that have several.", metavar="NAME", env=False),
    "share": option(
        float, MODEL, "Share of the pixels that make up patches, the most similar ones.", metavar="SHARE", env=False
    ),
    "patches": option(int, MODEL, "Patches to keep, the most similar ones.", metavar="N", min=1, env=False),
    "min_pixels": option(int, MODEL, "Pixels of a patch, at least.", metavar="N", min=1, env=False),
    "seed": option(int, MODEL, "Of the sample that the page's codes are learnt from.", metavar="N", min=0, env=False),
    "out": option(Path, OUTPUT, "The folder to write.", short=("-o",), metavar="DIR", env=False),
}


@verb(library.search, **OWN)
def search(terminal: Terminal, **given: Any) -> None:
    """Find places that look like an example.

    Compares every pixel's embedding with those of a few places (--at, --like), and writes how similar it is, as a
    raster for each UTM zone, the most similar patches as polygons, and search.html: a page in which a click shows at
    once what is like that place. Without an example there is only the page. Prints their paths, the page first.

    Examples:

      tessera search delft -o delft_search

      tessera search delft --at 4.3571 52.0116 -o delft_search

      tessera search delft --like orchards.gpkg --unlike vineyards.gpkg --share 0.002 -o orchards

      tessera search alps --year 2023 --like glaciers.geojson -o glaciers --json | jq .similarity
    """
    with PixelBar(terminal, "searching") as progress:
        made = library.search(**given, progress=progress)
    terminal.tell(made.to_dict(), map(str, (made.page, *made.files)))
    if made.about["examples"]:
        logger.info(
            "%s of %s patches are kept, of similarities of %.3f and more",
            f"{made.about['patches']:,}",
            f"{made.about['patches_in_all']:,}",
            made.about["similarity"],
        )
    terminal.suggest(f"open {made.page} in a browser")
