"""`--precision`: the arithmetic of the backbones. Fusion, reducer and days of year are always float32.

- `fp32`: the official float32 outputs within 5e-5; TF32 is off.
- `bf16`: the transformers' matrix products and attention in bfloat16; sums, norms, pooling, sinusoids and the embedding
  of bands in float32 (2 % of the matrix products, but in bfloat16 half of the whole error). On a GPU float32 products
  are then TF32's, whose error is an eighth of bfloat16's.
- `int8`: on a CPU with VNNI. The large linear maps take int8 weights (one scale per output) and int8 inputs (one scale
  per token, so that a pixel's embedding still depends on the pixel alone), and sum exactly in int32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from tessera_cli.errors import UsageError
from tessera_cli.models.cpu_attention import WIDEST, use_whole_vectors
from tessera_cli.models.encoder import Backbone, Encoder
from tessera_cli.models.parts import HEAD_MULTIPLE, Attention, Block, Linear

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[str, ...] = ("auto", *get_args(Precision))


MATMUL_SECONDS = 0.3
ZERO = 128
"""The code of 0 among inputs in uint8."""
ROUNDED = 1.5 * 2**23
"""A float32 added to it is rounded to an integer, halves to even, whose lowest byte is that of the sum."""
ROWS = 1024
"""Of the products that oneDNN lays weights out for: about those of a micro-batch."""


@contextmanager
def torch_settings(threads: int | None = None, *, tf32: bool = False) -> Iterator[None]:
    """Turn TF32 on or off and set the number of intra-op threads, if one is given, until the end of the context."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def arithmetic(device: torch.device) -> str:
    """Return what the last bits of results on a device depend on: torch, and the processor's kind."""
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}"
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {'' if onednn else 'no '}oneDNN"


def matmul_rate(precision: Precision, device: str, size: int) -> float:
    """Return the operations per second of this thread's square matrix products, repeated for MATMUL_SECONDS."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    a, b = (torch.randn(2, size, size, device=device) * 40).clamp(-127, 127).to(dtype)
    product: Callable[[Tensor, Tensor], Tensor] = torch._int_mm if precision == "int8" else torch.matmul
    return _rate_of(lambda: product(a, b), device, 2 * size**3)


def packed_rate(precision: Precision, rows: int, inputs: int, outputs: int) -> float | None:
    """Return the same of oneDNN's product on a CPU, weights laid out before: (rows, inputs) x (inputs, outputs).

    None without oneDNN, and where it has none in this precision.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    operations = 2 * rows * inputs * outputs
    if precision == "int8":
        if not torch.cpu._is_vnni_supported():
            return None
        x = torch.randint(0, 255, (rows, inputs), dtype=torch.uint8)
        w = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(w, [rows, inputs])
        told: tuple[Any, ...] = (
            torch.ones(outputs),
            torch.zeros(outputs, dtype=torch.int64),
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return _rate_of(lambda: torch.ops.onednn.qlinear_pointwise(x, 1.0, 0, packed, *told), "cpu", operations)
    if precision == "bf16" and not _has_bf16():
        return None
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a, b = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(b)
    return _rate_of(lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""), "cpu", operations)


def _rate_of(product: Callable[[], Tensor], device: str, operations: int) -> float:
    """Return the operations per second of products of so many each."""
    small = operations <= 2 * 1024**3
    at_once = 128 if device.startswith("cuda") and small else 4  # or a GPU would mostly wait for the next

    def some() -> None:
        for _ in range(at_once):
            product()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        some()
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < MATMUL_SECONDS:
            some()
            calls += at_once
    return operations * calls / elapsed


def resolve(requested: str, device: torch.device) -> Precision:
    """Return the precision to use; `auto` is bf16 on CUDA devices that have it, else fp32.

    UsageError for one that the device cannot do.
    """
    if requested == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if requested == "int8" and (device.type != "cpu" or not torch.cpu._is_vnni_supported()):
        raise UsageError(
            "--precision int8 needs a CPU with VNNI (AVX-512 VNNI). Choose --precision fp32, or bf16 on a GPU."
        )
    if requested not in PRECISIONS:
        raise UsageError(f"--precision {requested}: choose one of {', '.join(PRECISIONS)}.")
    return cast(Precision, requested)


def prepare(encoder: Encoder, precision: Precision) -> None:
    """Convert the encoder to this precision and to the layout fastest on its device; it can no longer be trained."""
    for backbone in (encoder.s2, encoder.s1):
        if precision == "bf16":
            backbone.matmul_dtype = torch.bfloat16
            for part in backbone.blocks.modules():
                if isinstance(part, Linear):
                    _lower(part)
        elif precision == "int8":
            _quantise(backbone)
    if encoder.device.type == "cuda":
        for attention in encoder.modules():
            if isinstance(attention, Attention):
                attention.pad_heads(HEAD_MULTIPLE)
    elif precision != "bf16" or _has_bf16():
        prepack_weights(encoder)
        if encoder.config.width <= WIDEST:
            use_whole_vectors(encoder)


def _has_bf16() -> bool:
    """Return whether oneDNN has products in bfloat16 on this CPU."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _lower(linear: Linear) -> None:
    """Store weights in bfloat16, or autocast would convert them in every call."""
    for name, parameter in linear.named_parameters():
        setattr(linear, name, nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False))


def _quantise(backbone: Backbone) -> None:
    _replace(backbone.embed, "out", Int8Linear)
    for block in backbone.blocks:
        assert isinstance(block, Block)
        for name in ("in_proj", "out_proj"):
            _replace(block.attention, name, Int8Linear)
        block.fused = Int8FeedForward(block.up, block.down)
        del block.up, block.down


def prepack_weights(module: nn.Module) -> None:
    """Replace all linear maps of a module on a CPU by `PrepackedLinear`, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for name, child in module.named_children():
        if isinstance(child, Linear):
            _replace(module, name, PrepackedLinear)
        else:
            prepack_weights(child)


def _replace(module: nn.Module, name: str, form: Callable[[Linear], nn.Module]) -> None:
    linear = getattr(module, name)
    assert isinstance(linear, Linear)
    setattr(module, name, form(linear))


class PrepackedLinear(nn.Module):
    """A linear map with weights laid out for oneDNN, which fuses bias and ReLU, and in float32 a sum, into the product.

    As torch's compiler does for frozen models. Its bits do not depend on the number of rows (from two on), unlike
    those of MKL, and on AMD it is a third to a half faster. Its ReLU turns NaN into 0, but finite weights and
    inputs give no NaN. With weights in bfloat16 so are inputs and products, but what is added stays float32.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.dtype = linear.weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor, *, relu: bool = False, add: Tensor | None = None) -> Tensor:
        if add is not None and self.dtype == torch.float32:
            return torch.ops.mkldnn._linear_pointwise.binary(x, add, self.weight, self.bias, "add")
        then = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, then, [], "")
        return y if add is None else add + y


class Int8Linear(nn.Module):
    """A linear map in int8: y = (x_q · w_q) · s_output · s_token + b, products summed exactly in int32.

    By oneDNN, which takes inputs as uint8 around a zero point and scales by output as it writes the sums.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = weight.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
        codes = (weight / scales).round_().to(torch.int8)
        outputs, inputs = weight.shape
        self.weight = torch.ops.onednn.qlinear_prepack(codes, [ROWS, inputs])
        self.scales, self.zeros = scales.squeeze(-1), torch.zeros(outputs, dtype=torch.int64)
        self.bias = linear.bias.detach()
        # Whole rows: torch's vector loops take one operand that is repeated, and no second.
        self.signed, self.positive = torch.full((inputs,), ROUNDED + ZERO), torch.full((inputs,), ROUNDED)

    def forward(self, x: Tensor, *, relu: bool = False, add: Tensor | None = None) -> Tensor:
        out = self.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        out = out.relu_() if relu else out
        return out if add is None else out.add_(add)

    def product(self, rows: Tensor, *, relu: bool = False) -> Tensor:
        """Return W x + b of rows, float32 (N, K); with `relu` of their positive parts, in 255 steps for 127."""
        largest = rows.amax(dim=-1, keepdim=True)
        if not relu:
            largest = torch.maximum(largest, -rows.amin(dim=-1, keepdim=True))
        scales = largest.clamp_min_(1e-12).div_(255 if relu else 127)
        shifted = torch.addcmul(self.positive if relu else self.signed, rows, scales.reciprocal())
        codes = (shifted.clamp_min_(ROUNDED) if relu else shifted).view(torch.int32).to(torch.uint8)
        zero = 0 if relu else ZERO
        sums = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, zero, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self.bias, sums, scales, out=sums)


class Int8FeedForward(nn.Module):
    """Two maps in int8 with a ReLU between them, which the second one's codes do without a pass of its own."""

    def __init__(self, up: Linear, down: Linear) -> None:
        super().__init__()
        self.up, self.down = Int8Linear(up), Int8Linear(down)

    def forward(self, x: Tensor, add: Tensor) -> Tensor:
        rows = self.up.product(x.reshape(-1, x.shape[-1]))
        return self.down.product(rows, relu=True).view(x.shape).add_(add)
