"""`tessera verify`: check that a folder, a tile, a store or a weights file is complete and undamaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tessera_cli.api import reading
from tessera_cli.cli.options import MODEL, RUN, SOURCE, model_names, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

if TYPE_CHECKING:
    from tessera_cli.folders.checks import Check

PATH = Annotated[
    Path, typer.Argument(metavar="PATH", help="A folder, a tile's file, stored d-pixels or a weights file.")
]
OWN = {
    "records_only": option(bool, RUN, "Of a folder only records, lists and the sizes of files: no raster is read."),
    "recompute": option(
        str | None,
        RUN,
        "Of a folder: make a random part of its tiles again, in memory, and compare bytes.",
        metavar="1%|TILES",
        env=False,
    ),
    "seed": option(int, RUN, "Which tiles are drawn.", metavar="N", min=0, env=False),
    "dpixels": option(
        list[Path] | None,
        SOURCE,
        "The stored d-pixels that the tiles were made from.  [default: the scenes frozen in the folder]",
        metavar="PATH...",
        env=False,
    ),
    "model": option(
        str | None,
        MODEL,
        "The model that made the folder.  [default: the released one of the recorded name]",
        metavar="NAME|PATH",
        values=model_names,
        env=False,
    ),
    "seams": option(
        Path | None,
        RUN,
        "Another folder of the same settings: where both have pixels, they must be equal.",
        metavar="FOLDER",
        env=False,
    ),
}


@verb(reading.verify, path=PATH, **OWN)
def verify(terminal: Terminal, *, path: Path, **given: Any) -> None:
    """Check that a folder, a tile or a weights file is sound.

    Every file of every tile is read in full: its checksum, its layout, and that the files of a tile agree. Prints what
    is damaged, failed or missing, and what viewers left beside rasters that have changed since (.ovr, .aux.xml); with
    -v also what is sound. Exit code 0 if all is well, 4 if not, 2 if PATH is not ours.

    --recompute makes some tiles again from what they were made from, and compares bytes: a tile that differs is
    damaged, with the number of pixels and the largest difference. Give --catalog, --model and the like as `embed` had
    them, or --dpixels. --seams compares with the folder of a run over a neighbouring area.

    Examples:

      tessera verify field_2023_v2-medium

      tessera verify field_2023_v2-medium/utm31n_c0112_r1098_2023.json

      tessera verify field_2023_dpixels

      tessera verify --records-only field_2023_v2-medium

      tessera verify alps_2023_v2-medium --recompute 1%

      tessera verify valley_2023_v2-medium --seams ridge_2023_v2-medium

      tessera verify --json field_2023_v2-medium | jq '.by_name[] | select(.status == "damaged")'
    """

    def report(check: Check) -> None:
        made_again = check.reason and check.status in ("sound", "empty")  # or compared with another folder
        told = made_again or terminal.verbosity > 0 or check.status == "stale" or not check.is_sound
        if not terminal.as_json and (told or not (path / "run.json").exists()):
            terminal.result(f"{check.name}  {check.status}{f'  {check.reason}' if check.reason else ''}")

    found = reading.verify(path, report=report, **given)
    counts = ", ".join(f"{count} {status}" for status, count in found.counts.items())
    terminal.end(found, [counts or "nothing to check"])
