"""Attention with whole vectors of keys: against float64 by hand, and each pixel by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tessera_cli.models import cpu_attention
from tessera_cli.models.cpu_attention import WholeVectorAttention
from tessera_cli.models.parts import Attention
from tessera_cli.models.precision import prepack_weights

LENGTHS = [1, 4, 5, 7, 12, 15, 16, 17, 20, 21, 29, 31, 32, 57, 64, 65, 100]


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "VECTOR", 16)  # on any processor


def random_attention(width: int, heads: int, *, qk_norm: bool) -> Attention:
    torch.manual_seed(1)
    attention = Attention(width, heads, qk_norm=qk_norm)
    for norm in (attention.q_norm, attention.k_norm):
        if norm is not None:
            torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    return attention.requires_grad_(False)


def by_hand(module: Attention, tokens: Tensor, times: Tensor) -> Tensor:
    """One pixel in float64, (T, D), head by head, with every key as often as it occurs."""
    q, k, v = (
        part.unflatten(-1, (module.heads, -1))
        for part in (tokens @ module.in_proj.weight.T + module.in_proj.bias).chunk(3, dim=-1)
    )
    if module.q_norm is not None and module.k_norm is not None:
        q, k = (
            x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
            for x, norm in ((q, module.q_norm), (k, module.k_norm))
        )
    heads = []
    for h in range(module.heads):
        weights = torch.exp(q[:, h] @ k[:, h].T * module.scale) * times
        heads.append(weights / weights.sum(dim=-1, keepdim=True) @ v[:, h])
    return torch.cat(heads, dim=-1) @ module.out_proj.weight.T + module.out_proj.bias


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize(("width", "heads", "qk_norm"), [(36, 4, False), (32, 2, True)])
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_values(tokens: int, width: int, heads: int, qk_norm: bool, repeated: bool, packed: bool) -> None:
    plain = random_attention(width, heads, qk_norm=qk_norm)
    ours, exact = WholeVectorAttention(copy.deepcopy(plain)), copy.deepcopy(plain).double()
    if packed:
        prepack_weights(ours)
    x, add = torch.randn(2, 9, tokens, width)
    times = torch.randint(1, 4, (tokens,)).float() if repeated else torch.ones(tokens)
    with torch.inference_mode():
        found = ours(x, times.log() if repeated else None, add=add)
    wanted = torch.stack([by_hand(exact, one.double(), times.double()) for one in x]) + add.double()
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [7, 12, 29, 57])
def test_no_pixel_sees_another(tokens: int) -> None:
    ours = WholeVectorAttention(random_attention(36, 4, qk_norm=False))
    prepack_weights(ours)
    x, add = torch.randn(2, 16, tokens, 36)
    other = x * 1000
    other[3] = x[3]
    with torch.inference_mode():
        one, among_others = ours(x, None, add=add)[3], ours(other, None, add=add)[3]
        last = ours(x[:4], None, add=add[:4])[3]
    assert torch.equal(one, among_others)
    assert torch.equal(one, last)


def test_keys_fill_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        seen.append((q.shape[2], k.shape[2]))
        return plain(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    ours = WholeVectorAttention(random_attention(36, 4, qk_norm=False))
    for tokens in (4, 5, 16, 20, 29, 57):
        x = torch.randn(8, tokens, 36)
        ours(x, None, add=x)
    assert seen == [(4, 4), (5, 16), (16, 16), (20, 20), (29, 32), (57, 64)]
