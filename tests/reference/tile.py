"""A whole tile through an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.reference.network import encode
from tests.reference.observations import draws, tokens

NAMES = ("bands", "masks", "doys", "sar_ascending", "sar_ascending_doy", "sar_descending", "sar_descending_doy")
AT_ONCE = 32  # pixels; keeps the attention of 256 tokens small


def embed_tile(
    family: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    arrays: Mapping[str, np.ndarray],
    *,
    source: str | None = None,
    legacy_seed: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Representations float64 (H, W, R) and which pixels have one, bool (H, W); the others are 0.

    `arrays` are those of an official tile folder by file name. `source` is for v1.1, else `data_source` of `config`.
    `legacy_seed` is for v1.0; None suffices where its draws have one outcome.
    """
    shape = arrays["masks"].shape[1:]
    found: dict[tuple[int, int], np.ndarray] = {}
    if family in ("v1_0_early", "v1_0_qat"):
        for pixels, repeats in draws(family, config, arrays, legacy_seed or 0):
            every = [_encode(family, config, tensors, s2, s1) for s2, s1 in repeats]
            found.update(zip(pixels, np.mean(every, axis=0), strict=True))
    else:
        source = source or config.get("data_source")
        alike: dict[tuple[int, int], list[tuple[tuple[int, int], np.ndarray, np.ndarray]]] = {}
        for row, column in np.ndindex(*shape):
            if family != "v1_1" and not _seen(arrays, row, column):
                continue
            s2, s1 = tokens(family, config, arrays, row, column, source)
            alike.setdefault((len(s2), len(s1)), []).append(((row, column), s2, s1))
        for group in alike.values():
            pixels, s2s, s1s = zip(*group, strict=True)
            found.update(zip(pixels, _encode(family, config, tensors, np.stack(s2s), np.stack(s1s)), strict=True))
    last = "dim_reducer.4" if "dim_reducer.4.bias" in tensors else "dim_reducer.0"
    values, defined = np.zeros((*shape, len(tensors[f"{last}.bias"]))), np.zeros(shape, bool)
    for pixel, value in found.items():
        values[pixel], defined[pixel] = value, True
    return values, defined


def arrays_of(dpixels: Any) -> dict[str, np.ndarray]:
    """The arrays of d-pixels of the package, by their official names."""
    frames = ("s2", "s2_mask", "s2_doy", "s1_asc", "s1_asc_doy", "s1_desc", "s1_desc_doy")
    return {name: np.asarray(getattr(dpixels, ours)) for name, ours in zip(NAMES, frames, strict=True)}


def _seen(arrays: Mapping[str, np.ndarray], row: int, column: int) -> bool:
    return any(arrays[name][:, row, column].any() for name in ("masks", "sar_ascending", "sar_descending"))


def _encode(
    family: str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], s2: np.ndarray, s1: np.ndarray
) -> np.ndarray:
    parts = [slice(i, i + AT_ONCE) for i in range(0, len(s2), AT_ONCE)]
    return np.concatenate([encode(family, config, tensors, s2[part], s1[part]) for part in parts])
