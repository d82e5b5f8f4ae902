"""Results from timings: FLOP per pixel, shares of the matrix product, agreement of embeddings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tessera_cli.bench.workload import Workload
from tessera_cli.models import EncoderConfig, ModelSpec


def figures(spec: ModelSpec, work: Workload, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians over the rounds, and ratios of medians."""
    assert spec.config is not None
    rule = spec.observations
    lengths = work.lengths(rule)
    official, needed = (rule.repeats * f / 1e9 for f in flop_per_pixel(spec.config, work.counts, lengths))
    rates = {key: median(rounds, key) for key, value in rounds[0].items() if isinstance(value, float)}
    pixels, matmul, plain = rates["pixels_per_second"], rates["matmul_gflops"], rates.get("plain_pixels_per_second")
    return {
        "pixels_per_second": pixels,
        "tokens_per_second": pixels * rule.repeats * float(lengths.sum(axis=1).mean()),
        "matmul_gflops": matmul,
        "matmul_share": pixels * official / matmul,
        "arithmetic_share": pixels * needed / matmul,
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
