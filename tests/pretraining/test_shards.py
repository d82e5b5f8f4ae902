"""d-pixels -> shards on disk: which pixels, in which order, with which statistics; and damaged ones."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from affine import Affine

from tessera_cli.dpixels import Stored, find_stores, write_folder, write_store
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import DiskFullError, IdentityError, NothingToEmbedError, TesseraError, TileError, UsageError
from tessera_cli.extent.grid import ForeignTile, Tile, pack_mask
from tessera_cli.extent.window import Window
from tessera_cli.pretraining.config import DataConfig
from tessera_cli.pretraining.data.build import build, open_or_build
from tessera_cli.pretraining.data.select import holdout_mask, select_pixels, stratified_sample
from tessera_cli.pretraining.data.shards import Shards, digest_of
from tessera_cli.pretraining.data.statistics import BandStatistics
from tessera_cli.sampling.ragged import RaggedPixels, concatenated
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS, Statistics
from tests.helpers.tiles import made_up

ALL = DataConfig(min_s2=0, min_s1=0, holdout=0.0)
SMALL = DataConfig(min_s2=2, min_s1=2, holdout=0.2, holdout_block=4, shard_pixels=150)
EAST, NORTH = 500_000, 5_800_000
"""West and north edge of the tile `a`."""


def tile_of(name: str, shape: tuple[int, int]) -> ForeignTile:
    """A rectangle at 10 m: `a` first, `b` east of it, and so on."""
    offset = (ord(name[0]) - ord("a")) * shape[1] * 10
    return ForeignTile(name, shape, "EPSG:32631", Affine(10, 0, EAST + offset, 0, -10, NORTH))


def some(name: str = "a", shape: tuple[int, int] = (20, 30), *, most: int = 6, **changes: Any) -> DPixels:
    """Random d-pixels in which pixels have 0 to `most` observations of each stream, a tenth not asked for."""
    seed = sum(name.encode())
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, (shape[0] * shape[1], 3))
    plain = made_up(counts, seed, shape)
    first = np.datetime64("2024-01-05")
    dates = {
        f"{sensor}_dates": first + np.arange(len(getattr(plain, sensor))) * np.timedelta64(9 + i, "D")
        for i, sensor in enumerate(("s2", "s1_asc", "s1_desc"))
    }
    requested = rng.random(shape) < 0.9
    return dataclasses.replace(plain, tile=tile_of(name, shape), **dates, requested=requested, **changes)


def stored(dpixels: DPixels, digest: str = "") -> Stored:
    """d-pixels as if they lay on disk."""
    return Stored(
        path=Path("/stores") / dpixels.name,
        tile=dpixels.tile,
        window=dpixels.window,
        source=dpixels.source,
        preprocessing=dpixels.preprocessing,
        packed=pack_mask(dpixels.requested),
        input_digest=digest or dpixels.name,
        load=lambda _: dpixels,
        load_dates=lambda _: dpixels.dates,
    )


THREE = [some("a"), some("b", most=5), some("c", (12, 50), most=9)]


def brute(dpixels: DPixels, number: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """One pixel's observations, Sentinel-2 and Sentinel-1: (stream, day of year, values...)."""
    row, column = divmod(number, dpixels.requested.shape[1])
    s2 = [
        (0, day.tolist().timetuple().tm_yday, *frame[row, column].tolist())
        for day, frame, mask in zip(dpixels.s2_dates, dpixels.s2, dpixels.s2_mask, strict=True)
        if mask[row, column]
    ]
    s1 = [
        (stream, day.tolist().timetuple().tm_yday, *frame[row, column].tolist())
        for stream, (frames, days) in enumerate(
            ((dpixels.s1_asc, dpixels.s1_asc_dates), (dpixels.s1_desc, dpixels.s1_desc_dates))
        )
        for day, frame in zip(days, frames, strict=True)
        if any(frame[row, column])
    ]
    return s2, s1


def listed(ragged: RaggedPixels, position: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The same of a pixel in a RaggedPixels."""

    def observations(modality: Any) -> list[tuple[int, ...]]:
        series = ragged.series(modality)
        part = slice(*series.starts[position : position + 2])
        rows = zip(series.streams[part].tolist(), series.doy[part].tolist(), series.values[part].tolist(), strict=True)
        return [(stream, day, *values) for stream, day, values in rows]

    return observations("s2"), observations("s1")


def assert_same(found: RaggedPixels, due: RaggedPixels) -> None:
    for name in ("keys", "places", "tile_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(due, name))
        assert getattr(found, name).dtype == getattr(due, name).dtype
    for one, other in ((found.s2, due.s2), (found.s1, due.s1)):
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype, field.name


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_one_line(error: BaseException) -> None:
    """what: why. what to do."""
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    assert text.count(". ") >= 1


# Which pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", [(0, 0), (3, 0), (0, 4), (2, 5)])
def test_pixels_are_those_seen_often_enough_with_all_their_valid_observations(minimum: tuple[int, int]) -> None:
    dpixels = some(most=4)
    dpixels.s1_asc[..., 0] *= np.random.default_rng(0).integers(0, 2, dpixels.s1_asc.shape[:3], dtype=np.int16)
    found = select_pixels(dpixels, DataConfig(min_s2=minimum[0], min_s1=minimum[1]), 7)
    due = {}
    for number in np.flatnonzero(dpixels.requested).tolist():
        s2, s1 = brute(dpixels, number)
        if len(s2) >= minimum[0] and len(s1) >= minimum[1] and s2 + s1:
            due[number] = s2, s1
    assert [listed(found, position) for position in range(len(found))] == list(due.values())
    assert len(due) > 100
    width = dpixels.requested.shape[1]
    centres = [(32631, EAST + 10 * (n % width) + 5, NORTH - 10 * (n // width) - 5) for n in due]
    assert found.places.tolist() == [list(centre) for centre in centres]
    assert set(found.tile_index.tolist()) == {7}
    types = [found.s2.values, found.s1.values, found.s2.doy, found.s2.streams, found.s2.starts, found.places]
    assert [str(array.dtype) for array in types] == ["uint16", "int16", "uint16", "uint8", "int64", "int32"]


def test_a_sensor_without_frames() -> None:
    plain = some()
    blind = dataclasses.replace(
        plain,
        s1_asc=plain.s1_asc[:0],
        s1_asc_dates=plain.s1_asc_dates[:0],
        s1_desc=plain.s1_desc[:0],
        s1_desc_dates=plain.s1_desc_dates[:0],
    )
    found = select_pixels(blind, DataConfig(min_s2=1, min_s1=0), 0)
    assert len(found) == int(((plain.s2_mask.sum(axis=0) >= 1) & plain.requested).sum())
    assert found.s1.values.shape == (0, 2)
    assert not found.s1.starts.any()
    assert len(select_pixels(blind, DataConfig(min_s2=1, min_s1=1), 0)) == 0


def test_a_window_over_new_year_keeps_its_frames_in_the_order_of_dates() -> None:
    plain = some(most=3)
    dates = np.array(["2023-11-20", "2023-12-31", "2024-01-01", "2024-02-29"], "datetime64[D]")[: len(plain.s2)]
    found = select_pixels(
        dataclasses.replace(plain, s2_dates=dates, window=Window.from_name("20231101-20240430")), ALL, 0
    )
    whole = np.flatnonzero(found.s2.counts == 3)
    assert len(whole)
    for position in whole.tolist():
        assert [day for _, day, *_ in listed(found, position)[0]] == [324, 365, 1]


def splitmix(x: int) -> int:
    """The finaliser in Python's integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_keys_name_a_pixel_whatever_else_is_collected() -> None:
    dpixels = some()
    found = select_pixels(dpixels, ALL, 3)
    assert len(np.unique(found.keys)) == len(found)
    seed = int.from_bytes(hashlib.sha256(b"a_2024").digest()[:8], "little")
    due = {splitmix(seed ^ splitmix(n + 1)): n for n in range(600)}
    width = 30
    for key, (_, east, north) in zip(found.keys.tolist(), found.places.tolist(), strict=True):
        assert due[key] == (NORTH - north) // 10 * width + (east - EAST) // 10
    other_year = dataclasses.replace(dpixels, window=Window.from_name("2023"))
    assert not set(select_pixels(other_year, ALL, 3).keys.tolist()) & set(found.keys.tolist())
    strict = select_pixels(dpixels, DataConfig(min_s2=3, min_s1=3), 0)
    assert set(strict.keys.tolist()) < set(found.keys.tolist())


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["field",UNIT["metre",1]]'])
def test_pixels_of_a_tile_without_a_known_place_have_columns_and_rows(crs: str | None) -> None:
    tile = ForeignTile("x", (20, 30), crs, None if crs is None else Affine(10, 0, 1000, 0, -10, 9000))
    found = select_pixels(dataclasses.replace(some(), tile=tile, requested=np.ones((20, 30), bool)), ALL, 0)
    assert found.places.min(axis=0).tolist() == [0, 0, 0]
    assert found.places.max(axis=0).tolist() == [0, 29, 19]


def test_the_cap_keeps_a_fixed_random_choice() -> None:
    dpixels = some(shape=(40, 60))
    every = select_pixels(dpixels, ALL, 0)
    kept = [
        set(select_pixels(dpixels, ALL.model_copy(update={"pixels_per_tile": n}), 0).keys.tolist()) for n in (50, 300)
    ]
    assert [len(keys) for keys in kept] == [50, 300]
    assert kept[0] < kept[1] < set(every.keys.tolist())
    one = select_pixels(dpixels, ALL.model_copy(update={"pixels_per_tile": 300}), 0)
    assert_same(one, every.take(np.flatnonzero(np.isin(every.keys, one.keys))))
    rows = (NORTH - one.places[:, 2]) // 10  # an even choice: the mean of 300 rows of 0..39 is 19.5 +- 0.7
    assert abs(rows.mean() - 19.5) < 4 * 0.7
    assert_same(select_pixels(dpixels, ALL.model_copy(update={"pixels_per_tile": len(every)}), 0), every)


def test_the_cap_does_not_choose_the_first_shards(tmp_path: Path) -> None:
    """It hashes the same keys as the order of the shards: with the same hash, all would lie in the first buckets."""
    capped = ALL.model_copy(update={"pixels_per_tile": 200, "shard_pixels": 100})
    shards = build([stored(some("a", (40, 60))), stored(some("b", (8, 30)))], capped, tmp_path / "shards")
    assert shards.sizes.sum() == 200 + min(200, len(select_pixels(some("b", (8, 30)), ALL, 1)))
    first = [int((part.tile_index == 0).sum()) for part in shards.train]
    assert min(first) > 20  # of 50 on average in 4 shards; +- 5 at the most


def test_strata_are_dealt_evenly() -> None:
    rng = np.random.default_rng(0)
    order = rng.integers(0, 2**64, 400, dtype=np.uint64)
    strata = rng.choice(5, 400, p=[0.6, 0.3, 0.05, 0.04, 0.01])
    sizes = np.bincount(strata, minlength=5)
    for count in (1, 4, 17, 60, 200, 399):
        chosen = stratified_sample(order, strata, count)
        assert (np.diff(chosen) > 0).all()
        taken = np.bincount(strata[chosen], minlength=5)
        assert taken.sum() == count
        open_ended = taken[taken < sizes]  # those that could have given more gave equally
        assert np.ptp(open_ended) <= 1
        assert all(taken[taken == sizes] <= open_ended.max())
        for stratum in range(5):
            here = order[strata == stratum]
            assert sorted(order[chosen][strata[chosen] == stratum]) == sorted(here)[: taken[stratum]]


def test_the_cap_is_dealt_over_classes_of_mean_and_spread_of_ndvi() -> None:
    plain = some(shape=(40, 60), most=8)
    rng = np.random.default_rng(4)
    level, swing = rng.uniform(0, 0.8, (40, 60)) ** 2, rng.uniform(0, 0.35, (40, 60))
    ndvi = np.clip(level + swing * rng.choice([-1, 1], (len(plain.s2), 40, 60)), -0.4, 0.9)
    s2 = plain.s2.copy()
    s2[..., 0], s2[..., 3] = 1000, 1000 * (1 + ndvi) / (1 - ndvi)
    dpixels = dataclasses.replace(plain, s2=s2, requested=np.ones((40, 60), bool))
    every = select_pixels(dpixels, DataConfig(min_s2=1, min_s1=0), 0)
    values = every.s2.values.astype(np.float64)
    found = (values[:, 3] - values[:, 0]) / (values[:, 3] + values[:, 0])
    spans = [slice(*every.s2.starts[i : i + 2]) for i in range(len(every))]
    mean, std = (np.array([f(found[span]) for span in spans]) for f in (np.mean, np.std))
    classes = [
        (sum(m > edge for edge in (0.2, 0.4, 0.6)), sum(s > edge for edge in (0.1, 0.2)))
        for m, s in zip(mean, std, strict=True)
    ]
    capped = DataConfig(min_s2=1, min_s1=0, pixels_per_tile=240, stratify="greenness")
    chosen = np.isin(every.keys, select_pixels(dpixels, capped, 0).keys)
    assert chosen.sum() == 240
    have, taken = Counter(classes), Counter(one for one, kept in zip(classes, chosen, strict=True) if kept)
    assert len(have) == 12
    full = {one for one in have if taken[one] < have[one]}  # of which more was there than could be taken
    assert len(full) >= 8
    assert max(taken.values()) - min(taken[one] for one in full) <= 1
    without = select_pixels(dpixels, DataConfig(min_s2=1, min_s1=0, stratify="greenness"), 0)
    assert_same(without, every)  # nothing to choose without a cap


# Held out ------------------------------------------------------------------------------------------------------------


def at(places: np.ndarray, origins: int = 0) -> RaggedPixels:
    """Pixels at these places, without observations."""
    empty = select_pixels(some(), DataConfig(min_s2=99), 0)
    count = len(places)
    s2, s1 = (dataclasses.replace(series, starts=np.zeros(count + 1, np.int64)) for series in (empty.s2, empty.s1))
    return RaggedPixels(
        s2, s1, np.arange(count, dtype=np.uint64), places.astype(np.int32), np.full(count, origins, np.int32)
    )


def grid_of(zone: int, size: int, step: int, east: int = 0, north: int = 0) -> np.ndarray:
    rows, columns = np.divmod(np.arange(size * size), size)
    return np.stack([np.full(size * size, zone), east + step * columns, north + step * rows], axis=1)


@pytest.mark.parametrize(("zone", "step"), [(32631, 10), (0, 1)])
def test_squares_are_held_out_whole_and_as_often_as_asked(zone: int, step: int) -> None:
    block, size = 4, 400
    ragged = at(grid_of(zone, size, step))
    out = holdout_mask(ragged, 0.3, block)
    squares = out.reshape(size // block, block, size // block, block).swapaxes(1, 2).reshape(-1, block * block)
    assert (squares.all(axis=1) | ~squares.any(axis=1)).all()
    share = squares.any(axis=1).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(squares))
    neighbours = squares[:, 0].reshape(size // block, -1)
    both = (neighbours[:, 1:] & neighbours[:, :-1]).mean()  # independent of each other
    assert abs(both - 0.09) < 4 * np.sqrt(0.09 * 0.91 / len(squares))
    assert (holdout_mask(ragged, 0.2, block) <= out).all()
    assert not holdout_mask(ragged, 0.0, block).any()
    assert holdout_mask(ragged, 1.0, block).all()


def test_a_place_is_held_out_whatever_tile_or_year_shows_it() -> None:
    places = grid_of(32631, 64, 10, EAST + 5, NORTH + 5)
    whole = holdout_mask(at(places), 0.3, 32)
    some_of_them = np.flatnonzero(np.random.default_rng(0).random(len(places)) < 0.5)
    np.testing.assert_array_equal(holdout_mask(at(places[some_of_them], origins=9), 0.3, 32), whole[some_of_them])
    far = at(grid_of(32632, 400, 10))
    assert (holdout_mask(far, 0.3, 4) != holdout_mask(at(grid_of(32631, 400, 10)), 0.3, 4)).any()


def test_tiles_without_a_place_have_squares_of_their_own() -> None:
    places = grid_of(0, 400, 1)
    one, other = (holdout_mask(at(places, origins), 0.3, 4) for origins in (0, 1))
    assert abs((one & other).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / 1e4)


# Statistics ----------------------------------------------------------------------------------------------------------


def tallied(*parts: RaggedPixels) -> Statistics:
    statistics = BandStatistics()
    for part in parts:
        statistics.add(part)
    return statistics.statistics()


def test_statistics_are_those_of_all_observations_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [select_pixels(dpixels, ALL, 0) for dpixels in THREE]
    monkeypatch.setattr("tessera_cli.pretraining.data.statistics._ROWS", 1000)
    found = tallied(*parts)
    every = concatenated(parts)
    for stream, values in (
        ("s2", every.s2.values),
        ("s1_asc", every.s1.values[every.s1.streams == 0]),
        ("s1_desc", every.s1.values[every.s1.streams == 1]),
    ):
        wide = values.astype(np.float64)
        np.testing.assert_allclose(getattr(found, f"{stream}_mean"), wide.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(getattr(found, f"{stream}_std"), wide.std(axis=0), rtol=1e-12)
    assert tallied(*parts[::-1]) == found
    monkeypatch.undo()
    assert tallied(every) == found


def test_statistics_do_not_lose_a_small_spread_beside_a_large_mean() -> None:
    ragged = select_pixels(THREE[0], ALL, 0)
    values = np.full((len(ragged.s2.values), 10), 65535, np.uint16)
    values[0] = 65534
    n = len(values)
    found = tallied(dataclasses.replace(ragged, s2=dataclasses.replace(ragged.s2, values=values)))
    np.testing.assert_allclose(found.s2_std, np.sqrt((n - 1) / n**2), rtol=1e-14)


def test_what_was_never_seen_takes_other_statistics(caplog: pytest.LogCaptureFixture) -> None:
    ragged = select_pixels(THREE[0], ALL, 0)
    descending = select_pixels(THREE[0].without_ascending(), ALL, 0)
    found = tallied(descending)
    assert found.s1_asc_mean == found.s1_desc_mean == tallied(ragged).s1_desc_mean
    assert found.s1_asc_std == found.s1_desc_std
    assert not caplog.records
    optical = dataclasses.replace(ragged, s1=select_pixels(THREE[0], DataConfig(min_s2=99), 0).s1)
    assert tallied(optical).s1_desc_std == V2_STUDENT_STATISTICS.s1_desc_std
    assert "s1_asc" in caplog.text
    assert "s1_desc" in caplog.text
    caplog.clear()
    ragged.s2.values[:, 8] = 500
    found = tallied(ragged)
    assert (found.s2_mean[8], found.s2_std[8]) == (V2_STUDENT_STATISTICS.s2_mean[8], V2_STUDENT_STATISTICS.s2_std[8])
    assert found.s2_mean[7] != V2_STUDENT_STATISTICS.s2_mean[7]
    assert "B11 of s2 is always 500" in caplog.text


# Building ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that no test may change."""
    return build([stored(dpixels) for dpixels in THREE], SMALL, tmp_path_factory.mktemp("built") / "shards").path


@pytest.fixture
def folder(tmp_path: Path, built: Path) -> Path:
    """Shards to damage."""
    return Path(shutil.copytree(built, tmp_path / "shards"))


def test_every_pixel_is_in_the_shards_once_as_it_was_collected(built: Path) -> None:
    shards = Shards.open(built)
    due = concatenated([select_pixels(dpixels, SMALL, origin) for origin, dpixels in enumerate(THREE)])
    position = {key: number for number, key in enumerate(due.keys.tolist())}
    out = holdout_mask(due, 0.2, 4)
    for part, held in ((concatenated(shards.train), False), (shards.holdout, True)):
        numbers = np.array([position.pop(key) for key in part.keys.tolist()])
        assert_same(part, due.take(numbers))
        assert (out[numbers] == held).all()
    assert not position
    assert shards.statistics == tallied(concatenated(shards.train))
    counts = shards.header["counts"]
    asked = sum(int(dpixels.requested.sum()) for dpixels in THREE)
    trained = shards.pixels
    assert (counts["trained"], counts["held_out"]) == (trained, len(shards.holdout))
    assert counts["left_out"] == asked - len(due)
    assert counts["observations"]["s2"] == sum(len(part.s2.doy) for part in shards.train)
    origins = shards.header["origins"]
    assert [(o["name"], o["pixels"]) for o in origins] == [
        (f"{name}_2024", int((due.tile_index == number).sum())) for number, name in enumerate("abc")
    ]
    assert shards.header["sources"] == ["mpc"]


def test_shards_are_equally_large_and_hold_pixels_of_all_tiles(built: Path) -> None:
    shards = Shards.open(built)
    assert len(shards.train) == round(shards.pixels / 150)
    assert np.ptp(shards.sizes) <= 1
    everything = np.concatenate([part.tile_index for part in shards.train])
    for tile in range(3):
        share = (everything == tile).mean()
        for part in shards.train:  # hypergeometric
            n, rest = len(part), (len(everything) - len(part)) / (len(everything) - 1)
            deviation = np.sqrt(share * (1 - share) / n * rest)
            assert abs((part.tile_index == tile).mean() - share) < 4.5 * deviation
    runs = np.count_nonzero(np.diff(everything)) / (len(everything) - 1)  # neighbours are of one tile by chance only
    shares = np.bincount(everything) / len(everything)
    assert abs(runs - (1 - (shares**2).sum())) < 4.5 / (2 * np.sqrt(len(everything)))
    rows = np.concatenate([part.places[part.tile_index == 0][:, 2] for part in shards.train])
    assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 4.5 / np.sqrt(len(rows))


def test_the_order_of_stores_and_the_number_of_buckets_change_no_byte(tmp_path: Path, built: Path) -> None:
    again = build([stored(THREE[number]) for number in (2, 0, 1)], SMALL, tmp_path / "again")
    assert files_of(again.path) == files_of(built)
    padded = [dataclasses.replace(dpixels, requested=np.ones_like(dpixels.requested)) for dpixels in THREE]
    few = ALL.model_copy(update={"pixels_per_tile": 100, "shard_pixels": 150})
    one, other = (
        build([stored(dpixels) for dpixels in padded], few.model_copy(update={"pixels_per_tile": cap}), tmp_path / name)
        for cap, name in ((100, "one"), (0, "other"))
    )
    whole, part = (concatenated(shards.train) for shards in (other, one))
    assert_same(whole.take(np.flatnonzero(np.isin(whole.keys, part.keys))), part)  # the order is that of the pixels


def test_pixels_are_gathered_by_number(built: Path) -> None:
    shards = Shards.open(built)
    every = concatenated(shards.train)
    rng = np.random.default_rng(0)
    for numbers in (rng.integers(0, shards.pixels, 500), np.array([shards.pixels - 1, 0, 0]), np.arange(shards.pixels)):
        assert_same(shards.gather(numbers), every.take(numbers))
    assert len(shards.gather(np.empty(0, np.int64))) == 0


def test_the_layout(built: Path) -> None:
    shards = Shards.open(built)
    names = sorted(path.name for path in built.iterdir())
    assert names == ["header.json", "held", *(f"train-{number:05d}" for number in range(len(shards.train)))]
    header = json.loads((built / "header.json").read_text())
    assert header["bands"]["s2"][:3] == ["B04", "B02", "B03"]
    assert "statistics" not in header["settings"]
    assert header["digest"] == shards.digest
    first = np.load(built / "train-00000" / "s2.npy")
    assert (first.dtype, first.shape) == (np.uint16, (len(shards.train[0].s2.doy), 10))
    every = concatenated([*shards.train, shards.holdout])
    sizes = sum(entry["bytes"] for name, entry in header["files"].items())
    heads = 128 * len(header["files"]) + 16 * (len(shards.train) + 1)
    assert sizes == heads + 22 * len(every.s2.doy) + 7 * len(every.s1.doy) + 40 * len(every)
    with pytest.raises(ValueError, match="read-only"):
        shards.train[0].s2.values[0] = 0


def test_nothing_held_out_is_said_and_can_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = SMALL.model_copy(update={"holdout": 1e-9})
    shards = build([stored(THREE[0])], config, tmp_path / "shards")
    assert "no pixel is held out" in caplog.text
    assert len(Shards.open(shards.path).holdout) == 0


def test_progress_rises_to_its_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build([stored(dpixels) for dpixels in THREE], SMALL, tmp_path / "s", progress=lambda *step: told.append(step))
    end = told[-1][1]
    assert told == [(done, end) for done in range(1, end + 1)]
    assert end > 6


def test_official_folders_and_stores_are_read_from_disk(tmp_path: Path) -> None:
    for dpixels in THREE:
        write_folder(tmp_path / "dpixels", dataclasses.replace(dpixels, window=None, source=None))
    shards = build(find_stores([tmp_path / "dpixels"]), SMALL, tmp_path / "shards")
    due = concatenated([select_pixels(dpixels, SMALL, 0) for dpixels in THREE])
    assert shards.pixels + len(shards.holdout) == len(due)
    assert shards.header["sources"] == []
    assert sorted(map(tuple, concatenated([*shards.train, shards.holdout]).places.tolist())) == sorted(
        map(tuple, due.places.tolist())
    )


# What cannot be built ------------------------------------------------------------------------------------------------

WITHOUT_PIXELS = dataclasses.replace(THREE[1], requested=np.zeros_like(THREE[1].requested))
CORRECTED = dataclasses.replace(THREE[1], preprocessing="corrected")
OPERA = dataclasses.replace(THREE[1], source="aws")


@pytest.mark.parametrize(
    ("given", "changes", "error", "said"),
    [
        ([], {}, UsageError, "no d-pixels"),
        ([THREE[0], CORRECTED], {}, UsageError, "preprocessing is official in /stores/a_2024 and corrected in"),
        ([THREE[0], OPERA], {}, UsageError, "source is mpc in /stores/a_2024 and aws in /stores/b_2024"),
        ([THREE[0], THREE[0]], {}, UsageError, "are both a_2024"),
        ([WITHOUT_PIXELS], {}, NothingToEmbedError, "None of the pixels"),
        ([THREE[0]], {"min_s2": 99}, NothingToEmbedError, "99 or more clear Sentinel-2"),
        ([THREE[0]], {"pixels_per_tile": 1, "holdout": 0.0}, NothingToEmbedError, "1 of the pixels"),
        ([THREE[0]], {"holdout": 1.0}, NothingToEmbedError, "are held out"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    tmp_path: Path, given: list[DPixels], changes: dict[str, Any], error: type[TesseraError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        build([stored(dpixels) for dpixels in given], SMALL.model_copy(update=changes), tmp_path / "shards")
    assert_one_line(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_say_its_source_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent = dataclasses.replace(THREE[1], source=None)
    shards = build([stored(THREE[0]), stored(silent)], SMALL, tmp_path / "shards")
    assert "b_2024 does not say its source" in caplog.text
    assert shards.header["sources"] == ["mpc"]


def test_a_store_whose_bands_were_renamed_is_refused(tmp_path: Path) -> None:
    shape, dates = (1, 512, 512), some().s2_dates[:1]
    plain = dataclasses.replace(
        some(),
        tile=Tile(32631, 112, 1098),
        requested=np.ones(shape[1:], bool),
        s2_mask=np.ones(shape, np.uint8),
        s2=np.ones((*shape, 10), np.uint16),
        s1_asc=np.ones((*shape, 2), np.int16),
        s1_desc=np.ones((*shape, 2), np.int16),
        s2_dates=dates,
        s1_asc_dates=dates,
        s1_desc_dates=dates,
    )
    store = write_store(tmp_path, plain)
    bands = zarr.open_group(store, mode="r+")["s2"]
    bands.attrs["bands"] = sorted(bands.attrs["bands"])
    with pytest.raises(TileError, match="s2 holds other bands than B04, B02") as caught:
        build(find_stores([store]), ALL, tmp_path / "shards")
    assert_one_line(caught.value)
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda bands: bands[..., :9],
        lambda bands: np.where(bands > 5000, np.nan, bands.astype(np.float32)),
    ],
)
def test_folders_with_other_bands_or_nan_are_refused(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    folder = write_folder(tmp_path, dataclasses.replace(THREE[0], window=None))
    np.save(folder / "bands.npy", change(np.load(folder / "bands.npy")))
    with pytest.raises(UsageError, match=r"bands\.npy does not fit") as caught:
        build(find_stores([folder]), SMALL, tmp_path / "shards")
    assert_one_line(caught.value)


def test_a_damaged_tile_stops_the_build_and_leaves_nothing(tmp_path: Path) -> None:
    def broken(_: Path) -> DPixels:
        raise TileError("b_2024 is damaged: no. Fetch the tile again.")

    stores = [stored(THREE[0]), dataclasses.replace(stored(THREE[1]), load=broken), stored(THREE[2])]
    with pytest.raises(TileError, match="b_2024 is damaged"):
        build(stores, SMALL, tmp_path / "shards")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError, match="the disk is full") as caught:
        build([stored(THREE[0])], SMALL, tmp_path / "shards")
    assert_one_line(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_the_system_cuts_short_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(TileError, match="cannot be written: File too large") as caught:
            build([stored(THREE[0])], SMALL, tmp_path / "shards")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_one_line(caught.value)
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for attempt in (build, open_or_build):
        with pytest.raises(UsageError, match="holds something else") as caught:
            attempt([stored(THREE[0])], SMALL, tmp_path)
        assert_one_line(caught.value)
    (tmp_path / "header.json").write_text('{"content": "something else"}')
    for attempt in (build, open_or_build):
        with pytest.raises(UsageError):
            attempt([stored(THREE[0])], SMALL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["header.json", "notes.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TileError, match="a file of this name is there"):
        open_or_build([stored(THREE[0])], SMALL, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_shards_are_never_replaced(folder: Path) -> None:
    before = files_of(folder)
    with pytest.raises(UsageError, match="holds something else"):
        build([stored(THREE[0])], SMALL, folder)
    assert files_of(folder) == before


# Shards that are there -----------------------------------------------------------------------------------------------


def unread(dpixels: DPixels, **changes: Any) -> Stored:
    """A store that must not be read."""

    def load(_: Path) -> DPixels:
        raise AssertionError("read")

    return dataclasses.replace(stored(dpixels), load=load, **changes)


def test_shards_are_built_once(tmp_path: Path, built: Path) -> None:
    made = open_or_build([stored(dpixels) for dpixels in THREE], SMALL, tmp_path / "shards")
    assert made.digest == Shards.open(built).digest
    for config in (SMALL, SMALL.model_copy(update={"statistics": "v2-nano"})):  # which concern training alone
        again = open_or_build([unread(dpixels) for dpixels in THREE[::-1]], config, made.path)
        assert again.digest == made.digest
    assert open_or_build([], SMALL, made.path).digest == made.digest
    with pytest.raises(IdentityError, match=r"data\.holdout is 0\.2 there and 0\.1 here"):
        open_or_build([], SMALL.model_copy(update={"holdout": 0.1}), made.path)


@pytest.mark.parametrize(
    ("given", "changes", "said"),
    [
        ([unread(d) for d in THREE], {"min_s2": 3}, "data.min_s2 is 2 there and 3 here"),
        ([unread(d) for d in THREE[:2]], {}, r"there are other tiles as well \(c_2024\)"),
        ([unread(d) for d in [*THREE, some("d")]], {}, r"tiles are missing there \(d_2024\)"),
        ([*map(unread, THREE[:2]), unread(THREE[2], input_digest="x")], {}, r"changed since \(c_2024\)"),
    ],
)
def test_shards_of_other_pixels_are_refused(
    built: Path, given: list[Stored], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(IdentityError, match=said) as caught:
        open_or_build(given, SMALL.model_copy(update=changes), built)
    assert_one_line(caught.value)


def test_the_digest_is_that_of_the_contents(tmp_path: Path, built: Path) -> None:
    due = Shards.open(built).digest
    touched = [stored(dpixels, digest="copied") for dpixels in THREE]
    assert build(touched, SMALL, tmp_path / "touched").digest == due
    one = dataclasses.replace(THREE[0], s2=THREE[0].s2 + np.uint16(1))
    assert build([stored(d) for d in (one, *THREE[1:])], SMALL, tmp_path / "other").digest != due


def edited(change: Callable[[dict[str, Any]], Any], *, sealed: bool = False) -> Callable[[Path], None]:
    """The header, changed; with a digest that fits again if it is to be `sealed`."""

    def damage(folder: Path) -> None:
        header = json.loads((folder / "header.json").read_text())
        change(header)
        if sealed:
            header["digest"] = digest_of(header)
        (folder / "header.json").write_text(json.dumps(header))

    return damage


def replaced(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """An array, changed in a way that no checksum shows."""

    def damage(folder: Path) -> None:
        np.save(folder / file, change(np.load(folder / file)))

        def seal(header: dict[str, Any]) -> None:
            data = (folder / file).read_bytes()
            header["files"][file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        edited(seal, sealed=True)(folder)

    return damage


def cut(folder: Path) -> None:
    file = folder / "train-00001" / "s2.npy"
    file.write_bytes(file.read_bytes()[:-1])


def with_last(values: np.ndarray, last: int) -> np.ndarray:
    return np.append(values[:-1], np.array([last], values.dtype))


DAMAGES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda folder: (folder / "held" / "keys.npy").unlink(), "held/keys.npy is missing"),
    "shard missing": (lambda folder: shutil.rmtree(folder / "train-00002"), "train-00002/keys.npy is missing"),
    "truncated": (cut, "train-00001/s2.npy has [0-9]+ bytes, not"),
    "header gone": (lambda folder: (folder / "header.json").unlink(), "its header.json cannot be read"),
    "header cut": (lambda folder: (folder / "header.json").write_text('{"content"'), "is not JSON"),
    "header of another": (edited(lambda header: header.update(content="x")), "another program's"),
    "newer format": (edited(lambda header: header.update(format=2)), "version 2 of the format"),
    "statistics edited": (edited(lambda header: header["statistics"]["s2_mean"].reverse()), "its digest does not fit"),
    "counts edited": (edited(lambda header: header["counts"].update(trained=1)), "its digest does not fit"),
    "digest gone": (edited(lambda header: header.pop("digest")), "its digest does not fit"),
    "other bands": (edited(lambda header: header["bands"]["s2"].sort(), sealed=True), "bands are in the order"),
    "another type": (replaced("train-00000/s1.npy", lambda a: a.astype(np.int32)), "s1.npy is int32"),
    "another shape": (replaced("train-00000/places.npy", lambda a: a[:, :2]), "places.npy is int32"),
    "fewer rows": (replaced("train-00000/s2.npy", lambda a: a[:-1]), "s2.npy is uint16"),
    "starts that end early": (
        replaced("train-00000/s1_starts.npy", lambda a: with_last(a, a[-2])),
        "s1_starts.npy does not rise from 0 to",
    ),
    "starts that fall": (
        replaced("held/s2_starts.npy", lambda a: np.concatenate([a[:1], a[-2:0:-1], a[-1:]])),
        "s2_starts.npy does not rise",
    ),
}
UNSEEN: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "day 0": (replaced("held/s2_doy.npy", lambda a: with_last(a, 0)), "s2_doy.npy holds numbers outside 1 to 366"),
    "day 367": (replaced("held/s1_doy.npy", lambda a: with_last(a, 367)), "s1_doy.npy holds numbers outside 1 to 366"),
    "a third orbit": (replaced("held/s1_streams.npy", lambda a: with_last(a, 2)), "outside 0 to 1"),
    "an unknown origin": (replaced("held/origins.npy", lambda a: with_last(a, 3)), "outside 0 to 2"),
}
"""Damages that only reading everything shows."""


@pytest.mark.parametrize("damage", DAMAGES | UNSEEN)
def test_damaged_shards_are_refused(folder: Path, damage: str) -> None:
    change, said = (DAMAGES | UNSEEN)[damage]
    change(folder)
    for verify in (True, False) if damage in DAMAGES else (True,):
        with pytest.raises(UsageError, match=said) as caught:
            Shards.open(folder, verify=verify)
        assert str(caught.value).startswith(str(folder))
        assert_one_line(caught.value)


@pytest.mark.parametrize("file", ["train-00000/s2.npy", "train-00003/s1_doy.npy", "held/keys.npy"])
def test_one_flipped_bit_is_found(folder: Path, file: str) -> None:
    data = bytearray((folder / file).read_bytes())
    data[-7] ^= 4
    (folder / file).write_bytes(data)
    with pytest.raises(UsageError, match=f"{file} was changed: its checksum does not fit"):
        Shards.open(folder)
    with pytest.raises(UsageError, match="its checksum does not fit"):
        open_or_build([unread(dpixels) for dpixels in THREE], SMALL, folder)
    Shards.open(folder, verify=False)


def test_no_folder_has_no_shards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder") as caught:
        Shards.open(tmp_path / "nowhere")
    assert_one_line(caught.value)


def test_too_many_files_are_no_damage(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, before[1]))
    try:
        with pytest.raises(UsageError, match=r"Too many open files.*ulimit -n") as caught:
            Shards.open(folder, verify=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert_one_line(caught.value)
