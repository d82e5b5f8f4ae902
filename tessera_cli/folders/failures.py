"""Notes of tiles that runs could not make: one small file each, so that many processes never overwrite each other's."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.files import write_json
from tessera_cli.folders.run_record import checked_failure, checked_run, read_or_none
from tessera_cli.outputs.layers import RUNS

FAILED = ".failed"


def note_failure(folder: Path, run: str, request: TileRequest, error: TesseraError, *, allow_missing: int) -> None:
    """Note that a run, by its key, could not make a tile for the pixels asked for."""
    failed = {
        "reason": str(error),
        "shape": list(request.tile.shape),
        "requested": base64.b64encode(request.packed).decode(),
        "allow_missing": allow_missing,
    }
    path = _path(folder, run, request.name)
    while True:
        path.parent.mkdir(exist_ok=True)  # not its parents: where a disk has gone, nothing is written in its place
        try:
            write_json(path, failed)
            return
        except TesseraError:
            if path.parent.exists():  # else another process has just removed it
                raise


def forget_failure(folder: Path, run: str, request: TileRequest) -> None:
    """Remove the note of a tile that is finished after all, and with the last one their folder."""
    path = _path(folder, run, request.name)
    with suppress(OSError):
        path.unlink()
        path.parent.rmdir()


def noted_failures(folder: Path, run: str = "*") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield tile -> `reason`, `shape`, `requested` and `allow_missing`, of one run by its key, or of all.

    Version 0.1.0 has listed them in the records of runs.
    """
    for path in sorted((folder / RUNS).glob(f"{run}.json")):
        yield from (checked_run(read_or_none(path)) or {}).get("failed", {}).items()
    for path in sorted((folder / RUNS).glob(f"{run}{FAILED}/*.json")):
        if (failed := checked_failure(read_or_none(path))) is not None:
            yield path.stem, failed


def failed_names(folder: Path, run: str) -> set[str]:
    """Return the tiles of a run, by its key, that are noted as failed, whether or not they were finished since."""
    return {path.stem for path in (folder / RUNS / f"{run}{FAILED}").glob("*.json")}


def _path(folder: Path, run: str, name: str) -> Path:
    return folder / RUNS / f"{run}{FAILED}" / f"{name}.json"
