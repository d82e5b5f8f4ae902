"""Embeddings as they will be stored, while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera_cli.models.quantise import Quantiser, codes_and_scales


class FakeQuantise(nn.Module):
    """float32 (B, K) -> what is read back where int8 codes and a scale per pixel were stored, float32 (B, K).

    Gradients pass as if nothing had been rounded. `active` is a property of this module, not of one that wraps it: an
    attribute that is set on a DDP module is never seen here. `acted` counts how often it did.
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
