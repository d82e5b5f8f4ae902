"""One written file, and whether it still is what was written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tessera_cli.errors import TileError
from tessera_cli.files import sha256_of
from tessera_cli.outputs.layers import Role


@dataclass(frozen=True)
class File:
    """One written file of a tile."""

    name: str
    """Its path in the folder."""
    size: int
    sha256: str

    def is_whole(self, folder: Path) -> bool:
        """Whether the file in `folder` has the recorded bytes; OSError if it cannot be read."""
        return sha256_of(folder / self.name) == self.sha256

    def checked(self, folder: Path) -> Path:
        """Its path in `folder`, after comparing its bytes; TileError if they differ."""
        path = folder / self.name
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise unsound(path, f"it cannot be read: {error.strerror or error}") from error
        if digest != self.sha256:
            raise unsound(path, f"its SHA-256 is {digest[:12]}..., not {self.sha256[:12]}...")
        return path


@dataclass(frozen=True)
class Asset(File):
    """A file that holds a layer of a tile."""

    role: Role

    @classmethod
    def of(cls, role: Role, name: str, data: bytes | memoryview) -> Asset:
        """`data`: the bytes of the file."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), role)


def unsound(path: Path, why: str) -> TileError:
    """The error for a file that is not what its tile's record promises."""
    return TileError(f"{path} is not sound: {why}. Remove it and run again.")
