"""The module that is trained: its loss and gradients, in one process and in several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from tessera_cli.models.encoder import Encoder
from tessera_cli.models.parts import Block, day_of_year_table, day_tokens
from tessera_cli.models.quantise import Quantiser, dequantise, quantise
from tessera_cli.models.spec import FAMILIES, Family
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import MISSING, Batch, Mixing, Sequences, View, view_to
from tessera_cli.pretraining.distributed import WITHOUT_BUFFER_SYNC, World, init_distributed
from tessera_cli.pretraining.evaluation.metrics import rank_me, spread
from tessera_cli.pretraining.loss import EPS, barlow_twins_loss, correlation, mixing_loss, normalise_batch, rank_floor
from tessera_cli.pretraining.projector import BatchNorm, Projector
from tessera_cli.pretraining.trainee import StepOutput, Trainee
from tessera_cli.pretraining.twins import fake_quantise
from tessera_cli.sampling import BAND_COUNTS, Modality
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS

CPU = torch.device("cpu")
ALONE = World()
WHOLE = 10**6
"""A chunk that holds all rows."""


# --- batches and modules ----------------------------------------------------------------------------------------------


def made_up(seed: int, pixels: int, lengths: tuple[int, ...] = (5,)) -> View[np.ndarray]:
    """Random observations. With several lengths the pixels are dealt out to them in a random order."""
    random = np.random.default_rng(seed)

    def sequences(modality: Modality) -> Iterator[Sequences[np.ndarray]]:
        members = np.arange(pixels) if len(lengths) == 1 else random.permutation(pixels)
        for length, some in zip(lengths, np.array_split(members, len(lengths)), strict=True):
            shape = len(some), length, BAND_COUNTS[modality]
            s2 = modality == "s2"
            values = random.integers(0, 60_000, shape).astype(np.uint16)
            if not s2:
                values = random.integers(500, 9_000, shape).astype(np.int16)
            doy = np.sort(random.integers(1, 367, shape[:2])).astype(np.int16)
            streams = random.integers(0, 1 if s2 else 2, shape[:2]).astype(np.uint8)
            yield Sequences(some.astype(np.int64), values, doy, streams)

    return {modality: tuple(sequences(modality)) for modality in BAND_COUNTS}


def a_batch(seed: int, pixels: int, *, mix: bool = False) -> Batch[np.ndarray]:
    """Its mixing has the second views of pixels that a permutation names."""
    first, second = made_up(seed, pixels), made_up(seed + 1, pixels)
    partners = np.random.default_rng(seed).permutation(pixels)
    blend = Mixing(0.3, partners, part_of(second, partners)) if mix else None
    return Batch(0, first, second, np.zeros(pixels, np.int32), blend)


def part_of(view: View[np.ndarray], pixels: np.ndarray) -> View[np.ndarray]:
    """These pixels of a view with sequences of one length."""

    def part(found: Sequences[np.ndarray]) -> Sequences[np.ndarray]:
        return Sequences(np.arange(len(pixels)), found.values[pixels], found.doy[pixels], found.streams[pixels])

    return {modality: tuple(map(part, found)) for modality, found in view.items()}


def share_of(batch: Batch[np.ndarray], rank: int, size: int) -> Batch[np.ndarray]:
    """What one of several processes has of a joint batch."""
    mine = np.array_split(np.arange(batch.pixels), size)[rank]
    mix = batch.mixing and Mixing(batch.mixing.share, batch.mixing.partners[mine], part_of(batch.mixing.view, mine))
    return Batch(0, part_of(batch.first, mine), part_of(batch.second, mine), batch.tile_index[mine], mix)


def a_config(**sections: dict[str, Any]) -> PretrainConfig:
    small = {"latent": 4, "layers": 1, "heads": 2, "feedforward": 24, "representation": 12}
    return PretrainConfig.model_validate(
        {
            **sections,
            "model": small | sections.get("model", {}),
            "projector": {"width": 20, "depth": 3} | sections.get("projector", {}),
        }
    )


def a_twins(config: PretrainConfig, world: World = ALONE, *, seed: int = 0) -> Trainee:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        twins = Trainee(Encoder(config.model.encoder), V2_STUDENT_STATISTICS, config, world)
        for parameter in twins.parameters():  # those that begin as zeros or ones as well
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return twins


def in_float64(twins: Trainee) -> Trainee:
    """From the standardised bands on."""
    for part in (twins.encoder.s2, twins.encoder.s1):
        part.register_forward_pre_hook(lambda _, given: (given[0].double(), *given[1:]))
    return twins.double()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def floats(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scaled(seed: int, pixels: int, dimensions: int) -> Tensor:
    """Correlated dimensions, far from mean 0 and deviation 1."""
    return floats(seed, pixels, dimensions) @ floats(99, dimensions, dimensions) + 5 * floats(98, dimensions)


# --- the loss ---------------------------------------------------------------------------------------------------------


def by_hand(z: Tensor) -> np.ndarray:
    array = z.numpy().astype(np.float64)
    return (array - array.mean(axis=0)) / np.sqrt(array.var(axis=0) + EPS)


def test_the_loss_is_the_closed_form() -> None:
    first, second = scaled(0, 12, 7), scaled(0, 12, 7) + floats(1, 12, 7)
    c = np.zeros((7, 7))
    for one, other in zip(by_hand(first), by_hand(second), strict=True):
        c += np.outer(one, other) / 12
    on = sum((c[i, i] - 1) ** 2 for i in range(7))
    off = sum(c[i, j] ** 2 for i in range(7) for j in range(7) if i != j)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        z1, z2 = (normalise_batch(z.to(dtype), ALONE) for z in (first, second))
        found = barlow_twins_loss(z1, z2, ALONE, WHOLE)
        assert {z1.dtype, found.on_diagonal.dtype} == {dtype}
        assert found.on_diagonal.item() == pytest.approx(on, rel=tolerance)
        assert found.off_diagonal.item() == pytest.approx(off, rel=tolerance)


def test_autocast_does_not_reach_the_loss() -> None:
    z1, z2 = scaled(0, 12, 7).float(), scaled(1, 12, 7).float()
    plain = barlow_twins_loss(normalise_batch(z1, ALONE), normalise_batch(z2, ALONE), ALONE, WHOLE)
    with torch.autocast("cpu", torch.bfloat16):
        assert barlow_twins_loss(normalise_batch(z1, ALONE), normalise_batch(z2, ALONE), ALONE, WHOLE) == plain


def test_the_floor_is_reached_and_never_undercut() -> None:
    """z of rank B - 1, of equal singular values, in directions that all dimensions share equally (Hadamard's)."""
    hadamard = np.array([[1.0]])
    for _ in range(4):
        hadamard = np.kron([[1, 1], [1, -1]], hadamard)
    pixels, dimensions, rank = 9, 16, 8
    centred = np.random.default_rng(0).normal(size=(pixels, rank))
    orthonormal, _ = np.linalg.qr(centred - centred.mean(axis=0))
    z = torch.from_numpy(orthonormal @ hadamard[:, :rank].T * np.sqrt(pixels / rank))
    floor = rank_floor(dimensions, pixels)
    best = barlow_twins_loss(z, z, ALONE, WHOLE)
    assert best.on_diagonal.item() == pytest.approx(0, abs=1e-20)
    assert best.off_diagonal.item() == pytest.approx(floor, rel=1e-12)
    for seed in range(20):
        z = normalise_batch(floats(seed, pixels, dimensions), ALONE)
        assert barlow_twins_loss(z, z, ALONE, WHOLE).off_diagonal > 1.01 * floor


def test_the_floor_of_the_published_run() -> None:
    assert 5e-3 * rank_floor(16384, 2048) == pytest.approx(574, abs=0.5)
    assert 5e-3 * rank_floor(16384, 1024) == pytest.approx(1230, abs=0.5)
    assert rank_floor(16384, 16385) == rank_floor(16384, 16386) == 0
    assert rank_floor(16384, 16384) > 0


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_chunks_give_the_same_loss_and_gradient_and_hold_less() -> None:
    pixels, dimensions = 5, 40
    found = {}
    for chunk in (WHOLE, dimensions, 39, 7, 1):
        z1, z2 = (floats(seed, pixels, dimensions).requires_grad_() for seed in (0, 1))
        with Largest() as largest:
            on, off = barlow_twins_loss(z1, z2, ALONE, chunk)
            (on + 0.1 * off).backward()
        found[chunk] = [on.detach(), off.detach(), z1.grad, z2.grad]
        assert largest.numbers == max(min(chunk, dimensions), pixels) * dimensions
    for chunk in (dimensions, 39, 7, 1):
        torch.testing.assert_close(found[chunk], found[WHOLE], rtol=1e-12, atol=1e-12)


def test_mixing_is_the_form_with_six_products() -> None:
    zm, za, zb = (normalise_batch(scaled(seed, 11, 6), ALONE).requires_grad_() for seed in range(3))
    share = 0.3

    def c(left: Tensor, right: Tensor) -> Tensor:
        return left.T @ right / 11

    six = (c(zm, za) - share * c(za, za) - (1 - share) * c(zb, za)).square().sum()
    six = six + (c(zm, zb) - share * c(za, zb) - (1 - share) * c(zb, zb)).square().sum()
    expected = [six, *torch.autograd.grad(six, (zm, za, zb))]
    for chunk in (WHOLE, 4):
        two = mixing_loss(zm, za, zb, share, ALONE, chunk)
        torch.testing.assert_close([two, *torch.autograd.grad(two, (zm, za, zb))], expected)


# --- projector and quantisation ---------------------------------------------------------------------------------------


def test_batch_norm_is_that_of_torch() -> None:
    ours, theirs = BatchNorm(6, ALONE).double(), nn.BatchNorm1d(6).double()
    for own, known in zip(ours.parameters(), theirs.parameters(), strict=True):
        own.data = known.data = floats(7, 6)
    results = []
    for norm in (ours, theirs):
        x = scaled(0, 9, 6).requires_grad_()
        out = norm(x)
        (out * floats(1, 9, 6)).sum().backward()
        results.append([out.detach(), x.grad, norm.weight.grad, norm.bias.grad])
    torch.testing.assert_close(results[0], results[1])
    assert torch.equal(ours.eval()(x), out_of(ours.train(), x))


def out_of(module: nn.Module, *given: Any) -> Tensor:
    out: Tensor = module(*given)
    return out


def test_the_projector_is_as_deep_and_wide_as_it_is_told() -> None:
    for depth in (1, 2, 4):
        projector = Projector(5, 16, depth, ALONE)
        shapes = [tuple(p.shape) for p in projector.linears.parameters()]
        assert shapes == [(16, 5), *[(16, 16)] * (depth - 1)]
        assert len(projector.norms) == depth - 1
        assert projector(floats(0, 8, 5).float()).shape == (8, 16)


@pytest.mark.parametrize("rule", ["v1", "v2"])
def test_what_projectors_see_is_what_is_stored(rule: Quantiser) -> None:
    x = (floats(0, 50, 12) * torch.logspace(-9, 3, 50)[:, None]).float()
    x[0] = 0
    for size in (12, 5):  # the scale of a prefix is its own
        given = x[:, :size].requires_grad_()
        out = fake_quantise(given, rule)
        assert np.array_equal(out.detach().numpy(), dequantise(*quantise(given.detach().numpy(), rule)))
        out.backward(weights := floats(1, 50, size).float())
        assert torch.equal(given.grad, weights)  # type: ignore[arg-type]


# --- twins ------------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_each_pixel_alone() -> None:
    """Raw integers, some beyond int16, standardised by stream; sequences of several lengths, in any order."""
    view = made_up(3, 9, lengths=(6, 4, 1))
    for found in view.values():  # the last sequences are tokens of a missing sensor
        found[-1].values[:], found[-1].doy[:], found[-1].streams[:] = 0, 0, MISSING
    twins = a_twins(a_config()).eval()
    embedded = twins.embed(view_to(view, CPU))
    assert (embedded.dtype, embedded.shape) == (torch.float32, (9, 12))
    assert view["s2"][0].values.max() > 40_000
    means = {
        "s2": [V2_STUDENT_STATISTICS.s2_mean],
        "s1": [V2_STUDENT_STATISTICS.s1_asc_mean, V2_STUDENT_STATISTICS.s1_desc_mean],
    }
    stds = {
        "s2": [V2_STUDENT_STATISTICS.s2_std],
        "s1": [V2_STUDENT_STATISTICS.s1_asc_std, V2_STUDENT_STATISTICS.s1_desc_std],
    }
    for pixel in range(9):
        given = []
        for modality in ("s2", "s1"):
            ((found, row),) = (
                (f, int(np.flatnonzero(f.members == pixel)[0])) for f in view[modality] if pixel in f.members
            )
            bands = np.zeros(found.values.shape[1:])
            for t, stream in enumerate(found.streams[row]):
                if stream != MISSING:
                    bands[t] = (found.values[row, t].astype(float) - means[modality][stream]) / stds[modality][stream]
            given += [torch.from_numpy(bands[None]).float(), torch.from_numpy(found.doy[row][None].astype(np.int64))]
        torch.testing.assert_close(embedded[pixel : pixel + 1], twins.encoder(*given), rtol=1e-5, atol=1e-5)


def test_the_outcome_is_put_together_from_its_parts() -> None:
    config = a_config(projector={"prefixes": (3, 7)}, loss={"lambda": 0.02, "mix": 0.7})
    twins = in_float64(a_twins(config))
    batch = a_batch(0, 8, mix=True).to(CPU)
    outcome = twins(batch)
    z1, z2 = twins.embed(batch.first), twins.embed(batch.second)
    assert torch.equal(outcome.representation, z1.detach())
    mix = batch.mixing
    assert mix is not None
    vectors = []
    for modality in ("s2", "s1"):
        mine, theirs = batch.first[modality][0], mix.view[modality][0]
        bands, days = (
            0.3 * x + 0.7 * y
            for x, y in zip(
                (twins._bands(modality, mine), mine.doy.float()),
                (twins._bands(modality, theirs), theirs.doy.float()),
                strict=True,
            )
        )
        vectors.append(twins.encoder.encode_modality(modality, bands, days))
    zm = twins.encoder.fuse(*vectors)
    losses = []
    for projector, size in zip(twins.twins.projectors, (12, 3, 7), strict=True):
        p1, p2, pm = (normalise_batch(projector(z[:, :size]), ALONE) for z in (z1, z2, zm))
        on, off = barlow_twins_loss(p1, p2, ALONE, WHOLE)
        blend = mixing_loss(pm, p1, p2[mix.partners], 0.3, ALONE, WHOLE)
        losses.append(on + 0.02 * (off + 0.7 * blend))
        if size == 12:
            assert list(outcome.terms) == ["on_diagonal", "off_diagonal", "mixing"]
            torch.testing.assert_close(tuple(outcome.terms.values()), (on, off, blend))
            c = p1.T @ p2 / 8
            rms = c[~torch.eye(20, dtype=torch.bool)].square().mean().sqrt()
            torch.testing.assert_close(outcome.correlation_rms, rms)
    torch.testing.assert_close(outcome.loss, sum(losses) / 3)
    assert outcome.loss.requires_grad
    detached = (*outcome.terms.values(), outcome.correlation_rms, outcome.representation)
    assert not any(tensor.requires_grad for tensor in detached)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_nothing_is_mixed_where_the_share_is_all_or_nothing(share: float) -> None:
    """The blend is then one of its two pixels, so its projection is that pixel's."""
    batch = a_batch(4, 8, mix=True)
    assert batch.mixing
    batch = Batch(
        0, batch.first, batch.second, batch.tile_index, Mixing(share, batch.mixing.partners, batch.mixing.view)
    )
    twins = a_twins(a_config(loss={"mix": 1.0}))
    found = twins(batch.to(CPU)).terms["mixing"].item()
    assert found > 0.1 if share == 0.5 else found < 1e-6


def test_sequences_that_are_not_rectangular_cannot_be_blended() -> None:
    several = made_up(0, 8, lengths=(3, 4))
    batch = Batch(0, several, several, np.zeros(8, np.int32), Mixing(0.5, np.arange(8), several))
    twins = a_twins(a_config(loss={"mix": 1.0}))
    with pytest.raises(ValueError, match="too many values"):
        twins(batch.to(CPU))


INVISIBLE = ("pool.query.bias", "pool.norm.bias")
"""A softmax over time does not see what is added to all its scores."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family: Family) -> None:
    config = a_config(model={"family": family, "dropout": 0.1}, loss={"mix": 1.0}, projector={"prefixes": (4,)})
    twins = a_twins(config)
    twins.encoder.set_dropout(config.model.dropout)
    torch.manual_seed(0)
    twins(a_batch(0, 16, mix=True).to(CPU)).loss.backward()
    # Nor does a batch norm see what is added to all pixels.
    invisible = INVISIBLE if config.model.encoder.final_norm else (*INVISIBLE, "reducer.down.bias")
    largest = {name: float(grad.abs().max()) for name, grad in gradients(twins).items()}
    assert set(largest) == {name for name, _ in twins.named_parameters()}
    assert all(np.isfinite(x) for x in largest.values())
    for name, x in largest.items():
        assert x > 1e-5 or name.endswith(invisible), name


def test_bf16_is_in_the_products_alone() -> None:
    exact, rounded = (a_twins(a_config()) for _ in range(2))
    rounded.set_matmul_dtype(torch.bfloat16)
    seen: dict[str, set[torch.dtype]] = {"products": set(), "norms": set()}
    rounded.twins.projectors[0].linears[1].register_forward_hook(lambda *given: seen["products"].add(given[2].dtype))
    rounded.twins.projectors[0].norms[1].register_forward_hook(lambda *given: seen["norms"].add(given[2].dtype))
    one, other = (twins(a_batch(0, 32).to(CPU)) for twins in (exact, rounded))
    assert seen == {"products": {torch.bfloat16}, "norms": {torch.float32}}
    assert {tensor.dtype for tensor in (other.loss, *other.terms.values(), *other[2:])} == {torch.float32}
    assert one.loss != other.loss
    torch.testing.assert_close(other.loss, one.loss, rtol=0.05, atol=0)
    other.loss.backward()
    assert {grad.dtype for grad in gradients(rounded).values()} == {torch.float32}


# --- what training asks of the encoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("pre_norm", [False, True])
def test_dropout_is_where_torch_has_it(pre_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against `nn.TransformerEncoderLayer`; both drop by halving, so that places can be compared."""
    attend = F.scaled_dot_product_attention

    def halved(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return x * 0.5 if training and p == 0.3 else x

    def attention(q: Tensor, k: Tensor, v: Tensor, *given: Any, dropout_p: float = 0.0, **more: Any) -> Tensor:
        mask, dropout_p, *_ = (*given, None, dropout_p)[:2] if len(given) > 1 else (None, dropout_p)
        assert mask is None
        return halved(attend(q, k, v), dropout_p)

    torch.manual_seed(0)
    ours = Block(16, 2, 24, qk_norm=False, pre_norm=pre_norm)
    theirs = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.3, batch_first=True, norm_first=pre_norm)
    known = dict(theirs.named_parameters())
    names = {
        "attention.in_proj.": "self_attn.in_proj_",
        "attention.out_proj.": "self_attn.out_proj.",
        "up.": "linear1.",
        "down.": "linear2.",
    }
    for name, parameter in ours.named_parameters():
        for old, new in names.items():
            name = name.replace(old, new)
        parameter.data = known[name].data
    x = torch.randn(3, 5, 16)
    plain = ours(x)
    monkeypatch.setattr(F, "dropout", halved)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    assert torch.equal(ours(x), plain)
    ours.dropout = ours.attention.dropout = 0.3
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=2e-6)
    assert (ours(x) - plain).abs().max() > 0.01
    assert torch.equal(ours.eval()(x), plain)


def test_dropout_is_for_training() -> None:
    encoder = Encoder(a_config().model.encoder)
    fused = torch.randn(64, encoder.config.width, generator=torch.Generator().manual_seed(0))
    plain = encoder.fuse(fused, fused)
    encoder.set_dropout(0.5)
    assert not torch.equal(encoder.fuse(fused, fused), plain)  # the reducer's
    assert torch.equal(encoder.eval().fuse(fused, fused), plain)
    encoder.train().set_dropout(0.0)
    assert torch.equal(encoder.fuse(fused, fused), plain)


def test_fractions_of_days() -> None:
    width = 16
    table = torch.from_numpy(day_of_year_table(width))
    whole = torch.arange(367).reshape(1, -1)
    torch.testing.assert_close(day_tokens(whole.float(), table), day_tokens(whole, table), rtol=0, atol=3e-7)
    days = torch.linspace(0, 366, 500).reshape(2, 250)
    angles = days.double().numpy()[..., None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    with torch.autocast("cpu", torch.bfloat16):
        found = day_tokens(days, table)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[..., ::2], np.sin(angles), rtol=0, atol=5e-5)
    np.testing.assert_allclose(found[..., 1::2], np.cos(angles), rtol=0, atol=5e-5)


# --- numbers for the log ----------------------------------------------------------------------------------------------


def test_rank_me() -> None:
    orthonormal, _ = torch.linalg.qr(floats(0, 50, 8))
    assert rank_me(orthonormal) == pytest.approx(8, rel=1e-4)
    assert rank_me(orthonormal[:, :1] * torch.ones(8)) == pytest.approx(1, rel=1e-4)
    values = np.array([8, 4, 2, 1, 0.5, 0, 0, 0])
    shares = values[:5] / values.sum()
    expected = float(np.exp(-(shares * np.log(shares)).sum()))
    x = orthonormal @ torch.from_numpy(np.diag(values)) @ torch.linalg.qr(floats(1, 8, 8))[0]
    for form in (x, x.float().requires_grad_(), x.numpy()):
        assert rank_me(form) == pytest.approx(expected, rel=1e-4)
    assert rank_me(torch.zeros(5, 3)) == pytest.approx(1, rel=1e-4)
    assert np.isnan(rank_me(torch.full((5, 3), torch.nan)))


def test_spread() -> None:
    x = np.random.default_rng(0).normal(size=(200, 5)) * [1.0, 2.0, 3.0, 1e-3, 0.0] + 7
    std = x.std(axis=0)
    found = spread(torch.from_numpy(x))
    assert found == {
        "std_min": 0.0,
        "std_median": pytest.approx(std[0]),
        "std_mean": pytest.approx(std.mean()),
        "dead_dimensions": int((std < 1e-3 * std[0]).sum()),
    }
    assert spread(torch.ones(9, 4))["dead_dimensions"] == 4
    assert {type(value) for value in found.values()} <= {int, float}


# --- several processes ------------------------------------------------------------------------------------------------

SIZE, JOINT = 2, 12
CASES: dict[str, tuple[dict[str, dict[str, Any]], bool]] = {
    "global": ({"projector": {"prefixes": (3, 7)}, "loss": {"chunk": 6}}, True),
    "mixing": ({"projector": {"prefixes": (5,)}, "loss": {"mix": 1.5, "chunk": 16}}, True),
    "float32": ({"loss": {"mix": 1.0}}, False),
    "local": ({"loss": {"scope": "local"}}, True),
    "local mixing": ({"loss": {"scope": "local", "mix": 1.5}}, True),
    "lanes": ({"loss": {"mix": 1.0}}, True),
}
"""Settings, and whether in float64."""


def case(name: str, world: World) -> tuple[Trainee, Batch[np.ndarray]]:
    sections, double = CASES[name]
    config = a_config(**sections)
    twins = a_twins(config, world)
    twins.lanes = 2 if name == "lanes" else None
    return in_float64(twins) if double else twins, a_batch(20, JOINT, mix=config.loss.mix > 0)


def one_process(rank: int, out: Path) -> None:
    """What each of the processes does; the test compares what they save."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with init_distributed(rank, SIZE, CPU) as world:
        for name in CASES:
            twins, batch = case(name, world)
            wrapped = DistributedDataParallel(twins, **WITHOUT_BUFFER_SYNC)
            outcome: StepOutput = wrapped(share_of(batch, rank, SIZE).to(CPU))
            outcome.loss.backward()
            found[name] = outcome.loss.detach(), gradients(twins)
        found["quantised"] = quantised_in_ddp(world, rank)
        found["blind"] = {
            kind.__name__: linear_gradient(kind(world.rank, world.size), rank) for kind in (World, BlindWorld)
        }
        x = (torch.arange(6.0).reshape(2, 3) + 10 * rank).requires_grad_()
        gathered = world.all_gather(x)
        (gathered * torch.arange(12.0).reshape(4, 3) * (rank + 1)).sum().backward()
        found["gathered"] = gathered.detach(), x.grad, world.all_reduce_detached(x), world.main
        world.barrier()
    assert not dist.is_initialized()
    torch.save(found, out)


class BlindWorld(World):
    """Sums that autograd does not see."""

    def all_reduce(self, x: Tensor) -> Tensor:
        dist.all_reduce(x.data)
        return x


def linear_gradient(world: World, rank: int) -> tuple[Tensor, Tensor]:
    """The loss of linear projections, and its gradient averaged over the processes as DDP does."""
    weights = floats(3, 4, 6).requires_grad_()
    rows = slice(rank * JOINT // world.size, (rank + 1) * JOINT // world.size)
    on, off = barlow_twins_loss(floats(4, JOINT, 4)[rows] @ weights, floats(5, JOINT, 4)[rows] @ weights, world, WHOLE)
    (on + 0.1 * off).backward()
    assert weights.grad is not None
    return (on + 0.1 * off).detach(), world.all_reduce_detached(weights.grad) / world.size


def quantised_in_ddp(world: World, rank: int) -> dict[str, Any]:
    """What the projectors are given by a wrapped module that quantises, and how often it did."""
    twins = a_twins(a_config(projector={"prefixes": (5,)}), world, seed=1)
    given: list[list[Tensor]] = [[], []]
    for i, projector in enumerate(twins.twins.projectors):
        projector.register_forward_pre_hook(lambda _, arguments, i=i: given[i].append(arguments[0].detach()))
    wrapped = DistributedDataParallel(twins, **WITHOUT_BUFFER_SYNC)
    placed = share_of(a_batch(30, JOINT), rank, SIZE).to(CPU)
    twins.twins.quantise = True
    outcome = wrapped(placed)
    outcome.loss.backward()
    twins.twins.quantise = False
    wrapped(placed)
    return {"given": given, "of": outcome.representation}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    code = "import sys, pathlib; from tests.pretraining.test_barlow_twins import one_process; "
    code += "one_process(int(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    paths = [folder / f"{rank}.pt" for rank in range(SIZE)]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(rank), str(path)],
            env=environment,
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, path in enumerate(paths)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * SIZE, "\n".join(said)
    return [torch.load(path, weights_only=True) for path in paths]


def assert_equal_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    """Each tensor within `relative` of its largest number; those that are 0 but for rounding, of the largest of all."""
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert set(found) == set(expected)
    for name, grad in expected.items():
        scale = max(float(grad.abs().max()), 1e-3 * largest)
        assert float((found[name] - grad).abs().max()) <= relative * scale, name


@pytest.mark.parametrize(("name", "relative"), [("global", 1e-6), ("mixing", 1e-6), ("lanes", 1e-6), ("float32", 2e-3)])
def test_two_processes_are_one_on_the_joint_batch(processes: list[dict[str, Any]], name: str, relative: float) -> None:
    twins, batch = case(name, ALONE)
    loss = twins(batch.to(CPU)).loss
    loss.backward()
    for found in processes:
        assert found[name][0].item() == pytest.approx(loss.item(), rel=min(relative, 1e-5))
        assert_equal_gradients(found[name][1], gradients(twins), relative)


def test_local_scope_is_the_mean_of_separate_losses(processes: list[dict[str, Any]]) -> None:
    twins, batch = case("local", ALONE)
    losses = [twins(share_of(batch, rank, SIZE).to(CPU)).loss for rank in range(SIZE)]
    (sum(losses) / SIZE).backward()  # type: ignore[union-attr]
    for found, loss in zip(processes, losses, strict=True):
        assert found["local"][0].item() == pytest.approx(loss.item(), rel=1e-6)
        assert_equal_gradients(found["local"][1], gradients(twins), 1e-6)
    whole = twins(batch.to(CPU)).loss.item()
    assert abs(losses[0].item() - whole) > 1e-3 * whole  # the scope does make a difference


def test_local_scope_mixes_with_pixels_of_other_processes(processes: list[dict[str, Any]]) -> None:
    twins, batch = case("local mixing", ALONE)
    parts = [share_of(batch, rank, SIZE).to(CPU) for rank in range(SIZE)]
    (projector,) = twins.twins.projectors
    raw = [projector(twins.embed(part.second)) for part in parts]
    losses = []
    for part, own in zip(parts, raw, strict=True):
        assert part.mixing
        z1, z2 = normalise_batch(projector(twins.embed(part.first)), ALONE), normalise_batch(own, ALONE)
        zb = normalise_batch(torch.cat(raw)[part.mixing.partners], ALONE)
        zm = normalise_batch(projector(twins.embed_looks([twins._blended(part.first, part.mixing)])[0]), ALONE)
        on, off = barlow_twins_loss(z1, z2, ALONE, WHOLE)
        losses.append(on + 5e-3 * (off + 1.5 * mixing_loss(zm, z1, zb, 0.3, ALONE, WHOLE)))
    (sum(losses) / SIZE).backward()  # type: ignore[union-attr]
    for found, loss in zip(processes, losses, strict=True):
        assert found["local mixing"][0].item() == pytest.approx(loss.item(), rel=1e-6)
        assert_equal_gradients(found["local mixing"][1], gradients(twins), 1e-6)


def test_sums_that_autograd_does_not_see_would_shrink_the_gradient(processes: list[dict[str, Any]]) -> None:
    """Which is what the tests above would find."""
    loss, gradient = linear_gradient(ALONE, 0)
    for found in processes:
        for kind, factor in ((World, 1.0), (BlindWorld, 1 / SIZE)):
            its_loss, its_gradient = found["blind"][kind.__name__]
            torch.testing.assert_close(its_loss, loss)
            torch.testing.assert_close(its_gradient, factor * gradient)


def test_gathered_rows(processes: list[dict[str, Any]]) -> None:
    joint = torch.cat([torch.arange(6.0).reshape(2, 3) + 10 * rank for rank in range(SIZE)])
    weights = 3 * torch.arange(12.0).reshape(4, 3)  # 1 + 2 of the two losses
    for rank, found in enumerate(processes):
        gathered, grad, total, main = found["gathered"]
        assert torch.equal(gathered, joint)
        assert torch.equal(grad, weights[2 * rank : 2 * rank + 2])
        assert torch.equal(total, joint[:2] + joint[2:])
        assert main is (rank == 0)


def test_quantisation_acts_inside_the_wrapped_module(processes: list[dict[str, Any]]) -> None:
    for found in processes:
        found = found["quantised"]
        largest = found["of"].abs().argmax(dim=1)
        assert (largest >= 5).any()  # so that the scale of the prefix is not that of the whole
        assert [len(given) for given in found["given"]] == [4, 4]  # two calls, two views
        for size, given in zip((12, 5), found["given"], strict=True):
            exact = found["of"][:, :size].numpy()
            quantised, then = given[0].numpy(), given[2].numpy()  # the first of two calls is that of the first view
            assert np.array_equal(quantised, dequantise(*quantise(exact, "v2")))
            assert np.array_equal(then, exact)
            assert not np.array_equal(quantised, exact)


def test_one_process_needs_no_group() -> None:
    x = floats(0, 4, 3)
    with init_distributed(0, 1, CPU) as world:
        assert world == ALONE
        assert world.main
        assert not dist.is_initialized()
        assert world.all_reduce(x) is world.all_gather(x) is x
        assert torch.equal(world.all_reduce_detached(x), x)
        world.barrier()
    diagonal, squares = correlation(x, x, world, WHOLE)
    torch.testing.assert_close((diagonal, squares), ((x * x).mean(dim=0), (x.T @ x / 4).square().sum()))
