"""`tessera info`: what a folder, a tile or a raster holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.cli import options as o
from tessera_cli.cli.terminal import Terminal

Bare = Annotated[bool, typer.Option(help="Print only this value.", rich_help_panel=o.OUTPUT)]


def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An output folder, a tile's .json or a raster.")],
    crs: Bare = False,
    bounds: Bare = False,
    model: Bare = False,
    as_json: o.JsonOption = False,
    verbose: o.VerboseOption = 0,
    quiet: o.QuietOption = 0,
    debug: o.DebugOption = False,
) -> None:
    """Describe an output folder (tiles done, empty, failed, missing and why), a tile or a raster.

    Examples:

      tessera info field_2023_v2-medium

      tessera info --json field_2023_v2-medium | jq '.by_tile[] | select(.status == "failed")'

      tessera info --crs field_2023_v2-medium/utm31n_c0112_r1098_2023_emb.tif
    """
    terminal = Terminal(verbose - quiet, as_json)
    from tessera_cli.errors import UsageError
    from tessera_cli.info import describe

    found = describe(path)
    bare = [name for name, wanted in (("crs", crs), ("bounds", bounds), ("model", model)) if wanted]
    for name in bare:
        if found.get(name) is None:
            raise UsageError(f"{path} has no {name} of its own. Ask for one of its tiles.")
        value = found[name]
        terminal.result(" ".join(map(str, value)) if isinstance(value, list) else str(value))
    if bare:
        return
    if as_json:
        terminal.result_json(found)
        return
    for line in lines(found):
        terminal.result(line)


def lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested names and values for people."""
    for name, value in found.items():
        label = f"{indent}{name}"
        if isinstance(value, Mapping):
            yield label
            yield from lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{label:18s} {', '.join(map(str, value)) or '-'}"
        else:
            yield f"{label:18s} {f'{value:,}' if isinstance(value, int) else value}"
