"""Uncertainty: against what independent years of the same ground give, where that can be worked out or drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.inference import uncertainty as module
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import cosine_distance, encode_with_uncertainty, uncertainty
from tessera_cli.models import load_model
from tests.helpers.tiles import dpixels, made_up


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
    """On average, of pixels that stay the same while what is seen on each date is drawn anew."""
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
    """Nor do those of a sensor that cannot be halved, or the number would tell what that sensor is worth."""
    model = load_model("demo").bind_source("mpc")
    counts = np.array([[1, 0, 0], [0, 1, 0], [2, 0, 0], [5, 3, 2], [1, 30, 30], [0, 0, 0], [30, 1, 0], [2, 1, 1]])
    scarce = made_up(counts, seed=1)
    asked = counts.any(axis=1)[None]
    found = np.full(len(counts), np.nan)
    found[asked[0]] = uncertainty(scarce, model, asked, draws=8)
    assert np.isnan(found).tolist() == [True, True, False, False, True, True, True, False]
    assert (found[[2, 3, 7]] > 0).all()


@pytest.mark.parametrize(("name", "clear", "most"), [("null", 0.2, 1.5), ("null", 0.4, 2.0), ("demo", 0.4, 2.0)])
def test_it_is_an_upper_estimate_where_passes_are_regular(name: str, clear: float, most: float) -> None:
    """The same seasons and passes each year, of which clouds leave some: nearer to each other than any dates."""
    days = np.arange(3, 366, 5)
    season = np.exp(-(((days - 190) / 60) ** 2))[:, None, None, None]
    ground = np.random.default_rng(0)
    base, green = ground.uniform(1000, 3000, (1, 1, 150, 10)), ground.uniform(-1500, 2500, (1, 1, 150, 10))
    model, none = load_model(name).bind_source("mpc"), np.zeros((0, 1, 150, 2), np.int16)

    def clouded(seed: int) -> DPixels:
        rng = np.random.default_rng(seed)
        s2 = np.rint(base + green * season + rng.normal(0, 100, (len(days), 1, 150, 10))).clip(1).astype(np.uint16)
        mask = (rng.random((len(days), 1, 150)) < clear).astype(np.uint8)
        return dpixels(s2, mask, days, none, days[:0], none, days[:0])

    years = [clouded(seed) for seed in (1, 2)]
    distance = cosine_distance(*(encode(each, model, whole(each)).values for each in years)).mean()
    told = sum(uncertainty(each, model, whole(each), draws=2).astype(float) for each in years).mean()
    assert 0.95 * distance < told < most * distance


def test_neither_portions_nor_neighbours_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("null").bind_source("mpc")
    pixels, seen = year(10, 50, 1), []
    found = uncertainty(pixels, model, whole(pixels), draws=2, progress=seen.append)
    assert sum(seen) == 2 * 2 * 50
    some = np.zeros((1, 50), bool)
    some[0, 10:20] = True
    assert (uncertainty(pixels, model, some, draws=2) == found[10:20]).all()
    plain = encode(pixels, model, whole(pixels))
    for size in (7, 50, 1000):
        monkeypatch.setitem(module.AT_ONCE, "cpu", size)
        seen.clear()
        made, beside = encode_with_uncertainty(pixels, model, whole(pixels), draws=2, progress=seen.append)
        assert (beside == found).all()
        assert (made.values == plain.values).all()
        assert sum(seen) == 50


class Memory:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def load(self, *arrays: np.ndarray | None) -> int:
        for array, kept in zip((each for each in arrays if each is not None), self.rows, strict=bool(self.rows)):
            array[: len(kept)] = kept
        return len(self.rows[0]) if self.rows else 0

    def save(self, *arrays: np.ndarray | None) -> None:
        self.rows = [each.copy() for each in arrays if each is not None]


def test_an_interruption_costs_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.AT_ONCE, "cpu", 10)
    model = load_model("demo").bind_source("mpc")
    pixels, keeper, seen = year(8, 45, 1), Memory(), []
    more = {"draws": 1, "quantiser": model.spec.quantiser, "keeper": keeper}
    due, beside = encode_with_uncertainty(pixels, model, whole(pixels), **{**more, "keeper": None})

    def interrupted(finished: int) -> None:
        seen.append(finished)
        if sum(seen) >= 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_with_uncertainty(pixels, model, whole(pixels), progress=interrupted, **more)
    assert [len(rows) for rows in keeper.rows] == [20, 20, 20]
    calls = []
    monkeypatch.setattr(module, "encode", lambda *a, **k: calls.append(a[2].sum()) or encode(*a, **k))
    made, again = encode_with_uncertainty(pixels, model, whole(pixels), progress=seen.append, **more)
    assert calls == [10] * 3 * 2 + [5] * 3
    assert made.kept == 20
    assert (again == beside).all()
    assert (made.values == due.values).all()
    assert (made.scales == due.scales).all()


def test_leading_dims_alone() -> None:
    model = load_model("demo").bind_source("mpc")
    pixels = year(10, 6, 1)
    one, other = (
        encode(half, model, whole(pixels)).values for half in module.halves(pixels, 0, pixels.positions(np.arange(6)))
    )
    found = uncertainty(pixels, model, whole(pixels), draws=1, dims=16)
    np.testing.assert_allclose(found, cosine_distance(one[:, :16], other[:, :16]) / 4, rtol=1e-6)


def test_cosine_distance() -> None:
    one = np.array([[3.0, 0], [1, 0], [1, 0], [0, 0]], np.float32)
    other = np.array([[5.0, 0], [0, 2], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(cosine_distance(one, other), [0, 1, 2, np.nan])
