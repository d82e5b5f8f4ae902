"""Linear maps through oneDNN on CPUs, forward and backward.

torch takes MKL for products in float32, which on AMD is slower: a little with AVX-512 on Zen 4, by more than half on
Zen 5. Bias and ReLU come with the product, and the ReLU needs no copy of its input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tessera_cli.models.parts import Linear


class OneDnnLinear(Linear):
    """`Linear` with the same parameters, under the same names; what oneDNN cannot take goes torch's way."""

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor, *, relu: bool = False, add: Tensor | None = None) -> Tensor:
        """Return relu(W x + b) or W x + b + add."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or dtype not in _TAKEN or self.out_features == 1 or not x.numel():
            return super().forward(x, relu=relu, add=add)
        x_ND = x.reshape(-1, x.shape[-1]).to(dtype)
        y: Tensor = _Product.apply(x_ND, self.weight, self.bias, relu)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], self.out_features)
        return y if add is None else add + y


def use_onednn(module: nn.Module) -> None:
    """Replace all linear maps of a module by `OneDnnLinear`, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for name, child in module.named_children():
        if isinstance(child, Linear):
            setattr(module, name, OneDnnLinear(child))
        else:
            use_onednn(child)


_TAKEN = (torch.float32, torch.bfloat16)


class _Product(torch.autograd.Function):
    """relu(x W^T + b): (N, D) in float32 or bfloat16, and parameters in float32, whose gradients are float32."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        w = weight.to(x_ND.dtype)
        y = _product(x_ND, w, None if bias is None else bias.to(x_ND.dtype), "relu" if relu else "none")
        ctx.save_for_backward(x_ND, w, y if relu else None)
        ctx.biased = bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x_ND, w, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        of_x = _product(grad, w.T) if ctx.needs_input_grad[0] else None
        of_bias = grad.sum(dim=0, dtype=torch.float32) if ctx.biased else None
        # The first operand is copied to be contiguous, the second one laid out anew in any case.
        narrow = x_ND.shape[1] < grad.shape[1]
        of_weight = _product(x_ND.T, grad.T).T if narrow else _product(grad.T, x_ND.T)
        return of_x, of_weight.float(), of_bias, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
    return y
