"""The CPU time that a container or a batch job may use: its control groups, of which only Linux knows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the cores that the process may keep busy, rounded up; None if no group limits them.

    A limit counts for a group and all in it, so those of all groups around the process are read, of version 2
    (`cpu.max`) and 1 (`cpu.cfs_quota_us`). `root` is where the file system begins.
    """
    shares = []
    for quota, period in _limits(root):
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):  # no limit: "max" or -1
            shares.append(int(quota) / int(period))
    return math.ceil(min(shares)) if shares else None


def _limits(root: Path) -> Iterator[tuple[str, str]]:
    """Yield quota and period of every group around the process, as they are written; empty where there are none."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        # In a container this may be the path outside of it: what is missing there is passed over, up to the mount.
        groups = [str(group).lstrip("/") for group in (PurePosixPath(path), *PurePosixPath(path).parents)]
        if not controllers:
            for group in groups:
                quota, _, period = _text(mounts / group / "cpu.max").partition(" ")
                yield quota, period
        elif "cpu" in controllers.split(","):
            for folder in (mounts / mount / group for mount in {controllers, "cpu"} for group in groups):
                yield _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
