"""v1.0: which observations are drawn, in our own way and in the official one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import AnyTile, ForeignTile, Tile, pixel_positions
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.inference import cpu
from tessera_cli.inference.encode import encode
from tessera_cli.models import EncoderConfig, Model
from tessera_cli.models.families import PARTS
from tessera_cli.sampling import BAND_COUNTS, LARGEST_LEGACY_SEED, Modality, RandomSampling
from tessera_cli.sampling.draws import DUMMY_DOY, draw, mix, pixel_keys
from tessera_cli.sampling.statistics import V1_0_STATISTICS
from tests import reference
from tests.helpers.encoders import published, random_model
from tests.helpers.sequences import sequences
from tests.helpers.tiles import dpixels, made_up

GAMMA = 0x9E3779B97F4A7C15


def model_drawing(rule: RandomSampling) -> Model:
    early = EncoderConfig.of(4, 1, 2, 16, **PARTS["v1.0-early"])
    return random_model(early, "v1.0-early", observations=rule)


def placed(pixels: DPixels, east: float = 600_000, north: float = 5_700_000, crs: str = "EPSG:32631") -> DPixels:
    """The same with the north-west corner at this place."""
    tile = ForeignTile("somewhere", pixels.requested.shape, crs, Affine(10, 0, east, 0, -10, north))
    return dataclasses.replace(pixels, tile=tile)


def cut(pixels: DPixels, rows: slice, columns: slice, tile: AnyTile | None = None) -> DPixels:
    """A window of the tile, which knows where it lies."""
    here = pixels.tile.transform * (columns.start, rows.start)
    arrays = {name: getattr(pixels, name)[:, rows, columns] for name in ("s2", "s2_mask", "s1_asc", "s1_desc")}
    requested = pixels.requested[rows, columns]
    tile = tile or ForeignTile("window", requested.shape, pixels.tile.crs, Affine(10, 0, here[0], 0, -10, here[1]))
    return dataclasses.replace(pixels, tile=tile, requested=requested, **arrays)


def all_of(pixels: DPixels) -> np.ndarray:
    return np.ones(pixels.requested.shape, bool)


def cloudy(seed: int, shape: tuple[int, int], most: tuple[int, int, int] = (50, 30, 30)) -> DPixels:
    """Fewer and more observations than are drawn, none of a sensor, and pixels of which no band holds anything."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, np.array(most) + 1, (math.prod(shape), 3))
    counts[::7, 0] = 0
    counts[3::11, 1:] = 0
    pixels = made_up(counts, seed=seed, shape=shape)
    pixels.s2.reshape(len(pixels.s2), -1, 10)[:, 4::9] = 0
    return pixels


def frames_drawn(
    pixels: DPixels, rule: RandomSampling, modality: Modality = "s2", repeat: int = 0, seed: int = 0
) -> np.ndarray:
    """Frame numbers of all pixels, int64 (N, size)."""
    days = np.datetime64("2024-01-01") + np.arange(366)  # the day tells the frame
    t, asc = len(pixels.s2), len(pixels.s1_asc)
    pixels = dataclasses.replace(
        pixels, s2_dates=days[:t], s1_asc_dates=days[:asc], s1_desc_dates=days[asc : asc + len(pixels.s1_desc)]
    )
    numbers = np.arange(pixels.requested.size)
    seen = rule.sampler(pixels, V1_0_STATISTICS, numbers, seed)(modality, slice(0, len(numbers)), repeat)
    return seen.doy.reshape(len(numbers), -1).astype(np.int64) - 1


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_mix_is_splitmix64() -> None:
    states = np.array([(1234567 + i * GAMMA) % 2**64 for i in range(1, 6)], np.uint64)
    outputs = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert mix(states).tolist() == outputs
    assert [int(mix(state)) for state in states] == outputs


def test_keys_differ_with_seed_and_place() -> None:
    rng = np.random.default_rng(0)
    places = np.stack([rng.integers(32601, 32661, 5000), rng.integers(1e5, 9e5, 5000), rng.integers(0, 1e7, 5000)], 1)
    keys = pixel_keys(0, places)
    assert (keys.dtype, len(np.unique(keys))) == (np.uint64, len(np.unique(places, axis=0)))
    for column in range(3):
        for step in (1, 10, -10, 5120):
            other = places + step * np.eye(3, dtype=np.int64)[column]
            assert (pixel_keys(0, other) != keys).all()
    for seed in (1, -1, 2**32, 2**63, 2**64 - 2):
        assert (pixel_keys(seed, places) != keys).all()
    np.testing.assert_array_equal(pixel_keys(2**64 + 5, places), pixel_keys(5, places))
    np.testing.assert_array_equal(pixel_keys(0, places[[7, 7, 3]]), keys[[7, 7, 3]])  # the place alone


# --- one draw ---------------------------------------------------------------------------------------------------------


def keys_of(count: int, seed: int = 0) -> np.ndarray:
    places = np.stack([np.full(count, 32631), 600_005 + 10 * np.arange(count), np.full(count, 5_700_005)], axis=1)
    return pixel_keys(seed, places)


def test_without_replacement_where_there_are_enough() -> None:
    counts = np.arange(40, 140)
    ranks = draw(keys_of(100), counts, 40)
    assert (ranks.dtype, ranks.shape) == (np.int64, (100, 40))
    assert (np.diff(ranks, axis=1) > 0).all()  # rising, so all distinct
    assert (ranks >= 0).all()
    assert (ranks < counts[:, None]).all()
    assert ranks[0].tolist() == list(range(40))


def test_with_replacement_where_there_are_few() -> None:
    counts = np.arange(1, 40)
    ranks = draw(keys_of(39), counts, 40)
    assert (np.diff(ranks, axis=1) >= 0).all()
    assert (ranks >= 0).all()
    assert (ranks < counts[:, None]).all()
    assert (ranks[0] == 0).all()
    assert max(len(np.unique(row)) for row in ranks) > 20


def test_a_draw_does_not_depend_on_other_pixels() -> None:
    rng = np.random.default_rng(1)
    counts, keys = rng.integers(1, 130, 500), keys_of(500)
    every = draw(keys, counts, 40)
    for some in (np.array([499, 3, 77]), np.flatnonzero(counts < 40), rng.permutation(500)):
        np.testing.assert_array_equal(draw(keys[some], counts[some], 40), every[some])
    assert draw(keys[:0], counts[:0], 40).shape == (0, 40)


def deviation(observed: np.ndarray, expected: np.ndarray | float, degrees: float, shrink: float = 1.0) -> float:
    """Chi-square in standard deviations from its mean; beyond 5 the probability is below 1e-6."""
    statistic = float(((observed - expected) ** 2 / expected).sum()) / shrink
    return (statistic - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize(("n", "size"), [(50, 16), (41, 40), (90, 7), (120, 40)])
def test_uniform_without_replacement(n: int, size: int) -> None:
    pixels = 20_000
    ranks = draw(keys_of(pixels), np.full(pixels, n), size)
    inclusion = np.bincount(ranks.ravel(), minlength=n)
    # Within a pixel no rank comes twice, which makes the numbers vary less than independent ones.
    assert abs(deviation(inclusion, pixels * size / n, n - 1, (n - size) / (n - 1))) < 5
    chosen = np.zeros((pixels, n), np.float32)
    np.put_along_axis(chosen, ranks, 1, axis=1)
    together = (chosen.T @ chosen)[np.triu_indices(n, 1)]
    share = size * (size - 1) / n / (n - 1)
    assert abs(together - pixels * share).max() < 6 * math.sqrt(pixels * share * (1 - share)) + 1


@pytest.mark.parametrize("n", [2, 3, 7, 39])
def test_uniform_with_replacement(n: int) -> None:
    pixels, size = 20_000, 40
    ranks = draw(keys_of(pixels), np.full(pixels, n), size)
    assert abs(deviation(np.bincount(ranks.ravel(), minlength=n), pixels * size / n, n - 1)) < 5
    # How often rank 0 is drawn follows the binomial distribution.
    found = np.bincount((ranks == 0).sum(axis=1), minlength=size + 1)
    due = pixels * np.array([math.comb(size, k) * (n - 1) ** (size - k) / n**size for k in range(size + 1)])
    enough = due > 10
    assert abs(deviation(found[enough], due[enough], enough.sum() - 1)) < 5


def test_neighbours_seeds_sensors_and_repeats_draw_independently() -> None:
    """What two draws share is what chance gives: size² / n on average."""
    n, size, count = 50, 20, 5000
    pixels = made_up(np.full((count, 3), [n, n, 0]), seed=1, shape=(50, 100))
    rule = RandomSampling(size, size, repeats=2)
    first = frames_drawn(placed(pixels), rule)
    others = {
        "neighbour": np.roll(first, 1, axis=0),
        "seed": frames_drawn(placed(pixels), rule, seed=1),
        "zone": frames_drawn(placed(pixels, crs="EPSG:32632"), rule),
        "hemisphere": frames_drawn(placed(pixels, crs="EPSG:32731"), rule),
        "easting": frames_drawn(placed(pixels, east=600_010), rule),
        "northing": frames_drawn(placed(pixels, north=5_700_010), rule),
        "repeat": frames_drawn(placed(pixels), rule, repeat=1),
        "sensor": frames_drawn(placed(pixels), rule, "s1"),
        "sensor and repeat": frames_drawn(placed(pixels), rule, "s1", 1),
    }
    one = np.zeros((count, n), np.float32)
    np.put_along_axis(one, first, 1, axis=1)
    spread = math.sqrt(size**2 / n * (n - size) ** 2 / n / (n - 1) / count)
    for what, frames in others.items():
        other = np.zeros((count, n), np.float32)
        np.put_along_axis(other, frames, 1, axis=1)
        shared = (one * other).sum(axis=1)
        assert abs(shared.mean() - size**2 / n) < 5 * spread, what
        assert (shared == size).sum() == 0, what
    np.testing.assert_array_equal(others["easting"].reshape(50, 100, -1)[:, :-1], first.reshape(50, 100, -1)[:, 1:])
    np.testing.assert_array_equal(others["northing"].reshape(50, 100, -1)[1:], first.reshape(50, 100, -1)[:-1])


# --- a tile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 3])
def test_only_the_place_decides(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RandomSampling(12, 9, repeats=repeats)
    model, pixels = model_drawing(rule), placed(cloudy(2, (12, 17)))
    processed = rule.valid_pixels(pixels)
    whole = np.full((12, 17, model.representation), np.nan, np.float32)
    whole[processed] = encode(pixels, model, processed, seed=5).values

    def found(window: DPixels, chosen: np.ndarray, threads: int = 1) -> np.ndarray:
        return encode(window, model, chosen, seed=5, threads=threads).values

    np.testing.assert_array_equal(found(pixels, processed, threads=2), whole[processed])
    for rows, columns in ((slice(3, 12), slice(5, 17)), (slice(0, 1), slice(0, 17)), (slice(7, 8), slice(16, 17))):
        window = cut(pixels, rows, columns)
        here = rule.valid_pixels(window)
        np.testing.assert_array_equal(here, processed[rows, columns])
        np.testing.assert_array_equal(found(window, here, threads=2), whole[rows, columns][here])
    some = processed & (np.random.default_rng(3).random((12, 17)) < 0.3)
    np.testing.assert_array_equal(found(pixels, some), whole[some])
    for batch in (1, 7):  # of the official loop: none of ours
        other = model_drawing(dataclasses.replace(rule, batch=batch))
        np.testing.assert_array_equal(encode(pixels, other, processed, seed=5).values, whole[processed])
    monkeypatch.setattr(cpu, "CHUNK", 13)
    np.testing.assert_array_equal(found(pixels, processed, threads=3), whole[processed])


def test_a_tile_of_the_grid_and_a_window_across_two_agree() -> None:
    """Windows may begin anywhere, in tiles of ours or of others."""
    rule, tile = RandomSampling(5, 4), Tile(32631, 117, 1132)
    model = model_drawing(rule)
    west, _, _, north = tile.bounds
    window = placed(made_up(np.full((60, 3), [9, 3, 4]), seed=4, shape=(6, 10)), west - 40, north + 20)
    values = encode(window, model, all_of(window), seed=1).values.reshape(6, 10, -1)

    def padded(frames: np.ndarray) -> np.ndarray:
        """The part of the window that lies in the tile, four columns and two rows in, at its corner."""
        inside = frames[:, 2:, 4:]
        return np.pad(inside, ((0, 0), (0, 508), (0, 506), *(((0, 0),) if frames.ndim == 4 else ())))

    whole = dpixels(
        padded(window.s2),
        padded(window.s2_mask),
        window.s2_doy,
        padded(window.s1_asc),
        window.s1_asc_doy,
        padded(window.s1_desc),
        window.s1_desc_doy,
        tile=tile,
    )
    chosen = np.zeros(tile.shape, bool)
    chosen[:4, :6] = True
    np.testing.assert_array_equal(rule.valid_pixels(whole), chosen)
    np.testing.assert_array_equal(encode(whole, model, chosen, seed=1).values.reshape(4, 6, -1), values[2:, 4:])


def test_what_embeddings_depend_on() -> None:
    model = model_drawing(RandomSampling(12, 9))
    pixels = made_up(np.full((30, 3), 25), seed=6, shape=(5, 6))
    base = encode(placed(pixels), model, all_of(pixels), seed=1).values
    np.testing.assert_array_equal(encode(placed(pixels), model, all_of(pixels), seed=1).values, base)
    others = {
        "seed": encode(placed(pixels), model, all_of(pixels), seed=2).values,
        "zone": encode(placed(pixels, crs="EPSG:32632"), model, all_of(pixels), seed=1).values,
        "easting": encode(placed(pixels, east=600_010), model, all_of(pixels), seed=1).values,
        "northing": encode(placed(pixels, north=5_700_010), model, all_of(pixels), seed=1).values,
        "repeats": encode(
            placed(pixels), model_drawing(RandomSampling(12, 9, repeats=2)), all_of(pixels), seed=1
        ).values,
    }
    for what, values in others.items():
        assert (values != base).any(axis=1).all(), what


def test_repeats_are_averaged() -> None:
    rule = RandomSampling(12, 9, repeats=3)
    model, pixels = model_drawing(rule), placed(cloudy(7, (4, 5)))
    processed = rule.valid_pixels(pixels)
    sampler = rule.sampler(pixels, V1_0_STATISTICS, np.flatnonzero(processed), 8)
    assert model.encoder
    each = []
    for repeat in range(3):
        arguments: list[Any] = []
        for modality in BAND_COUNTS:
            seen = sampler(modality, slice(0, int(processed.sum())), repeat)
            arguments += sequences(seen, np.arange(int(processed.sum())), rule.size(modality))
        each.append(model.encoder(*map(torch.from_numpy, arguments)).numpy())
    values = encode(pixels, model, processed, seed=8).values
    np.testing.assert_allclose(values, np.mean(each, axis=0), rtol=0, atol=2e-6)


def test_a_tile_without_a_place_is_its_own_place() -> None:
    pixels = made_up(np.full((12, 3), 25), seed=6, shape=(3, 4))
    lost = dataclasses.replace(pixels, tile=ForeignTile("lost", (3, 4)))
    assert pixel_positions(lost.tile, np.array([0, 5, 11])).tolist() == [[0, 0, 0], [0, 1, 1], [0, 3, 2]]
    frames = frames_drawn(lost, RandomSampling(5, 5))
    np.testing.assert_array_equal(frames, frames_drawn(dataclasses.replace(lost, window=None), RandomSampling(5, 5)))
    assert len(np.unique(frames, axis=0)) == 12
    wkt = placed(pixels, crs='LOCAL_CS["a plan of the harbour"]')
    positions = pixel_positions(wkt.tile, np.array([0, 4]))
    assert positions.tolist() == [[0, 600_005, 5_699_995], [0, 600_005, 5_699_985]]


def test_candidates_are_the_valid_frames_or_all_of_them() -> None:
    rule = RandomSampling(30, 30)
    pixels = placed(made_up(np.array([[3, 2, 1], [0, 0, 0], [40, 10, 25]]), seed=1))
    radar = np.concatenate([pixels.s1_asc_valid, pixels.s1_desc_valid])[:, 0]
    for modality, valid in (("s2", pixels.s2_mask[:, 0] != 0), ("s1", radar)):
        frames = frames_drawn(pixels, rule, modality)  # type: ignore[arg-type]
        assert valid[frames[0], 0].all()
        assert len(np.unique(frames[0])) == 3
        assert set(frames[1]) - set(np.flatnonzero(valid[:, 0]))  # none is valid, so any may come
        assert valid[frames[2], 2].all()
        assert (np.diff(frames) >= 0).all()


def test_pixels_that_are_left_out() -> None:
    counts = np.array([[3, 1, 1], [0, 4, 4], [2, 0, 0], [1, 1, 0], [9, 9, 9]])
    pixels = made_up(counts, seed=1)
    pixels.s2[:, 0, 4] = 0  # clear, but nothing is there
    assert RandomSampling().valid_pixels(pixels).tolist() == [[True, True, True, True, False]]
    assert RandomSampling(minimum=1).valid_pixels(pixels).tolist() == [[True, False, False, True, False]]
    assert RandomSampling(minimum=2).valid_pixels(pixels).tolist() == [[True, False, False, False, False]]
    none = dataclasses.replace(
        pixels,
        s1_asc=pixels.s1_asc[:0],
        s1_asc_dates=pixels.s1_asc_dates[:0],
        s1_desc=pixels.s1_desc[:0],
        s1_desc_dates=pixels.s1_desc_dates[:0],
    )
    assert not RandomSampling().valid_pixels(none).any()
    assert RandomSampling(minimum=2, dummies=True).valid_pixels(none).tolist() == [[True, False, True, False, False]]
    seen = RandomSampling(4, 4, dummies=True).sampler(none, V1_0_STATISTICS, np.array([0, 2]), 0)("s1", slice(0, 2), 0)
    values, days = sequences(seen, [0, 1], 4)
    assert (days == DUMMY_DOY).all()
    mean, std = np.array(V1_0_STATISTICS.s1_asc_mean, np.float32), np.array(V1_0_STATISTICS.s1_asc_std, np.float32)
    np.testing.assert_array_equal(values, np.broadcast_to(-mean / std, (2, 4, 2)))


def test_identity_of_the_rule() -> None:
    assert RandomSampling().to_dict() == {
        "s2": 40,
        "s1": 40,
        "repeats": 1,
        "minimum": 0,
        "dummies": False,
        "legacy": False,
    }
    assert RandomSampling(legacy=True, batch=7).to_dict()["batch"] == 7
    assert RandomSampling(16, 12).lengths(3.5, 0) == (16, 12)


# --- the official way -------------------------------------------------------------------------------------------------

OFFICIAL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "early": ("v1_0_early", {}, {"batch_size": 8}),
    "early, repeats": ("v1_0_early", {"fusion": "sum"}, {"batch_size": 5, "repeat_times": 3, "sample_size_s2": 7}),
    "early, one by one": ("v1_0_early", {"layers": 1}, {"batch_size": 1, "sample_size_s1": 13}),
    "early, minimum": ("v1_0_early", {}, {"batch_size": 4, "min_valid_timesteps": 6}),
    "qat": ("v1_0_qat", {}, {"batch_size": 1024}),
    "qat, repeats": ("v1_0_qat", {"heads": 2}, {"batch_size": 7, "repeat_times": 2, "sample_size_s2": 13}),
}


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_order_of_draws(name: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK", 11)
    family, sizes, options = OFFICIAL[name]
    config, tensors, model = published(tmp_path, family, 3, options=options, legacy=True, **sizes)
    pixels = cloudy(20 + seed, (5, 7))
    expected, defined = reference.embed_tile(family, config, tensors, reference.arrays_of(pixels), legacy_seed=seed)
    assert 5 < defined.sum() < 35
    np.testing.assert_array_equal(model.spec.observations.valid_pixels(pixels), defined)
    values = encode(pixels, model, defined, seed=seed, threads=2).values
    assert np.abs(values - expected[defined]).max() < 5e-5
    assert np.abs(encode(pixels, model, defined, seed=seed + 1).values - values).max() > 0.01


@pytest.mark.parametrize("most", [(45, 44, 0), (45, 0, 50), (60, 0, 0)], ids=str)
def test_orbits_without_frames(most: tuple[int, int, int], tmp_path: Path) -> None:
    for family in ("v1_0_qat",) if most[1:] == (0, 0) else ("v1_0_qat", "v1_0_early"):
        config, tensors, model = published(tmp_path, family, 3, options={"batch_size": 6}, legacy=True)
        pixels = cloudy(5, (4, 5), most)
        expected, defined = reference.embed_tile(family, config, tensors, reference.arrays_of(pixels), legacy_seed=9)
        np.testing.assert_array_equal(model.spec.observations.valid_pixels(pixels), defined)
        values = encode(pixels, model, defined, seed=9).values
        assert np.abs(values - expected[defined]).max() < 5e-5


def test_the_official_order_does_not_depend_on_what_is_asked_for(tmp_path: Path) -> None:
    """The official code draws for every pixel of a tile, in order; the rest follows from that."""
    _, _, model = published(tmp_path, "v1_0_early", 3, options={"batch_size": 8, "repeat_times": 2}, legacy=True)
    pixels = cloudy(24, (5, 7))
    every = model.spec.observations.valid_pixels(pixels)
    whole = np.full((5, 7, model.representation), np.nan, np.float32)
    whole[every] = encode(pixels, model, every, seed=6).values
    for share in (0.8, 0.2):
        some = every & (np.random.default_rng(1).random((5, 7)) < share)
        np.testing.assert_array_equal(encode(pixels, model, some, seed=6).values, whole[some])


@pytest.mark.parametrize("seed", [LARGEST_LEGACY_SEED + 1, 2**64 + 3])
def test_the_official_generator_takes_small_seeds_only(seed: int) -> None:
    pixels = placed(made_up(np.full((2, 3), 5), seed=0))
    model = model_drawing(RandomSampling())
    with pytest.raises(UsageError, match=f"--seed {seed}: the official generator takes 0 to 4294967295"):
        EmbedSettings.checked(model, legacy_draw=True, seed=seed)
    assert EmbedSettings.checked(model, legacy_draw=True, seed=LARGEST_LEGACY_SEED).seed == LARGEST_LEGACY_SEED
    assert np.isfinite(
        encode(pixels, model, all_of(pixels), seed=EmbedSettings.checked(model, seed=seed).seed).values
    ).all()


def test_both_ways_mean_the_same() -> None:
    """Embeddings averaged over many seeds agree as far as chance allows, fewer and more candidates than drawn."""
    pixels = placed(made_up(np.array([[6, 3, 2], [12, 8, 0], [20, 9, 8], [50, 20, 29], [0, 4, 4]]), seed=3))
    seeds = 150
    ours, official = (
        np.stack([encode(pixels, model, all_of(pixels), seed=seed).values for seed in range(seeds)])
        for model in (model_drawing(RandomSampling(12, 9)), model_drawing(RandomSampling(12, 9, legacy=True)))
    )
    error = np.sqrt((ours.var(axis=0) + official.var(axis=0)) / seeds)
    assert (error > 0).all()
    assert (np.abs(ours.mean(axis=0) - official.mean(axis=0)) / error).max() < 5
    ratio = ours.std(axis=0) / official.std(axis=0)
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()
