"""Attention of short sequences on CPUs: against float64, torch's kernel and finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tessera_cli.models.encoder import Encoder
from tessera_cli.models.parts import Attention
from tessera_cli.pretraining import attention
from tessera_cli.pretraining.attention import ShortAttention, use_short_attention
from tests.pretraining.test_barlow_twins import a_config


def random_attention(width: int, heads: int, *, qk_norm: bool = False) -> Attention:
    torch.manual_seed(0)
    return Attention(width, heads, qk_norm=qk_norm)


def by_hand(module: Attention, x: Tensor) -> Tensor:
    """Float64, pixel by pixel and head by head."""
    pixels = []
    for tokens in x:
        q, k, v = (tokens @ module.in_proj.weight.T + module.in_proj.bias).chunk(3, dim=-1)
        size = x.shape[-1] // module.heads
        heads = []
        for h in range(module.heads):
            own = slice(h * size, (h + 1) * size)
            weights = torch.softmax(q[:, own] @ k[:, own].T / size**0.5, dim=-1)
            heads.append(weights @ v[:, own])
        pixels.append(torch.cat(heads, dim=-1) @ module.out_proj.weight.T + module.out_proj.bias)
    return torch.stack(pixels)


@pytest.mark.parametrize(
    ("pixels", "tokens", "width", "heads"), [(3, 5, 12, 2), (1, 1, 8, 4), (7, 24, 36, 4), (2, 64, 16, 1)]
)
def test_values_and_gradients(pixels: int, tokens: int, width: int, heads: int) -> None:
    plain = random_attention(width, heads)
    ours, exact = ShortAttention(copy.deepcopy(plain)), copy.deepcopy(plain).double()
    x, add, weights = (torch.randn(pixels, tokens, width) for _ in range(3))
    x.requires_grad_()
    double = x.detach().double().requires_grad_()
    out = ours(x, None, add=add)
    wanted = by_hand(exact, double) + add.double()
    torch.testing.assert_close(out, wanted.float(), rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(out, (x, *ours.parameters()), weights)
    expected = torch.autograd.grad(wanted, (double, *exact.parameters()), weights.double())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)


def test_finite_differences() -> None:
    qkv = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attention._Attended.apply(x, 2, 0.7), (qkv,))


@pytest.mark.parametrize("case", ["long", "normalised", "dropout", "repeats"])
def test_what_it_does_not_take_goes_the_way_of_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention._Attended, "apply", None)
    plain = random_attention(16, 2, qk_norm=case == "normalised")
    plain.dropout = 0.2 if case == "dropout" else 0.0
    ours = ShortAttention(plain)
    x = torch.randn(3, attention.LONGEST + 1 if case == "long" else 6, 16)
    repeats = torch.log(torch.tensor([1.0, 2, 1, 1, 3, 1])) if case == "repeats" else None
    found = []
    for module in (ours, plain):
        torch.manual_seed(0)
        found.append(module(x, repeats, add=x))
    assert torch.equal(*found)


def test_bf16_is_in_the_maps_alone() -> None:
    plain = random_attention(16, 2)
    x = torch.randn(3, 6, 16, requires_grad=True)
    found = []
    for module in (ShortAttention(plain), plain):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x, None, add=x)
        found.append([out, *torch.autograd.grad(out, (x, *plain.parameters()), torch.ones_like(out))])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.detach().abs().max()))


def test_all_attention_is_replaced_and_keeps_its_names() -> None:
    encoder = Encoder(a_config(model={"family": "v2-teacher"}).model.encoder)
    encoder.set_dropout(0.3)
    before = dict(encoder.named_parameters())
    use_short_attention(encoder)
    after = dict(encoder.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
    kinds = [part for part in encoder.modules() if isinstance(part, Attention)]
    assert {type(part) for part in kinds} == {ShortAttention}
    assert {part.dropout for part in kinds} == {0.3}
    assert len(kinds) == 4  # one layer of each sensor, and two of the fusion
