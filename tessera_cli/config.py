"""What the machine and the environment say; with `cli/`, the only place that reads environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tessera_cli.errors import UsageError


def threads(environ: Mapping[str, str] = os.environ) -> int:
    """Cores this process may use: OMP_NUM_THREADS, else Slurm's share, else the affinity mask; not the host's."""
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        value = environ.get(name, "").split(",")[0]
        if value.isdigit() and int(value) > 0:
            return int(value)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1


def gdal_options(defaults: Mapping[str, str | int], environ: Mapping[str, str] = os.environ) -> dict[str, str | int]:
    """Our GDAL options without those that the environment sets: the user's choice wins."""
    return {name: value for name, value in defaults.items() if name not in environ}


def debug(environ: Mapping[str, str] = os.environ) -> bool:
    """TESSERA_DEBUG: show tracebacks."""
    value = environ.get("TESSERA_DEBUG", "").lower()
    if value in ("", "0", "false", "no"):
        return False
    if value in ("1", "true", "yes"):
        return True
    raise UsageError(f"TESSERA_DEBUG={value} is neither 0 nor 1.")
