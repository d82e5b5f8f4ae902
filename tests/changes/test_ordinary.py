"""Ordinary change: false alarms at the rate that is named, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from tessera_cli.changes.discoveries import Discoveries
from tessera_cli.changes.ordinary import Ordinary
from tessera_cli.embeddings.angles import unit

DIMS = 12
ENDLESS = 10**10
"""Pixels of an area so large that its map is free to be any."""


def area(
    pixels: int, seed: int, *, spread: float = 0.6, changed: float = 0.06
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Three kinds of land that all move in a way of their own, the second far; pixels besides by log-normal lengths.

    Some pixels have moved elsewhere. Returned are embeddings before and after, kinds, and which pixels have changed.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, pixels)
    before = rng.normal(0, 0.05, (pixels, DIMS)) + np.eye(DIMS)[kind]
    turn = np.linalg.qr(rng.normal(size=(DIMS, DIMS)))[0]
    away = rng.normal(size=(pixels, DIMS))
    away *= (np.array([0.03, 0.2, 0.08])[kind] * rng.lognormal(0, spread / 2, pixels) / np.linalg.norm(away, axis=1))[
        :, None
    ]
    moved = rng.random(pixels) < changed
    away[moved] *= 6
    return before, before @ turn + away, kind, moved


@pytest.mark.parametrize("changed", [0.0, 0.03, 0.08])
@pytest.mark.parametrize("spread", [0.4, 0.6, 0.8])
def test_false_alarms(spread: float, changed: float) -> None:
    before, after, _, moved = area(60_000, 1, spread=spread, changed=changed)
    found = Ordinary.of(before, after, pixels=ENDLESS)
    p = ndtr(-found.scores(before, after).z)
    for level in (0.001, 0.01, 0.05, 0.1):
        assert 0.5 * level - 0.001 < (p[~moved] < level).mean() < 1.3 * level + 0.001
    assert not moved.any() or (p[moved] < 0.1).mean() > 0.9
    assert found.unchanged.mean() == pytest.approx(1 - changed, abs=0.03)


def test_residuals_are_those_of_a_regression() -> None:
    """A second implementation in float64, by least squares, of an area in which nothing has changed."""
    before, after, _, _ = area(4_000, 2, changed=0)
    found = Ordinary.of(before, after, pixels=ENDLESS)
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (before, after))
    kept = np.ones(len(one), bool)
    for _ in range(3):
        design = np.column_stack([one, np.ones(len(one))])
        expected = design @ np.linalg.lstsq(design[kept], other[kept], rcond=None)[0]  # as of an endless area
        residual = 1 - (expected * other).sum(axis=1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(other, axis=1)
        kept = residual <= np.quantile(residual, 0.9)
    np.testing.assert_allclose(found.scores(before, after).residual, residual.clip(1e-4), rtol=3e-3, atol=1e-6)


def test_kinds_have_their_own_measure() -> None:
    """The same distance from what was to be expected is ordinary of one kind of land and much of another."""
    before, after, kind, moved = area(30_000, 3)
    found = Ordinary.of(before, after, pixels=ENDLESS)
    residual, z = found.scores(before, after)
    calm, lively, middle = (z[(kind == k) & (np.abs(residual - 0.02) < 0.004)].mean() for k in range(3))
    assert abs(lively) < 1
    assert calm > middle + 2 > lively + 4
    assert moved.any()


def test_what_all_do_is_no_change() -> None:
    """Where all land of a kind goes somewhere else, however far, that is ordinary; where one field goes there, not."""
    before, after, kind, _ = area(30_000, 4, changed=0)
    far = np.zeros(DIMS)
    far[7] = 1.5
    after[kind == 0] += far
    found = Ordinary.of(before, after, pixels=ENDLESS)
    assert np.median(found.scores(before, after).z[kind == 0]) == pytest.approx(0, abs=0.3)
    strayed = after.copy()
    strayed[kind == 1] += far
    assert np.median(found.scores(before, strayed).z[kind == 1]) > 4


def test_a_few_pixels_and_equal_ones() -> None:
    rng = np.random.default_rng(0)
    few, later = rng.normal(0, 1, (2, 30, 16))
    found = Ordinary.of(few, later)
    assert len(found.centres) == 1
    assert np.isfinite(found.scores(few, later).z).all()
    still = Ordinary.of(few, few)
    assert (np.abs(still.scores(few, few).z) < 3).all()
    one = Ordinary.of(few[:1], later[:1])
    assert np.isfinite(one.scores(few[:1], later[:1]).z).all()
    none = Ordinary.of(np.zeros((5, 4)), np.ones((5, 4)))
    assert np.isfinite(none.scores(np.zeros((1, 4)), np.ones((1, 4))).z).all()


def test_what_is_the_same_has_not_changed() -> None:
    before, _, _, _ = area(20_000, 5)
    found = Ordinary.of(before, before)
    assert (found.scores(before, before).z < 1).all()


@pytest.mark.parametrize(("usual", "spread"), [(1.5e-4, 0.8), (1e-4, 0.4), (7e-5, 0.8), (1e-5, 0.8)])
def test_land_that_hardly_moves_is_not_named(usual: float, spread: float) -> None:
    """Kinds that lie where codes of 8 bits end: what is taken for that distance tells nothing of their spread."""
    rng = np.random.default_rng(6)
    before = rng.normal(0, 0.05, (40_000, DIMS)) + np.eye(DIMS)[rng.integers(0, 3, 40_000)]
    away = rng.normal(size=before.shape)
    away -= before * (away * before).sum(axis=1, keepdims=True) / (before**2).sum(axis=1, keepdims=True)
    lengths = np.sqrt(2 * usual * rng.lognormal(0, spread, len(before))) * np.linalg.norm(before, axis=1)
    after = before + away * (lengths / np.linalg.norm(away, axis=1))[:, None]
    p = ndtr(-Ordinary.of(before, after, pixels=ENDLESS).scores(before, after).z)
    assert (p < 0.001).mean() < 0.004
    assert (p < 1e-6).mean() < 1e-4


def test_lengths_do_not_matter() -> None:
    before, after, _, _ = area(5_000, 4)
    lengths = np.random.default_rng(1).uniform(0.1, 10, (2, len(before), 1))
    pairs = (before, after), (before * lengths[0], after * lengths[1])
    one, other = (Ordinary.of(*pair).scores(*pair).z for pair in pairs)
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
