"""Linear maps through oneDNN on CPUs, forward and backward.

torch takes MKL for products in float32, which on AMD has vectors of 256 bits only: a tenth slower than oneDNN on Zen 4,
more than half on Zen 5. Bias and ReLU come with the product, and the ReLU needs no copy of its input.
"""

from __future__ import annotations

import functools
from pathlib import Path
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
        # torch has a quicker product for one output.
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
        of_weight = _of_weight(x_ND, grad)
        return of_x, of_weight.float(), of_bias, None


def _of_weight(x_ND: Tensor, grad_NE: Tensor) -> Tensor:
    """Return grad^T x, (E, D)."""
    narrow = x_ND.shape[1] < grad_NE.shape[1]
    if not _onednn_is_far_ahead():  # MKL is several times slower with the narrow one second
        return (x_ND.T @ grad_NE).T if narrow else grad_NE.T @ x_ND
    # oneDNN's first operand has to be copied, since it must be contiguous; the second one is laid out anew anyway.
    if narrow:
        return _product(x_ND.T, grad_NE.T).T
    return _product(grad_NE.T, x_ND.T)


@functools.cache
def _onednn_is_far_ahead(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether its lead is worth copying an operand: on AMD's processors with vectors of 512 bits, from Zen 5."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        return False
    said = {name.strip(): value.strip() for name, _, value in lines}
    family = said.get("cpu family", "")
    return said.get("vendor_id") == "AuthenticAMD" and family.isdecimal() and int(family) >= _ZEN_5


_ZEN_5 = 26


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
    return y
