"""Choose the engine of a device."""

from __future__ import annotations

from tessera_cli.inference.engine import Engine
from tessera_cli.models.encoder import Encoder


def get_engine(encoder: Encoder, threads: int) -> Engine:
    """Return the engine for the device that `encoder` lies on; on a CPU, `threads` micro-batches run side by side."""
    if encoder.device.type == "cpu":
        from tessera_cli.inference.cpu import CpuEngine

        return CpuEngine(encoder, threads)
    from tessera_cli.inference.gpu import GpuEngine

    return GpuEngine(encoder)
