"""The networks: a light decoder on frozen embeddings, and a U-Net on raw composites.

Both are U-shaped on three scales (10, 20 and 40 m). The decoder narrows the features first and adds what a linear
model says of each pixel alone, so that few labels suffice for what the embedding holds already.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["decoder", "unet"]
STEP = 4
"""Rows and columns come in multiples of it: two halvings."""
REACH = 24
"""Pixels around a pixel that its class may depend on, at most; a multiple of STEP."""
WIDTHS = (32, 48, 128)
"""Channels at 10, 20 and 40 m."""


class Segmenter(nn.Module):
    """Features float32 (B, dims, h, w) -> logits (B, classes, h, w); h and w are multiples of STEP."""

    def __init__(self, dims: int, classes: int, kind: Kind) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        light = kind == "decoder"
        self.stem = _convolution(dims, fine, 1) if light else _convolution(dims, fine)
        self.fine = _convolution(fine, fine)
        self.middle = nn.Sequential(_convolution(fine, middle), _convolution(middle, middle))
        self.coarse = nn.Sequential(_convolution(middle, coarse), _convolution(coarse, middle))
        self.up_middle = _convolution(2 * middle, middle)
        self.up_fine = _convolution(middle + fine, fine, 1 if light else 3)
        self.head = nn.Conv2d(fine, classes, 1)
        self.linear = nn.Conv2d(dims, classes, 1) if light else None
        nn.init.zeros_(self.head.weight)  # it begins as the linear model
        if not light:
            nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x))
        middle = self.middle(nn.functional.max_pool2d(fine, 2))
        coarse = self.coarse(nn.functional.max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([middle, _doubled(coarse)], 1))
        fine = self.up_fine(torch.cat([fine, _doubled(middle)], 1))
        logits: Tensor = self.head(fine)
        return logits if self.linear is None else logits + self.linear(x)


def parameters(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def _convolution(inward: int, outward: int, side: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inward, outward, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outward), nn.ReLU(inplace=True))


def _doubled(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")
