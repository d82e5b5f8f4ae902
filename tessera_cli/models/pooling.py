"""Pooling over time: a pixel's tokens -> one vector. Always a weighted mean of the tokens themselves.

The weights are a softmax over time of one learned score. What is scored differs: the tokens (v2), the states of an
`nn.GRU` (v1.0 early), or the normalised states of TESSERA's own GRU (v1.0 QAT, v1.1). One token is its own mean.

A sequence may come as its distinct tokens and `copies`, int64 (places,): which of them stands at each place. A GRU
walks through the places; where only tokens are scored, it is enough to count each as often as it occurs.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from tessera_cli.models.architecture import Pooling
from tessera_cli.models.parts import Linear


class AttentionPool(nn.Module):
    """Scores the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = Linear(width, 1)

    def forward(self, x_BTD: Tensor, copies: Tensor | None = None) -> Tensor:
        scores_BT = self.query(x_BTD).squeeze(-1)
        return _mean(x_BTD, scores_BT if copies is None else scores_BT + log_counts(copies, x_BTD.shape[1]))


class _StatePool(AttentionPool, abc.ABC):
    """Scores what a GRU makes of the tokens."""

    @abc.abstractmethod
    def context(self, x_BTD: Tensor) -> Tensor:
        """What is scored, (B, T, D)."""

    def forward(self, x_BTD: Tensor, copies: Tensor | None = None) -> Tensor:
        if copies is not None:
            x_BTD = x_BTD[:, copies]
        return _mean(x_BTD, self.query(self.context(x_BTD)).squeeze(-1))


class GruPool(_StatePool):
    """Scores the states of `nn.GRU`: n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)), h' = (1−z) ⊙ n + z ⊙ h, h_0 = 0."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = Linear(width, 3 * width)
        self.states = Linear(width, 3 * width)

    def context(self, x_BTD: Tensor) -> Tensor:
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD[:, 0])
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            (ir, iz, xn), (hr, hz, hn) = inputs_BG.chunk(3, dim=-1), self.states(h_BD).chunk(3, dim=-1)
            n = torch.tanh(xn + torch.sigmoid(ir + hr) * hn)
            h_BD = torch.lerp(n, h_BD, torch.sigmoid(iz + hz))
            states.append(h_BD)
        return torch.stack(states, dim=1)


class CustomGruPool(_StatePool):
    """Scores LayerNorm(states) of TESSERA's own GRU.

    The reset gate acts on the state before the matrix, n = tanh(W_ih x + W_hh (r ⊙ h) + b_h), and the update gate has
    the opposite sense, h' = (1−z) ⊙ h + z ⊙ n. No `nn.GRU` computes this.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = Linear(width, 3 * width)
        self.gates = Linear(width, 2 * width, bias=False)
        self.candidate = Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def states(self, x_BTD: Tensor) -> Tensor:
        """h_1..h_T, (B, T, D)."""
        width = x_BTD.shape[-1]
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD[:, 0])
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            r, z = self.gates(h_BD, add=inputs_BG[:, : 2 * width]).sigmoid_().chunk(2, dim=-1)
            n = self.candidate(r * h_BD, add=inputs_BG[:, 2 * width :]).tanh_()
            h_BD = torch.lerp(h_BD, n, z)
            states.append(h_BD)
        return torch.stack(states, dim=1)

    def context(self, x_BTD: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.states(x_BTD))
        return normed


def log_counts(copies: Tensor, tokens: int) -> Tensor:
    """float32 (tokens,): the logarithm of how often each token occurs in a sequence; each occurs at least once."""
    return torch.bincount(copies, minlength=tokens).float().log()


def _mean(x_BTD: Tensor, scores_BT: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(scores_BT, dim=1).unsqueeze(1), x_BTD).squeeze(1)


POOLS: dict[Pooling, type[AttentionPool]] = {
    "attention": AttentionPool,
    "gru": GruPool,
    "custom-gru": CustomGruPool,
}
