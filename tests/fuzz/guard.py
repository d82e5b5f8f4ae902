"""What a mutant must not do besides raising: read or write elsewhere, ask the network, start programs, take memory."""

from __future__ import annotations

import os
import resource
import site
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

MEMORY = 1 << 30
"""Bytes that a mutant may take."""
_ROOT = str(Path(__file__).resolve().parents[2])
_READ = [
    _ROOT,
    sys.prefix,
    sys.base_prefix,
    *site.getsitepackages(),
    *sysconfig.get_paths().values(),
    "/proc",
    "/sys",
    "/dev/null",
    "/dev/urandom",
    "/etc/localtime",
    "/etc/mime.types",
    "/usr/share/zoneinfo",
    "/usr/share/mime",
    "/usr/lib",
    "/usr/local/lib",
    "/lib",
]
"""Where libraries read what belongs to them."""
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_NEVER = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system", "os.exec"}
_NEVER |= {"os.posix_spawn", "os.fork"}


def sandbox() -> Path:
    """Return the folder in which this process may read and write."""
    return Path(os.environ["TESSERA_FUZZ"])


def make_sandbox() -> Path:
    """Make a folder for all that is read and written, in memory if there is room, and use it for temporary files."""
    memory = None if "TMPDIR" in os.environ or not os.access("/dev/shm", os.W_OK) else "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix="tessera-fuzz-", dir=memory)).resolve()
    os.environ["TESSERA_FUZZ"] = os.environ["TMPDIR"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"  # its threads do not outlive a fork
    tempfile.tempdir = str(folder)
    return folder


class Watch:
    """Audit of this process: what it opens, changes and asks outside the sandbox. It cannot be taken off again."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.active = False
        self._inside = (str(sandbox()),)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _NEVER:
            self.seen.append(f"{event} {arguments[:2]!r}"[:200])
        elif event == "open":
            path, _, flags = arguments
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            self._check(path, "writes" if writes else "reads")
        elif event in _CHANGES:
            self._check(arguments[0], event)
        elif event in ("os.listdir", "os.scandir"):
            self._check(arguments[0], "lists")

    def _check(self, path: Any, what: str) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor
        found = os.path.realpath(os.fsdecode(path))
        allowed = self._inside if what not in ("reads", "lists") else (*self._inside, *_READ)
        if what == "writes" and found in ("/dev/null",):
            return
        if not any(found == each or found.startswith(f"{each}/") for each in allowed):
            self.seen.append(f"{what} {found[:160]}")


def peak() -> int:
    """Return the most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(more: int = 3 * MEMORY) -> None:
    """Let allocations fail that would take the machine along."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
