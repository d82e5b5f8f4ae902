"""`tessera fetch`: download all that a machine without network needs."""

from __future__ import annotations

from typing import Any, Literal

from tessera_cli.api import fetch as library
from tessera_cli.cli.area import read_area
from tessera_cli.cli.options import AREA_ARGUMENT, OUTPUT, RUN, Out, option
from tessera_cli.cli.progress import RunProgress
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

FORMAT = option(
    Literal["zarr", "npy"],
    OUTPUT,
    "Zarr stores, or folders of arrays in the official layout: many times larger, and they record less.",
    env=False,
)
OUT = option(Out, OUTPUT, "Folder for the d-pixels.  [default: ./<aoi>_<window>_dpixels]", short=("-o",), metavar="DIR")
WORKERS = option(int | None, RUN, "Tiles to read side by side.  [default: one, and the next]", metavar="N", min=1)


@verb(library.fetch, area=AREA_ARGUMENT, format=FORMAT, out=OUT, workers=WORKERS)
def fetch(terminal: Terminal, **given: Any) -> None:
    """Store d-pixels and weights, to embed without network.

    Prints the path of each tile's store, and last the command that embeds the folder: without a network it gives the
    rasters of a direct run. Run it again to fetch what is missing.

    Examples:

      tessera fetch --aoi field.geojson --year 2023

      tessera fetch --aoi field.geojson --year 2023 --model v1.1-mpc --format npy --out official

      tessera fetch --aoi field.geojson --year 2023 > fetched && tail -n 1 fetched > embed.sh
    """
    with RunProgress(terminal) as progress:
        summary = library.fetch(**read_area(given), progress=progress)
    terminal.end(summary, filter(None, [summary.embed_command]), f"{summary.embed_command}   # needs no network")
