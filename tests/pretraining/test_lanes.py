"""Micro-batches side by side: what they give is what one pass over the whole batch gives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tessera_cli.models.spec import FAMILIES, Family
from tessera_cli.pretraining import lanes
from tessera_cli.pretraining.data.batch import MISSING, Batch
from tessera_cli.pretraining.lanes import Piece, encode
from tessera_cli.pretraining.loss import barlow_twins_loss
from tessera_cli.pretraining.trainee import Trainee
from tests.pretraining.test_barlow_twins import ALONE, CPU, a_batch, a_config, a_twins, gradients, in_float64, made_up


@pytest.fixture
def _tiny_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few sequences each, so that there are many."""
    monkeypatch.setattr(lanes, "TOKENS", 16)
    monkeypatch.setattr(lanes, "FLOATS", 16)


def loss_and_gradients(twins: Trainee, batch: Batch[np.ndarray]) -> list[Any]:
    twins.zero_grad()
    out = twins(batch.to(CPU))
    out.loss.backward()
    return [out.loss.detach(), out.representation, gradients(twins)]


def lacking(batch: Batch[np.ndarray]) -> Batch[np.ndarray]:
    """Some pixels without radar, and one without Sentinel-2, as views with dropped sensors have them."""
    for view in (batch.first, batch.second):
        for modality, pixels in (("s1", [1, 4, 5]), ("s2", [2])):
            (part,) = view[modality]
            part.values[pixels], part.doy[pixels], part.streams[pixels] = 0, 0, MISSING
    return batch


@pytest.mark.usefixtures("_tiny_batches")
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_lanes_change_nothing_but_the_order_of_sums(count: int, family: Family) -> None:
    config = a_config(model={"family": family}, loss={"mix": 0.5}, projector={"prefixes": (4,)})
    batch = lacking(a_batch(0, 21, mix=True))
    expected = loss_and_gradients(in_float64(a_twins(config)), batch)
    twins = in_float64(a_twins(config))
    twins.lanes, twins.twins.lanes = count, min(count, 2)
    exact = family != "v2-teacher"  # whose queries and keys are normalised in float32
    rtol, atol = (1e-9, 1e-11) if exact else (1e-3, 1e-5)
    torch.testing.assert_close(loss_and_gradients(twins, batch), expected, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("_tiny_batches")
@pytest.mark.parametrize("lengths", [(5,), (6, 3, 1)])
def test_float32_and_onednn(lengths: tuple[int, ...]) -> None:
    batch = Batch(0, made_up(0, 64, lengths), made_up(1, 64, lengths), np.zeros(64, np.int32))
    exact = loss_and_gradients(in_float64(a_twins(a_config())), batch)
    twins = a_twins(a_config())
    twins.fit_to_cpu(2)
    assert twins.lanes == 2
    loss, _, found = loss_and_gradients(twins, batch)
    assert loss.item() == pytest.approx(exact[0].item(), rel=1e-5)
    for name, grad in exact[2].items():
        scale = max(float(grad.abs().max()), 1e-3 * max(float(g.abs().max()) for g in exact[2].values()))
        assert float((found[name] - grad).abs().max()) <= 2e-3 * scale, name


@pytest.mark.usefixtures("_tiny_batches")
def test_the_same_twice_gives_the_same_bits() -> None:
    twins = a_twins(a_config())
    twins.fit_to_cpu(2)
    batch = lacking(a_batch(3, 50))
    first = loss_and_gradients(twins, batch)
    for _ in range(5):
        again = loss_and_gradients(twins, batch)
        assert torch.equal(first[0], again[0])
        assert all(torch.equal(grad, again[2][name]) for name, grad in first[2].items())


@pytest.mark.usefixtures("_tiny_batches")
def test_a_missing_sensor_is_encoded_once() -> None:
    """Where copies of a token stay copies: a GRU counts them."""
    batch = lacking(a_batch(0, 21)).to(CPU)
    for family, sequences in (("v2-student", 18 + 1), ("v1.1", 21)):
        twins = a_twins(a_config(model={"family": family}))
        twins.lanes = 2
        seen: list[int] = []
        twins.encoder.s1.register_forward_hook(lambda _, given, out, seen=seen: seen.append(len(given[0])))
        twins.embed(batch.first)
        assert sum(seen) == sequences


def test_dropout_draws_in_one_lane() -> None:
    twins = a_twins(a_config())
    twins.encoder.set_dropout(0.1)
    twins.fit_to_cpu(4)
    assert twins.lanes == 1


@pytest.mark.usefixtures("_tiny_batches")
def test_no_gradients_are_kept_where_none_are_wanted() -> None:
    twins = a_twins(a_config())
    twins.lanes = 2
    view = made_up(0, 30)
    expected = a_twins(a_config()).evaluate(view)
    np.testing.assert_allclose(twins.evaluate(view), expected, rtol=0, atol=1e-5)


# --- lanes alone ------------------------------------------------------------------------------------------------------


def pieces_of(linear: nn.Linear, counts: Sequence[int], seen: list[int] | None = None) -> list[Piece]:
    def vectors(given: Tensor, rows: slice) -> Tensor:
        if seen is not None:
            seen.append(len(given[rows]))
        out: Tensor = linear(given[rows])
        return out

    torch.manual_seed(1)
    return [Piece(n, 8, functools.partial(vectors, torch.randn(n, 3, dtype=torch.float64))) for n in counts]


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("sizes", [[(256, 16)] * 4, [(1000, 40), (3, 7), (500, 3)], [(1, 30)], [(40, 20), (10, 2)]])
def test_lanes_have_equal_shares(sizes: list[tuple[int, int]], count: int) -> None:
    """All rows once, and no lane more than another by more than one micro-batch."""
    pieces = [Piece(n, length, torch.zeros) for n, length in sizes]
    cuts = lanes._cuts(pieces, 2048, count)
    for i, (n, _) in enumerate(sizes):
        assert [row for piece, rows in cuts for row in range(n)[rows] if piece == i] == [*range(n)]
    tokens = [(rows.stop - rows.start) * sizes[i][1] for i, rows in cuts]
    shares = lanes._shares(tokens, count)
    assert sorted(number for share in shares for number in share) == [*range(len(cuts))]
    loads = [sum(tokens[number] for number in share) for share in shares]
    if len(shares) == count:
        assert max(loads) - min(loads) <= max(tokens)
    if sizes[0] == (256, 16) and count == 2:
        assert loads == [8192, 8192]


def test_arguments_have_gradients_too() -> None:
    """Results of several calls, some of which no gradient is wanted of, against plain autograd."""
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    given = [torch.randn(4, 3, dtype=torch.float64, requires_grad=i != 1) for i in range(3)]

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (x @ weight) * y, y.sin()

    calls = [(both, (given[0], given[1])), (both, (given[1], given[2])), (both, (given[0], given[0]))]
    found, expected = (lanes.side_by_side(calls, (weight,), count) for count in (2, 1))
    torch.testing.assert_close(found, expected)
    leaves = (given[0], given[2], weight)
    ours, theirs = (
        torch.autograd.grad(sum((out.square().sum() for each in outs for out in each), start=torch.zeros(())), leaves)
        for outs in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("counts", [(1,), (1, 1), (7, 1, 40), (1000, 3)])
def test_every_row_is_encoded_once_and_in_its_place(counts: tuple[int, ...], count: int) -> None:
    linear, seen = nn.Linear(3, 4).double(), []
    found = encode(pieces_of(linear, counts, seen), 4, tuple(linear.parameters()), count)
    assert sum(seen) == sum(counts)
    expected = [piece.encode(slice(None)) for piece in pieces_of(linear, counts)]
    torch.testing.assert_close(found, expected)
    weights = [torch.randn_like(out) for out in expected]
    ours, theirs = (torch.autograd.grad(outs, tuple(linear.parameters()), weights) for outs in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_micro_batches_are_of_a_size_and_as_many_for_each_lane() -> None:
    linear, seen = nn.Linear(3, 4).double(), []
    (piece,) = pieces_of(linear, [2000], seen)
    encode([piece], 128, tuple(linear.parameters()), 2)
    assert len(seen) % 2 == 0
    assert max(seen) - min(seen) <= 1
    assert 0.6 < max(seen) * piece.length / (lanes.FLOATS // 128) < 1.4


def test_an_error_in_a_lane_is_that_of_the_step() -> None:
    def fails(rows: slice) -> Tensor:
        if rows.start > 0:
            raise ValueError("a lane fails")
        return torch.ones(rows.stop - rows.start, 4, requires_grad=True)

    with pytest.raises(ValueError, match="a lane fails"):
        encode([Piece(10, 1, fails)], 4, (torch.ones(1, requires_grad=True),), 2)


def test_parameters_without_gradient() -> None:
    linear = nn.Linear(3, 4).double()
    linear.bias.requires_grad_(False)
    unused = torch.ones(1, requires_grad=True)
    (found,) = encode(pieces_of(linear, [50]), 4, (*linear.parameters(), unused), 2)
    found.sum().backward()
    assert linear.bias.grad is None
    assert unused.grad is None
    assert linear.weight.grad is not None


@pytest.mark.parametrize("dimensions", [40, 7, 1])
def test_rows_of_a_correlation(dimensions: int) -> None:
    """In lanes as in one piece; where memory is to be saved, in chunks and not in lanes."""
    found = []
    for count, chunk in ((1, 10**6), (2, 10**6), (2, 3)):
        torch.manual_seed(0)
        z1, z2 = (torch.randn(9, dimensions, dtype=torch.float64, requires_grad=True) for _ in range(2))
        on, off = barlow_twins_loss(z1, z2, ALONE, chunk, count)
        (on + 0.1 * off).backward()
        found.append([on.detach(), off.detach(), z1.grad, z2.grad])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_one_core_for_a_while() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with lanes.one_core(really=False):
            assert torch.get_num_threads() == 2
        with lanes.one_core():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_lane_has_one_core_and_others_what_they_had() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = lanes.Lanes(2)
        torch.ones(3).sum()
        assert torch.get_num_threads() == 2
        assert made.map([_threads_used] * 3) == [1, 1, 1]
    finally:
        torch.set_num_threads(before)


def _threads_used() -> int:
    torch.ones(1 << 20).sum()
    return torch.get_num_threads()
