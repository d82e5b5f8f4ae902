"""Throughput of the encoder, from raw integers to codes, beside the machine's matrix product and the plain form."""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.bench import machine
from tessera_cli.bench.plain import PlainForm, check
from tessera_cli.bench.subjects import get_model, unprepared_model
from tessera_cli.bench.workload import Workload, from_store, synthetic
from tessera_cli.errors import UsageError
from tessera_cli.inference.encode import encode
from tessera_cli.models import EncoderConfig, Model, ModelSpec, get_spec
from tessera_cli.timing import StageTimer, peak_rss_mb, rss_mb

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
    baseline: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Encode the same pixels in every round and return medians, as plain JSON (the keys: `benchmarks/README.md`).

    The model has the shape of the released one of this name and random weights of `seed`; the packaged demo has its
    own. The pixels are made up (with `clouds`, a mix) or those of the stored tile at `dpixels`. With the `baseline`
    "plain" the plain form encodes them too, with "compile" the same after `torch.compile`. Matrix product, plain form
    and encoder take turns; each round begins with another.
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
            work = synthetic(pixels or _enough(model, clouds, threads, baseline is not None), clouds=clouds, seed=seed)
        memory = _memory(model, work, threads)  # before there is a second model
        plain = None
        if baseline:
            plain = PlainForm(unprepared_model(name, seed), _device(model), compiled=baseline == "compile")
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
            "baseline": baseline,
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
    if model.device == "cpu" and (packed := machine.packed_gflops(model.precision, threads)) is not None:
        rates["packed_gflops"] = packed
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
    from tessera_cli.inference.encode import get_engine

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
        before = rss_mb()
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


def figures(spec: ModelSpec, work: Workload, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians over the rounds, and ratios of medians."""
    assert spec.config is not None
    rule = spec.observations
    lengths = work.lengths(rule)
    official, needed = (rule.repeats * f / 1e9 for f in flop_per_pixel(spec.config, work.counts, lengths))
    rates = {key: median(rounds, key) for key, value in rounds[0].items() if isinstance(value, float)}
    best = max(rates.get(key, 0.0) for key in ("matmul_gflops", "packed_gflops", "matmul_gflops_large"))
    pixels, matmul, plain = rates["pixels_per_second"], rates["matmul_gflops"], rates.get("plain_pixels_per_second")
    return {
        "pixels_per_second": pixels,
        "tokens_per_second": pixels * rule.repeats * float(lengths.sum(axis=1).mean()),
        "matmul_gflops": matmul,
        "matmul_share": pixels * official / matmul,
        "arithmetic_share": pixels * needed / matmul,
        "packed_gflops": rates.get("packed_gflops"),
        "best_gflops": best,
        "best_share": pixels * needed / best,
        "plain_pixels_per_second": plain,
        "speedup_over_plain": None if plain is None else pixels / plain,
        "gflop_per_pixel": official,
        "gflop_per_pixel_needed": needed,
        **({"matmul_share_large": pixels * official / large} if (large := rates.get("matmul_gflops_large")) else {}),
        **{key: rate for key, rate in rates.items() if key.startswith("matmul_gflops_")},
    }


def flop_per_pixel(config: EncoderConfig, counts: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    """Return the mean FLOP per pixel: as officially computed, and with each distinct observation computed once.

    `counts` and `lengths` are int (N, 2), observations and sequence lengths of both sensors. A GRU, to which order
    matters, visits all positions either way.
    """
    rows, often = np.unique(np.concatenate([counts, lengths], axis=1), axis=0, return_counts=True)
    official = needed = 0.0
    for (n_s2, n_s1, t_s2, t_s1), pixels in zip(rows.tolist(), often.tolist(), strict=True):
        once_s2, once_s1 = min(n_s2, t_s2), min(n_s1, t_s1)
        again = t_s2 + t_s1 - once_s2 - once_s1
        recurrent = 0 if config.pooling == "attention" else 2 * 6 * again * config.width**2
        official += pixels * config.flop_per_pixel(t_s2, t_s1)
        needed += pixels * (config.flop_per_pixel(once_s2, once_s1) + recurrent)
    return official / len(counts), needed / len(counts)


def agreement(values: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Return the largest difference between embeddings (N, R), and the mean and least cosine over the pixels."""
    a, b = values.astype(np.float64), wanted.astype(np.float64)
    cosines = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return {
        "max_abs_difference": float(np.abs(a - b).max()),
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
    }


def median(rounds: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rounds)
