"""Read local files that others have made: regular ones only, no more bytes than expected, JSON within bounds.

A pipe, a device or a socket in the place of a file would be waited for, or read without end.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Any

from tessera_cli.json_text import parse_json

MB = 10**6
MAX_JSON = 64 * MB
"""Bytes of a JSON document, such as a record or the metadata of a store; ours have some hundred kilobytes."""
_KINDS = {
    stat.S_ISDIR: (errno.EISDIR, "it is a folder, and a file is needed"),
    stat.S_ISFIFO: (errno.EINVAL, "it is a pipe, and a file is needed"),
    stat.S_ISSOCK: (errno.EINVAL, "it is a socket, and a file is needed"),
    stat.S_ISCHR: (errno.EINVAL, "it is a device, and a file is needed"),
    stat.S_ISBLK: (errno.EINVAL, "it is a device, and a file is needed"),
}


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; OSError, whose `strerror` says why, for anything else.

    It is looked at before it is opened and once more when it is open, without waiting for whoever writes a pipe.
    """
    check_file(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    try:
        _check(path, os.fstat(number))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_file(path: Path) -> None:
    """Raise OSError, whose `strerror` says why, unless there is a regular file: for libraries that open by name."""
    _check(path, path.stat())


def is_special(path: Path) -> bool:
    """Return whether there is something that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_there(path: Path) -> bool:
    """Return whether there is anything; false of names that no file system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_file(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file; OSError, whose `strerror` says why, also where there are more than `most`."""
    with open_file(path) as file:
        data = file.read(most + 1)
        if len(data) > most:
            size = max(os.fstat(file.fileno()).st_size, len(data))
            raise OSError(errno.EFBIG, f"it has {size / MB:,.0f} MB, and at most {most / MB:,.0f} MB are read", path)
    return data


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """Return the content of a JSON file. OSError as `read_file`, ValueError as `parse_json`."""
    return parse_json(read_file(path, most).decode("utf-8"), strict=True)


def inflate(data: bytes, most: int, *, wbits: int = zlib.MAX_WBITS) -> bytes:
    """Return the content of one zlib stream, or of gzip with `wbits` 31, which may have several members.

    ValueError where it is cut, damaged or larger than `most` bytes: no more than that is ever in memory.
    """
    found = bytearray()
    try:
        while data:
            stream = zlib.decompressobj(wbits)
            found += stream.decompress(data, most + 1 - len(found))
            if len(found) > most:
                raise ValueError(f"its content is larger than {most:,} bytes")
            if not stream.eof:
                raise ValueError("it ends early")
            data = stream.unused_data.lstrip(b"\0") if wbits > zlib.MAX_WBITS else stream.unused_data
            if data and wbits <= zlib.MAX_WBITS:
                raise ValueError("bytes follow it")
    except zlib.error as error:
        raise ValueError(f"it is no whole compressed data ({error})") from error
    return bytes(found)


GZIP = 31
"""`wbits` of gzip, for `inflate`."""


def _check(path: Path, found: os.stat_result) -> None:
    for is_kind, (number, why) in _KINDS.items():
        if is_kind(found.st_mode):
            raise OSError(number, why, str(path))
