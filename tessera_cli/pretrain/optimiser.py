"""AdamW in two groups, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from tessera_cli.pretrain.config import OptimSettings


def adamw(module: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Matrices decay, vectors (biases, norms) do not.

    To be called with the bare module: some wrappers flatten parameters, and then nothing decays.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay, "name": "matrices"},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "name": "vectors"},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr)


def groups_text(optimiser: torch.optim.Optimizer) -> str:
    """The groups in one line, so that nobody need guess what decays."""
    told = []
    for group in optimiser.param_groups:
        numbers = sum(parameter.numel() for parameter in group["params"])
        told.append(f"{len(group['params'])} {group['name']} ({numbers:,} numbers) decay {group['weight_decay']:g}")
    return "; ".join(told)


def rate(step: int, steps: int, settings: OptimSettings) -> float:
    """The learning rate of a step from 0: a line up to `lr`, then a cosine down to 0 behind the last step."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.lr * (step + 1) / warm
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
