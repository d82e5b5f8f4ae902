"""All that a GPU has to show, in at most eight minutes: agreement, memory, speed, training, profiles.

    benchmarks/gpu.sh OUT            # on a machine with PyTorch, where the package cannot be installed
    python -m benchmarks.gpu OUT

OUT gets `gpu.json` and a profile in text of v2-medium and of v1.1. A part that fails says why, and the others go on;
what no time is left for is named. Models have random weights. The keys: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 480.0
MODELS = ("v2-medium", "v2-large", "v2-small", "v2-nano", "v1.1-mpc", "v1.0")
PRESETS = ("nano", "small")
CUDA = "cuda:0"
PIXELS = 512
"""That are embedded on CPU and GPU."""


def agreement(name: str) -> Any:
    """Embed the same pixels on CPU and GPU: float32 must be the CPU's within 5e-5, bf16 have cosines of 0.9999."""
    from tessera_cli.bench.encode import agreement as compare
    from tessera_cli.bench.subjects import get_model
    from tessera_cli.bench.workload import synthetic
    from tessera_cli.inference.encode import encode

    work = synthetic(PIXELS, clouds=True, seed=1)
    exact = encode(work.dpixels, get_model(name, 0, device="cpu", precision="fp32"), work.pixels, threads=8).values
    return {
        precision: compare(
            encode(work.dpixels, get_model(name, 0, device=CUDA, precision=precision), work.pixels).values, exact
        )
        for precision in ("fp32", "bf16")
    }


def encoding(name: str) -> Any:
    from tessera_cli.bench.encode import measure

    return measure(name, threads=8, device=CUDA, rounds=3, pixels=1 << 18)


def out_of_memory() -> Any:
    """Leave so little memory that the plan's batches do not fit; the embeddings must stay the same."""
    import torch

    from tessera_cli.bench.subjects import get_model
    from tessera_cli.bench.workload import synthetic
    from tessera_cli.inference.encode import encode

    work = synthetic(20_000, clouds=True, seed=2)
    model = get_model("v2-medium", 0, device=CUDA, precision="bf16")
    free = encode(work.dpixels, model, work.pixels).values
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 6e8) / total)
    try:
        tight = encode(work.dpixels, model, work.pixels).values
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    from tessera_cli.inference.gpu import GpuEngine

    engine = GpuEngine(model.encoder)  # type: ignore[arg-type]
    found = engine._device
    return {
        "halved": found.reduced,
        "tokens": found.tokens,
        "max_abs_difference": float(np.abs(tight - free).max()),
    }


def training(preset: str, *, compiled: bool = False) -> Any:
    from tessera_cli.bench.pretrain import measure

    return measure(preset, threads=8, device=CUDA, rounds=3, compiled=compiled)


def nccl() -> Any:
    """One process in a group of one."""
    import torch
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533")
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", rank=0, world_size=1, device_id=torch.device(CUDA))
    try:
        x = torch.ones(1000, device=CUDA)
        dist.all_reduce(x)
        told = ["text"]
        dist.broadcast_object_list(told, src=0)
        return {"sum": float(x.sum()), "told": told[0]}
    finally:
        dist.destroy_process_group()


def profile(name: str, out: Path) -> Any:
    """Write the twenty-five operations that take most of the device's time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    from tessera_cli.bench.subjects import get_model
    from tessera_cli.bench.workload import synthetic
    from tessera_cli.inference.encode import encode

    work, model = synthetic(1 << 16, clouds=False, seed=0), get_model(name, 0, device=CUDA, precision="bf16")
    encode(work.dpixels, model, work.pixels)
    with record(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        encode(work.dpixels, model, work.pixels)
    path = out / f"profile-{name}.txt"
    path.write_text(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=25) + "\n")
    return path.name


def parts(out: Path) -> Mapping[str, Callable[[], Any]]:
    """Return the parts by name, the most telling first."""
    return {
        **{f"agreement {name}": functools.partial(agreement, name) for name in ("v2-medium", "v1.1-mpc")},
        **{f"encode {name}": functools.partial(encoding, name) for name in MODELS[:1]},
        **{f"pretrain {preset}": functools.partial(training, preset) for preset in PRESETS},
        "out of memory": out_of_memory,
        "nccl": nccl,
        **{f"profile {name}": functools.partial(profile, name, out) for name in ("v2-medium", "v1.1-mpc")},
        **{f"encode {name}": functools.partial(encoding, name) for name in MODELS[1:]},
        "pretrain nano compiled": functools.partial(training, "nano", compiled=True),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("--seconds", type=float, default=SECONDS)
    options.add_argument("--only", nargs="+", default=[], metavar="PART")
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), {}
    for name, part in parts(args.out).items():
        if args.only and name not in args.only:
            continue
        if (started := time.monotonic()) - began > args.seconds:
            found[name] = {"error": "no time was left"}
            _write(args.out, found)
            continue
        try:
            found[name] = {"result": part()}
        except Exception as error:  # the others go on
            found[name] = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-2000:]}
        found[name]["seconds"] = round(time.monotonic() - started, 1)
        print(f"{name}: {found[name].get('error', 'done')} ({found[name]['seconds']} s)", flush=True)
        _write(args.out, found)


def _write(out: Path, found: Mapping[str, Any]) -> None:
    (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
