"""The folder of an export: whole or not at all, replaced only where it is an export of ours of the same kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tessera_cli.errors import DiskFullError, IdentityError, UsageError, differences
from tessera_cli.files import atomic_directory, json_bytes
from tessera_cli.parts import PART, is_alive, is_token
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
        UsageError: there is something else, or it cannot be written there.
        IdentityError: there is an export of other embeddings, or to another target.
    """
    _check(path, about)
    _remove_stale_parts(path)
    with atomic_directory(path) as part:
        yield part
        _mark(part, about)


def check_space(path: Path, needed: int) -> int:
    """Return the bytes that are free where `path` is to be; DiskFullError if they are fewer than needed."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFullError(
            f"{path} takes up to {needed / 1e9:,.1f} GB while it is written, and {free / 1e9:,.1f} GB are free. Make "
            "room, choose another --out, or fewer windows by --year or --window."
        )
    return free


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


def _marker(path: Path) -> Mapping[str, Any] | None:
    """Return what an export says of itself; None for anything else."""
    with suppress(OSError, ValueError, TypeError, KeyError, UsageError):
        found = read_json(path / MARKER) if (path / MARKER).is_file() else read_json(path / STORE)["attributes"][KEY]
        if isinstance(found, dict) and found.get("type") == "tessera export":
            return found
    return None


def _mark(part: Path, about: Mapping[str, Any]) -> None:
    about = {"type": "tessera export", "schema": 1, **about}
    store = part / STORE
    if not store.is_file():
        (part / MARKER).write_bytes(json_bytes(about))
        return
    root = json.loads(store.read_text())
    root["attributes"][KEY] = about
    store.write_bytes(json_bytes(root))


def _remove_stale_parts(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}.*{PART}") if path.parent.is_dir() else ():
        token = part.name.removeprefix(f"{path.name}.").removesuffix(PART)
        if is_token(token) and is_alive(token) is False:
            shutil.rmtree(part, ignore_errors=True)
