"""Embeddings as int8 codes times one float32 scale per pixel, and back.

Symmetric, round half to even, all arithmetic in float32, as the official code does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tessera_cli.errors import TileError

Quantiser = Literal["v1", "v2"]

_ROWS = 16384
"""Pixels per step, which bounds the temporaries."""


def quantize(values: np.ndarray, rule: Quantiser) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, R) -> codes int8 (N, R), scales float32 (N,).

    `v2`: scale = max(max|x|, 1e-12) / 127, codes in ±127. `v1`: scale = max(max|x| / 127, 1e-8), codes in −128..127.
    For a prefix, slice first: the scale belongs to the values that are saved.
    """
    check_finite(values)
    codes = np.empty(values.shape, np.int8)
    scales = np.empty(len(values), np.float32)
    for start in range(0, len(values), _ROWS):
        x = values[start : start + _ROWS]
        largest = np.abs(x).max(axis=1, initial=0)
        if rule == "v2":
            scale, lowest = np.maximum(largest, np.float32(1e-12)) / np.float32(127), -127
        else:
            scale, lowest = np.maximum(largest / np.float32(127), np.float32(1e-8)), -128
        scales[start : start + _ROWS] = scale
        codes[start : start + _ROWS] = np.clip(np.rint(x / scale[:, None]), lowest, 127)
    return codes, scales


def check_finite(values: np.ndarray) -> None:
    """TileError if an embedding of float32 (N, R) holds NaN or infinite values."""
    bad = sum(
        int((~np.isfinite(values[start : start + _ROWS])).any(axis=1).sum()) for start in range(0, len(values), _ROWS)
    )
    if bad:
        raise TileError(
            f"{bad} embeddings hold NaN or infinite values, so they cannot be stored. "
            "The weights or the input are damaged: check both with another model or another tile."
        )


def dequantize(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """codes int8 (..., R), scales float32 (...) -> float32 (..., R); NaN where the scale is NaN (no data)."""
    return codes.astype(np.float32) * scales[..., None]
