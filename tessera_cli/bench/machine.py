"""The machine: throughput of its matrix product, and the conditions of a measurement."""

from __future__ import annotations

import datetime as dt
import functools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tessera_cli.models.precision import Precision

MATMUL = 1024
"""Rows, columns and depth of the matrix product that everything is compared with."""
SHAPES = ((1024, 1024, 1024), (1024, 440, 1792), (1024, 1792, 440))
"""Rows, inputs and outputs of the products with packed weights: a square one, and v2-medium's feed-forward."""
LARGE_MATMUL = 8192
"""Of a second product on GPUs, which 1024 cannot fill."""
CPUINFO = Path("/proc/cpuinfo")


def matmul_gflops(precision: Precision, device: str, threads: int, *, size: int = MATMUL) -> float:
    """Return 10^9 operations per second of a square matrix product in this precision.

    On a CPU the better of two ways to use the threads: all on one product, and one product each. Where others use the
    machine too, threads that wait for each other lose most.
    """
    from tessera_cli.models.precision import matmul_rate

    together = matmul_rate(precision, device, size) / 1e9
    if device != "cpu" or threads == 1:
        return together
    return max(together, _apart(lambda: matmul_rate(precision, device, size) / 1e9, threads))


def packed_gflops(precision: Precision, threads: int) -> float | None:
    """Return the same of oneDNN's product with packed weights, one on each thread, of the shape that suits it best.

    None where oneDNN has no such product.
    """
    from tessera_cli.models.precision import packed_rate

    if packed_rate(precision, 2, 2, 2) is None:
        return None

    def rate(shape: tuple[int, int, int]) -> float:
        return (packed_rate(precision, *shape) or 0.0) / 1e9

    return max(_apart(functools.partial(rate, shape), threads) for shape in SHAPES)


def _apart(rate: Callable[[], float], threads: int) -> float:
    """Return the sum of the rates of so many threads with one core each."""
    import torch

    with ThreadPoolExecutor(threads, "matmul", torch.set_num_threads, (1,)) as pool:
        found = sum(pool.map(lambda _: rate(), range(threads)))
    torch.set_num_threads(threads)
    return found


def conditions(device: str, threads: int) -> dict[str, Any]:
    """Return device, date, load and versions as plain JSON; null for what cannot be read here."""
    import torch

    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _cpu_name(),
        "instructions": None if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability(),
        "mhz": _gpu_mhz() if device.startswith("cuda") else _cpu_mhz(),
        "threads": threads,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpuinfo(key: str) -> list[str]:
    if not CPUINFO.exists():
        return []
    pairs = (line.partition(":") for line in CPUINFO.read_text().splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _cpu_name() -> str:
    return next(iter(_cpuinfo("model name")), platform.processor() or platform.machine())


def _cpu_mhz() -> list[float] | None:
    """Return the clock of every core."""
    return [float(mhz) for mhz in _cpuinfo("cpu MHz")] or None


def _gpu_mhz() -> list[float] | None:
    """Return the clocks of all GPUs, as nvidia-smi reports them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [float(mhz) for mhz in done.stdout.split() if mhz.replace(".", "").isdigit()] or None
