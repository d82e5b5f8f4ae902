"""Throughput of the encoder, from raw integers to codes, beside the machine's matrix product and the plain form."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.bench import machine
from tessera_cli.bench.figures import agreement, figures, median
from tessera_cli.bench.plain import PlainForm, check
from tessera_cli.bench.subjects import get_model, unprepared_model
from tessera_cli.bench.workload import Workload, from_store, synthetic
from tessera_cli.errors import UsageError
from tessera_cli.inference.encode import encode
from tessera_cli.models import Model, get_spec
from tessera_cli.timing import StageTimer, peak_rss_mb

logger = logging.getLogger(__name__)

ROUND_SECONDS = 4.0
"""Duration of a round of the encoder, where the number of pixels is not given."""
STEP = 256
"""The number of pixels is then a multiple of this,"""
FULL_BATCH = 1024
"""and with a baseline at least one batch of the plain form."""
COMPARED = 1024
"""Pixels whose embeddings are compared, at most."""


def measure(
    name: str,
    *,
    threads: int,
    precision: str = "auto",
    device: str = "auto",
    pixels: int | None = None,
    clouds: bool = False,
    dpixels: Path | None = None,
    rounds: int = 5,
    baseline: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Encode the same pixels in every round and return medians, as plain JSON (the keys: `benchmarks/README.md`).

    The model has the shape of the released one of this name and random weights of `seed`; the packaged demo has its
    own. The pixels are made up (with `clouds`, a mix) or those of the stored tile at `dpixels`. With `baseline` the
    plain form encodes them too. Matrix product, plain form and encoder take turns; each round begins with another.
    """
    from tessera_cli.models.precision import torch_settings

    spec = get_spec(name)
    if spec.config is None:
        raise UsageError(f"--model {name} has no network to measure. Choose another.")
    if baseline:
        check(spec)
    with torch_settings(threads):
        model = get_model(name, seed, device=device, precision=precision)
        if dpixels is not None:
            work = from_store(dpixels, spec.observations, pixels)
        else:
            work = synthetic(pixels or _enough(model, clouds, threads, baseline), clouds=clouds, seed=seed)
        memory = _memory(model, work, threads)  # before there is a second model
        plain = PlainForm(unprepared_model(name, seed), _device(model)) if baseline else None
        agrees = _agreement(model, work, plain, seed, device, threads)

        turns: list[Callable[[], dict[str, Any]]] = [functools.partial(_rates, model, threads)]
        if plain:
            turns.append(functools.partial(_plain, plain, work))
        turns.append(functools.partial(_ours, model, work, threads))
        recorded = []
        for number in range(rounds):
            first = number % len(turns)
            row = {key: value for turn in turns[first:] + turns[:first] for key, value in turn().items()}
            logger.info("round %d of %d: %.0f pixels/s", number + 1, rounds, row["pixels_per_second"])
            recorded.append(row)
        stages = [row["stages"] for row in recorded]
        return {
            **figures(spec, work, recorded),
            "agreement": agrees,
            "memory": memory,
            "stages": {stage: median(stages, stage) for stage in stages[0]},
            "workload": {"name": work.name, "pixels": work.size, "seed": seed},
            "conditions": {
                **machine.conditions(_device(model), threads),
                "model": name,
                "precision": model.precision,
                "observations": work.describe(spec.observations),
            },
            "rounds": recorded,
        }


def _ours(model: Model, work: Workload, threads: int) -> dict[str, Any]:
    """Time one round of the encoder, up to codes and scales as they are stored."""
    stages, dims, quantiser = StageTimer(), model.spec.default_dims, model.spec.quantiser
    started = time.perf_counter()
    encode(work.dpixels, model, work.pixels, dims=dims, quantiser=quantiser, threads=threads, stages=stages)
    return {"pixels_per_second": work.size / (time.perf_counter() - started), "stages": stages.seconds}


def _plain(plain: PlainForm, work: Workload) -> dict[str, Any]:
    """Time one round of the plain form."""
    started = time.perf_counter()
    plain.encode(work.dpixels, work.pixels)
    return {"plain_pixels_per_second": work.size / (time.perf_counter() - started)}


def _rates(model: Model, threads: int) -> dict[str, Any]:
    """Time one round of matrix products: in the model's precision, and others to judge it by."""
    rates = {"matmul_gflops": machine.matmul_gflops(model.precision, _device(model), threads)}
    if model.precision != "fp32":
        rates["matmul_gflops_fp32"] = machine.matmul_gflops("fp32", _device(model), threads)
    if model.device == "cuda":
        large = machine.matmul_gflops(model.precision, _device(model), threads, size=machine.LARGE_MATMUL)
        rates["matmul_gflops_large"] = large
    return rates


def _enough(model: Model, clouds: bool, threads: int, baseline: bool) -> int:
    """Return how many pixels the encoder needs about ROUND_SECONDS for."""
    count, rate, seconds = 16, 0.0, 0.0
    while seconds < ROUND_SECONDS / 8:
        count *= 2
        rate = _ours(model, synthetic(count, clouds=clouds), threads)["pixels_per_second"]
        seconds = count / rate
    return max(FULL_BATCH if baseline else STEP, round(rate * ROUND_SECONDS / STEP) * STEP)


def _memory(model: Model, work: Workload, threads: int) -> dict[str, float | None]:
    """Return the memory peaks of encoding the pixels once, and what the memory plan expects, in MB of 10^6 bytes.

    The resident set includes Python, torch, the weights and the d-pixels.
    """
    from tessera_cli.inference.engines import get_engine

    assert model.encoder
    lengths = work.lengths(model.spec.observations)
    with get_engine(model.encoder, threads) as engine:
        planned = engine.peak_bytes(work.size, float(work.counts.sum(axis=1).mean()), int(lengths.max())) / 1e6
    if model.device == "cuda":
        import torch

        device = _device(model)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 1e6
    else:
        before = machine.rss_mb()
    _ours(model, work, threads)
    cuda = torch.cuda.max_memory_allocated(device) / 1e6 if model.device == "cuda" else None
    return {
        "peak_rss_mb": peak_rss_mb(),
        "cuda_peak_mb": cuda,
        "before_mb": before,
        "planned_mb": planned,
        "predicted_mb": before + planned,
    }


def _device(model: Model) -> str:
    assert model.encoder
    return str(model.encoder.device)


def _agreement(
    model: Model, work: Workload, plain: PlainForm | None, seed: int, device: str, threads: int
) -> dict[str, Any] | None:
    """Compare embeddings, before quantising, with those of the plain form; without it, with our own in float32."""
    few = np.zeros(work.pixels.shape, bool)
    few.flat[np.flatnonzero(work.pixels)[:COMPARED]] = True
    if plain:
        against, wanted = "plain", plain.encode(work.dpixels, few)
    elif model.precision != "fp32":
        exact = get_model(model.name, seed, device=device, precision="fp32")
        against, wanted = "fp32", encode(work.dpixels, exact, few, threads=threads).values
    else:
        return None
    values = encode(work.dpixels, model, few, threads=threads).values
    return {"against": against, "pixels": len(values), **agreement(values, wanted)}
