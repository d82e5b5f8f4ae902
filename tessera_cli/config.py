"""Settings from the machine and its environment; besides `cli/`, only this module reads settings from there."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.environment.cgroups import cpu_quota
from tessera_cli.errors import CredentialsError, UsageError
from tessera_cli.reading import check_file

if TYPE_CHECKING:
    from tessera_cli.catalog import Credentials

EARTHDATA_HOST = "urs.earthdata.nasa.gov"
SQUEUE_SECONDS = 5.0
"""How long Slurm's controller is waited for."""
_TIME_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", re.ASCII)
logger = logging.getLogger(__name__)


def threads(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return the cores this process may use: OMP_NUM_THREADS, else Slurm's share, else affinity mask and CPU quota.

    `root` is where the file system begins.
    """
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        value = environ.get(name, "").split(",")[0]
        if value.isdigit() and int(value) > 0:
            return int(value)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        cores = os.cpu_count() or 1
    return min(cores, cpu_quota(root) or cores)


def processes(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int | None]:
    """Return rank, number of processes and local rank as torchrun sets them; 0, 1, None without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = [environ.get(name, "") for name in names]
    if not any(values):
        return 0, 1, None
    if not all(value.isdigit() for value in values):
        raise UsageError(f"{', '.join(names)} are not all numbers. Start with torchrun, or without them.")
    rank, size, local = map(int, values)
    return rank, size, local


def share(size: int | None, environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return which share of how many a job array gives this process, from 1; `size` where only the user knows it.

    Slurm's array, its ranks, or both; PBS, AWS Batch and indexed jobs of Kubernetes. UsageError if it is not told.
    """
    array, ranks = _slurm_array(environ), _slurm_ranks(environ)
    if array or ranks:
        (task, tasks), (rank, count) = array or (0, 1), ranks or (0, 1)
        index, found = task * count + rank, tasks * count
        if size not in (None, found):
            raise UsageError(f"--shard auto/{size}, but Slurm runs {found} shares. Write --shard auto.")
        return index + 1, found
    for name, first, sizes in _ARRAYS:
        if name not in environ:
            continue
        given = environ.get(sizes, "") if sizes else ""
        total = size or _number(environ, sizes) if given else size
        if total is None:
            raise UsageError(f"--shard auto: {name} is set, but not how many there are. Write --shard auto/N.")
        index = _number(environ, name) - first
        if not 0 <= index < total:
            raise UsageError(f"--shard auto: {name}={environ[name]} is none of {total}, counted from {first}.")
        return index + 1, total
    known = ", ".join(["SLURM_ARRAY_TASK_ID", "SLURM_PROCID", *(name for name, _, _ in _ARRAYS)])
    raise UsageError(f"--shard auto: this is no job array (none of {known} is set). Write --shard 1/5 for one of five.")


_ARRAYS = (
    ("PBS_ARRAY_INDEX", 1, ""),
    ("AWS_BATCH_JOB_ARRAY_INDEX", 0, "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("JOB_COMPLETION_INDEX", 0, ""),
)
"""Variable with the number of a process, the first number, and the variable with how many there are, if any."""


def _slurm_array(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the position of this task in an array of Slurm, from 0, and the number of tasks; None without one."""
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return None
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    task, first, last, step, count = (_number(environ, f"SLURM_ARRAY_TASK_{name}") for name in names)
    if step < 1 or (last - first) // step + 1 != count or (task - first) % step:
        raise UsageError(
            f"--shard auto: the array has gaps ({count} tasks from {first} to {last}), so its order is not known. "
            f"Submit --array=1-{count}, or write --shard I/N by hand."
        )
    return (task - first) // step, count


def _slurm_ranks(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the rank of this process and their number; None where Slurm started one alone."""
    if environ.get("SLURM_NTASKS", "1") == "1":
        return None
    rank, count = _number(environ, "SLURM_PROCID"), _number(environ, "SLURM_NTASKS")
    if "SLURM_STEP_ID" not in environ and "SLURM_STEPID" not in environ:
        raise UsageError(f"--shard auto: the job has {count} tasks, and this is not one of them. Start it with srun.")
    return rank, count


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name, "")
    if not value.isdigit():
        why = f"is {value}, no number" if value else "is not set"
        raise UsageError(f"--shard auto: {name} {why}. Write --shard I/N by hand.")
    return int(value)


def job_end(environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.time) -> float | None:
    """Return when the Slurm job that this process belongs to will be ended, in seconds since 1970.

    From SLURM_JOB_END_TIME, which older versions do not set, else from `squeue`. None outside of a job, for one without
    a limit, and if nobody knows.
    """
    job, end = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_JOB_END_TIME", "")
    if not job.isdigit():
        return None
    if end.isdigit() and int(end) > 0:
        return float(end)
    squeue = shutil.which("squeue", path=environ.get("PATH"))
    if squeue is None:
        logger.debug("no deadline: neither SLURM_JOB_END_TIME is set, nor is squeue there")
        return None
    command = [squeue, "-h", "-j", job, "-o", "%L"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SQUEUE_SECONDS, check=True, env=environ
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("no deadline: %s", error)
        return None
    left = done.stdout.strip()
    match = _TIME_LEFT.fullmatch(left)
    if match is None:  # UNLIMITED, NOT_SET, INVALID
        logger.debug("no deadline: squeue says that job %s has %s left", job, left or "nothing")
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return clock() + ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def gdal_options(defaults: Mapping[str, str | int], environ: Mapping[str, str] = os.environ) -> dict[str, str | int]:
    """Return our GDAL options without those that the environment sets: the user's choice wins."""
    return {name: value for name, value in defaults.items() if name not in environ}


def earthdata(environ: Mapping[str, str] = os.environ) -> Credentials:
    """Return the Earthdata credentials: EARTHDATA_TOKEN, else _USERNAME and _PASSWORD, else ~/.netrc or NETRC."""
    import netrc

    from tessera_cli.catalog import Credentials

    if token := environ.get("EARTHDATA_TOKEN", "").strip():
        return Credentials(token, origin="EARTHDATA_TOKEN")
    pair = ("EARTHDATA_USERNAME", "EARTHDATA_PASSWORD")
    given = [name for name in pair if environ.get(name)]
    if len(given) == 1:
        raise CredentialsError(f"{given[0]} is set without its companion. Set both {' and '.join(pair)}, or neither.")
    if given:
        return Credentials(user=environ[pair[0]], password=environ[pair[1]], origin=" and ".join(pair))
    path = Path(environ["NETRC"]) if environ.get("NETRC") else Path(environ.get("HOME") or Path.home(), ".netrc")
    if not os.access(path, os.F_OK) or str(path) == os.devnull:  # `is_file` fails in a home folder that is not ours
        return Credentials()
    try:
        check_file(path)
        entry = netrc.netrc(str(path)).hosts.get(EARTHDATA_HOST)
    except netrc.NetrcParseError as error:  # whose text may quote a password
        raise CredentialsError(f"{path}, line {error.lineno}, cannot be understood. Correct it.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CredentialsError(f"{path} cannot be read: {why}. Correct it.") from None
    return Credentials(user=entry[0], password=entry[2], origin=str(path)) if entry else Credentials()


def debug(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether TESSERA_DEBUG asks for tracebacks."""
    value = environ.get("TESSERA_DEBUG", "").lower()
    if value in ("", "0", "false", "no"):
        return False
    if value in ("1", "true", "yes"):
        return True
    raise UsageError(f"TESSERA_DEBUG={value} is neither 0 nor 1.")
