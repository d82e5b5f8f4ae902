"""Views that differ in light, noise and season."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tessera_cli.imagery.sentinel1 import scale
from tessera_cli.pretraining.config import ViewConfig
from tessera_cli.pretraining.data.batch import MISSING, Sequences
from tessera_cli.pretraining.data.perturb import days_later, normal, perturbed
from tessera_cli.pretraining.data.views import random_view
from tessera_cli.sampling import V2_RULE, Modality
from tessera_cli.sampling.draws import hashed
from tests.pretraining.test_views import keys_of, pixels_with, varied

KEYS = np.arange(3000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def sequences(count: int, length: int, modality: Modality = "s2", value: int = 3000) -> Sequences[np.ndarray]:
    bands, dtype = (10, np.uint16) if modality == "s2" else (2, np.int16)
    return Sequences(
        np.arange(count),
        np.full((count, length, bands), value, dtype),
        np.tile(np.linspace(1, 366, length).astype(np.int16), (count, 1)),
        np.zeros((count, length), np.uint8),
    )


def looked_at(given: Sequences[np.ndarray], config: ViewConfig, modality: Modality = "s2") -> Sequences[np.ndarray]:
    keys = KEYS[: len(given.members)]
    return perturbed(
        given, modality, config, lambda decision: hashed(len(decision), keys), days_later(config, hashed(9, keys))
    )


def test_hashes_become_independent_normal_numbers() -> None:
    drawn = normal(KEYS, 5)
    assert np.abs(drawn.mean(axis=0)).max() < 4 / len(KEYS) ** 0.5
    assert np.abs(np.cov(drawn.T) - np.eye(5)).max() < 0.08
    assert np.array_equal(drawn[:7], normal(KEYS[:7], 5))
    assert (np.abs(drawn) < 3).mean() == pytest.approx(0.9973, abs=0.002)


def test_a_gain_is_one_factor_per_view_and_band() -> None:
    found = np.log(looked_at(sequences(3000, 4), ViewConfig(gain=0.1)).values / 3000)
    assert np.ptp(found, axis=1).max() < 1e-3  # the same on all dates, but for rounding
    by_view_and_band = found[:, 0]
    assert by_view_and_band.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)
    assert np.corrcoef(by_view_and_band.T)[0, 1] == pytest.approx(0.5, abs=0.06)  # one half is the view's


def test_noise_is_a_factor_of_its_own_everywhere() -> None:
    found = np.log(looked_at(sequences(3000, 4), ViewConfig(noise=0.05)).values / 3000).reshape(3000, -1)
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(np.corrcoef(found.T) - np.eye(40)).max() < 0.1


def test_radar_is_multiplied_in_power() -> None:
    """A factor on power is a sum in scaled decibels, which `scale` of the multiplied power gives, too."""
    value = int(scale(np.array([0.05]))[0])
    found = looked_at(sequences(50, 1, "s1", value), ViewConfig(gain=0.2), "s1").values[:, 0]
    log = 0.2 * (normal(hashed(len("gain"), KEYS[:50]), 3)[:, :1] + normal(hashed(len("gain"), KEYS[:50]), 3)[:, 1:])
    assert np.abs(found - scale(0.05 * np.exp(log)).astype(int)).max() <= 1


def test_what_is_missing_stays_missing() -> None:
    config = ViewConfig(gain=1.0, noise=1.0, shift_days=60)
    given = sequences(200, 3)
    given.values[:, 1] = 0  # no data in a band
    given.streams[:, 2], given.values[:, 2], given.doy[:, 2] = MISSING, 0, 0
    found = looked_at(given, config)
    assert not found.values[:, 1:].any()
    assert found.values[:, 0].all()
    assert not found.doy[:, 2].any()
    assert np.array_equal(found.streams, given.streams)


def test_a_shift_moves_a_whole_view_around_the_year() -> None:
    given = sequences(3000, 5)
    found = looked_at(given, ViewConfig(shift_days=20))
    by = (found.doy.astype(int) - given.doy + 183) % 366 - 183
    assert (by == by[:, :1]).all()
    numbers, counts = np.unique(by[:, 0], return_counts=True)
    assert numbers.tolist() == list(range(-20, 21))
    assert counts.min() > 40
    assert found.doy.min() >= 1
    assert found.doy.max() <= 366
    assert np.array_equal(found.values, given.values)


def test_both_sensors_see_the_same_year() -> None:
    pixels = pixels_with(np.full((40, 3), 6))
    plain, moved = (
        random_view(pixels, ViewConfig(n_obs=4, shift_days=days), V2_RULE, keys_of(pixels)) for days in (0, 25)
    )
    shifts = []
    for modality in ("s2", "s1"):
        (one,), (other,) = plain[modality], moved[modality]
        shifts.append(((other.doy.astype(int) - one.doy + 183) % 366 - 183)[:, 0])
    assert np.array_equal(*shifts)
    assert len(np.unique(shifts[0])) > 10


def test_a_pixel_is_perturbed_alike_in_any_company() -> None:
    config = ViewConfig(n_obs=5, gain=0.1, noise=0.1, shift_days=9)
    pixels = varied(60)
    view = partial(random_view, config=config, buckets=V2_RULE)
    few = np.array([7, 3, 40])
    whole, part = view(pixels, keys=keys_of(pixels)), view(pixels.take(few), keys=keys_of(pixels)[few])
    for modality in whole:
        for one in part[modality]:
            for row, member in enumerate(one.members.tolist()):
                (there,) = [x for x in whole[modality] if few[member] in x.members]
                at = there.members.tolist().index(few[member])
                assert np.array_equal(one.values[row], there.values[at])
                assert np.array_equal(one.doy[row], there.doy[at])
