"""Ordinary change: false alarms at the rate that is named, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from tessera_cli.changes.discoveries import Discoveries
from tessera_cli.changes.ordinary import Ordinary, unit


def area(
    pixels: int, freedom: float, seed: int, *, changed: float = 0.06, noisy: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three kinds of land whose distances are scaled chi-squares, and some pixels that have moved six times as far."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, pixels)
    before = rng.normal(0, 0.05, (pixels, 8)) + np.eye(8)[kind]
    noise = noisy * rng.uniform(0.5, 2, pixels)
    usual = np.array([0.01, 0.1, 0.03])[kind]
    distance = (usual + noise) * rng.chisquare(freedom, pixels) / freedom
    moved = rng.random(pixels) < changed
    distance[moved] *= 6
    return before, distance, noise, moved


@pytest.mark.parametrize("noisy", [0.0, 0.03])
@pytest.mark.parametrize("freedom", [2.0, 4.0, 6.0, 30.0])
def test_false_alarms(freedom: float, noisy: float) -> None:
    before, distance, noise, moved = area(60_000, freedom, 1, noisy=noisy)
    found = Ordinary.of(before, distance, noise)
    p = ndtr(-found.scores(before, distance, noise))
    for level in (0.01, 0.05, 0.1):
        assert (p[~moved] < level).mean() == pytest.approx(level, abs=0.03 if freedom == 2 else 0.01)
    assert (p[moved] < 0.1).mean() > (0.6 if freedom < 5 else 0.8)
    assert found.unchanged.mean() == pytest.approx(0.94, abs=0.05)


def test_kinds_have_their_own_measure() -> None:
    """The same distance is ordinary of one kind of land and much of another."""
    before, distance, noise, _ = area(30_000, 6, 2)
    found = Ordinary.of(before, distance, noise)
    same = np.full(3, 0.1)
    calm, lively, middle = found.scores(np.eye(8)[:3], same, np.zeros(3))
    assert abs(lively) < 0.5
    assert calm > 4.5 > middle > 2.2


def test_noise_of_dates_is_no_change() -> None:
    before, distance, noise, _ = area(30_000, 6, 3, noisy=0.02)
    found = Ordinary.of(before, distance, noise)
    at = found.scores(np.repeat(before[:1], 3, axis=0), np.full(3, 0.2), np.array([0.0, 0.05, 0.5]))
    assert at[0] > at[1] > at[2]
    nearer = found.scores(np.repeat(before[:1], 3, axis=0), np.array([0.0, 0.01, 0.2]), np.zeros(3))
    assert nearer[0] < nearer[1] < nearer[2]


def test_a_few_pixels_and_equal_ones() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(0, 1, (30, 16))
    found = Ordinary.of(few, rng.chisquare(5, 30) / 100, np.zeros(30))
    assert len(found.centres) == 1
    assert np.isfinite(found.scores(few, np.full(30, 0.05), np.zeros(30))).all()
    still = Ordinary.of(few, np.zeros(30), np.zeros(30))
    assert np.isfinite(still.scores(few, np.zeros(30), np.zeros(30))).all()
    one = Ordinary.of(few[:1], np.array([0.1]), np.zeros(1))
    assert np.isfinite(one.scores(few[:1], np.array([0.1]), np.zeros(1))).all()


def test_lengths_do_not_matter() -> None:
    before, distance, noise, _ = area(5_000, 6, 4)
    stretched = before * np.random.default_rng(1).uniform(0.1, 10, (len(before), 1))
    one, other = (Ordinary.of(each, distance, noise).scores(each, distance, noise) for each in (before, stretched))
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert unit(np.zeros((1, 4))).tolist() == [[0.0] * 4]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_discoveries_are_those_of_benjamini_and_hochberg(rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.random(20_000), ndtr(-rng.normal(3.5, 1, 500)), [0.0] * 3])
    found = Discoveries()
    for part in np.array_split(np.append(p, np.nan), 7):
        found.add(part)
    named, due = p <= found.threshold(rate), false_discovery_control(p) <= rate
    assert found.tests == len(p)
    assert not (named & ~due).any()
    assert named.sum() >= 0.97 * due.sum()


def test_nothing_to_discover() -> None:
    found = Discoveries()
    assert found.threshold(0.05) == 0.0
    found.add(np.linspace(0.2, 1, 100))
    assert found.threshold(0.05) == 0.0
    found.add(np.array([1e-320, 0.0]))
    assert found.threshold(0.05) >= 1e-300
