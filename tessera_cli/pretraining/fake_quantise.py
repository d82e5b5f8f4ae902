"""Quantisation-aware training: embeddings as int8 would store them."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera_cli.models.quantise import Quantiser, codes_and_scales


def fake_quantise(x_BK: Tensor, rule: Quantiser) -> Tensor:
    """Quantise and dequantise float32 (B, K) with a scale per pixel; gradients pass unchanged (straight-through)."""
    exact_BK = x_BK.detach()
    with torch.autocast(x_BK.device.type, enabled=False):
        codes_BK, scales_B = codes_and_scales(exact_BK, rule, torch)
        return codes_BK * scales_B[:, None] + (x_BK - exact_BK)  # the last term is 0, with a gradient
