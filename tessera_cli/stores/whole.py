"""Folders appear whole or not at all: built beside their place, synced, renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tessera_cli.atomic import explain

PART = ".part"


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder `<name>.<random>.part` to fill, which becomes `path` when the block ends well and is removed if not.

    A folder that is at `path` already is replaced then. Missing parents are made. Errors of the file system are raised
    as UsageError, DiskFullError or TileError, like those of `atomic.write_bytes`.
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
    """The random part keeps two runs on one folder from writing into each other's files."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _swap(part: Path, path: Path) -> None:
    """Rename `part` to `path`. What is there is moved away before, moved back if that fails, deleted if not."""
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
