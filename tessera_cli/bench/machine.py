"""The machine: throughput of its matrix product, and the conditions of a measurement."""

from __future__ import annotations

import datetime as dt
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tessera_cli.models.precision import Precision

MATMUL = 1024
"""Rows, columns and depth of the matrix product that everything is compared with."""
LARGE_MATMUL = 8192
"""Of a second product on GPUs, which 1024 cannot fill."""
MATMUL_SECONDS = 0.3
CPUINFO = Path("/proc/cpuinfo")


def matmul_gflops(precision: Precision, device: str, threads: int, *, size: int = MATMUL) -> float:
    """Return 10^9 operations per second of a square matrix product in this precision.

    On a CPU the better of two ways to use the threads: all on one product, and one product each. Where others use the
    machine too, threads that wait for each other lose most.
    """
    import torch

    together = _rate(precision, device, size)
    if device != "cpu" or threads == 1:
        return together
    with ThreadPoolExecutor(threads, "matmul", torch.set_num_threads, (1,)) as pool:
        apart = sum(pool.map(lambda _: _rate(precision, device, size), range(threads)))
    torch.set_num_threads(threads)
    return max(together, apart)


def _rate(precision: Precision, device: str, size: int) -> float:
    """Return the same for this thread, repeated for MATMUL_SECONDS."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    a, b = (torch.randn(2, size, size, device=device) * 40).clamp(-127, 127).to(dtype)
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    product = torch._int_mm if precision == "int8" else torch.matmul

    at_once = 128 if device.startswith("cuda") and size == MATMUL else 4  # or a GPU would mostly wait for the next

    def some() -> None:
        for _ in range(at_once):
            product(a, b)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        some()
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < MATMUL_SECONDS:
            some()
            calls += at_once
    return 2 * size**3 * calls / elapsed / 1e9


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """Set the number of intra-op threads and turn TF32 off, until the end of the context."""
    import torch

    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def peak_rss_mb() -> float:
    """Return the largest resident set of this process so far, in MB of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def rss_mb() -> float:
    """Return the resident set of this process now, in MB of 10^6 bytes; where it cannot be read, the largest so far."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6 if statm.exists() else peak_rss_mb()


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
