"""Attention of short sequences on CPUs, forward and backward, as batched products of small matrices.

torch's kernel for CPUs is made for long sequences: it saves the memory of the weights, and computes them twice; in
bfloat16 its gradient takes ten times as long as in float32. So attention is in float32 here, whatever the products are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tessera_cli.models.parts import Attention, replace_attention

LONGEST = 64
"""Tokens of a sequence."""


class ShortAttention(Attention):
    """`Attention` with the same parts, under the same names; what is long, or has dropout, goes torch's way."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.heads, self.dropout, self.scale = attention.heads, attention.dropout, attention.scale
        self.in_proj, self.out_proj = attention.in_proj, attention.out_proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm

    def forward(self, x_BTD: Tensor, log_repeats_T: Tensor | None, *, add: Tensor) -> Tensor:
        """Return A(x) + add."""
        plain = self.q_norm is None and log_repeats_T is None and not (self.training and self.dropout)
        fits = x_BTD.device.type == "cpu" and x_BTD.shape[1] <= LONGEST
        if not (plain and fits):
            return super().forward(x_BTD, log_repeats_T, add=add)
        qkv_BTE: Tensor = self.in_proj(x_BTD)
        if qkv_BTE.dtype == torch.bfloat16:
            qkv_BTE = qkv_BTE.float()
        with torch.autocast("cpu", enabled=False):
            attended = _Attended.apply(qkv_BTE, self.heads, self.scale)  # type: ignore[no-untyped-call]
        out: Tensor = self.out_proj(attended, add=add)
        return out


def use_short_attention(module: nn.Module) -> None:
    """Replace all attention of a module by `ShortAttention`."""
    replace_attention(module, ShortAttention)


class _Attended(torch.autograd.Function):
    """softmax(scale Q K^T) V per head: (B, T, 3 D), queries, keys and values, -> (B, T, D)."""

    @staticmethod
    def forward(ctx: Any, qkv_BTE: Tensor, heads: int, scale: float) -> Tensor:
        B, T, E = qkv_BTE.shape
        all_GTS = qkv_BTE.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, B * heads, T, -1)
        q_GTS, k_GTS, v_GTS = all_GTS
        logits_GTT = torch.baddbmm(q_GTS.new_empty(()).expand(B * heads, T, T), q_GTS, k_GTS.mT, beta=0, alpha=scale)
        weights_GTT = torch.softmax(logits_GTT, dim=-1)
        ctx.save_for_backward(all_GTS, weights_GTT)
        ctx.heads, ctx.scale = heads, scale
        return torch.bmm(weights_GTT, v_GTS).view(B, heads, T, -1).transpose(1, 2).reshape(B, T, E // 3)

    @staticmethod
    def backward(ctx: Any, grad_BTD: Tensor) -> tuple[Tensor, None, None]:
        all_GTS, weights_GTT = ctx.saved_tensors
        q_GTS, k_GTS, v_GTS = all_GTS
        B, T, _ = grad_BTD.shape
        grad_GTS = grad_BTD.view(B, T, ctx.heads, -1).transpose(1, 2).reshape(v_GTS.shape)
        of_weights_GTT = torch.bmm(grad_GTS, v_GTS.mT)
        of_logits_GTT = torch.ops.aten._softmax_backward_data(of_weights_GTT, weights_GTT, -1, weights_GTT.dtype)
        of_logits_GTT.mul_(ctx.scale)
        found_GTS = torch.empty_like(all_GTS)
        torch.bmm(of_logits_GTT, k_GTS, out=found_GTS[0])
        torch.bmm(of_logits_GTT.mT, q_GTS, out=found_GTS[1])
        torch.bmm(weights_GTT.mT, grad_GTS, out=found_GTS[2])
        return found_GTS.view(3, B, ctx.heads, T, -1).permute(1, 3, 0, 2, 4).reshape(B, T, -1), None, None
