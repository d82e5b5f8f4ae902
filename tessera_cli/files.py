"""Write files and folders atomically: to a temporary name beside them, synced, then renamed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tessera_cli.errors import DiskFullError, TesseraError, TileError, UsageError
from tessera_cli.parts import part_of
from tessera_cli.reading import open_file

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_TEXT = "backslashreplace"
"""Bytes in file names that are not UTF-8 become escapes, as JSON knows them."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""What file systems without hard links answer."""
_OF_WRITING = {*_FULL, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE}
"""What the system says when it takes data, without the name of the file."""


def write_bytes(path: Path, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write `data` to `path` through `<name>.<token>.part` in the same folder; mode bits are 0666 less the umask.

    `private`: for the owner alone, 0600.
    """
    with _written(path, data, private=private) as part:
        part.replace(path)


def claim_bytes(path: Path, data: bytes) -> bool:
    """Write `data` to `path` unless there is such a file; of many that try at once, one succeeds. Return whether."""
    with _written(path, data) as part:
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:  # readers may see the file half written: they must wait for the rest of it
                with path.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
    return True


@contextmanager
def _written(path: Path, data: bytes | memoryview, *, private: bool = False) -> Iterator[Path]:
    """Yield a synced file beside `path` that holds `data`, and remove it if it is still there afterwards."""
    part = part_of(path)
    try:
        with part.open("xb") as file:
            if private:
                part.chmod(0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield part
    except OSError as error:
        raise explain(path, error) from error
    finally:  # an interrupt leaves no part behind either
        with suppress(OSError):
            part.unlink()


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as indented JSON, keys in the order given."""
    write_bytes(path, json_bytes(obj))


def json_bytes(obj: Any) -> bytes:
    """Return `obj` as indented JSON, keys in the order given."""
    text = json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors=_NO_TEXT)


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


def explain(path: Path, error: OSError) -> TesseraError:
    """Return the error to show for a failed write: what happened, why, what to do."""
    if error.errno in _READ_ONLY:
        why = "read-only" if error.errno == errno.EROFS else "no permission to write there"
        return UsageError(f"{path} cannot be written: {why}. Choose another --out.")
    if error.errno in _FULL:
        why = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
        return DiskFullError(f"{path} cannot be written: {why}. Make room or choose another --out, then run again.")
    return TileError(f"{path} cannot be written: {error.strerror or error}. Check the folder, then run again.")


def check_space(path: Path, needed: int) -> int:
    """Return the bytes that are free where `path` is to be; DiskFullError if they are fewer than needed."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFullError(
            f"{path} takes up to {needed / 1e9:,.1f} GB while it is written, and {free / 1e9:,.1f} GB are free. Make "
            "room, choose another --out, or ask for less at a time."
        )
    return free


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the system says of a file in `folder` into the error to show; other errors pass.

    The border of what writes into a folder: a disk may become read-only, or be gone, at any moment.
    """
    try:
        yield
    except OSError as error:
        named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        inside = [path for path in named if path == folder or folder in path.parents]
        if not inside and (named or error.errno not in _OF_WRITING):
            raise
        raise explain(inside[-1] if inside else folder, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the name `<name>.<token>.part` for a new file, renamed to `path` if the block succeeds and removed if not.

    For what is too large to be written by `write_bytes`. Missing parents are made; errors as `atomic_directory`.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise explain(path, error) from error
    finally:  # after the renaming there is none
        with suppress(OSError):
            part.unlink()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a new folder `<name>.<token>.part`, renamed to `path` if the block succeeds and removed if not.

    A folder that is at `path` already is replaced then. Missing parents are made. Errors of the file system are raised
    as UsageError, DiskFullError or TileError, like those of `write_bytes`.
    """
    part = part_of(path)
    try:
        if path.exists() and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "a file of this name is there")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        sync(part)
        _swap(part, path)
    except OSError as error:
        raise explain(path, error) from error
    finally:  # after the swap there is none
        shutil.rmtree(part, ignore_errors=True)


def sync(folder: Path) -> None:
    """Have the files in a folder reach the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                try:
                    os.fsync(opened.fileno())
                except OSError as error:  # which does not know the file
                    raise type(error)(error.errno, error.strerror, str(file)) from error


def _swap(part: Path, path: Path) -> None:
    """Rename `part` to `path`. An older folder is moved away first, and moved back if that fails."""
    while True:
        old = part_of(path)
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
