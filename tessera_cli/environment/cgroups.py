"""The CPU time and memory that a container or a batch job may use: its control groups, of which only Linux knows.

A limit counts for a group and all in it, so those of all groups around the process are read, of version 2 and 1.
`root` is where the file system begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the cores that the process may keep busy, rounded up; None if no group limits them."""
    limits = [_text(group / "cpu.max").partition(" ")[::2] for group in _groups(root)]
    limits += [
        (_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")) for group in _groups(root, "cpu")
    ]
    shares = [
        int(quota) / int(period)
        for quota, period in limits
        if quota.isdigit() and period.isdigit() and int(quota) and int(period)  # no limit: "max" or -1
    ]
    return math.ceil(min(shares)) if shares else None


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory at which the kernel ends the process; None if no group limits them."""
    limits = [_text(group / "memory.max") for group in _groups(root)]
    limits += [_text(group / "memory.limit_in_bytes") for group in _groups(root, "memory")]
    # Without a limit, version 2 says "max" and version 1 nearly 2**63: more than any machine has.
    found = [int(limit) for limit in limits if limit.isdigit() and 0 < int(limit) < 1 << 60]
    return min(found, default=None)


def _groups(root: Path, controller: str = "") -> Iterator[Path]:
    """Yield the folders of all groups around the process: those of version 1 for a controller, else of version 2.

    Some of them may not be there.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller not in controllers.split(","):
            continue
        # In a container this may be the path outside of it: what is missing there is passed over, up to the mount.
        groups = [str(group).lstrip("/") for group in (PurePosixPath(path), *PurePosixPath(path).parents)]
        for mount in {controllers, controller}:
            yield from (mounts / mount / group for group in groups)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
