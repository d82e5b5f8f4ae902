"""Replace files of a folder as one: old or new, whoever dies and however many try at once. No locks.

A replacement is prepared whole and synced in a folder of its own, `<slot>.<token>.part`:

    <token>/files/    the new files under their names; among them the marker, which vouches for the others
    <token>/note.json which marker they replace, and which files go

It begins when that folder is renamed to `<slot>.next`, which the system refuses while another one is there. From then
on it is carried out: one rename per file, the marker last, then the folder goes. Before the first rename the marker
that is there is compared with the one in the note, and nobody else can change it while `<slot>.next` is there: so a
replacement that was prepared for something else than what is there is dropped, and nothing done meanwhile is lost. At
the end `<token>` leaves the slot, as a `.part` again, before it is removed: what cannot be removed blocks nobody.

Whoever finds one whose process has died, or that has not moved for a while, takes it over by renaming `<token>` to a
token of its own, and goes on where it was left: which step was the last one shows in what is left. Every step is a
rename from or to `<token>`, so a former owner that lives after all can do none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.errors import TesseraError
from tessera_cli.files import explained, sync
from tessera_cli.parts import PART, is_alive, is_token, new_token, part_of
from tessera_cli.reading import MB, read_file, read_json

NEXT = ".next"
FILES, OLD, NOTE = "files", "old", "note.json"
STILL = 2.0
"""Seconds after which a replacement that does not move is taken over, though its process may be alive."""
MAX_MARKER = 1000 * MB
"""Bytes of a marker; the largest are lists of scenes."""
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}


@dataclass(frozen=True)
class Replacement:
    """Files that are to replace those of a folder."""

    folder: Path
    slot: str
    """What may be replaced by one at a time."""
    marker: str
    """The file that vouches for the others."""
    part: Path

    @property
    def token(self) -> str:
        return self.part.suffixes[-2][1:]

    @property
    def files(self) -> Path:
        """The folder to write the new files into."""
        return self.part / self.token / FILES

    def commit(self, *, replaces: bytes | None, remove: Iterable[str] = ()) -> bool:
        """Put the files in place, and remove others; False, and nothing is done, if the marker has changed meanwhile.

        `replaces` is the content of the marker that was there, None for none. Errors are OSErrors: before anything was
        replaced, or, rarely, between two renames; then the next run on the folder goes on.
        """
        for new in self.files.iterdir():
            there = self.folder / new.name
            if there.exists() and there.is_dir() != new.is_dir():
                raise FileExistsError(errno.EEXIST, "something else of this name is there", str(there))
        new_marker = digest_of(self.files / self.marker)
        note = {"marker": self.marker, "replaces": _digest(replaces), "remove": sorted(remove)}
        (self.part / self.token / NOTE).write_text(json.dumps(note))
        sync(self.part)
        if digest_of(self.folder / self.marker) != note["replaces"]:
            return False
        slot = self.folder / f"{self.slot}{NEXT}"
        while True:
            try:
                self.part.rename(slot)
                break
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            _finish(slot)
        try:
            done = _carry_out(slot / self.token)
        except FileNotFoundError:
            if (slot / self.token).exists():
                raise
            done = None
        if done is not None:
            return done
        _finish(slot)  # somebody has taken it over
        return digest_of(self.folder / self.marker) == new_marker


@contextmanager
def replacement(folder: Path, slot: str, marker: str) -> Iterator[Replacement]:
    """Yield a replacement to write files for and to commit; what is not committed is removed.

    Errors of the file system are raised as UsageError, DiskFullError or TileError, like those of `write_bytes`.
    """
    prepared = Replacement(folder, slot, marker, part_of(folder / slot))
    try:
        with explained(folder):
            prepared.part.mkdir()  # not its parents: where a disk has gone, nothing is written in its place
            prepared.files.mkdir(parents=True)
            yield prepared
    except TesseraError as error:  # the user knows the files by the names that they are to have
        error.args = tuple(str(word).replace(f"{prepared.files}{os.sep}", f"{folder}{os.sep}") for word in error.args)
        raise
    finally:
        shutil.rmtree(prepared.part, ignore_errors=True)


def is_begun(folder: Path, slot: str) -> bool:
    """Return whether a replacement is being carried out, or was left in the middle."""
    return any((folder / f"{slot}{NEXT}").glob("*"))


def finish_begun(folder: Path) -> None:
    """Carry out what processes that have died left in the middle, as far as the folder may be written."""
    for slot in folder.glob(f"*{NEXT}"):
        with suppress(OSError):
            _finish(slot)


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a marker; None if there is none."""
    try:
        return _digest(read_file(path, MAX_MARKER))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _finish(slot: Path) -> None:
    """Wait until what lies in the slot is carried out; do so if its process has died or does not move.

    FileExistsError if it is a folder of somebody else.
    """
    seen, since = "", 0.0
    while True:
        try:
            found = sorted(path.name for path in slot.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        if not found:
            with suppress(OSError):
                slot.rmdir()
            return
        if not all(map(is_token, found)):
            raise FileExistsError(errno.EEXIST, "something else of this name is there", str(slot))
        if found[0] != seen:
            seen, since = found[0], time.monotonic()
        if is_alive(found[0]) is not False and time.monotonic() - since < STILL:
            time.sleep(0.01)
            continue
        mine = slot / new_token()
        with suppress(FileNotFoundError):  # somebody was faster, with one step or with taking it over
            (slot / found[0]).rename(mine)
            _carry_out(mine)


def _carry_out(held: Path) -> bool | None:
    """Put the files of a replacement in place; False if it was prepared for another marker, and is dropped.

    None if that is not known: it was carried out or dropped before, or somebody else holds it now.
    """
    slot, folder = held.parent, held.parent.parent
    done = None
    note = _read(held / NOTE)
    if note is not None and (held / FILES / note["marker"]).exists():
        done = digest_of(folder / note["marker"]) == note["replaces"]
        if done:
            _put_in_place(held, folder, note["marker"], note["remove"])
    part = folder / f"{slot.name.removesuffix(NEXT)}.{held.name}{PART}"
    with suppress(FileNotFoundError):
        held.rename(part)
    with suppress(OSError):  # the next one is in it already
        slot.rmdir()
    shutil.rmtree(part, ignore_errors=True)
    return done


def _put_in_place(held: Path, folder: Path, marker: str, remove: Iterable[str]) -> None:
    """Every step takes something from `held`, or to it: one who no longer holds it can do none."""
    old = held / OLD
    old.mkdir(exist_ok=True)
    for name in remove:
        with suppress(FileNotFoundError):
            (folder / name).rename(old / new_token())
    for new in sorted((held / FILES).iterdir(), key=lambda path: (path.name == marker, path.name)):
        there = folder / new.name
        if new.is_dir():
            with suppress(FileNotFoundError):
                there.rename(old / new_token())
        new.replace(there)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None
