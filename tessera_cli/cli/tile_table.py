"""The table of `info --csv`: a row per tile and window, as RFC 4180 has it."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import printable

if TYPE_CHECKING:
    from tessera_cli.inspection.census import TileState

COLUMNS = ("tile", "window", "status", "pixels", "missing_scenes", "reason", "bytes", "finished", "path")


def write_table(states: Iterable[TileState], folder: Path) -> None:
    """Write a row to standard output for each state as it comes; `path` is that of the tile's raster, array or store.

    `finished` is UTC. What is not known, or not there, is an empty field.
    """
    rows = csv.writer(sys.stdout)  # lines end with CR LF
    for number, state in enumerate(states):
        if not number:  # after the first record was read: errors leave no table
            rows.writerow(COLUMNS)
        tile, window = state.tile_and_window
        there = state.finished is not None
        finished = "" if state.finished is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(state.finished))
        row = (
            *(tile, window, state.status),
            *((state.pixels, len(state.missing_scenes)) if there else ("", "")),
            state.reason,
            *((state.bytes, finished) if there else ("", "")),
            "" if state.main is None else folder / state.main,
        )
        rows.writerow(printable(str(field), longest=None) for field in row)
    sys.stdout.flush()
