"""Pooling over time: a pixel's tokens -> one vector, always a mean of the tokens weighted by a softmax over scores.

| family | pooling | what is scored |
|---|---|---|
| v2 | `attention` | the tokens |
| v1.0 | `gru` | states of `torch.nn.GRU`: the reset gate acts after W_hn, the update gate z weights the old state |
| v1.0-qat, v1.1 | `custom-gru` | LayerNorm(states) of TESSERA's GRU: reset acts before W_hh, z weights the new state |

A sequence may be given as its distinct tokens and `repeat_index`, int64 (positions,): which of them stands at each
position. A GRU walks through all positions; where only tokens are scored, each is counted as often as it occurs.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from tessera_cli.models.architecture import Pooling
from tessera_cli.models.parts import Linear


class AttentionPool(nn.Module):
    """v2: scores the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = Linear(width, 1)

    def forward(self, x_BTD: Tensor, repeat_index: Tensor | None = None) -> Tensor:
        scores_BT = self.query(x_BTD).squeeze(-1)
        return _weighted_mean(
            x_BTD, scores_BT if repeat_index is None else scores_BT + log_repeats(repeat_index, x_BTD.shape[1])
        )


class _StatePool(AttentionPool, abc.ABC):
    """Scores the output of a GRU over the tokens."""

    @abc.abstractmethod
    def context(self, x_BTD: Tensor) -> Tensor:
        """Return what is scored, (B, T, D)."""

    def forward(self, x_BTD: Tensor, repeat_index: Tensor | None = None) -> Tensor:
        if repeat_index is not None:
            x_BTD = x_BTD[:, repeat_index]
        return _weighted_mean(x_BTD, self.query(self.context(x_BTD)).squeeze(-1))


class GruPool(_StatePool):
    """v1.0: scores the states of `nn.GRU`.

    n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)), h' = (1−z) ⊙ n + z ⊙ h, h_0 = 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = Linear(width, 3 * width)
        self.states = Linear(width, 3 * width)

    def context(self, x_BTD: Tensor) -> Tensor:
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD.select(1, 0))
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            (ir, iz, xn), (hr, hz, hn) = inputs_BG.chunk(3, dim=-1), self.states(h_BD).chunk(3, dim=-1)
            n = torch.tanh(xn + torch.sigmoid(ir + hr) * hn)
            h_BD = torch.lerp(n, h_BD, torch.sigmoid(iz + hz))
            states.append(h_BD)
        return torch.stack(states, dim=1)


class CustomGruPool(_StatePool):
    """v1.0-qat, v1.1: scores LayerNorm(states) of TESSERA's own GRU, which no `nn.GRU` computes.

    The reset gate acts on the state before the matrix, n = tanh(W_ih x + W_hh (r ⊙ h) + b_h), and the update gate has
    the opposite sense, h' = (1−z) ⊙ h + z ⊙ n, h_0 = 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inputs = Linear(width, 3 * width)
        self.gates = Linear(width, 2 * width, bias=False)
        self.candidate = Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def states(self, x_BTD: Tensor) -> Tensor:
        """Return h_1..h_T, (B, T, D)."""
        width = x_BTD.shape[-1]
        inputs_BTG = self.inputs(x_BTD)
        h_BD = torch.zeros_like(x_BTD.select(1, 0))
        states = []
        for inputs_BG in inputs_BTG.unbind(dim=1):
            to_gates, to_candidate = inputs_BG.split([2 * width, width], dim=-1)
            r, z = self.gates(h_BD, add=to_gates).sigmoid_().chunk(2, dim=-1)
            n = self.candidate(r * h_BD, add=to_candidate).tanh_()
            h_BD = torch.lerp(h_BD, n, z)
            states.append(h_BD)
        return torch.stack(states, dim=1)

    def context(self, x_BTD: Tensor) -> Tensor:
        return self.norm(self.states(x_BTD))


def log_repeats(repeat_index: Tensor, tokens: int) -> Tensor:
    """Return the logarithm of how often each token occurs in a sequence (at least once), float32 (tokens,)."""
    return torch.bincount(repeat_index, minlength=tokens).float().log()


def _weighted_mean(x_BTD: Tensor, scores_BT: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(scores_BT, dim=1).unsqueeze(1), x_BTD).squeeze(1)


POOLS: dict[Pooling, type[AttentionPool]] = {"attention": AttentionPool, "gru": GruPool, "custom-gru": CustomGruPool}
