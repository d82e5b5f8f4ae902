"""Linear maps through oneDNN: products and gradients against float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.encoder import Encoder
from tessera_cli.models.parts import Linear
from tessera_cli.pretraining import linear as products
from tessera_cli.pretraining.linear import OneDnnLinear, use_onednn
from tests.pretraining.test_barlow_twins import a_config

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def in_float64(linear: Linear, x: Tensor, weights: Tensor, *, relu: bool, add: Tensor | None) -> list[Tensor]:
    """Output and gradients of x, the weight, and the bias and what is added, if there are any."""
    given = [t.detach().double().requires_grad_() for t in (x, linear.weight, linear.bias, add) if t is not None]
    x, weight, *rest = given
    bias = rest.pop(0) if linear.bias is not None else None
    y = F.linear(x, weight, bias)
    y = F.relu(y) if relu else y
    y = y + rest[0] if rest else y
    return [y, *torch.autograd.grad(y, given, weights.double())]


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("bias", [False, True], ids=["without bias", "bias"])
@pytest.mark.parametrize(("inputs", "outputs"), [(10, 24), (24, 10), (33, 70), (70, 33), (64, 64)])
@pytest.mark.parametrize("rows", [(1,), (2, 7), (300,)])
def test_products_and_gradients(rows: tuple[int, ...], inputs: int, outputs: int, bias: bool, relu: bool) -> None:
    torch.manual_seed(0)
    linear = Linear(inputs, outputs, bias=bias)
    x, weights = torch.randn(*rows, inputs, requires_grad=True), torch.randn(*rows, outputs)
    add = None if relu else torch.randn(*rows, outputs, requires_grad=True)
    ours = OneDnnLinear(linear)
    assert ours.weight is linear.weight
    y = ours(x, relu=relu, add=add)
    given = [t for t in (x, linear.weight, linear.bias, add) if t is not None]
    found = [y, *torch.autograd.grad(y, given, weights)]
    for one, exact in zip(found, in_float64(linear, x, weights, relu=relu, add=add), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, exact.float(), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(10, 24), (24, 10)])
def test_both_ways_to_the_gradient_of_a_weight(
    ahead: bool, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_onednn_is_far_ahead", lambda: ahead)
    torch.manual_seed(0)
    x, grad = torch.randn(50, inputs), torch.randn(50, outputs)
    expected = (grad.double().T @ x.double()).float()
    torch.testing.assert_close(products._of_weight(x, grad), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "ahead"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\n", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", False),
        ("Processor\t: ARM\n", False),
        (None, False),
    ],
)
def test_where_onednn_is_far_ahead(text: str | None, ahead: bool, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert products._onednn_is_far_ahead(tmp_path / "cpuinfo") is ahead


def test_no_gradient_where_none_is_wanted() -> None:
    linear = OneDnnLinear(Linear(6, 8))
    linear.bias.requires_grad_(False)
    x = torch.randn(5, 6)
    linear(x).sum().backward()
    assert x.grad is None
    assert linear.bias.grad is None
    assert torch.equal(linear.weight.grad[0], linear.weight.grad[7])


def test_no_rows() -> None:
    linear = OneDnnLinear(Linear(6, 8))
    x = torch.empty(0, 3, 6, requires_grad=True)
    y = linear(x, relu=True)
    y.sum().backward()
    assert y.shape == (0, 3, 8)
    assert not linear.weight.grad.any()


def test_operands_that_are_not_contiguous() -> None:
    linear = Linear(6, 8)
    ours = OneDnnLinear(linear)
    x, weights = torch.randn(6, 9).T.requires_grad_(), torch.randn(1, 8).expand(9, 8)
    found, exact = (torch.autograd.grad(module(x), (x, linear.weight), weights) for module in (ours, linear))
    torch.testing.assert_close(found, exact)


def test_double_precision_goes_the_way_of_torch() -> None:
    linear = OneDnnLinear(Linear(5, 7)).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    y = linear(x, relu=True)
    assert torch.equal(y, F.relu(F.linear(x, linear.weight, linear.bias)))
    assert y.dtype == torch.float64
    assert torch.autograd.gradcheck(linear, (x,))


def test_bf16_is_that_of_autocast() -> None:
    torch.manual_seed(0)
    linear = Linear(40, 60)
    x, weights = torch.randn(50, 40, requires_grad=True), torch.randn(50, 60)
    found = []
    for module in (OneDnnLinear(linear), linear):
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x, relu=True)
        found.append([y.detach(), *torch.autograd.grad(y, (x, linear.weight, linear.bias), weights.bfloat16())])
    assert [t.dtype for t in found[0]] == [torch.bfloat16, *[torch.float32] * 3]
    for one, other in zip(*found, strict=True):
        scale = float(other.float().abs().max())
        assert float((one.float() - other.float()).abs().max()) <= 2**-7 * scale


def test_all_maps_of_a_module_are_replaced_and_keep_their_names() -> None:
    encoder = Encoder(a_config().model.encoder)
    before = dict(encoder.named_parameters())
    use_onednn(encoder)
    after = dict(encoder.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
    linears = [part for part in encoder.modules() if isinstance(part, nn.Linear)]
    assert {type(part) for part in linears} == {OneDnnLinear}
