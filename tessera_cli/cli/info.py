"""`tessera info`: what a folder, a tile, stored d-pixels, a raster or a weights file hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.api import reading
from tessera_cli.cli.options import OUTPUT, option
from tessera_cli.cli.terminal import Terminal, lines
from tessera_cli.cli.verb import verb
from tessera_cli.errors import UsageError

PATH = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="A folder, a tile's .json, stored d-pixels, a raster, a weights file; a run or shards of `pretrain`.",
    ),
]
BARE = {
    name: option(bool, OUTPUT, f"Print only the {text}.")
    for name, text in (("crs", "CRS"), ("bounds", "bounds"), ("model", "model"))
}


@verb(reading.info, path=PATH, **BARE)
def info(terminal: Terminal, *, crs: bool, bounds: bool, model: bool, **given: Any) -> None:
    """Describe a folder, a tile, a raster or a weights file.

    Of a folder: its settings, and which tiles are done, empty, failed or missing, and why. Of stored d-pixels: tile,
    window, source, the dates of each sensor, and missing scenes. Of a weights file: its family, sizes and rules, and
    whether it is a published one.

    Examples:

      tessera info field_2023_v2-medium

      tessera info --json field_2023_v2-medium | jq '.by_tile[] | select(.status == "failed")'

      tessera info --crs field_2023_v2-medium/utm31n_c0112_r1098_2023_emb.tif

      tessera info --json field_2023_dpixels/utm31n_c0112_r1098_2023.zarr | jq .observations

      tessera info --model student_nano.pt

      tessera info runs/alps
    """
    found = reading.info(**given)
    bare = [name for name, wanted in (("crs", crs), ("bounds", bounds), ("model", model)) if wanted]
    if not bare:
        terminal.tell(found, lines(found))
    for name in bare:
        if (value := found.get(name)) is None:
            raise UsageError(f"{given['path']} has no {name} of its own. Ask for one of its tiles.")
        terminal.result(" ".join(map(str, value)) if isinstance(value, list) else str(value))
