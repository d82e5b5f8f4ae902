"""A worker's share of the machine: variables that libraries read when they are imported or first used."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

THREADS = "OMP_NUM_THREADS"
OTHERS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "GDAL_NUM_THREADS")
"""They would win over the first where they are set."""
GPUS = "CUDA_VISIBLE_DEVICES"


def take_share(threads: int, gpu: str | None, environ: MutableMapping[str, str] = os.environ) -> None:
    """Limit this process to so many threads, and to one GPU if one is named; call it before torch is imported."""
    environ[THREADS] = str(threads)
    for name in OTHERS:
        if name in environ:
            environ[name] = str(threads)
    if gpu is not None:
        environ[GPUS] = gpu
