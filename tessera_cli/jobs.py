"""What a scheduler tells a process of its job: which share of how many it is, and when the job ends."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping

from tessera_cli.errors import UsageError

SQUEUE_SECONDS = 5.0
"""How long Slurm's controller is waited for."""
_TIME_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", re.ASCII)
logger = logging.getLogger(__name__)


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
