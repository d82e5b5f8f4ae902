"""Find stored d-pixels at paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tessera_cli.dpixels.official import describe_folder, is_folder
from tessera_cli.dpixels.stored import Stored
from tessera_cli.dpixels.zarr_store import describe_store, is_store
from tessera_cli.errors import TileError, UsageError
from tessera_cli.files import PART


def find_stores(paths: Sequence[Path]) -> tuple[Stored, ...]:
    """Describe the d-pixels at `paths`, sorted by name.

    A path is a Zarr store, an official tile folder, or a folder that directly holds such; one given twice counts once.
    UsageError where there is nothing, where a store cannot be described, and where two have the same name.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        inside = list(members(path))
        if not inside:
            why = "it holds no Zarr stores and no official tile folders" if path.is_dir() else "there is no such folder"
            raise UsageError(f"{path} has no d-pixels: {why}. Give what `tessera fetch` wrote.")
        folders |= {member.resolve(): member for member in inside}
    stores: dict[str, Stored] = {}
    for member in folders.values():
        try:
            stored = describe(member)
        except TileError as error:  # its name and its pixels are not known, so it cannot fail as a tile
            raise UsageError(f"{error} Or leave {member.name} out.") from error
        if (other := stores.setdefault(stored.name, stored)) is not stored:
            raise UsageError(
                f"{other.path} and {member} are both {stored.name}: results would overwrite each other. Give one."
            )
    return tuple(stores[name] for name in sorted(stores))


def members(path: Path) -> Iterator[Path]:
    """Yield the stores and official tile folders that a path is or directly holds."""
    if is_store(path) or is_folder(path):
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.suffix != PART and (is_store(inner) or is_folder(inner)):  # .part: a killed run left it
                yield inner


def describe(path: Path) -> Stored:
    """Describe a Zarr store or an official tile folder without its observations; TileError where it is damaged."""
    return describe_store(path) if is_store(path) else describe_folder(path)
