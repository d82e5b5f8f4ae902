"""Write a folder's collection, catalogue and index of items, made from the records of its finished tiles."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.files import explained, json_bytes, write_bytes, write_json
from tessera_cli.folders.folder import TileFolder
from tessera_cli.journal import replacement
from tessera_cli.json_text import parse_json
from tessera_cli.outputs import item_table
from tessera_cli.outputs.collection import CONTENT, DIGEST, INDEX_KEY, Member, compose, digest_of
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import RUN
from tessera_cli.outputs.old_item import is_old
from tessera_cli.outputs.stac import CATALOG, COLLECTION, INDEX
from tessera_cli.outputs.vrt import whole
from tessera_cli.reading import MAX_JSON, MB, read_file, read_json

logger = logging.getLogger(__name__)

PICTURES = ("preview*.html", "preview*.png", "preview*.tif")
"""Files that show the folder as a whole, as the mosaics do: assets of the collection."""
MAX_LIST = 500 * MB
_OTHERS = {RUN, COLLECTION, CATALOG}


def write_collection(folder: TileFolder) -> tuple[Path, ...]:
    """Write `collection.json`, `catalog.json` and, with pyarrow, `items.parquet`; return the paths of those there are.

    They say what lies in the folder: call it again after adding files. Nothing is written where nothing has changed.
    Records that earlier versions wrote are replaced by ones of today's form first. A folder that cannot be written
    stays as it is, and a warning says so. Tiles without data, time or place are left out, since STAC has no items
    without time. Takes some hundred bytes of memory a tile, and a kilobyte with `items.parquet`.
    """
    if not folder.identity:
        return ()
    items = Items(folder)
    try:
        with explained(folder.path):
            items.refresh()
            for name in items.old:
                upgrade(folder, name)
            return _write(folder, items)
    except UsageError as error:  # read-only: what matters is there
        logger.warning("the list of tiles is not brought up to date: %s", error)
        return ()


def upgrade(folder: TileFolder, name: str) -> None:
    """Put a record in today's form in place of one that an earlier version wrote; the files of the tile stay.

    So does its time, by which files are known that were changed since.
    Nothing is done where another run replaces the tile at this moment.
    """
    path = folder.item_path(name)
    try:
        written, before = path.stat(), read_file(path, MAX_JSON)
        record = TileRecord.from_item(_parsed(before))
    except (OSError, ValueError, UsageError):
        return
    with replacement(folder.path, name, path.name) as new:
        write_json(new.files / path.name, record.to_item())
        os.utime(new.files / path.name, ns=(written.st_atime_ns, written.st_mtime_ns))
        new.commit(replaces=before)


@dataclass(frozen=True)
class _Known:
    """What is kept of a file that may be the record of a tile."""

    signature: tuple[int, ...]
    member: Member | None = None
    is_old: bool = False
    is_left_out: bool = False


@dataclass
class Items:
    """The records of a folder's tiles; those that have not changed since are not read again."""

    folder: TileFolder
    _known: dict[str, _Known] = field(default_factory=dict)

    def refresh(self) -> tuple[Member, ...]:
        """Return what a collection says of each finished tile of the folder's settings, by name."""
        found = {}
        for path in sorted(self.folder.path.glob("*.json")):
            if path.name in _OTHERS:
                continue
            with suppress(OSError):  # it has gone; whoever replaces it looks again afterwards
                stat, before = path.stat(), self._known.get(path.stem)
                signature = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                found[path.stem] = before if before and before.signature == signature else self._read(path, signature)
        self._known = found
        return tuple(known.member for known in found.values() if known.member is not None)

    @property
    def old(self) -> list[str]:
        """Return the names of records in the form of earlier versions."""
        return [name for name, known in self._known.items() if known.is_old]

    @property
    def left_out(self) -> list[str]:
        """Return the names of tiles that hold something, and whose time or place is not known."""
        return [name for name, known in self._known.items() if known.is_left_out]

    def _read(self, path: Path, signature: tuple[int, ...]) -> _Known:
        data = read_file(path, MAX_JSON)
        try:
            item = _parsed(data)
            record = TileRecord.from_item(item)
        except (UsageError, ValueError):
            return _Known(signature)
        if record.name != path.stem or self.folder.foreign(record) or self.folder.incomplete(record):
            return _Known(signature)
        member = Member.of(record, hashlib.sha256(data).hexdigest())
        return _Known(signature, member, is_old(item), member is None and record.status == "done")


def listing(folder: TileFolder, members: Sequence[Member], *, index: bool) -> dict[Path, bytes]:
    """Return `collection.json` and `catalog.json` as they are to be; none if no tile can be listed.

    `index`: whether there is one of the items.
    """
    if not members:
        return {}
    pictures = {path.name for kind in PICTURES for path in folder.path.glob(kind) if path.is_file()}
    files = pictures | set(whole(folder.path)) | ({INDEX} if index else set())
    collection, catalog = compose(folder.identity, folder.note, members, files)
    return {folder.path / COLLECTION: json_bytes(collection), folder.path / CATALOG: json_bytes(catalog)}


def lists_of(folder: TileFolder) -> dict[Path, Mapping[str, Any] | None]:
    """Return the collection and the catalogue that are there; None in place of one that is not ours."""
    found: dict[Path, Mapping[str, Any] | None] = {}
    for path in (folder.path / COLLECTION, folder.path / CATALOG):
        if path.exists():
            try:
                content = read_json(path, MAX_LIST)
            except (OSError, ValueError):
                content = {CONTENT: None}  # torn by another tool: nobody else's
            found[path] = content if isinstance(content, dict) and CONTENT in content else None
    return found


def names_index(collection: Mapping[str, Any] | None) -> bool:
    """Return whether a collection says that there is an index of its items."""
    assets = (collection or {}).get("assets")
    return isinstance(assets, dict) and INDEX_KEY in assets


def _write(folder: TileFolder, items: Items) -> tuple[Path, ...]:
    before = lists_of(folder)
    if others := [path for path, content in before.items() if content is None]:
        logger.warning("%s is not ours: no list of the tiles is written", others[0])
        return ()
    due: dict[Path, bytes] | None = None
    # Until it holds: of runs that end at the same moment, the last one to write must have seen the tiles of all.
    while True:
        members = items.refresh()
        index = _write_index(folder, members, before.get(folder.path / COLLECTION))
        previous, due = due, listing(folder, members, index=index)
        if due == previous:
            break
        for path in (folder.path / COLLECTION, folder.path / CATALOG):
            if path not in due:
                path.unlink(missing_ok=True)
            elif _content_of(path) != due[path]:
                write_bytes(path, due[path])
    if items.left_out:
        told = "%s: %d tiles are in no STAC collection, since their time or place is not known"
        logger.info(told, folder.path, len(items.left_out))
    return (*due, *([folder.path / INDEX] if index else []))


def _write_index(folder: TileFolder, members: Sequence[Member], before: Mapping[str, Any] | None) -> bool:
    """Write the index of the items unless it is up to date; return whether there is one now."""
    path, digest, ours = folder.path / INDEX, digest_of(members), names_index(before)
    if not members or not item_table.can_write():
        if ours and (before or {}).get(DIGEST) != digest:
            path.unlink(missing_ok=True)  # of an earlier run: it no longer says what is there
        return ours and path.exists()
    there = item_table.digest_in(path)
    if there is None and path.exists() and not ours:
        logger.warning("%s is not ours: no index of the tiles is written", path)
        return False
    if there != digest:
        with suppress(FileNotFoundError):  # a tile has gone: the next round sees it
            write_bytes(path, item_table.to_bytes(_whole(folder, members), digest))
    return path.exists()


def _whole(folder: TileFolder, members: Sequence[Member]) -> Iterator[Mapping[str, Any]]:
    for member in members:
        yield TileRecord.from_item(_parsed(read_file(folder.item_path(member.name), MAX_JSON))).to_item()


def _parsed(data: bytes) -> Any:
    return parse_json(data.decode(), strict=True)


def _content_of(path: Path) -> bytes | None:
    try:
        return read_file(path, MAX_LIST)
    except OSError:
        return None
