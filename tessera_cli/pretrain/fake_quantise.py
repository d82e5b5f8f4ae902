"""Quantisation-aware training: embeddings as int8 would store them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera_cli.models.quantise import Quantiser, codes_and_scales


class FakeQuantise(nn.Module):
    """Quantise and dequantise float32 (B, K) with a scale per pixel; gradients pass unchanged (straight-through).

    Set `active` on this module: an attribute set on a DDP wrapper is never seen here. `acted` counts the uses.
    """

    def __init__(self, rule: Quantiser) -> None:
        super().__init__()
        self.rule = rule
        self.active = False
        self.acted = 0

    def forward(self, x_BK: Tensor) -> Tensor:
        if not self.active:
            return x_BK
        self.acted += 1
        exact_BK = x_BK.detach()
        with torch.autocast(x_BK.device.type, enabled=False):
            codes_BK, scales_B = codes_and_scales(exact_BK, self.rule, torch)
            return codes_BK * scales_B[:, None] + (x_BK - exact_BK)  # the last term is 0, with a gradient
