"""Which observations an encoder sees."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tessera_cli.models.statistics import V2_STUDENT, Statistics
from tessera_cli.sampling import V2_BINS, Observations, bin_of, fill_pattern, s1_streams, s2_streams
from tests import reference
from tests.tiles import dpixels, made_up


def test_bins() -> None:
    counts = np.array([0, 1, 7, 8, 9, 16, 17, 255, 256, 257, 2000])
    assert bin_of(counts).tolist() == [0, 8, 8, 8, 16, 16, 24, 256, 256, 256, 256]
    assert bin_of(counts.astype(np.uint16)).tolist() == bin_of(counts).tolist()


@pytest.mark.parametrize(
    ("n", "pattern"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (2, [0, 1, 0, 1, 0, 1, 0, 1]),
        (3, [0, 1, 2, 0, 1, 2, 0, 1]),  # fillers start at observation 0 again
        (4, [0, 1, 2, 3, 0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 4, 1, 3, 4]),  # runs 01 23 4
        (6, [0, 1, 2, 3, 4, 5, 1, 4]),  # runs 012 345
        (7, [0, 1, 2, 3, 4, 5, 6, 3]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_fillers_of_the_first_bin(n: int, pattern: list[int]) -> None:
    assert fill_pattern(n, 8).tolist() == pattern


def test_every_pattern_agrees_with_the_reference() -> None:
    for n in range(1, 2001):
        bin = int(bin_of(np.array(n)))
        assert fill_pattern(n, bin).tolist() == reference.choose_v2(n), n


def test_float64_floor_above_the_longest_bin() -> None:
    exact = [i * (295 - 1) // 255 for i in range(256)]
    ours = fill_pattern(295, 256).tolist()
    assert ours != exact
    assert max(abs(a - b) for a, b in zip(ours, exact, strict=True)) == 1
    assert (ours[0], ours[-1]) == (0, 294)


def test_sequences_equal_the_reference_tokens() -> None:
    counts = np.array([[0, 3, 2], [1, 0, 1], [3, 2, 0], [9, 4, 4], [40, 20, 13], [300, 150, 140]])
    pixels = made_up(counts, seed=3)
    for sensor, streams in (("s2", s2_streams(pixels, V2_STUDENT)), ("s1", s1_streams(pixels, V2_STUDENT))):
        seen = Observations.of(streams, np.arange(len(counts)), V2_BINS)
        for i in range(len(counts)):
            expected = reference.tokens("v2_student", {}, reference.arrays_of(pixels), 0, i)[sensor == "s1"]
            if seen.bins[i] == 0:
                assert len(expected) == 1
                continue
            values, doy = seen.sequences(np.array([i]), int(seen.bins[i]))
            assert values.dtype == np.float32
            np.testing.assert_allclose(values[0], expected[:, :-1], rtol=0, atol=2e-6)
            np.testing.assert_array_equal(doy[0], expected[:, -1])


def test_gathering_is_independent_of_company() -> None:
    counts = np.random.default_rng(1).integers(0, 20, (50, 3))
    pixels = made_up(counts, seed=4, shape=(5, 10))
    streams = s1_streams(pixels, V2_STUDENT)
    every = Observations.of(streams, np.arange(50), V2_BINS)
    chosen = np.array([42, 7, 19, 3])
    few = Observations.of(streams, chosen, V2_BINS)
    np.testing.assert_array_equal(few.bins, every.bins[chosen])
    for place, pixel in enumerate(chosen):
        if bin := int(few.bins[place]):
            for a, b in zip(
                few.sequences(np.array([place]), bin), every.sequences(np.array([pixel]), bin), strict=True
            ):
                np.testing.assert_array_equal(a, b)


def test_radar_frame_with_one_polarisation_is_valid_and_orbits_keep_their_order() -> None:
    asc = np.array([[5000, 0], [0, 0], [0, 3000]], np.int16).reshape(3, 1, 1, 2)
    desc = np.array([[6000, 4000]], np.int16).reshape(1, 1, 1, 2)
    pixels = dpixels(
        np.zeros((0, 1, 1, 10), np.uint16),
        np.zeros((0, 1, 1), np.uint8),
        np.zeros(0, int),
        asc,
        np.array([300, 310, 320]),
        desc,
        np.array([5]),
    )
    seen = Observations.of(s1_streams(pixels, V2_STUDENT), np.array([0]), V2_BINS)
    values, doy = seen.sequences(np.array([0]), 8)
    assert doy[0, :3].tolist() == [300, 320, 5]
    np.testing.assert_allclose(values[0, 0], [(5000 - 5909.3921) / 1507.1750, -3405.0322 / 1531.2615], rtol=1e-6)
    np.testing.assert_allclose(
        values[0, 2], [(6000 - 5816.1382) / 1554.6475, (4000 - 3277.7576) / 1546.4733], rtol=1e-6
    )


def test_statistics_survive_the_card() -> None:
    assert Statistics.from_card(V2_STUDENT.to_card()) == V2_STUDENT
    for damage in ({"s2_mean": [1.0] * 9}, {"s1_asc_std": [0.0, 1.0]}, {"s1_desc_mean": ["a", 1]}, {"s2_std": None}):
        with pytest.raises(ValueError, match=next(iter(damage))):
            Statistics.from_card({**V2_STUDENT.to_card(), **damage})


def test_choosing_a_model_needs_no_torch() -> None:
    code = (
        "import sys, tessera_cli.models, tessera_cli.sampling, tessera_cli.quantize, tessera_cli.encode\n"
        "assert not {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
