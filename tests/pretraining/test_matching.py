"""The matching loss: its terms against closed forms, in one process and in two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tessera_cli.models.quantise import dequantise, quantise
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import Answers
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.loss import EPS
from tessera_cli.pretraining.matching import Matching, matching_terms

ALONE = World()


def a_config(**teacher: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "model": {"latent": 4, "layers": 1, "heads": 2, "feedforward": 24, "representation": 12},
            "teacher": {"model": "somewhere", "prefixes": [3, 7, 40], **teacher},
        }
    )


def a_matching(config: PretrainConfig, mean: np.ndarray, seed: int = 0) -> Matching:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Matching(config, mean, ALONE).double()


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def by_hand(predicted: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Cosine and Barlow terms of rows that all count, one number after the other."""
    cosines = [p @ t / np.sqrt(p @ p) / np.sqrt(t @ t) for p, t in zip(predicted, y, strict=True)]
    terms = []
    for p, t in zip(predicted.T, y.T, strict=True):
        p, t = p - p.mean(), t - t.mean()
        terms.append((1 - (p * t).mean() / np.sqrt(((p**2).mean() + EPS) * ((t**2).mean() + EPS))) ** 2)
    return 1 - float(np.mean(cosines)), float(np.mean(terms))


def test_the_terms_are_the_closed_forms() -> None:
    z, y = random(0, 2, 9, 12), 3 + random(1, 9, 20)
    mean = random(2, 20)
    matching = a_matching(a_config(), mean)
    assert matching.sizes == (3, 7, 12)
    found = matching(torch.from_numpy(z), torch.from_numpy(y))
    due = []
    for head, size in zip(matching.heads, (3, 7, 12), strict=True):
        weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
        predicted = np.concatenate([view[:, :size] @ weight.T + bias for view in z])
        due.append(by_hand(predicted, np.concatenate([y, y]) - mean.astype(np.float32)))
    assert found.cosine.item() == pytest.approx(np.mean([cosine for cosine, _ in due]), rel=1e-12)
    assert found.barlow.item() == pytest.approx(np.mean([barlow for _, barlow in due]), rel=1e-12)


def test_what_is_right_costs_nothing_and_what_is_opposite_most() -> None:
    y = torch.from_numpy(random(0, 30, 6))
    ones = torch.ones(30, 1, dtype=torch.float64)
    right = matching_terms(y, y, ones, ALONE)
    assert right.cosine.item() == pytest.approx(0, abs=1e-12)
    assert right.barlow.item() == pytest.approx(0, abs=1e-9)  # but for EPS
    opposite = matching_terms(-2 * y, y, ones, ALONE)
    assert opposite.cosine.item() == pytest.approx(2)
    assert opposite.barlow.item() == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_that_the_teacher_does_not_know_do_not_count(dtype: torch.dtype) -> None:
    z, y = random(0, 2, 9, 12), random(1, 9, 20)
    unknown = np.array([1, 4, 8])
    y[unknown] = np.nan
    kept = np.setdiff1d(np.arange(9), unknown)
    matching = a_matching(a_config(), np.zeros(20)).to(dtype)
    whole = torch.from_numpy(z).to(dtype).requires_grad_()
    with_them = matching(whole, torch.from_numpy(y).to(dtype))
    without = matching(torch.from_numpy(z[:, kept]).to(dtype), torch.from_numpy(y[kept]).to(dtype))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for one, other in zip(with_them, without, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=tolerance)
    sum(with_them).backward()
    assert whole.grad is not None
    assert not whole.grad[:, unknown].any()
    assert whole.grad[:, kept].all(dim=2).any()


def test_a_batch_of_unknown_pixels_moves_nothing() -> None:
    z = torch.from_numpy(random(0, 2, 9, 12)).requires_grad_()
    matching = a_matching(a_config(), np.zeros(20))
    loss = sum(matching(z, torch.full((9, 20), torch.nan, dtype=torch.float64)))
    assert isinstance(loss, Tensor)
    assert loss.isfinite()
    loss.backward()
    assert z.grad is not None
    assert not z.grad.any()
    assert not any(parameter.grad.any() for parameter in matching.parameters())


def test_identity_compares_the_embedding_itself() -> None:
    mean = random(2, 12)
    matching = a_matching(a_config(head="identity"), mean)
    assert not list(matching.parameters())
    z = random(0, 1, 9, 12)
    y = z[0] + 0.1 * random(1, 9, 12)
    found = matching(torch.from_numpy(z), torch.from_numpy(y))
    due = by_hand(z[0] - mean.astype(np.float32), y - mean.astype(np.float32))
    assert [term.item() for term in found] == pytest.approx(due, rel=1e-12)


def test_heads_may_see_what_is_stored() -> None:
    matching = a_matching(a_config(), np.zeros(20)).float()
    z = torch.from_numpy(random(0, 9, 12)).float()
    exact = [matching.predict(z, i) for i in range(3)]
    matching.quantise = True
    for i, size in enumerate((3, 7, 12)):  # the scale of a prefix is its own
        stored = torch.from_numpy(dequantise(*quantise(z[:, :size].numpy(), "v2")))
        torch.testing.assert_close(matching.predict(z, i), matching.heads[i](stored))
        assert not torch.equal(matching.predict(z, i), exact[i])


def test_answers_are_codes_times_scales() -> None:
    codes, scales = quantise(random(0, 5, 8).astype(np.float32), "v2")
    scales[2] = np.nan
    found = Answers(codes, scales).to(torch.device("cpu")).floats().numpy()
    assert np.array_equal(found, codes.astype(np.float32) * scales[:, None], equal_nan=True)
    half = random(1, 5, 8).astype(np.float16)
    assert np.array_equal(Answers(half, None).to(torch.device("cpu")).floats().numpy(), half.astype(np.float32))
