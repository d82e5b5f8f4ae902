"""What a training step sees: views, the order of pixels, and batches drawn ahead."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.pretraining.config import PretrainConfig, ViewConfig
from tessera_cli.pretraining.data.batch import MISSING, Batch, Sequences, View
from tessera_cli.pretraining.data.loader import Loader
from tessera_cli.pretraining.data.sampler import BatchSampler
from tessera_cli.pretraining.data.views import full_view, random_view, view_keys
from tessera_cli.sampling import BAND_COUNTS, V1_1_RULE, V2_RULE, BucketedSampling, Modality
from tessera_cli.sampling.buckets import PATTERNS
from tessera_cli.sampling.draws import draw, hashed, numbered, uniform
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, concatenated, no_pixels
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS
from tests.helpers.tiles import made_up

GAMMA = 0x9E3779B97F4A7C15


def series(counts: Iterable[Iterable[int]], seed: int, bands: int, dtype: Any) -> RaggedSeries:
    """Of pixels with so many observations of each stream. The bands hold an observation's pixel and rank, and its day
    of year; days are random, rise within a stream, and some come twice."""
    rng = np.random.default_rng(seed)
    values, doy, streams, starts = [], [], [], [0]
    for pixel, of_streams in enumerate(counts):
        for stream, count in enumerate(of_streams):
            doy.append(np.sort(rng.integers(1, 367, count)))
            streams.append(np.full(count, stream))
        count = sum(of_streams)
        values.append(np.stack([np.full(count, pixel), np.arange(count), *np.zeros((bands - 2, count), int)], axis=1))
        starts.append(starts[-1] + count)
    return RaggedSeries(
        np.concatenate(values).astype(dtype),
        np.concatenate(doy).astype(np.uint16),
        np.concatenate(streams).astype(np.uint8),
        np.array(starts, np.int64),
    )


def pixels_with(counts: Any, seed: int = 0) -> RaggedPixels:
    """Pixels with so many observations of Sentinel-2 and of Sentinel-1, ascending and descending: int (N, 3)."""
    rows = np.asarray(counts).tolist()
    return RaggedPixels(
        series([row[:1] for row in rows], seed, 10, np.uint16),
        series([row[1:] for row in rows], seed + 1, 2, np.int16),
        np.random.default_rng(seed).integers(0, 2**64, len(rows), np.uint64),
        np.zeros((len(rows), 3), np.int32),
        np.arange(len(rows), dtype=np.int32) % 3,
    )


def varied(count: int, seed: int = 0) -> RaggedPixels:
    """Few and many observations, and all kinds of nothing."""
    counts = np.random.default_rng(seed).integers(0, [70, 40, 40], (count, 3))
    counts[::5] //= 8
    counts[::7, 0] = 0
    counts[::11, 1] = 0
    counts[::13, 1:] = 0
    return pixels_with(counts, seed)


def same(count: int, *counts: int) -> RaggedPixels:
    """One pixel, many times over, with different keys."""
    copies = pixels_with([counts]).take(np.zeros(count, int))
    return dataclasses.replace(copies, keys=keys_of(copies, view=5))


def keys_of(pixels: RaggedPixels, *, seed: int = 1, epoch: int = 0, view: int = 0) -> np.ndarray:
    numbers = hashed(7, np.arange(len(pixels)))
    return view_keys(numbers, seed=seed, epochs=np.full(len(pixels), epoch), view=view)


def rows_of(sequences: Iterable[Sequences[np.ndarray]], pixels: int) -> list[tuple[np.ndarray, ...]]:
    """Values, days and streams of each pixel's sequence, and that each pixel has one."""
    found: dict[int, tuple[np.ndarray, ...]] = {}
    for one in sequences:
        assert (one.members.dtype, one.doy.dtype, one.streams.dtype) == (np.int64, np.int16, np.uint8)
        assert (np.diff(one.members) > 0).all()
        for i, member in enumerate(one.members.tolist()):
            assert member not in found
            found[member] = one.values[i], one.doy[i], one.streams[i]
    assert sorted(found) == list(range(pixels))
    return [found[i] for i in range(pixels)]


def assert_equal(some: View[np.ndarray], every: View[np.ndarray], pixels: RaggedPixels, chosen: np.ndarray) -> None:
    for modality in BAND_COUNTS:
        whole = rows_of(every[modality], len(pixels))
        for one, number in zip(rows_of(some[modality], len(chosen)), chosen.tolist(), strict=True):
            for ours, due in zip(one, whole[number], strict=True):
                np.testing.assert_array_equal(ours, due, strict=True)


def ranks_shown(view: View[np.ndarray], pixels: RaggedPixels, modality: Modality) -> list[list[int] | None]:
    """Which of its observations each pixel shows, in which order; None if the sensor is missing. Each observation is
    checked to come from the pixel, as it is."""
    source, found = pixels.series(modality), list[list[int] | None]()
    for i, (values, doy, streams) in enumerate(rows_of(view[modality], len(pixels))):
        assert values.dtype == source.values.dtype
        if streams[0] == MISSING:
            assert (streams == MISSING).all()
            assert not values.any()
            assert not doy.any()
            found.append(None)
            continue
        ranks = values[:, 1].astype(np.int64)
        rows = source.starts[i] + ranks
        assert (ranks < source.counts[i]).all()
        np.testing.assert_array_equal(values, source.values[rows])
        np.testing.assert_array_equal(doy, source.doy[rows])
        np.testing.assert_array_equal(streams, source.streams[rows])
        found.append(ranks.tolist())
    return found


def in_order(ranks: list[int], days: np.ndarray, order: str) -> bool:
    return ranks == sorted(ranks, key=lambda rank: (days[rank], rank) if order == "day" else (rank,))


def deviation(observed: np.ndarray, expected: np.ndarray | float) -> float:
    """Chi-square in standard deviations from its mean; beyond 5 the probability is below 1e-6."""
    due = np.broadcast_to(expected, observed.shape)
    assert due.min() > 5
    assert abs(due.sum() - observed.sum()) < 1e-6 * due.sum()
    statistic, degrees = float(((observed - due) ** 2 / due).sum()), observed.size - 1
    return abs(statistic - degrees) / math.sqrt(2 * degrees)


def is_rate(found: np.ndarray, probability: float) -> bool:
    """Whether so many are true as often as this probability says: within 5 standard deviations."""
    spread = math.sqrt(probability * (1 - probability) / found.size)
    return abs(float(found.mean()) - probability) <= 5 * spread


# --- keys and hashes --------------------------------------------------------------------------------------------------


def test_view_keys_are_hashes_of_everything() -> None:
    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    def key(seed: int, *columns: int) -> int:
        state = seed
        for column in columns:
            state = mix((state + GAMMA) % 2**64) ^ column
        return mix((state + GAMMA) % 2**64)

    own = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    epochs = np.array([0, 1, 7, 2**40])
    keys = view_keys(own, seed=3, epochs=epochs, view=1)
    due = [key(3, pixel, epoch, 1) for pixel, epoch in zip(own.tolist(), epochs.tolist(), strict=True)]
    assert (keys.dtype, keys.tolist()) == (np.uint64, due)
    own, epochs = hashed(0, np.arange(1000)), np.arange(1000) // 500
    every = [
        view_keys(own, seed=seed, epochs=epochs + epoch, view=view)
        for seed, epoch, view in itertools.product((0, 1, 2**63), (0, 2), (0, 1))
    ]
    assert len(np.unique(every)) == 12_000
    assert hashed(5).shape == ()
    assert numbered(own[:2], 3).tolist() == [
        [mix((k + i * GAMMA) % 2**64) for i in (1, 2, 3)] for k in own[:2].tolist()
    ]
    assert uniform(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, 1 - 2**-53]


def test_pixels_may_draw_different_numbers() -> None:
    rng = np.random.default_rng(3)
    counts, sizes = rng.integers(0, 50, 300), rng.integers(0, 30, 300)
    keys = hashed(1, np.arange(300))
    found = draw(keys, counts, sizes)
    assert found.shape == (300, 29)
    always = draw(keys, counts, sizes, always=True)
    for i, size in enumerate(sizes.tolist()):
        alone = draw(keys[i : i + 1], counts[i : i + 1], size)[0]
        assert found[i].tolist() == [*alone.tolist(), *[0] * (29 - size)]
        hashes = numbered(keys[i : i + 1], size)[0] >> np.uint64(32)
        assert always[i].tolist() == [*sorted(int(h) * int(counts[i]) >> 32 for h in hashes), *[0] * (29 - size)]
    assert draw(keys, counts, np.zeros(300, np.int64)).shape == (300, 0)
    assert draw(keys[:0], counts[:0], sizes[:0]).shape == (0, 0)


# --- what a view shows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["day", "frames", "random"])
@pytest.mark.parametrize("replacement", ["never", "short", "always"])
def test_fixed_lengths(replacement: Any, order: Any) -> None:
    pixels, n_obs = varied(150), 16
    config = ViewConfig(n_obs=n_obs, replacement=replacement, order=order)
    view = random_view(pixels, config, V2_RULE, keys_of(pixels))
    shuffled = repeated = 0
    for modality in BAND_COUNTS:
        source = pixels.series(modality)
        lengths = [one.values.shape[1] for one in view[modality]]
        assert lengths == ([n_obs] if replacement != "never" else sorted(set(lengths), reverse=True))
        assert all(one.values.shape[1] == one.doy.shape[1] == one.streams.shape[1] for one in view[modality])
        for i, ranks in enumerate(ranks_shown(view, pixels, modality)):
            count = int(source.counts[i])
            assert (ranks is None) == (count == 0)
            due = min(max(count, 1), n_obs) if replacement == "never" else n_obs
            assert len(rows_of(view[modality], len(pixels))[i][1]) == due
            if ranks is None:
                continue
            if replacement == "never" or (replacement == "short" and count >= n_obs):
                assert len(set(ranks)) == len(ranks)
            repeated += count >= n_obs and len(set(ranks)) < n_obs
            ordered = in_order(ranks, source.doy[source.starts[i] :], order)
            shuffled += not ordered
            assert ordered or order == "random"
    assert (repeated > 50) == (replacement == "always")
    assert (shuffled > 50) == (order == "random")


def test_by_day_is_another_order_than_by_frame() -> None:
    """Descending passes come after ascending ones in the shards, but not in a view by day."""
    pixels = same(100, 1, 20, 20)
    by_day, by_frame = (
        random_view(pixels, ViewConfig(order=order), V2_RULE, keys_of(pixels))["s1"][0] for order in ("day", "frames")
    )
    assert (np.diff(by_day.doy) >= 0).all()
    assert (np.diff(by_day.streams.astype(int)) < 0).any(axis=1).all()
    assert (np.diff(by_frame.streams.astype(int)) >= 0).all()
    np.testing.assert_array_equal(np.sort(by_frame.doy, axis=1), by_day.doy)  # the same observations


@pytest.mark.parametrize("order", ["day", "random"])
@pytest.mark.parametrize("replacement", ["short", "always"])
@pytest.mark.parametrize("bins", [V2_RULE, V1_1_RULE, BucketedSampling("v2", (1, 6, 11))], ids=["v2", "v1.1", "odd"])
def test_bucketed_lengths(bins: BucketedSampling, replacement: Any, order: Any) -> None:
    pixels = varied(150, seed=2)
    config = ViewConfig(lengths="bucketed", replacement=replacement, order=order, share=(0.2, 0.8))
    view = random_view(pixels, config, bins, keys_of(pixels))
    for modality in BAND_COUNTS:
        source, longest = pixels.series(modality), bins.bins[-1]
        lengths = [one.values.shape[1] for one in view[modality]]
        assert lengths == sorted(set(lengths), reverse=True)
        assert set(lengths) <= {1, *bins.bins}
        seen = set()
        for i, ranks in enumerate(ranks_shown(view, pixels, modality)):
            count = int(source.counts[i])
            if ranks is None:
                assert count == 0
                assert len(rows_of(view[modality], len(pixels))[i][1]) == 1
                continue
            few, many = max(round(0.2 * count), 1), max(round(0.8 * count), 1)
            assert len(ranks) in {int(bins.bin_of(np.array(k))) for k in range(few, many + 1)}
            # Filled by the family's pattern: some k explains the whole sequence. Or there were more than it can show.
            more = many > longest == len(ranks) and (replacement == "always" or len(set(ranks)) == longest)
            pattern = PATTERNS[bins.padding]
            sizes = [
                k
                for k in range(few, min(many, len(ranks)) + 1)
                if (np.array(ranks[:k])[pattern(k, len(ranks))] == ranks).all()
                and (replacement == "always" or len(set(ranks[:k])) == k)
            ]
            assert sizes or more
            if order == "day":
                days = source.doy[source.starts[i] :]
                assert any(in_order(ranks[:k], days, order) for k in sizes or [longest])
            seen.add(len(ranks))
        assert len(seen) > 1


def test_the_share_of_a_bucketed_view_is_uniform() -> None:
    pixels = same(20_000, 20, 10, 10)
    config = ViewConfig(lengths="bucketed", share=(0.3, 0.9))
    view = random_view(pixels, config, BucketedSampling("v2", tuple(range(1, 21))), keys_of(pixels))
    sizes = {m: np.array([len(row[1]) for row in rows_of(view[m], len(pixels))]) for m in BAND_COUNTS}
    due = np.array([0.5, *[1] * 11, 0.5]) / 12 * len(pixels)  # 20 x share is 6 up to 6.5, 7 up to 7.5, ... 18
    for modality in BAND_COUNTS:
        assert deviation(np.bincount(sizes[modality], minlength=19)[6:], due) < 5
    assert abs(np.corrcoef(sizes["s2"], sizes["s1"])[0, 1]) < 5 / math.sqrt(len(pixels))


@pytest.mark.parametrize(("replacement", "length"), [("short", 9), ("always", 9), ("never", 1), ("bucketed", 1)])
def test_a_missing_sensor(replacement: Any, length: int) -> None:
    """In sequences as long as all others, so that they can be blended, or one token."""
    counts = np.array([[5, 0, 0], [0, 4, 0], [0, 0, 0], [30, 10, 20]])
    more = {"lengths": "bucketed"} if replacement == "bucketed" else {"replacement": replacement}
    for pixels in (pixels_with(counts), pixels_with(counts[2:3])):  # the other one has no observation at all
        view = random_view(pixels, ViewConfig(n_obs=9, **more), V2_RULE, keys_of(pixels))
        for modality in BAND_COUNTS:
            missing = pixels.series(modality).counts == 0
            rows = rows_of(view[modality], len(pixels))
            assert [ranks is None for ranks in ranks_shown(view, pixels, modality)] == missing.tolist()
            assert {len(rows[i][1]) for i in np.flatnonzero(missing)} == {length}
            if length == 9:
                (one,) = view[modality]
                assert one.values.shape == (len(pixels), 9, BAND_COUNTS[modality])


def test_short_sequences_share_theirs_with_the_missing_sensor() -> None:
    """One Sequences per length, whatever the tokens are."""
    pixels = pixels_with([[1, 1, 0], [0, 0, 0], [3, 3, 0]])
    view = random_view(pixels, ViewConfig(replacement="never"), V2_RULE, keys_of(pixels))
    for modality in BAND_COUNTS:
        assert [one.members.tolist() for one in view[modality]] == [[2], [0, 1]]
        assert view[modality][1].streams.tolist() == [[0], [MISSING]]


ALL_DROPS = {"drop_season": 0.5, "drop_orbit": 0.5, "drop_s1": 0.3, "drop_s2": 0.3}


@pytest.mark.parametrize(
    "config",
    [
        ViewConfig(n_obs=12),
        ViewConfig(n_obs=12, replacement="never", order="random", **ALL_DROPS),
        ViewConfig(n_obs=12, replacement="always", order="frames", **ALL_DROPS),
        ViewConfig(lengths="bucketed", order="random"),
        ViewConfig(lengths="bucketed", replacement="always", **ALL_DROPS),
    ],
    ids=["fixed", "never", "always", "bucketed", "bucketed always"],
)
def test_a_pixel_is_seen_as_its_key_says_in_any_company(config: ViewConfig) -> None:
    pixels = varied(200, seed=4)
    keys = keys_of(pixels)
    every = random_view(pixels, config, V2_RULE, keys)
    rng = np.random.default_rng(0)
    for chosen in (rng.permutation(200), rng.choice(200, 31), np.array([77])):
        assert_equal(random_view(pixels.take(chosen), config, V2_RULE, keys[chosen]), every, pixels, chosen)
    assert random_view(no_pixels(), config, V2_RULE, keys[:0]) == {"s2": (), "s1": ()}


# --- chance -----------------------------------------------------------------------------------------------------------


def shown_codes(view: View[np.ndarray], modality: Modality, base: int) -> np.ndarray:
    """What each of equal pixels shows, as one number: the ranks as its digits."""
    (one,) = view[modality]
    return one.values[:, :, 1].astype(np.int64) @ base ** np.arange(one.values.shape[1])


def counted(codes: np.ndarray, outcomes: int) -> np.ndarray:
    found = np.unique(codes, return_counts=True)[1]
    assert len(found) <= outcomes
    return np.concatenate([found, np.zeros(outcomes - len(found), int)])


@pytest.mark.parametrize(
    ("n", "n_obs", "replacement", "order", "outcomes"),
    [
        (7, 3, "short", "frames", math.comb(7, 3)),
        (7, 3, "never", "day", math.comb(7, 3)),
        (4, 4, "short", "random", math.factorial(4)),
        (5, 3, "never", "random", 5 * 4 * 3),
        (4, 3, "always", "random", 4**3),
        (3, 4, "short", "random", 3**4),
    ],
)
def test_all_draws_are_equally_likely(n: int, n_obs: int, replacement: Any, order: Any, outcomes: int) -> None:
    pixels = same(20_000, n, n, 0)
    config = ViewConfig(n_obs=n_obs, replacement=replacement, order=order)
    view = random_view(pixels, config, V2_RULE, keys_of(pixels))
    for modality in BAND_COUNTS:
        found = counted(shown_codes(view, modality, n), outcomes)
        assert deviation(found, len(pixels) / outcomes) < 5


def test_views_epochs_seeds_and_sensors_draw_independently() -> None:
    """Two draws of 2 of 5 observations: all 10 x 10 pairs of outcomes are equally likely."""
    pixels, config = same(20_000, 5, 5, 0), ViewConfig(n_obs=2)
    first = random_view(pixels, config, V2_RULE, keys_of(pixels))
    codes = shown_codes(first, "s2", 5)
    others = {
        "view": shown_codes(random_view(pixels, config, V2_RULE, keys_of(pixels, view=1)), "s2", 5),
        "epoch": shown_codes(random_view(pixels, config, V2_RULE, keys_of(pixels, epoch=1)), "s2", 5),
        "seed": shown_codes(random_view(pixels, config, V2_RULE, keys_of(pixels, seed=2)), "s2", 5),
        "sensor": shown_codes(first, "s1", 5),
        "neighbour": np.roll(codes, 1),
    }
    for what, other in others.items():
        assert deviation(counted(codes * 1000 + other, 100), len(pixels) / 100) < 5, what


# --- what is dropped --------------------------------------------------------------------------------------------------


def dropped(view: View[np.ndarray]) -> dict[Modality, np.ndarray]:
    """bool (N,): where a sensor is missing. Of equally long sequences."""
    return {modality: (view[modality][0].streams == MISSING).all(axis=1) for modality in BAND_COUNTS}


def test_dropped_sensors() -> None:
    pixels = same(4000, 6, 3, 3)
    for share_s2, share_s1 in ((0.3, 0.0), (0.0, 0.3), (0.5, 0.4), (1.0, 0.25), (0.25, 1.0), (1.0, 1.0)):
        config = ViewConfig(n_obs=2, drop_s2=share_s2, drop_s1=share_s1)
        found = dropped(random_view(pixels, config, V2_RULE, keys_of(pixels)))
        assert not (found["s2"] & found["s1"]).any()
        assert is_rate(found["s1"], share_s1)
        assert is_rate(found["s2"], share_s2 * (1 - share_s1))  # where both would be, Sentinel-2 stays


def test_the_only_sensor_is_never_dropped() -> None:
    pixels = pixels_with([[6, 0, 0], [0, 3, 3], [0, 0, 0]] * 100)
    for share_s2, share_s1 in itertools.product((0.0, 0.5, 1.0), repeat=2):
        config = ViewConfig(n_obs=2, drop_s2=share_s2, drop_s1=share_s1)
        found = dropped(random_view(pixels, config, V2_RULE, keys_of(pixels)))
        assert found["s2"].tolist() == [False, True, True] * 100
        assert found["s1"].tolist() == [True, False, True] * 100


def test_dropped_orbits() -> None:
    whole = ViewConfig(n_obs=20, replacement="never", order="frames", drop_orbit=1.0)
    pixels = pixels_with([[3, 6, 4], [3, 5, 0], [3, 0, 5]] * 700)
    view = random_view(pixels, whole, V2_RULE, keys_of(pixels))
    assert ranks_shown(view, pixels, "s2") == [[0, 1, 2]] * 2100
    shown = ranks_shown(view, pixels, "s1")
    assert shown[1::3] == shown[2::3] == [[0, 1, 2, 3, 4]] * 700  # the only orbit stays
    ascending = np.array([ranks == [0, 1, 2, 3, 4, 5] for ranks in shown[::3]])
    assert (ascending | np.array([ranks == [6, 7, 8, 9] for ranks in shown[::3]])).all()
    assert is_rate(ascending, 0.5)
    some = random_view(pixels, whole.model_copy(update={"drop_orbit": 0.3}), V2_RULE, keys_of(pixels))
    assert is_rate(np.array([len(ranks or ()) < 10 for ranks in ranks_shown(some, pixels, "s1")[::3]]), 0.3)


def every_day(count: int) -> RaggedPixels:
    """Pixels that both sensors saw on each day of the year."""
    pixels = pixels_with([[366, 366, 0]])
    days = np.arange(1, 367, dtype=np.uint16)
    both = (dataclasses.replace(pixels.series(modality), doy=days) for modality in BAND_COUNTS)
    return dataclasses.replace(pixels, **dict(zip(BAND_COUNTS, both, strict=True))).take(np.zeros(count, int))


def test_dropped_seasons() -> None:
    pixels = every_day(1200)
    config = ViewConfig(n_obs=366, replacement="never", drop_season=1.0, season_days=90)
    starts = {}
    view = random_view(pixels, config, V2_RULE, keys_of(pixels))
    for modality in BAND_COUNTS:
        (one,) = view[modality]
        assert one.doy.shape == (1200, 276)
        gone = np.ones((1200, 367), bool)
        np.put_along_axis(gone, one.doy.astype(np.int64), False, axis=1)
        gone = gone[:, 1:]
        begins = gone & ~np.roll(gone, 1, axis=1)
        assert (begins.sum(axis=1) == 1).all()  # one window, be it across New Year
        starts[modality] = begins.argmax(axis=1)
        assert deviation(np.bincount(starts[modality] // 61, minlength=6), 200) < 5
    assert is_rate(starts["s2"] == starts["s1"], 1 / 366)
    some = random_view(pixels, config.model_copy(update={"drop_season": 0.3}), V2_RULE, keys_of(pixels))
    for modality in BAND_COUNTS:
        lengths = [one.values.shape[1] for one in some[modality]]
        assert lengths == [366, 276]
        assert is_rate(np.isin(np.arange(1200), some[modality][1].members), 0.3)


def test_a_season_is_kept_if_there_is_no_other() -> None:
    pixels = same(2000, 3, 2, 2)
    summer = dataclasses.replace(pixels.s2, doy=np.tile(np.array([170, 200, 230], np.uint16), 2000))
    pixels = dataclasses.replace(pixels, s2=summer)
    config = ViewConfig(n_obs=9, replacement="never", drop_season=1.0, season_days=90, drop_orbit=1.0)
    view = random_view(pixels, config, V2_RULE, keys_of(pixels))
    shown = {tuple(ranks or ()) for ranks in ranks_shown(view, pixels, "s2")}
    assert shown == {(0, 1, 2), (0, 1), (1, 2), (0,), (2,)}
    assert all(ranks_shown(view, pixels, "s1"))
    year = config.model_copy(update={"season_days": 366, "drop_orbit": 0.0})
    for modality, count in (("s2", 3), ("s1", 4)):
        (one,) = random_view(pixels, year, V2_RULE, keys_of(pixels))[modality]
        assert one.values.shape[:2] == (2000, count)


# --- everything -------------------------------------------------------------------------------------------------------


def ragged_of(dpixels: DPixels) -> RaggedPixels:
    """All pixels of d-pixels, one by one."""
    frames: dict[Modality, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
        "s2": [(dpixels.s2, dpixels.s2_mask != 0, dpixels.s2_doy)],
        "s1": [
            (dpixels.s1_asc, dpixels.s1_asc_valid, dpixels.s1_asc_doy),
            (dpixels.s1_desc, dpixels.s1_desc_valid, dpixels.s1_desc_doy),
        ],
    }
    height, width = dpixels.requested.shape
    both = {}
    for modality, streams in frames.items():
        seen = [
            [
                (values[t, y, x], doy[t], number)
                for number, (values, valid, doy) in enumerate(streams)
                for t in range(len(values))
                if valid[t, y, x]
            ]
            for y in range(height)
            for x in range(width)
        ]
        every = [one for pixel in seen for one in pixel]
        both[modality] = RaggedSeries(
            np.stack([one[0] for one in every]),
            np.array([one[1] for one in every], np.uint16),
            np.array([one[2] for one in every], np.uint8),
            np.cumsum([0] + [len(pixel) for pixel in seen]).astype(np.int64),
        )
    count = height * width
    return RaggedPixels(
        both["s2"], both["s1"], np.zeros(count, np.uint64), np.zeros((count, 3), np.int32), np.zeros(count, np.int32)
    )


@pytest.mark.parametrize("bins", [V2_RULE, V1_1_RULE, BucketedSampling("v1.1", (5, 12, 37))], ids=["v2", "v1.1", "odd"])
def test_everything_is_what_embed_shows(bins: BucketedSampling) -> None:
    counts = np.random.default_rng(1).integers(0, [60, 30, 30], (40, 3))
    counts[3:6] = [[0, 4, 4], [7, 0, 0], [300, 1, 0]]
    dpixels = made_up(counts, seed=2)
    view = full_view(ragged_of(dpixels), bins)
    sampler = bins.sampler(dpixels, V2_STUDENT_STATISTICS, np.arange(40), 0)
    for modality in BAND_COUNTS:
        shown = rows_of(view[modality], 40)
        seen = sampler(modality, slice(None), 0)
        for group in seen.by_bin():
            for member, which in zip(group.members.tolist(), group.which.tolist(), strict=True):
                rows = seen.starts[member] + group.patterns[which]
                due = seen.values[rows], seen.doy[rows], seen.series_index[rows]
                for ours, embeds in zip(shown[member], due, strict=True):
                    np.testing.assert_array_equal(ours, embeds, strict=True)
        assert len(seen.missing_sensor())
        for member in seen.missing_sensor():
            values, doy, streams = shown[member]
            assert (values.tolist(), doy.tolist(), streams.tolist()) == ([[0] * BAND_COUNTS[modality]], [0], [MISSING])
    assert full_view(no_pixels(), bins) == {"s2": (), "s1": ()}


# --- the order of pixels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 24, 60, 200])
def test_every_pixel_once_per_epoch(batch: int) -> None:
    sizes = (11, 0, 30, 1, 18)
    sampler, total = BatchSampler(sizes, batch, 5), 60
    steps = [sampler.joint_batch(step) for step in range(-(-4 * total // batch))]
    assert all(len(one) == batch and one.dtype == np.int64 for pair in steps for one in pair)
    numbers, epochs = (np.concatenate(column) for column in zip(*steps, strict=True))
    np.testing.assert_array_equal(epochs, np.arange(len(epochs)) // total)
    shards = np.repeat(np.arange(5), sizes)
    visits, seen = [], []
    for epoch in range(4):
        here = numbers[epochs == epoch][:total]
        assert sorted(here.tolist()) == list(range(total))
        visits.append(tuple(shard for shard, _ in itertools.groupby(shards[here])))
        assert len(visits[-1]) == 4  # each shard from its first to its last pixel
        seen.append(tuple(here[shards[here] == 2]))
    assert len(set(visits)) > 1
    assert len(set(seen)) == 4
    for step in (len(steps) - 1, 0, len(steps) // 2):  # in any order, by anyone
        for ours, due in zip(BatchSampler(sizes, batch, 5).joint_batch(step), steps[step], strict=True):
            np.testing.assert_array_equal(ours, due)
    if batch > 1:
        assert (BatchSampler(sizes, batch, 6).joint_batch(0)[0] != steps[0][0]).any()


def test_shards_of_one_size_have_orders_of_their_own() -> None:
    numbers = BatchSampler((50, 50, 50), 150, 0).joint_batch(0)[0]
    shards = {tuple(part % 50) for part in np.split(numbers, 3)}
    assert len(shards) == 3
    assert tuple(range(50)) not in shards


def test_parts_make_up_the_batch() -> None:
    sampler = BatchSampler((40, 25), 12, 1)
    for step, size in itertools.product((0, 4, 5, 30), (1, 2, 3, 12)):
        slices = [sampler.slice_of(rank, size) for rank in range(size)]
        for joint in sampler.joint_batch(step):
            parts = [joint[own] for own in slices]
            assert {len(part) for part in parts} == {12 // size}
            np.testing.assert_array_equal(np.concatenate(parts), joint)
    with pytest.raises(ValueError, match="a batch of 12 pixels has no 5 equal parts"):
        sampler.slice_of(0, 5)
    for sizes, batch in (((), 4), ((0, 0), 4), ((5,), 0)):
        with pytest.raises(ValueError, match="no batches of"):
            BatchSampler(sizes, batch, 1)


def test_threads_may_share_a_sampler() -> None:
    sampler = BatchSampler((300, 200, 400, 100), 64, 3)
    due = [sampler.joint_batch(step)[0].tolist() for step in range(60)]
    with ThreadPoolExecutor(4) as executor:
        assert [
            found[0].tolist()
            for found in executor.map(BatchSampler((300, 200, 400, 100), 64, 3).joint_batch, range(60))
        ] == due


# --- batches ----------------------------------------------------------------------------------------------------------


class Gathered:
    """Pixels in memory, in the place of shards; counts what is asked for."""

    def __init__(self, sizes: Iterable[int], broken: int | None = None) -> None:
        self.sizes = tuple(sizes)
        self.pixels = concatenated([varied(size, seed) for seed, size in enumerate(self.sizes)])
        self.broken = broken
        self.calls = 0

    def gather(self, numbers: np.ndarray) -> RaggedPixels:
        self.calls += 1
        if self.broken is not None and self.broken in numbers:
            raise OSError("the disk is gone")
        return self.pixels.take(numbers)


def loader(
    shards: Gathered,
    batch: int = 30,
    *,
    views: ViewConfig = ViewConfig(n_obs=6),  # noqa: B008 - frozen
    mix: bool = False,
    seed: int = 9,
    workers: int = 2,
    rank: int = 0,
    size: int = 1,
) -> Loader:
    train = {"batch": batch, "seed": seed, "workers": workers}
    config = PretrainConfig(views=views, loss={"mix": float(mix)}, train=train)
    return Loader(shards, config, rank, size)  # type: ignore[arg-type]


def assert_same_view(found: View[np.ndarray], due: View[np.ndarray]) -> None:
    for modality in BAND_COUNTS:
        for ours, theirs in zip(found[modality], due[modality], strict=True):
            for field in ("members", "values", "doy", "streams"):
                np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), strict=True)


BUCKETED = ViewConfig(lengths="bucketed", order="random", drop_season=0.3, drop_orbit=0.3, drop_s1=0.2, drop_s2=0.2)


@pytest.mark.parametrize(("views", "mix"), [(ViewConfig(n_obs=6), True), (BUCKETED, False)], ids=["fixed", "drops"])
def test_batches_are_the_same_for_any_number_of_workers_and_processes(views: ViewConfig, mix: bool) -> None:
    shards, steps = Gathered((40, 30, 35)), range(2, 9)  # through epochs and shards
    due = [loader(shards, views=views, mix=mix).batch(step) for step in steps]
    for workers, size in itertools.product((1, 2, 3), (1, 2, 3)):
        each = [
            list(loader(shards, views=views, mix=mix, workers=workers, rank=rank, size=size).batches(2, 9))
            for rank in range(size)
        ]
        for number, step in enumerate(steps):
            parts, whole = [one[number] for one in each], due[number]
            assert {part.step for part in parts} == {step}
            np.testing.assert_array_equal(np.concatenate([part.tile_index for part in parts]), whole.tile_index)
            pairs: list[tuple[Callable[[Batch[np.ndarray]], View[np.ndarray]], View[np.ndarray]]] = [
                (lambda batch: batch.first, whole.first),
                (lambda batch: batch.second, whole.second),
            ]
            if mix:
                assert whole.mixing
                pairs.append((lambda batch: batch.mixing.view, whole.mixing.view))  # type: ignore[union-attr]
                mixings = [part.mixing for part in parts if part.mixing]
                assert {one.share for one in mixings} == {whole.mixing.share}
                np.testing.assert_array_equal(np.concatenate([one.partners for one in mixings]), whole.mixing.partners)
            for view, every in pairs:
                for modality in BAND_COUNTS:
                    rows = [row for part in parts for row in rows_of(view(part)[modality], 30 // size)]
                    for ours, theirs in zip(rows, rows_of(every[modality], 30), strict=True):
                        for one, other in zip(ours, theirs, strict=True):
                            np.testing.assert_array_equal(one, other, strict=True)


def test_what_a_batch_holds() -> None:
    """Two different views of the pixels of the order, anew in each epoch."""
    shards = Gathered((20, 25))
    ours = loader(shards, batch=45)
    seen = []
    for step in range(2):
        batch, (numbers, epochs) = ours.batch(step), ours.sampler.joint_batch(step)
        assert (epochs == step).all()
        assert (batch.pixels, batch.mixing) == (45, None)
        pixels = shards.pixels.take(numbers)
        np.testing.assert_array_equal(batch.tile_index, pixels.tile_index)
        for number, view in enumerate((batch.first, batch.second)):
            keys = view_keys(pixels.keys, seed=9, epochs=epochs, view=number)
            assert_same_view(view, random_view(pixels, ours.config.views, V2_RULE, keys))
            days = view["s2"][0].doy[np.argsort(numbers)]
            seen.append(days[shards.pixels.s2.counts > 20])
    for one, other in itertools.combinations(seen, 2):
        assert (one != other).any(axis=1).mean() > 0.9
    other = loader(shards, batch=45, seed=10).batch(0)
    assert (other.first["s2"][0].doy != ours.batch(0).first["s2"][0].doy).any()


def test_partners_show_their_second_views() -> None:
    shards = Gathered((20, 25))
    ours = loader(shards, mix=True)
    shares, partners = [], []
    for step in range(200):
        batch = ours.batch(step)
        assert batch.mixing
        shares.append(batch.mixing.share)
        partners.append(batch.mixing.partners)
        if step < 4:
            assert (batch.mixing.partners.dtype, sorted(partners[-1].tolist())) == (np.int64, list(range(30)))
            for modality in BAND_COUNTS:
                (mixed,), (second,), (first,) = (v[modality] for v in (batch.mixing.view, batch.second, batch.first))
                assert mixed.members.tolist() == first.members.tolist() == list(range(30))
                for field in ("values", "doy", "streams"):
                    np.testing.assert_array_equal(getattr(mixed, field), getattr(second, field)[partners[-1]])
    assert 0 <= min(shares) < 0.1 < 0.9 < max(shares) < 1
    assert abs(np.mean(shares) - 0.5) < 5 / math.sqrt(12 * 200)
    at_home = np.mean(np.array(partners) == np.arange(30)) * 30  # once per permutation, on average
    assert abs(at_home - 1) < 5 / math.sqrt(200)


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("in-order")]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_few_batches_are_drawn_ahead(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the caller leaves, those in the threads' hands are finished, and the one that waits is not begun."""
    submitted, begun = [], []
    begins, left = threading.Semaphore(0), threading.Event()

    class Watched(Loader):
        def batch(self, step: int) -> Batch[np.ndarray]:
            begun.append(step)
            begins.release()
            assert step < 3 or left.wait(60)
            return super().batch(step)

    class Executor(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            submitted.append(args[0].args[0])
            return super().submit(*args, **kwargs)

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            left.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr("tessera_cli.prefetch.ThreadPoolExecutor", Executor)
    batches = Watched(**vars(loader(Gathered((40,)), workers=workers))).batches(0, 50)
    for step in range(3):
        assert next(batches).step == step
        assert submitted == list(range(step + workers + 2))  # this one, and as many more
    for _ in range(3 + workers):
        assert begins.acquire(timeout=60)
    batches.close()  # type: ignore[attr-defined]
    assert sorted(begun) == list(range(3 + workers))
    assert no_thread_is_left()


def test_batches_end_where_they_should() -> None:
    shards = Gathered((40,))
    ours = loader(shards, workers=3)
    assert [batch.step for batch in ours.batches(5, 7)] == [5, 6]
    assert list(ours.batches(5, 5)) == []
    assert shards.calls == 2
    assert no_thread_is_left()


def test_errors_of_threads_reach_the_caller() -> None:
    shards = Gathered((20, 20), broken=13)
    ours = loader(shards, batch=4, workers=2)
    first = next(step for step in range(10) if 13 in ours.sampler.joint_batch(step)[0])
    batches = ours.batches(0, 20)
    assert [batch.step for batch in itertools.islice(batches, first)] == list(range(first))
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert no_thread_is_left()
