"""Names of what is being written: they tell the process it belongs to, so that what dead ones left can go at once."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

PART = ".part"
UNKNOWN = 3600
"""Seconds without a change after which a process that cannot be looked at, as on another machine, is taken for dead."""
_TOKEN = re.compile(r"([0-9a-f]{12})-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{8}")


def part_of(path: Path) -> Path:
    """Return a new name beside `path`, `<name>.<token>.part`, for what is to be renamed to it."""
    return path.with_name(f"{path.name}.{new_token()}{PART}")


def new_token() -> str:
    """Return a name that nobody else uses: machine, process, its start, and a random number."""
    return f"{_machine()}-{os.getpid():x}-{_started(os.getpid()) or 0:x}-{secrets.token_hex(4)}"


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def process_of(text: str) -> str | None:
    """Return machine and number of the process in a token, or in a name that ends with `.<token>.part`, if any."""
    match = _match(text)
    return None if match is None else f"{match[1]}-{match[2]}"


def is_alive(text: str) -> bool | None:
    """Return whether the process of a token, or of a name that ends with `.<token>.part`, still runs.

    None if that cannot be known: it is one of another machine or container, or the name is older than such tokens.
    """
    match = _match(text)
    if match is None or match[1] != _machine():
        return None
    pid, started = int(match[2], 16), int(match[3], 16)
    now = _started(pid)
    if now is not None:
        return now == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None if started == 0 else False  # without /proc another process may have its number; else it is a zombie


def remove_stale_parts(folder: Path) -> None:
    """Remove the `.part` files and folders of processes that have died, as far as they can be removed.

    Those of a process that cannot be looked at go when nothing has happened in them for an hour.
    """
    oldest = time.time() - UNKNOWN
    for part in folder.glob(f"*{PART}"):
        alive = is_alive(part.name)
        with suppress(OSError):
            if alive is None and max(path.stat().st_mtime for path in (part, *part.rglob("*"))) >= oldest:
                continue
            if not alive:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def remove_parts_of(path: Path) -> None:
    """Remove what runs that were killed have left beside `path`, which they were to rename to it."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*{PART}") if path.parent.is_dir() else ():
        token = part.name.removeprefix(f"{path.name}.").removesuffix(PART)
        if is_token(token) and is_alive(token) is False:
            with suppress(OSError):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _match(text: str) -> re.Match[str] | None:
    return _TOKEN.fullmatch(text.removesuffix(PART).rpartition(".")[2])


@functools.cache
def _machine() -> str:
    """Return twelve hex digits for what shares process numbers: a boot of a machine, or a container on it."""
    marks = [socket.gethostname()]
    try:
        marks += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    except OSError:
        marks += [str(uuid.getnode())]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the boot; None if it does not run, or nobody tells."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])
