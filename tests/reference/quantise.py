"""Both quantisers, in float32 as the official ones: spec/encoders.md, section 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def quantise_v1(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (..., R) -> codes int8 (..., R), scales float32 (...): v1.0 QAT and v1.1."""
    scales = np.maximum(np.abs(x).max(axis=-1) / np.float32(127), np.float32(1e-8))
    return np.clip(np.rint(x / scales[..., None]), -128, 127).astype(np.int8), scales


def quantise_v2(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (..., R) -> codes int8 (..., R), scales float32 (...): v2 students."""
    scales = np.maximum(np.abs(x).max(axis=-1), np.float32(1e-12)) / np.float32(127)
    return np.clip(np.rint(x / scales[..., None]), -127, 127).astype(np.int8), scales


def saved_dims(family: str, config: Mapping[str, Any]) -> list[int]:
    """How many leading numbers of a representation may be saved as codes; none where only floats are."""
    if family == "v1_0_qat":
        return [int(config["latent_dim"])]
    if family == "v1_1":
        return [int(config["save_embedding_dim"])]
    if family == "v2_student":
        dims = config["matryoshka_dims"]
        return [int(d) for d in (dims.split(",") if isinstance(dims, str) else dims)]
    return []


def quantised(
    family: str, config: Mapping[str, Any], values: np.ndarray, defined: np.ndarray
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Codes and scales of float32 representations (H, W, R) per number of saved values; both 0 where undefined."""
    rule = quantise_v2 if family == "v2_student" else quantise_v1
    result = {}
    for dims in saved_dims(family, config):
        codes, scales = rule(values[..., :dims])
        result[dims] = codes * defined[..., None].astype(np.int8), scales * defined.astype(np.float32)
    return result
