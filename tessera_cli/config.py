"""Settings from the machine and its environment, which only this module, `jobs.py`, `cli/` and `environment/` read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.environment.cgroups import cpu_quota, memory_limit
from tessera_cli.errors import CredentialsError, UsageError
from tessera_cli.reading import check_file

if TYPE_CHECKING:
    from tessera_cli.catalog import Credentials

EARTHDATA_HOST = "urs.earthdata.nasa.gov"


def threads(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return the cores this process may use: the least that affinity mask, CPU quota, Slurm and OMP_NUM_THREADS say.

    `root` is where the file system begins.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        cores = os.cpu_count() or 1
    wanted = _number(environ.get("OMP_NUM_THREADS", "").split(",")[0])
    # More threads than there are cores would wait for each other, whoever asks for them.
    return min([cores, *filter(None, (cpu_quota(root), _slurm_cores(environ), wanted))])


def memory(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return the bytes of memory this process may use: the least of the machine's, its control groups' and Slurm's.

    Slurm gives memory to a job on a node: the tasks that run there have equal shares of it. `root` is where the file
    system begins.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    given = _number(environ.get("SLURM_MEM_PER_NODE"))  # MB of 2^20 bytes, as all of Slurm's; 0: all there is
    if not given and (each := _number(environ.get("SLURM_MEM_PER_CPU"))):
        cores = _number(environ.get("SLURM_CPUS_ON_NODE")) or _number(environ.get("SLURM_CPUS_PER_TASK")) or 1
        given = each * cores
    limits = (memory_limit(root), (given or 0) << 20)
    return min([machine, *filter(None, limits)]) // _slurm_tasks(environ)


def _slurm_cores(environ: Mapping[str, str]) -> int | None:
    """Return the cores that Slurm gives to a task. Without the plugins that bind it to them, nothing else tells."""
    if each := _number(environ.get("SLURM_CPUS_PER_TASK")):
        return each
    cores = _number(environ.get("SLURM_CPUS_ON_NODE"))
    return max(1, cores // _slurm_tasks(environ)) if cores else None


def _slurm_tasks(environ: Mapping[str, str]) -> int:
    """Return how many tasks of this job step `srun` has started on this node; 1 without it, as in a batch script."""
    # `2(x3),1`: three nodes with two tasks each, then one with one
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    tasks = [int(count) for count, times in runs for _ in range(int(times or 1))]
    node = _number(environ.get("SLURM_NODEID")) or 0
    return max(1, tasks[node]) if node < len(tasks) else 1


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the GPUs this process may use, each as `CUDA_VISIBLE_DEVICES` takes it."""
    import torch

    count, given = torch.cuda.device_count(), environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",")] if given.strip() else [str(number) for number in range(count)]
    return names[:count]


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
