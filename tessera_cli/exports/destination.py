"""The folder of an export: whole or not at all, replaced only where it is an export of ours of the same kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tessera_cli.errors import IdentityError, UsageError, differences, listed
from tessera_cli.files import atomic_directory, json_bytes
from tessera_cli.outputs.beside import ENDINGS
from tessera_cli.parts import remove_parts_of
from tessera_cli.reading import read_json

MARKER, STORE = "export.json", "zarr.json"
"""Where an export says what it is: a file of its own, or of a Zarr store an attribute of its root."""
KEY = "tessera:export"


@contextmanager
def destination(path: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a new folder that becomes `path` if the block succeeds; an older export of the same kind is replaced then.

    `about` holds `to` and `identity`, by which exports are of one kind, and is written into the folder. What killed
    runs have left beside it is removed.

    Raises:
        UsageError: there is something else, an export with files of others in it, or it cannot be written there.
        IdentityError: there is an export of other embeddings, or to another target.
    """
    _check(path, about)
    remove_parts_of(path)
    with atomic_directory(path) as part:
        yield part
        _mark(part, about)
        _check(path, about)  # again: exports take their time


def _check(path: Path, about: Mapping[str, Any]) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    there = _marker(path)
    if there is None:
        raise UsageError(f"{path} exists and is no export. Choose another --out, or remove it.")
    found = differences(there, {key: about[key] for key in ("to", "identity")})
    found = [each for each in found if each.split()[0].partition(".")[0] in ("to", "identity")]
    if found:
        raise IdentityError(f"{path} is another export: {', '.join(found[:3])}. Choose another --out, or remove it.")
    written = tuple(there.get("entries") or ())
    others = sorted(each.name for each in path.iterdir() if each.name not in written and not _describes(each, written))
    if others:
        raise UsageError(
            f"{path} holds {listed(others, 3)}, which the export did not write and its replacement would remove. Move "
            "it, or choose another --out."
        )


def _describes(path: Path, written: tuple[str, ...]) -> bool:
    """Return whether a viewer has left the file beside one that the export wrote."""
    return any(path.name == f"{name}{ending}" for name in written for ending in ENDINGS)


def _marker(path: Path) -> Mapping[str, Any] | None:
    """Return what an export says of itself; None for anything else."""
    with suppress(OSError, ValueError, TypeError, KeyError, UsageError):
        found = read_json(path / MARKER) if (path / MARKER).is_file() else read_json(path / STORE)["attributes"][KEY]
        if isinstance(found, dict) and found.get("type") == "tessera export":
            return found
    return None


def _mark(part: Path, about: Mapping[str, Any]) -> None:
    store = part / STORE
    entries = {each.name for each in part.iterdir()} | ({STORE} if store.is_file() else {MARKER})
    about = {"type": "tessera export", "schema": 1, **about, "entries": sorted(entries)}
    if not store.is_file():
        (part / MARKER).write_bytes(json_bytes(about))
        return
    root = json.loads(store.read_text())
    root["attributes"][KEY] = about
    store.write_bytes(json_bytes(root))
