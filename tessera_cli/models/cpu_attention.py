"""Attention on CPUs, with as many keys as fill the processor's vectors.

torch's kernel takes the softmax of a row in whole vectors, and what is left over one number at a time: 57 keys take
half as long again as 64. Here the keys behind a pixel's own, up to the next multiple, are those of the pixel behind it
in memory, which costs no copy; their logits are minus infinity, so that they count for nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.parts import Attention, replace_attention

VECTOR = {"AVX512": 16}.get(torch.backends.cpu.get_cpu_capability(), 8)
"""float32 numbers in a vector."""
FEW = 4
"""Numbers left over that take no longer one at a time than more keys do."""
ROWS = 8
"""Products treat rows alike whose number is a multiple of it (`inference/cpu.py`)."""
WIDEST = 512
"""Width of a transformer beyond which attention takes too little of the time to matter."""


class WholeVectorAttention(Attention):
    """`Attention` with the same parts, which can no longer be trained."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(attention.__dict__)

    def forward(self, x_BTD: Tensor, log_repeats_T: Tensor | None, *, add: Tensor) -> Tensor:
        B, T, _ = x_BTD.shape
        spare = -T % VECTOR if T % VECTOR > FEW else 0
        if not spare:
            return super().forward(x_BTD, log_repeats_T, add=add)
        behind = -(-spare // ROWS) * ROWS  # where the last pixel finds its neighbour
        rows = self.in_proj(F.pad(x_BTD.flatten(end_dim=1), (0, 0, 0, behind)))
        q, k, v = rows.view(len(rows), 3, self.heads, -1).unbind(dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        own = x_BTD.new_zeros(T) if log_repeats_T is None else log_repeats_T
        attended = F.scaled_dot_product_attention(
            _sequences(q, B, T, T),
            _sequences(k, B, T, T + spare),
            _sequences(v, B, T, T + spare),
            attn_mask=F.pad(own, (0, spare), value=-math.inf).expand(B, 1, T, T + spare),
            scale=self.scale,
        )
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(B, T, -1), add=add)
        return out


def _sequences(rows: Tensor, count: int, every: int, length: int) -> Tensor:
    """Return (B, H, length, size) of (rows, H, size): B sequences, one beginning `every` so many rows."""
    row, head, one = rows.stride()
    return rows.as_strided((count, rows.shape[1], length, rows.shape[2]), (every * row, head, row, one))


def use_whole_vectors(module: nn.Module) -> None:
    """Replace all attention of a module by `WholeVectorAttention`."""
    replace_attention(module, WholeVectorAttention)
