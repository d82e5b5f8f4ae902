"""`tessera fetch`: download all that a machine without network needs."""

from __future__ import annotations

import shlex
from typing import Any, Literal

from tessera_cli.api import fetch as library
from tessera_cli.cli.area import read_area
from tessera_cli.cli.follow import then
from tessera_cli.cli.options import AREA_ARGUMENT, MODEL, OUTPUT, RUN, Out, model_names, option
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

WHOSE_WEIGHTS = option(
    str | None,
    MODEL,
    "Whose weights to fetch: a name of `tessera weights list` (default v2-medium), a path, or none.",
    metavar="NAME|PATH|none",
    values=model_names,
)


@verb(library.fetch, area=AREA_ARGUMENT, model=WHOSE_WEIGHTS, format=FORMAT, out=OUT, workers=WORKERS)
def fetch(terminal: Terminal, **given: Any) -> None:
    """Store d-pixels and weights, to embed without network.

    Prints the path of each tile's store, and last the command that embeds the folder: without a network it gives the
    rasters of a direct run. With --model none it stores d-pixels alone, as `tessera pretrain` takes them. Run it again
    to fetch what is missing.

    Examples:

      tessera fetch --aoi field.geojson --year 2023

      tessera fetch --aoi field.geojson --year 2023 --model v1.1-mpc --format npy --out official

      tessera fetch --aoi field.geojson --year 2023 > fetched && tail -n 1 fetched > embed.sh

      tessera fetch --aoi alps.geojson --year 2023 --model none && tessera pretrain alps_2023_dpixels --out runs/alps
    """
    with RunProgress(terminal) as progress:
        summary = library.fetch(**read_area(given), progress=progress)
    train = shlex.join(["tessera", "pretrain", str(summary.out), "--out", "run"])
    next_step = then(summary, f"{summary.embed_command or train}   # needs no network")
    terminal.end(summary, filter(None, [summary.embed_command]), next_step)
