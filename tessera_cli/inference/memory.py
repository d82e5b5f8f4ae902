"""Memory that encoding takes, for the size of batches and for `tessera bench`.

Counted in bytes per token from the tensors that are alive at the peak.
"""

from __future__ import annotations

import torch

from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.parts import HEAD_MULTIPLE
from tessera_cli.sampling import BAND_COUNTS, Modality

MOST_TOKENS = 1 << 19
"""Per batch; more would not be faster."""
SHARE = 0.8
"""Of a device's free memory that is used; the rest is left to the allocator."""
AHEAD = 3
"""Chunks that are chosen and copied to a GPU side by side: one thread chooses some 200,000 pixels a second."""
CHUNKS = AHEAD + 2
"""On a GPU: one is encoded, and one before it perhaps not freed yet."""
SHORT = 16
"""Tokens of a short sequence."""
OBSERVATIONS = 400
"""Of both sensors per pixel on average, for which room is reserved."""


def token_bytes(config: EncoderConfig, modality: Modality, matmul_dtype: torch.dtype) -> int:
    """Return the bytes per token of a batch at its peak."""
    d, f, e = config.width, config.stack(modality).feedforward, matmul_dtype.itemsize
    heads = config.stack(modality).heads
    padded = heads * -(-(d // heads) // HEAD_MULTIPLE) * HEAD_MULTIPLE  # as on GPUs
    lowered = 0 if e == 4 else e * d  # the low-precision copy of an input
    # q, k, v, attention's output, its projection; input and output
    attention = lowered + e * (3 * padded + padded + d) + 2 * 4 * d
    feedforward = max(lowered + e * f, e * (f + d) + 4 * d) + 2 * 4 * d
    # tokens, inputs, states twice; and what a step of a GRU holds per sequence, which is shared by its tokens
    pooling = 0 if config.pooling == "attention" else 4 * (d + 3 * d + 2 * d) + 4 * 5 * d // SHORT
    return max(attention, feedforward, pooling)


def chunk_bytes(config: EncoderConfig, pixels: int, observations: float = OBSERVATIONS) -> int:
    """Return the bytes of a chunk of pixels with this many observations each: these, both vectors, the embeddings."""
    each = 2 * max(BAND_COUNTS.values()) + 2 + 1
    return int(pixels * (observations * each + 4 * 2 * config.width + 8 * config.representation))


def least_bytes(config: EncoderConfig, matmul_dtype: torch.dtype, longest: int) -> int:
    """Return the bytes without which nothing can be encoded: one pixel, whose sequences are so long."""
    return chunk_bytes(config, CHUNKS) + longest * max(
        token_bytes(config, modality, matmul_dtype) for modality in BAND_COUNTS
    )


def free_bytes(device: torch.device) -> int | None:
    """Return the memory of a GPU that nobody has taken; None of another device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def plan(config: EncoderConfig, matmul_dtype: torch.dtype, free: int | None, pixels: int) -> tuple[int, int]:
    """Return pixels per chunk (at most `pixels`) and tokens per batch for `free` bytes of memory; None for no limit."""
    if free is None:
        return pixels, MOST_TOKENS
    room = int(SHARE * free)
    pixels = max(1, min(pixels, room // 2 // chunk_bytes(config, CHUNKS)))
    room -= CHUNKS * chunk_bytes(config, pixels)
    most = room // max(token_bytes(config, modality, matmul_dtype) for modality in BAND_COUNTS)
    return pixels, max(1, min(MOST_TOKENS, most))
