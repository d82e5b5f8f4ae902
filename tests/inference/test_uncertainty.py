"""Uncertainty: against what independent years of the same ground give, where that can be worked out or drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.inference import uncertainty as module
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import cosine_distance, uncertainty
from tessera_cli.models import load_model
from tests.helpers.tiles import made_up


def year(frames: int, pixels: int, seed: int, spread: float = 400.0) -> DPixels:
    """Pixels whose observations are drawn anew each year around bands of their own, on the same days."""
    found = made_up(np.full((pixels, 3), frames), seed=0)
    ground, rng = np.random.default_rng(1), np.random.default_rng(seed + 100)

    def around(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        mean = ground.uniform(low, high, (1, *shape[1:]))
        return np.rint(mean + rng.normal(0, spread, shape))

    return dataclasses.replace(
        found,
        s2=around(found.s2.shape, 2000, 6000).astype(np.uint16),
        s1_asc=around(found.s1_asc.shape, 4000, 8000).astype(np.int16),
        s1_desc=around(found.s1_desc.shape, 4000, 8000).astype(np.int16),
    )


def whole(dpixels: DPixels) -> np.ndarray:
    return np.ones(dpixels.requested.shape, bool)


@pytest.mark.parametrize(("name", "frames", "pixels"), [("null", 30, 400), ("null", 9, 400), ("demo", 24, 60)])
def test_two_years_differ_by_their_uncertainties(name: str, frames: int, pixels: int) -> None:
    """On average, of pixels that stay the same while their dates are drawn anew."""
    model = load_model(name).bind_source("mpc")
    one, other = (year(frames, pixels, seed) for seed in (1, 2))
    distance = cosine_distance(*(encode(each, model, whole(each)).values for each in (one, other)))
    told = sum(uncertainty(each, model, whole(each), draws=3).astype(float) for each in (one, other))
    assert told.mean() == pytest.approx(distance.mean(), rel=0.12)


def test_it_falls_as_dates_come() -> None:
    model = load_model("null").bind_source("mpc")
    few, many = (uncertainty(year(n, 300, 3), model, np.ones((1, 300), bool), draws=2).mean() for n in (8, 32))
    assert few / many == pytest.approx(4, rel=0.15)


def test_ground_that_never_changes_has_none() -> None:
    still = year(12, 20, 1, spread=0)
    model = load_model("null").bind_source("mpc")
    assert uncertainty(still, model, whole(still), draws=2).max() < 1e-6


def test_too_few_observations_tell_nothing() -> None:
    model = load_model("demo").bind_source("mpc")
    scarce = made_up(np.array([[1, 0, 0], [0, 1, 0], [2, 0, 0], [5, 3, 2]]), seed=1)
    found = uncertainty(scarce, model, whole(scarce), draws=3)
    assert np.isnan(found).tolist() == [True, True, False, False]
    assert (found[2:] > 0).all()


def test_neither_blocks_nor_neighbours_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("null").bind_source("mpc")
    pixels, seen = year(10, 50, 1), []
    found = uncertainty(pixels, model, whole(pixels), draws=2, progress=seen.append)
    assert sum(seen) == 100
    monkeypatch.setattr(module, "AT_ONCE", 7)
    assert (uncertainty(pixels, model, whole(pixels), draws=2) == found).all()
    some = np.zeros((1, 50), bool)
    some[0, 10:20] = True
    assert (uncertainty(pixels, model, some, draws=2) == found[10:20]).all()


def test_leading_dims_alone() -> None:
    model = load_model("demo").bind_source("mpc")
    pixels = year(10, 6, 1)
    one, other = (encode(half, model, whole(pixels)).values for half in module.halves(pixels, 0))
    found = uncertainty(pixels, model, whole(pixels), draws=1, dims=16)
    np.testing.assert_allclose(found, cosine_distance(one[:, :16], other[:, :16]) / 4, rtol=1e-6)


def test_cosine_distance() -> None:
    one = np.array([[3.0, 0], [1, 0], [1, 0], [0, 0]], np.float32)
    other = np.array([[5.0, 0], [0, 2], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(cosine_distance(one, other), [0, 1, 2, np.nan])
