"""Halves of observations: every one in either, drawn by place and date alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling import halves as module
from tests.helpers.tiles import made_up


def halves(dpixels: DPixels, draw: int) -> tuple[DPixels, DPixels]:
    return module.halves(dpixels, draw, dpixels.positions(np.arange(dpixels.requested.size)))


COUNTS = np.array([[n, n // 2, (n + 1) // 3] for n in (0, 1, 2, 3, 7, 8, 30, 61)])


def valid(dpixels: DPixels) -> list[np.ndarray]:
    return [dpixels.s2_mask != 0, dpixels.s1_asc_valid, dpixels.s1_desc_valid]


@pytest.mark.parametrize("draw", [0, 1, 5])
def test_every_observation_is_in_one_half(draw: int) -> None:
    whole = made_up(COUNTS, seed=1)
    one, other = halves(whole, draw)
    for all_, a, b in zip(valid(whole), valid(one), valid(other), strict=True):
        assert not (a & b).any()
        assert ((a | b) == all_).all()
        assert (np.abs(a.sum(axis=0, dtype=int) - b.sum(axis=0, dtype=int)) == all_.sum(axis=0) % 2).all()
    for name in ("s1_asc", "s1_desc"):
        a, b, both = (getattr(each, name) for each in (one, other, whole))
        assert (a + b == both).all()
    assert one.s2 is whole.s2
    assert (one.counts + other.counts == whole.counts).all()


def test_draws_differ_and_repeat() -> None:
    whole = made_up(np.full((50, 3), 20), seed=2)
    first, again, second = (halves(whole, draw)[0].s2_mask for draw in (0, 0, 1))
    assert (first == again).all()
    assert 0.3 < (first != second).mean() < 0.7


def test_a_pixel_goes_by_its_place_and_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made_up(np.full((40, 3), 15), seed=3)
    kept = [halves(whole, 3)[0].s2_mask, halves(whole, 3)[0].s1_desc]
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert (halves(whole, 3)[0].s2_mask == kept[0]).all()
    order = np.random.default_rng(0).permutation(15)
    turned = dataclasses.replace(
        whole,
        s2=whole.s2[order],
        s2_mask=whole.s2_mask[order],
        s2_dates=whole.s2_dates[order],
        s1_desc=whole.s1_desc[order],
        s1_desc_dates=whole.s1_desc_dates[order],
    )
    assert (halves(turned, 3)[0].s2_mask == kept[0][order]).all()
    assert (halves(turned, 3)[0].s1_desc == kept[1][order]).all()


def test_all_pairs_of_dates_are_parted_alike() -> None:
    """Of 10 dates, 5 are drawn: each with 1/2, two together with 5/10 * 4/9."""
    whole = made_up(np.full((4000, 3), 10), seed=4)
    for sensor, (one, other) in enumerate(zip(*map(valid, halves(whole, 0)), strict=True)):
        chosen = one.reshape(10, -1).astype(float)
        assert np.abs(chosen.mean(axis=1) - 0.5).max() < 0.04, sensor
        together = chosen @ chosen.T / chosen.shape[1]
        assert np.abs(together[~np.eye(10, dtype=bool)] - 2 / 9).max() < 0.035, sensor
        assert (other == ~one).all()


def test_odd_ones_go_either_way() -> None:
    whole = made_up(np.full((2000, 3), 1), seed=5)
    one, _ = halves(whole, 0)
    first = one.counts.reshape(3, -1)
    assert np.abs(first.mean(axis=1) - 0.5).max() < 0.05
    assert abs(np.corrcoef(first[0], first[1])[0, 1]) < 0.1  # not the same half of both sensors


def test_a_tile_without_an_orbit() -> None:
    one, other = halves(made_up(np.array([[4, 0, 3]] * 5), seed=6), 0)
    assert one.s1_asc.shape == other.s1_asc.shape == (0, 1, 5, 2)
    assert (one.counts[0] == 2).all()


def test_pixels_in_a_row_are_halved_as_in_their_tile() -> None:
    whole = made_up(np.full((20, 3), 9), seed=7, shape=(4, 5))
    numbers = np.array([3, 4, 11])
    row = whole.row(numbers)
    assert row.s2.shape == (9, 1, 3, 10)
    for some, of_all in zip(module.halves(row, 2, whole.positions(numbers)), halves(whole, 2), strict=True):
        assert (some.counts[:, 0] == of_all.counts.reshape(3, -1)[:, numbers]).all()
        for name in ("s2", "s2_mask", "s1_asc", "s1_desc"):
            there, here = getattr(of_all, name), getattr(some, name)
            assert (here[:, 0] == there.reshape(len(there), 20, *there.shape[3:])[:, numbers]).all(), name
