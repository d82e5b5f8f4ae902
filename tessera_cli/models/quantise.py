"""Embeddings as int8 codes times one float32 scale per pixel, and back.

Symmetric, round half to even, all arithmetic in float32, as the official code does.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tessera_cli.errors import TileError

Quantiser = Literal["v1", "v2"]

_ROWS = 16384
"""Pixels per step, which bounds the temporaries."""


def quantise(values: np.ndarray, rule: Quantiser) -> tuple[np.ndarray, np.ndarray]:
    """Return codes int8 (N, R) and scales float32 (N,) of values float32 (N, R); TileError if one is NaN or infinite.

    `v2`: scale = max(max|x|, 1e-12) / 127, codes in ±127. `v1`: scale = max(max|x| / 127, 1e-8), codes in −128..127.
    Slice a prefix before quantising: the scale belongs to the values that are stored.
    """
    codes = np.empty(values.shape, np.int8)
    scales = np.empty(len(values), np.float32)
    for start in range(0, len(values), _ROWS):
        part = slice(start, start + _ROWS)
        with np.errstate(invalid="ignore"):  # it shows in the scales
            codes[part], scales[part] = codes_and_scales(values[part], rule, np)
    check_finite(scales[:, None])
    return codes, scales


def codes_and_scales(values: Any, rule: Quantiser, library: Any) -> tuple[Any, Any]:
    """Compute `quantise` on arrays of `library`, numpy or torch; NaN and infinities show in the scales."""
    largest = library.amax(abs(values), axis=1)
    most = library.full_like(largest, 127)  # dividing by a scalar, a GPU would multiply with 1 / 127
    if rule == "v2":
        scales, lowest = library.clip(largest, 1e-12, None) / most, -127
    else:
        scales, lowest = library.clip(largest / most, 1e-8, None), -128
    codes = library.clip(library.round(values / scales.reshape(-1, 1)), lowest, 127)
    return library.asarray(codes, dtype=library.int8), scales


def check_finite(values: np.ndarray) -> None:
    """Raise TileError if any of the embeddings, float32 (N, R), or of their scales is NaN or infinite."""
    bad = sum(
        int((~np.isfinite(values[start : start + _ROWS])).any(axis=1).sum()) for start in range(0, len(values), _ROWS)
    )
    if bad:
        raise TileError(
            f"{bad} embeddings hold NaN or infinite values, so they cannot be stored. "
            "The weights or the input are damaged: check both with another model or another tile."
        )


def dequantise(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return float32 (..., R) of codes int8 (..., R) and scales float32 (...); NaN where the scale is NaN (no data)."""
    return codes.astype(np.float32) * scales[..., None]
