"""A folder of results: made beside its place, then put into it, in place of earlier results of the same kind."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.files import explain, sync, write_json
from tessera_cli.outputs.beside import remove_beside
from tessera_cli.parts import PART, part_of, remove_parts_of
from tessera_cli.reading import read_json

_OF_SQLITE = ("-wal", "-shm", "-journal")
"""What programs that have a GeoPackage open leave beside it, and SQLite would apply to the one that replaces it."""


@dataclass(frozen=True)
class Kind:
    """Results of one kind."""

    type: str
    """What the record says that they are: `change`."""
    record: str
    """The file that is written last, and says which files belong to it: `files`."""
    files: re.Pattern[str]
    """Names that files of this kind can have. No other file is ever replaced or removed."""


@dataclass(frozen=True)
class Results:
    """What was written."""

    folder: Path
    page: Path
    """To look at, in a browser."""
    files: tuple[Path, ...]
    """The other files: rasters, patches and the like of each zone."""
    about: dict[str, Any]
    """The content of the record."""

    @classmethod
    def of(cls, folder: Path, page: str, about: dict[str, Any]) -> Results:
        """Return the results in a folder; `about` lists their names as `files`, that of the page among them."""
        return cls(folder, folder / page, tuple(folder / name for name in about["files"] if name != page), about)

    def to_dict(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        paths = [str(file) for file in self.files]
        return {**self.about, "out": str(self.folder), "page": str(self.page), "paths": paths}


def check(out: Path, kind: Kind, names: Collection[str] = ()) -> list[str]:
    """Return the names of the files of earlier results in a folder.

    Raises UsageError unless it is new, empty, or holds results of this kind, and where one of `names` is there that is
    none of their files.
    """
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link that leads nowhere. Choose another --out.")
    if not out.exists() or (out.is_dir() and all(each.name.endswith(PART) for each in out.iterdir())):
        return []
    try:
        found = read_json(out / kind.record)
    except (OSError, ValueError, UsageError):
        found = None
    if not isinstance(found, dict) or found.get("type") != kind.type:
        raise UsageError(f"{out} holds something else, which stays. Choose another --out.")
    files = found.get("files")
    earlier = [each for each in (files if isinstance(files, list) else []) if isinstance(each, str)]
    earlier = [each for each in earlier if kind.files.fullmatch(each)]
    for name in names:
        if name not in earlier and (out / name).exists():
            raise UsageError(f"{out / name} is none of the earlier results, and stays. Choose another --out.")
    return earlier


@contextmanager
def replacing(out: Path, kind: Kind) -> Iterator[Path]:
    """Yield a new folder within `out`, in which the block writes files and record; they are put in place in the end.

    Until the last file is in place the record says `"finished": false`. Files of earlier results go, all others in the
    folder stay. What killed runs have left there is removed.

    Raises:
        UsageError: Something else is in the place of the folder, or of a file.
        DiskFullError: There is no room.
    """
    check(out, kind)
    part, new = part_of(out / kind.type), not out.exists()  # within it: it may be a link, or a disk of its own
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_parts_of(out / kind.type)
        part.mkdir()
        yield part
        _publish(part, out, kind)
    except OSError as error:
        raise explain(out if error.errno != errno.ENOENT else out.parent, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)
        if new:
            with suppress(OSError):  # it holds the results
                out.rmdir()


def _publish(part: Path, out: Path, kind: Kind) -> None:
    sync(part)
    names = sorted(file.name for file in part.iterdir() if file.name != kind.record)
    earlier = check(out, kind, names)  # again: it takes its time
    write_json(out / kind.record, {"type": kind.type, "finished": False, "files": sorted({*earlier, *names})})
    for name in (*earlier, *names):
        remove_beside(out / name)
        for ending in _OF_SQLITE if name.endswith(".gpkg") else ():
            (out / f"{name}{ending}").unlink(missing_ok=True)
    for name in (*names, kind.record):
        (part / name).replace(out / name)
    for name in set(earlier) - set(names):
        (out / name).unlink(missing_ok=True)
