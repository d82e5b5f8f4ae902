"""Write the report of an evaluation into a folder: `report.json`, `report.html`, `figures/`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.report import page
from tessera_cli.files import explained, write_json
from tessera_cli.reading import is_there

CELLS = "cells"
"""Folder of what was computed, beside the report."""
JSON = "report.json"


def check_report(folder: Path) -> None:
    """Raise UsageError unless a report can be written there: a folder that is new, empty, or of an earlier report."""
    if folder.is_file():
        raise UsageError(f"--out {folder} is a file. Name a folder.")
    existing = next(each for each in (folder, *folder.absolute().parents) if is_there(each))
    if not existing.is_dir():
        raise UsageError(f"--out {folder} cannot be made: {existing} is a file. Name another folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--out {folder} cannot be written: {existing} is read-only for you. Name another folder.")
    if folder.is_dir():
        there = {each.name for each in folder.iterdir()}
        if there and not there & {CELLS, JSON}:
            raise UsageError(f"--out {folder} holds something else, which stays. Name a new or empty folder.")


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write all of it, in place of an earlier one; DiskFullError or TileError if the disk cannot be written."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON, report)
        page.compose(report).write(folder)
