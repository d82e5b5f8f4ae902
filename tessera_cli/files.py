"""Write files and folders atomically: to a temporary name beside them, synced, then renamed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tessera_cli.errors import DiskFullError, TesseraError, TileError, UsageError
from tessera_cli.reading import open_file

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_TEXT = "backslashreplace"
"""Bytes in file names that are not UTF-8 become escapes, as JSON knows them."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_bytes(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write `data` to `path` through `<name>.<random>.part` in the same folder; mode bits are 0666 less the umask.

    `private`: for the owner alone, 0600.

    The random part keeps two runs on one folder from writing into each other's file.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            if private:
                part.chmod(0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise explain(path, error) from error
    finally:  # an interrupt leaves no part behind either; after the rename there is none
        with suppress(OSError):
            part.unlink()


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as indented JSON, keys in the order given."""
    text = json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors=_NO_TEXT))


def write_ndjson_gz(path: Path, rows: Iterable[Mapping[str, Any]], *, private: bool = False) -> None:
    """Write one JSON object per line, gzipped; equal rows give equal bytes (no time or name in the header)."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write(line.encode(errors=_NO_TEXT) + b"\n")
    write_bytes(path, buffer.getvalue(), private=private)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex; OSError if it cannot be read."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_stale_parts(folder: Path) -> None:
    """Remove the `.part` files and folders that killed runs left behind.

    A part belongs to a live run, here or on another machine, until nothing has happened in it for an hour.
    """
    oldest = time.time() - 3600
    for part in folder.glob("*.part"):
        with suppress(OSError):
            if max(path.stat().st_mtime for path in (part, *part.rglob("*"))) < oldest:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def explain(path: Path, error: OSError) -> TesseraError:
    """Return the error to show for a failed write: what happened, why, what to do."""
    if error.errno in _READ_ONLY:
        why = "read-only" if error.errno == errno.EROFS else "no permission to write there"
        return UsageError(f"{path} cannot be written: {why}. Choose another --out.")
    if error.errno in _FULL:
        why = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
        return DiskFullError(f"{path} cannot be written: {why}. Make room or choose another --out, then run again.")
    return TileError(f"{path} cannot be written: {error.strerror or error}. Check the folder, then run again.")


PART = ".part"


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a new folder `<name>.<random>.part`, renamed to `path` if the block succeeds and removed if not.

    A folder that is at `path` already is replaced then. Missing parents are made. Errors of the file system are raised
    as UsageError, DiskFullError or TileError, like those of `write_bytes`.
    """
    part = _beside(path)
    try:
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "a file of this name is there")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        _sync(part)
        _swap(part, path)
    except OSError as error:
        raise explain(path, error) from error
    finally:  # after the swap there is none
        shutil.rmtree(part, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return the `.part` path of a file, random so that two runs do not write into each other's files."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _swap(part: Path, path: Path) -> None:
    """Rename `part` to `path`. An older folder is moved away first, and moved back if that fails."""
    while True:
        old = _beside(path)
        try:
            with suppress(FileNotFoundError):
                path.rename(old)
            part.rename(path)
            return
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue  # another run put the same folder there meanwhile: the last one stays
            with suppress(OSError):
                old.rename(path)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
