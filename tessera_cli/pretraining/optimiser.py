"""AdamW in two groups, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from tessera_cli.pretraining.config import OptimiserConfig


def adamw(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices and none on vectors (biases, norms).

    Pass the bare module: some wrappers flatten parameters, and then nothing decays.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay, "name": "matrices"},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "name": "vectors"},
    ]
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.optim.AdamW(groups, lr=config.lr, fused=on_cpu or None)  # one pass instead of a dozen


def describe_groups(optimiser: torch.optim.Optimizer) -> str:
    """Return one line that names each group, its size and its weight decay."""
    lines = []
    for group in optimiser.param_groups:
        numbers = sum(parameter.numel() for parameter in group["params"])
        lines.append(f"{len(group['params'])} {group['name']} ({numbers:,} numbers) decay {group['weight_decay']:g}")
    return "; ".join(lines)


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Return the learning rate of a step (from 0): a linear warm-up to `lr`, then a cosine down to 0."""
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
