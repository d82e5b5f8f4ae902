"""How much memory encoding takes: what batches are sized by, and what `tessera bench` predicts.

Counted in bytes per token from the tensors that live at the same time where a batch needs most.
"""

from __future__ import annotations

import torch

from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.sampling import BANDS, Modality

MOST_TOKENS = 1 << 19
"""Per batch: more is no quicker."""
SHARE = 0.8
"""Of a device's free memory that is planned with; the rest is the allocator's slack."""
CHUNKS = 3
"""On a GPU: one is encoded, one waits for it, one is staged."""
OBSERVATIONS = 400
"""Of both sensors that a pixel may have on average when room is set aside for them."""


def token_bytes(config: EncoderConfig, modality: Modality, matmul_dtype: torch.dtype) -> int:
    """Bytes per token of a batch at its peak."""
    d, f, e = config.width, config.stack(modality).feedforward, matmul_dtype.itemsize
    lowered = 0 if e == 4 else e * d  # the copy of a product's input
    attention = lowered + e * (3 * d + d + d) + 2 * 4 * d  # q, k, v, what they give, its map; what comes in and out
    feedforward = max(lowered + e * f, e * (f + d) + 4 * d) + 2 * 4 * d
    pooling = 0 if config.pooling == "attention" else 4 * (d + 3 * d + 2 * d)  # tokens, inputs, states twice
    return max(attention, feedforward, pooling)


def chunk_bytes(config: EncoderConfig, pixels: int, observations: float = OBSERVATIONS) -> int:
    """Bytes of a chunk of pixels with so many observations each: what was seen, both vectors, the embeddings."""
    each = 2 * max(BANDS.values()) + 2 + 1
    return int(pixels * (observations * each + 4 * 2 * config.width + 8 * config.representation))


def plan(config: EncoderConfig, matmul_dtype: torch.dtype, free: int | None, pixels: int) -> tuple[int, int]:
    """Pixels per chunk, at most so many, and tokens per batch, for a device with so many free bytes (None: plenty)."""
    if free is None:
        return pixels, MOST_TOKENS
    room = int(SHARE * free)
    pixels = max(1, min(pixels, room // 2 // chunk_bytes(config, CHUNKS)))
    room -= CHUNKS * chunk_bytes(config, pixels)
    most = room // max(token_bytes(config, modality, matmul_dtype) for modality in BANDS)
    return pixels, max(1, min(MOST_TOKENS, most))
