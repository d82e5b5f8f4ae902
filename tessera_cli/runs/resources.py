"""What a run took of the machine: memory, bytes read and written, repeated requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tessera_cli.runs.results import TileResult
from tessera_cli.runs.tasks import Performed
from tessera_cli.timing import peak_device_mb, peak_rss_mb


def resources(
    results: Iterable[TileResult], network: Mapping[str, Any], performed: Iterable[Performed] = ()
) -> dict[str, Any]:
    """Return the resources of a run that came to these results; `performed` are the tasks of other processes.

    What cannot be known, such as the memory of a GPU without one, is left out.
    """
    tasks = list(performed)
    devices = [peak for peak in (peak_device_mb(), *(task.peak_device_mb for task in tasks)) if peak is not None]
    found = {
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "worker_peak_rss_mb": round(max((task.peak_rss_mb for task in tasks), default=0.0), 1) or None,
        "peak_device_mb": round(max(devices), 1) if devices else None,
        "read_bytes": network.get("bytes", 0) + network.get("local_bytes", 0),
        "written_bytes": sum(result.bytes or 0 for result in results if result.status == "done"),
        "retries": sum(network.get("retries", {}).values()),
    }
    return {name: value for name, value in found.items() if value is not None}


def resources_text(found: Mapping[str, Any]) -> str:
    """Return them in one line."""
    memory = [f"{found['peak_rss_mb'] / 1e3:,.1f} GB of memory at most"]
    if "worker_peak_rss_mb" in found:
        memory.append(f"{found['worker_peak_rss_mb'] / 1e3:,.1f} GB each worker")
    if "peak_device_mb" in found:
        memory.append(f"{found['peak_device_mb'] / 1e3:,.1f} GB of the GPU's")
    moved = f"{found['read_bytes'] / 1e6:,.1f} MB read, {found['written_bytes'] / 1e6:,.1f} MB written"
    return f"{', '.join(memory)}; {moved}"
