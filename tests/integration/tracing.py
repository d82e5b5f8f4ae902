"""What a command changes on the disk, as the kernel sees it: system calls, traced by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHANGES = (
    *("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "link", "linkat"),
    *("symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "fchmodat2"),
    *("chown", "lchown", "fchownat", "utime", "utimes", "utimensat", "futimesat"),
    *("setxattr", "lsetxattr", "removexattr", "lremovexattr", "bind"),
)
OPENS = ("open", "openat", "openat2")
WRITING = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)\b")
CALL = re.compile(r"(?P<name>\w+)\((?P<rest>.*)\)\s+= (?P<result>-?\d+)")
PATH = re.compile(r'(?:(?:AT_FDCWD|-?\d+)<(?P<folder>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Traced:
    """A command that has ended, and the paths that it changed or opened for writing."""

    code: int
    stdout: str
    stderr: str
    changed: Mapping[str, str]
    """Path -> the first call."""

    def outside(self, *allowed: Path | str) -> dict[str, str]:
        """The changes neither of nor under these paths."""
        names = [os.path.normpath(str(path)) for path in allowed]
        return {
            path: call
            for path, call in self.changed.items()
            if not any(path == name or path.startswith(name + "/") for name in names)
        }


def traced(command: Sequence[object], log: Path, *, cwd: Path, env: Mapping[str, str]) -> Traced:
    """Run a command to its end under strace with all that it starts; `log` is a new folder."""
    log.mkdir()
    calls = ",".join(f"?{name}" for name in (*OPENS, *CHANGES))  # ?: this processor may not have all of them
    strace = ["strace", "-ff", "-qq", "-y", "-s", "4096", "-e", f"trace={calls}", "-e", "signal=none"]
    done = subprocess.run(
        [*strace, "-o", str(log / "calls"), *map(str, command)],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    changed: dict[str, str] = {}
    for file in sorted(log.iterdir()):
        for line in file.read_text(errors="replace").splitlines():
            for path in _changed(line, cwd):
                changed.setdefault(path, line)
    shutil.rmtree(log)
    return Traced(done.returncode, done.stdout, done.stderr, changed)


def _changed(line: str, cwd: Path) -> Iterator[str]:
    """Yield the absolute paths that a traced call changed, or opened for writing; none if it failed."""
    call = CALL.match(line)
    if call is None or int(call["result"]) < 0 or (call["name"] in OPENS and not WRITING.search(call["rest"])):
        return
    if call["name"] == "bind" and 'sun_path="' not in call["rest"]:  # no socket that is a file
        return
    paths = list(PATH.finditer(call["rest"]))
    for found in paths[-1:] if call["name"].startswith("symlink") else paths:  # before it, what the link says
        yield os.path.normpath(Path(found["folder"] or cwd) / found["path"])
