"""What an interrupted comparison has found so far, so that the next one goes on from there."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tessera_cli import __version__
from tessera_cli.changes.pairs import Pair
from tessera_cli.errors import UsageError
from tessera_cli.files import explained, write_bytes
from tessera_cli.reading import read_file

_LARGEST = 1 << 30


class Kept:
    """Arrays by name, in a folder beside the one that is to be written; the comparison's digest is in its name."""

    def __init__(self, out: Path, digest: str) -> None:
        """Go on with what is there, or begin anew. Runs of the same comparison at once share it."""
        self.folder = out.with_name(f"{out.name}.{digest[:16]}.kept")

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """Return what was put under this name; None where nothing whole is there."""
        try:
            with np.load(io.BytesIO(read_file(self.folder / f"{name}.npz", _LARGEST)), allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, KeyError, BadZipFile, UsageError):
            return None

    def put(self, name: str, **arrays: np.ndarray) -> None:
        """Keep arrays under a name; DiskFullError and the like where that cannot be."""
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / f"{name}.npz", packed.getbuffer())

    def remove(self) -> None:
        """Remove all of it."""
        with suppress(OSError):
            for file in self.folder.glob("*.npz"):
                file.unlink()
            self.folder.rmdir()


def digest_of(pairs: Sequence[Pair], seed: int) -> str:
    """Return what tells comparisons apart: the records of all tiles, which hold checksums, and the seed."""
    found = hashlib.sha256(f"{__version__} {seed}".encode())
    for pair in pairs:
        for side in (pair.before, pair.after):
            for tile, box in side.tiles:
                found.update(f"{pair.name} {pair.grid} {side.window_name} {tile.name} {box}".encode())
                found.update(hashlib.sha256(tile.item_path.read_bytes()).digest())
    return found.hexdigest()
