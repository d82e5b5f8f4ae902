"""Which observations an encoder sees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tessera_cli.sampling import (
    BAND_COUNTS,
    V1_1_RULE,
    V2_RULE,
    BucketedSampling,
    Modality,
    Observations,
    SensorSeries,
    sensor_series,
)
from tessera_cli.sampling.buckets import v1_1_pattern, v2_pattern
from tessera_cli.sampling.statistics import V1_1_STATISTICS, V2_STUDENT_STATISTICS, V2_TEACHER_STATISTICS, Statistics
from tests import reference
from tests.helpers.sequences import sequences
from tests.helpers.tiles import dpixels, made_up

ODD = BucketedSampling("v1.1", (5, 12, 37), encode_empty=True)


def valid_of_v2(found: tuple[SensorSeries, ...], pixels: np.ndarray) -> Observations:
    return Observations.valid(found, pixels, V2_RULE.bin_of, v2_pattern)


def test_bins() -> None:
    counts = np.array([0, 1, 7, 8, 9, 16, 17, 255, 256, 257, 2000])
    for rule in (V2_RULE, V1_1_RULE):
        assert rule.bin_of(counts).tolist() == [0, 8, 8, 8, 16, 16, 24, 256, 256, 256, 256]
        assert rule.bin_of(counts.astype(np.uint16)).tolist() == rule.bin_of(counts).tolist()
        assert rule.bin_of(counts).dtype == np.int64
    assert ODD.bin_of(np.array([0, 1, 5, 6, 12, 13, 37, 38, 300])).tolist() == [0, 5, 5, 12, 12, 37, 37, 37, 37]


def test_expected_lengths() -> None:
    """Of means, for the estimates of `plan`: rounded up, so that a little is not nothing."""
    assert V2_RULE.lengths(0.2, 0) == (8, 0)
    assert V2_RULE.lengths(8.1, 300.5) == (16, 256)
    assert ODD.lengths(12, 12.01) == (12, 37)


@pytest.mark.parametrize(
    ("n", "pattern"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (2, [0, 1, 0, 1, 0, 1, 0, 1]),
        (3, [0, 1, 2, 0, 1, 2, 0, 1]),  # padding start at observation 0 again
        (4, [0, 1, 2, 3, 0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 4, 1, 3, 4]),  # runs 01 23 4
        (6, [0, 1, 2, 3, 4, 5, 1, 4]),  # runs 012 345
        (7, [0, 1, 2, 3, 4, 5, 6, 3]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_padding_of_the_first_bin(n: int, pattern: list[int]) -> None:
    assert v2_pattern(n, 8).tolist() == pattern


def test_every_pattern_agrees_with_the_reference() -> None:
    for n in range(1, 2001):
        bin = int(V2_RULE.bin_of(np.array(n)))
        assert v2_pattern(n, bin).tolist() == reference.choose_v2(n), n


@pytest.mark.parametrize(
    "rule", [V1_1_RULE, ODD, BucketedSampling("v1.1", (1, 2, 3, 11, 300, 1000), encode_empty=True)]
)
def test_every_pattern_of_v1_1_agrees_with_the_reference(rule: BucketedSampling) -> None:
    for n in range(1, 2001):
        bin = int(rule.bin_of(np.array(n)))
        assert bin == reference.bin_v1_1(n, rule.bins), n
        assert v1_1_pattern(n, bin).tolist() == reference.choose_v1_1(n, bin), n


def test_padding_of_v1_1_stays_at_the_end() -> None:
    assert v1_1_pattern(1, 8).tolist() == [0] * 8
    assert v1_1_pattern(2, 5).tolist() == [0, 1, 0, 0, 1]  # 0.25, 0.5 (half to even), 0.75
    assert v1_1_pattern(6, 8).tolist() == [0, 1, 2, 3, 4, 5, 2, 3]
    assert v1_1_pattern(7, 3).tolist() == [1, 4, 6]  # runs 012 34 56
    assert v1_1_pattern(37, 37).tolist() == list(range(37))


@pytest.mark.parametrize("pattern", [v1_1_pattern, v2_pattern])
def test_a_pattern_cannot_be_spoilt(pattern: Callable[[int, int], np.ndarray]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pattern(3, 8)[0] = 1


def test_float64_floor_above_the_longest_bin() -> None:
    exact = [i * (295 - 1) // 255 for i in range(256)]
    ours = v2_pattern(295, 256).tolist()
    assert ours != exact
    assert max(abs(a - b) for a, b in zip(ours, exact, strict=True)) == 1
    assert (ours[0], ours[-1]) == (0, 294)


FAMILIES: dict[str, tuple[str, BucketedSampling, Statistics, dict[str, Any], str | None]] = {
    "v2-student": ("v2_student", V2_RULE, V2_STUDENT_STATISTICS, {}, None),
    "v2-teacher": ("v2_teacher", V2_RULE, V2_TEACHER_STATISTICS, {}, None),
    "v1.1-mpc": ("v1_1", V1_1_RULE, V1_1_STATISTICS["mpc"], {"num_obs_checkpoints": list(range(8, 257, 8))}, "mpc"),
    "v1.1-aws": ("v1_1", V1_1_RULE, V1_1_STATISTICS["aws"], {"num_obs_checkpoints": list(range(8, 257, 8))}, "aws"),
    "odd bins": ("v1_1", ODD, V1_1_STATISTICS["mpc"], {"num_obs_checkpoints": [37, 5, 0, 12, 5, -3]}, "mpc"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_sequences_equal_the_reference_tokens(name: str) -> None:
    family, rule, statistics, config, source = FAMILIES[name]
    counts = np.array([[0, 3, 2], [1, 0, 1], [3, 2, 0], [9, 4, 4], [16, 9, 7], [40, 20, 13], [300, 150, 140]])
    pixels = made_up(counts, seed=3)
    sampler = rule.sampler(pixels, statistics, np.arange(len(counts)), seed=0)
    for place, modality in enumerate(BAND_COUNTS):
        seen = sampler(modality, slice(0, len(counts)), 0)
        for i in range(len(counts)):
            expected = reference.tokens(family, config, reference.arrays_of(pixels), 0, i, source)[place]
            if seen.bins[i] == 0:
                assert not expected.any()  # equal tokens, be it one (v2) or a bin of them (v1.1)
                continue
            values, doy = sequences(seen, [i], int(seen.bins[i]))
            assert values.dtype == np.float32
            np.testing.assert_allclose(values[0], expected[:, :-1], rtol=0, atol=2e-6)
            np.testing.assert_array_equal(doy[0], expected[:, -1])


def test_which_pixels_are_encoded() -> None:
    pixels = made_up(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 2], [1, 0, 0]]), seed=1)
    assert V2_RULE.valid_pixels(pixels).tolist() == [[True, False, True, True]]
    assert V1_1_RULE.valid_pixels(pixels).tolist() == [[True, True, True, True]]


def test_a_sampler_sees_any_part_of_its_pixels() -> None:
    pixels = made_up(np.random.default_rng(2).integers(0, 20, (40, 3)), seed=4, shape=(4, 10))
    numbers = np.array([3, 7, 8, 20, 21, 39])
    sampler = V2_RULE.sampler(pixels, V2_STUDENT_STATISTICS, numbers, seed=0)
    for modality in BAND_COUNTS:
        whole, part = sampler(modality, slice(0, 6), 0), sampler(modality, slice(2, 5), 0)
        first, last = whole.starts[2], whole.starts[5]
        np.testing.assert_array_equal(part.values, whole.values[first:last])
        np.testing.assert_array_equal(part.bins, whole.bins[2:5])
        np.testing.assert_array_equal(part.counts, whole.counts[2:5])


def test_gathering_does_not_depend_on_other_pixels() -> None:
    counts = np.random.default_rng(1).integers(0, 20, (50, 3))
    pixels = made_up(counts, seed=4, shape=(5, 10))
    radar = sensor_series(pixels, V2_STUDENT_STATISTICS)["s1"]
    every = valid_of_v2(radar, np.arange(50))
    chosen = np.array([42, 7, 19, 3])
    few = valid_of_v2(radar, chosen)
    np.testing.assert_array_equal(few.bins, every.bins[chosen])
    for place, pixel in enumerate(chosen):
        if bin := int(few.bins[place]):
            for a, b in zip(sequences(few, [place], bin), sequences(every, [pixel], bin), strict=True):
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
    seen = valid_of_v2(sensor_series(pixels, V2_STUDENT_STATISTICS)["s1"], np.array([0]))
    values, doy = sequences(seen, [0], 8)
    assert doy[0, :3].tolist() == [300, 320, 5]
    np.testing.assert_allclose(values[0, 0], [(5000 - 5909.3921) / 1507.1750, -3405.0322 / 1531.2615], rtol=1e-6)
    np.testing.assert_allclose(
        values[0, 2], [(6000 - 5816.1382) / 1554.6475, (4000 - 3277.7576) / 1546.4733], rtol=1e-6
    )


@pytest.mark.parametrize("modality", ["s2", "s1"])
def test_given_frames_are_taken_as_they_are(modality: Modality) -> None:
    pixels = made_up(np.array([[5, 3, 2], [2, 3, 0], [5, 1, 1]]), seed=6)
    found = sensor_series(pixels, V2_STUDENT_STATISTICS)[modality]
    frames = np.array([[0, 4, 4], [1, 2, 3]])  # invalid ones too
    seen = Observations.drawn(found, np.array([2, 0]), frames)
    assert seen.bins.tolist() == [3, 3]
    values, doy = sequences(seen, [1, 0], 3)
    for row, (pixel, chosen) in enumerate(((0, frames[1]), (2, frames[0]))):
        raw, days, of = [], [], []
        for stream in found:
            raw += list(stream.frames[:, pixel].astype(np.float32))
            days += list(stream.doy)
            of += [stream] * len(stream.frames)
        for place, frame in enumerate(chosen):
            np.testing.assert_array_equal(values[row, place], (raw[frame] - of[frame].mean) / of[frame].std)
            assert doy[row, place] == days[frame]


def test_statistics_survive_the_card() -> None:
    assert Statistics.from_card(V2_STUDENT_STATISTICS.to_card()) == V2_STUDENT_STATISTICS
    for damage in ({"s2_mean": [1.0] * 9}, {"s1_asc_std": [0.0, 1.0]}, {"s1_desc_mean": ["a", 1]}, {"s2_std": None}):
        with pytest.raises(ValueError, match=next(iter(damage))):
            Statistics.from_card({**V2_STUDENT_STATISTICS.to_card(), **damage})


def test_choosing_a_model_needs_no_torch() -> None:
    code = (
        "import sys, tessera_cli.models, tessera_cli.sampling, tessera_cli.inference.encode\n"
        "assert not {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
