"""Pooling over time: a pixel's tokens -> one vector. Always a weighted mean of the tokens themselves.

The weights are a softmax over time of one learned score. What is scored differs: the tokens (v2), the states of an
`nn.GRU` (v1.0 early), or the normalised states of TESSERA's own GRU (v1.0 QAT, v1.1). One token is its own mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera_cli.models.architecture import Pooling


class AttentionPool(nn.Module):
    """Scores the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 1)

    def context(self, x_BTD: Tensor) -> Tensor:
        """What is scored, (B, T, D)."""
        return x_BTD

    def forward(self, x_BTD: Tensor) -> Tensor:
        weights_BT = torch.softmax(self.query(self.context(x_BTD)).squeeze(-1), dim=1)
        return torch.bmm(weights_BT.unsqueeze(1), x_BTD).squeeze(1)


class GruPool(AttentionPool):
    """Scores the states of `nn.GRU`: n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)), h' = (1−z) ⊙ n + z ⊙ h, h_0 = 0."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.states = nn.Linear(width, 3 * width)

    def context(self, x_BTD: Tensor) -> Tensor:
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD[:, 0])
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            (ir, iz, xn), (hr, hz, hn) = inputs_BG.chunk(3, dim=-1), self.states(h_BD).chunk(3, dim=-1)
            n = torch.tanh(xn + torch.sigmoid(ir + hr) * hn)
            h_BD = n + torch.sigmoid(iz + hz) * (h_BD - n)
            states.append(h_BD)
        return torch.stack(states, dim=1)


class CustomGruPool(AttentionPool):
    """Scores LayerNorm(states) of TESSERA's own GRU.

    The reset gate acts on the state before the matrix, n = tanh(W_ih x + W_hh (r ⊙ h) + b_h), and the update gate has
    the opposite sense, h' = (1−z) ⊙ h + z ⊙ n. No `nn.GRU` computes this.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.gates = nn.Linear(width, 2 * width, bias=False)
        self.candidate = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def states(self, x_BTD: Tensor) -> Tensor:
        """h_1..h_T, (B, T, D)."""
        width = x_BTD.shape[-1]
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD[:, 0])
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            r, z = torch.sigmoid(inputs_BG[:, : 2 * width] + self.gates(h_BD)).chunk(2, dim=-1)
            n = torch.tanh(inputs_BG[:, 2 * width :] + self.candidate(r * h_BD))
            h_BD = h_BD + z * (n - h_BD)
            states.append(h_BD)
        return torch.stack(states, dim=1)

    def context(self, x_BTD: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.states(x_BTD))
        return normed


POOLS: dict[Pooling, type[AttentionPool]] = {
    "attention": AttentionPool,
    "gru": GruPool,
    "custom-gru": CustomGruPool,
}
