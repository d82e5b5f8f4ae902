"""Paths -> the d-pixels that lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tessera_cli.dpixels.official import describe_folder, is_folder
from tessera_cli.dpixels.stored import Stored
from tessera_cli.dpixels.zarr_store import describe_store, is_store
from tessera_cli.errors import TileError, UsageError
from tessera_cli.files import PART


def find_stores(paths: Sequence[Path]) -> tuple[Stored, ...]:
    """What lies at `paths`, by name. Each is a Zarr store, an official tile folder, or a folder directly holding such.

    Only descriptions are read. UsageError where nothing is found, where one cannot be described, and where two have
    the same name; a path given twice counts once.
    """
    places: dict[Path, Path] = {}
    for path in paths:
        found = list(members(path))
        if not found:
            why = "it holds no Zarr stores and no official tile folders" if path.is_dir() else "there is no such folder"
            raise UsageError(f"{path} has no d-pixels: {why}. Give what `tessera fetch` wrote.")
        places |= {member.resolve(): member for member in found}
    stores: dict[str, Stored] = {}
    for member in places.values():
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
    """The stores and official tile folders that a path is or directly holds."""
    if is_store(path) or is_folder(path):
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.suffix != PART and (is_store(inner) or is_folder(inner)):  # .part: a killed run left it
                yield inner


def describe(path: Path) -> Stored:
    """A Zarr store or an official tile folder, without its observations; TileError where it is damaged."""
    return describe_store(path) if is_store(path) else describe_folder(path)
