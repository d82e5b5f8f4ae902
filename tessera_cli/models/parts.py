"""The parts encoders are made of. Families differ in how these are put together, not in the parts.

Shapes: B pixels, T observations, C bands, D the transformer's width, H heads, R the length of an embedding.
Formulas: `tessera_infer`, `tessera_infer_QAT`, `tessera_infer_v2` of ucam-eo/tessera. Dropout, where there is any, is
that of `nn.TransformerEncoderLayer`, in training mode only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_MULTIPLE = 8
"""Flash attention on GPUs takes heads whose size is a multiple of it."""
QK_NORM_EPS = 1.1920929e-07
"""float32 machine epsilon, which is what torch's RMSNorm uses when it is given none."""


def day_of_year_table(width: int) -> np.ndarray:
    """Return float32 (367, width): row d is sin(d·ω_k) as feature 2k and cos(d·ω_k) as 2k+1, ω_k = 10000^(−2k/width).

    Row 0 belongs to the token that stands for a missing sensor. The angles are float32 products, as in the official
    code; the functions themselves are rounded once from float64, so that no thread count or vector unit shows.
    """
    angles = (np.arange(367, dtype=np.float32)[:, None] * _omega(width)).astype(np.float64)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(367, -1)[:, :width].astype(np.float32)


def _omega(width: int) -> np.ndarray:
    exponents = np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / width)
    return np.exp(exponents.astype(np.float64)).astype(np.float32)


def day_tokens(doy_BT: Tensor, table: Tensor) -> Tensor:
    """Return the sinusoids of days of year, (B, T, D).

    Whole days, int (B, T), are looked up in the table, (367, D); fractions of days, float32 (B, T), which training
    blends, are computed in float32.
    """
    if not doy_BT.is_floating_point():
        return F.embedding(doy_BT, table)
    width = table.shape[1]
    angles = doy_BT.float().unsqueeze(-1) * torch.from_numpy(_omega(width)).to(doy_BT.device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(start_dim=-2)[..., :width]


class Linear(nn.Linear):
    """A linear map with a following ReLU or sum, which faster forms (`models/precision.py`) fuse into one pass."""

    def forward(self, x: Tensor, *, relu: bool = False, add: Tensor | None = None) -> Tensor:
        """Return relu(W x + b) or W x + b + add."""
        if relu and x.device.type == "cuda" and not torch.is_grad_enabled():
            return relu_linear(x, self.weight, self.bias)
        y = F.linear(x, self.weight, self.bias)
        if relu:
            y = F.relu(y, inplace=not y.requires_grad)  # whose gradient takes copies, y being a view of a product
        return y if add is None else add + y


def relu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return relu(W x + b), the ReLU within the product, in the dtype of autocast, which does not know of it."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    rows = torch._addmm_activation(bias.to(dtype), x.flatten(end_dim=-2).to(dtype), weight.t().to(dtype))
    return rows.view(*x.shape[:-1], len(weight))


def _add_residual(linear: nn.Module, x: Tensor, add: Tensor, dropout: float) -> Tensor:
    """Return W x + b + add, in training with dropout before the sum."""
    return add + F.dropout(linear(x), dropout) if dropout else linear(x, add=add)


class BandEmbedding(nn.Module):
    """Linear, ReLU, Linear: the bands of one observation -> a token, to which its day is added."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.hidden = Linear(bands, width)
        self.out = Linear(width, width)

    def forward(self, x_BTC: Tensor, days_BTD: Tensor) -> Tensor:
        return self.out(self.hidden(x_BTC, relu=True), add=days_BTD)


class Attention(nn.Module):
    """Self-attention among a pixel's observations, without a mask: all tokens are real observations.

    `log_repeats_T`, float32: logarithm of how often each token occurs, if any may occur more than once. Added to the
    logits of a key, it counts the key as often as that.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = 0.0
        self.scale = (width // heads) ** -0.5
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.q_norm = nn.RMSNorm(width // heads, eps=QK_NORM_EPS) if qk_norm else None
        self.k_norm = nn.RMSNorm(width // heads, eps=QK_NORM_EPS) if qk_norm else None

    def forward(self, x_BTD: Tensor, log_repeats_T: Tensor | None, *, add: Tensor) -> Tensor:
        """Return A(x) + add."""
        B, T, _ = x_BTD.shape
        q, k, v = self.in_proj(x_BTD).view(B, T, 3, self.heads, -1).unbind(dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        bias = None if log_repeats_T is None else log_repeats_T.expand(B, 1, T, T)
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, dropout_p=rate, scale=self.scale
        )
        return _add_residual(self.out_proj, attended.transpose(1, 2).reshape(B, T, -1), add, rate)

    def pad_heads(self, multiple: int) -> None:
        """Pad heads with zeros to a multiple, which changes no result, unless they are normalised.

        Else torch would pad queries, keys and values in every call.
        """
        size = len(self.in_proj.weight) // (3 * self.heads)
        more = -size % multiple
        if self.q_norm is not None or more == 0:
            return
        rows = self.in_proj.weight.detach().reshape(-1, size, self.in_proj.in_features)
        bias = self.in_proj.bias.detach().reshape(-1, size)
        columns = self.out_proj.weight.detach().reshape(self.out_proj.out_features, -1, size)
        self.in_proj.weight = nn.Parameter(F.pad(rows, (0, 0, 0, more)).flatten(0, 1), requires_grad=False)
        self.in_proj.bias = nn.Parameter(F.pad(bias, (0, more)).flatten(), requires_grad=False)
        self.out_proj.weight = nn.Parameter(F.pad(columns, (0, more)).flatten(1), requires_grad=False)


def replace_attention(module: nn.Module, form: Callable[[Attention], nn.Module]) -> None:
    """Replace all attention of a module by another form of it."""
    for name, child in module.named_children():
        if isinstance(child, Attention):
            setattr(module, name, form(child))
        else:
            replace_attention(child, form)


class Block(nn.Module):
    """One transformer layer: attention A and feed-forward W2·relu(W1·), each added to what it was given.

    Post-norm: y = N1(x + A(x)), out = N2(y + W2·relu(W1·y)). Pre-norm: y = x + A(N1(x)), out = y + W2·relu(W1·N2(y)).
    """

    def __init__(self, width: int, heads: int, feedforward: int, *, qk_norm: bool, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.dropout = 0.0
        self.attention = Attention(width, heads, qk_norm=qk_norm)
        self.norm1 = nn.LayerNorm(width)
        self.up = Linear(width, feedforward)
        self.down = Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width)
        self.fused: nn.Module | None = None
        """A faster form of `up` and `down`, (y, add) -> W2·relu(W1·y) + add, once they are not trained any more."""

    def forward(self, x_BTD: Tensor, log_repeats_T: Tensor | None = None) -> Tensor:
        if self.pre_norm:
            x_BTD = self.attention(self.norm1(x_BTD), log_repeats_T, add=x_BTD)
            return self._feedforward(self.norm2(x_BTD), add=x_BTD)
        y_BTD = self.norm1(self.attention(x_BTD, log_repeats_T, add=x_BTD))
        return self.norm2(self._feedforward(y_BTD, add=y_BTD))

    def _feedforward(self, y_BTD: Tensor, *, add: Tensor) -> Tensor:
        if self.fused is not None:
            fused: Tensor = self.fused(y_BTD, add)
            return fused
        rate = self.dropout if self.training else 0.0
        hidden = self.up(y_BTD, relu=True)
        return _add_residual(self.down, F.dropout(hidden, rate) if rate else hidden, add, rate)


class DimReducer(nn.Module):
    """The sensors' fused vector -> the embedding: one linear map, or two with a normalised layer between them."""

    def __init__(self, inputs: int, hidden: int | None, representation: int, *, final_norm: bool) -> None:
        super().__init__()
        self.up = None if hidden is None else Linear(inputs, hidden)
        self.norm = None if hidden is None else nn.LayerNorm(hidden)
        self.down = Linear(inputs if hidden is None else hidden, representation)
        self.final_norm = final_norm
        self.dropout = 0.0

    def forward(self, fused_BF: Tensor) -> Tensor:
        if self.up is not None and self.norm is not None:
            fused_BF = F.relu(self.norm(self.up(fused_BF)), inplace=True)
            if self.dropout and self.training:
                fused_BF = F.dropout(fused_BF, self.dropout)
        out_BR: Tensor = self.down(fused_BF)
        return F.layer_norm(out_BR, out_BR.shape[-1:]) if self.final_norm else out_BR
