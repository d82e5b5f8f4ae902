"""`tessera verify`: check that a folder, a tile, a store or a weights file is complete and undamaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tessera_cli.api import reading
from tessera_cli.cli.options import RUN, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

if TYPE_CHECKING:
    from tessera_cli.runs.checks import Check

PATH = Annotated[
    Path, typer.Argument(metavar="PATH", help="A folder, a tile's file, stored d-pixels or a weights file.")
]


RECORDS_ONLY = option(bool, RUN, "Of a folder only records, lists and the sizes of files: no raster is read.")


@verb(reading.verify, path=PATH, records_only=RECORDS_ONLY)
def verify(terminal: Terminal, *, path: Path, records_only: bool) -> None:
    """Check that a folder, a tile or a weights file is sound.

    Every file of every tile is read in full: its checksum, its layout, and that the files of a tile agree. Prints what
    is damaged, failed or missing, and what viewers left beside rasters that have changed since (.ovr, .aux.xml); with
    -v also what is sound. Exit code 0 if all is well, 4 if not, 2 if PATH is not ours.

    Examples:

      tessera verify field_2023_v2-medium

      tessera verify field_2023_v2-medium/utm31n_c0112_r1098_2023.json

      tessera verify field_2023_dpixels

      tessera verify --records-only field_2023_v2-medium

      tessera verify --json field_2023_v2-medium | jq '.by_name[] | select(.status == "damaged")'
    """

    def report(check: Check) -> None:
        told = terminal.verbosity > 0 or check.status == "stale" or not check.is_sound
        if not terminal.as_json and (told or not (path / "run.json").exists()):
            terminal.result(f"{check.name}  {check.status}{f'  {check.reason}' if check.reason else ''}")

    found = reading.verify(path, records_only=records_only, report=report)
    counts = ", ".join(f"{count} {status}" for status, count in found.counts.items())
    terminal.end(found, [counts or "nothing to check"])
