"""What is taken away, and what is said of it, on constructed pixels."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from tessera_cli.evaluation.baselines import shipped_encoder
from tessera_cli.evaluation.robustness import cosines, robustness
from tessera_cli.evaluation.thinning import applied, fewer_dates, later_start, one_orbit, variants, without_season
from tessera_cli.extent.window import Window
from tessera_cli.series.encode import encode_series
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.encoders import random_model
from tests.helpers.ragged import pixels_of, random_pixels

YEAR = Window.from_name("2023")
ACROSS = Window(dt.date(2022, 10, 1), dt.date(2023, 9, 30))


def rows(series, pixel):
    at = slice(series.starts[pixel], series.starts[pixel + 1])
    return set(zip(series.doy[at].tolist(), series.streams[at].tolist(), strict=True))


def test_fewer_dates_are_nested_draws_of_each_pixel():
    pixels = random_pixels(200, most=25)
    some, fewer = (fewer_dates(pixels, dates, seed=3) for dates in (10, 4))
    for modality in ("s2", "s1"):
        full = pixels.series(modality)
        assert some.series(modality).counts.tolist() == np.minimum(full.counts, 10).tolist()
        for pixel in range(200):
            a, b, c = (rows(each.series(modality), pixel) for each in (fewer, some, pixels))
            assert a <= b <= c
    alone = fewer_dates(pixels.take(np.array([17])), 4, seed=3)
    assert rows(alone.s2, 0) == rows(fewer.s2, 17)
    many = int(pixels.s2.counts.argmax())
    assert rows(fewer_dates(pixels, 4, seed=4).s2, many) != rows(fewer.s2, many)
    kept = np.zeros(366)
    np.add.at(kept, some.s2.doy, 1)
    assert kept[:183].sum() / kept.sum() == pytest.approx(0.5, abs=0.05)


def test_what_each_variant_leaves():
    s2 = [[(15, 1), (105, 2), (196, 3), (288, 4), (350, 5)]]  # January, April, July, October, December
    pixels = pixels_of(s2, [[(40, 7), (200, 8)]], [[(41, 9)]])
    assert without_season(pixels, YEAR, 0).s2.doy.tolist() == [105, 196, 288]
    assert without_season(pixels, YEAR, 2).s1.doy.tolist() == [40, 41]
    assert one_orbit(pixels, 1).s1.values[:, 0].tolist() == [9]
    assert later_start(pixels, YEAR, 30).s2.doy.tolist() == [105, 196, 288, 350]
    across = pixels_of([[(288, 1), (350, 2), (15, 3), (105, 4)]])
    assert later_start(across, ACROSS, 30).s2.doy.tolist() == [350, 15, 105]
    names = [each.name for each in variants(pixels, YEAR)]
    assert names == [
        *("no radar", "only ascending", "only descending", "no winter", "no spring", "no summer", "no autumn"),
        *("30 days later", "60 days later"),
    ]
    by_name = {each.name: applied(each, pixels, YEAR) for each in variants(pixels, YEAR)}
    assert len(by_name["no radar"].s1.doy) == 0
    assert by_name["no radar"].s2.doy.tolist() == pixels.s2.doy.tolist()
    assert by_name["no spring"].s2.values[:, 0].tolist() == [1, 3, 4, 5]
    twelve = pixels_of([[(day, 1) for day in range(1, 13)]])
    assert [each.name for each in variants(twelve, YEAR)] == ["5 dates", "10 dates", "30 days later", "60 days later"]


def mean_bands(pixels, window):
    """An encoder of two numbers: the mean of the bands, and the number of radar observations."""
    counts = pixels.s2.counts
    sums = np.add.reduceat(np.append(pixels.s2.values[:, 0].astype(float), 0), pixels.s2.starts[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(counts > 0, sums / counts, np.nan)
    return np.stack([mean, pixels.s1.counts], axis=1).astype(np.float32)


def accuracy(targets, predicted):
    return float((targets == predicted).mean())


def test_scores_and_cosines_of_an_encoder_that_is_known():
    # class 1 is dark but in summer, class 0 always; only summer tells them apart, and radar turns the vector
    dark = [(15, 100), (105, 100), (288, 100)]
    s2 = [[*dark[:2], (196, 100), dark[2]], [*dark[:2], (196, 2100), dark[2]], [(196, 900)]] * 4
    asc = [[(40, 7)], [(40, 7)], [(40, 7)]] * 4
    pixels, targets = pixels_of(s2, asc), np.array([0, 1, 1] * 4)
    told = []
    made = robustness(
        pixels,
        YEAR,
        targets,
        encode=mean_bands,
        predict=lambda values: (values[:, 0] > 300).astype(int),
        score=accuracy,
        progress=lambda *done: told.append(done),
    )
    by_name = {each.variant: each for each in made}
    assert list(by_name) == [
        "all",
        "no radar",
        "no winter",
        "no spring",
        "no summer",
        "no autumn",
        "30 days later",
        "60 days later",
    ]
    assert told[-1] == (8, 8)
    assert (by_name["all"].samples, by_name["all"].score, by_name["all"].cosine) == (12, 1.0, pytest.approx(1.0))
    summer = by_name["no summer"]
    assert (summer.samples, summer.lost, summer.score, summer.reference) == (8, 4, 0.5, 1.0)
    assert by_name["no winter"].score == 1.0
    full = np.array([[100.0, 1], [600, 1], [900, 1]])
    due = [np.dot(a, [a[0], 0]) / np.linalg.norm(a) / a[0] for a in full]
    assert by_name["no radar"].cosine == pytest.approx(np.mean(due), rel=1e-6)
    assert by_name["30 days later"].to_dict()["value"] == 30
    assert by_name["no summer"].to_dict()["value"] is None


def test_a_later_window_is_taken_where_it_is_there():
    pixels = pixels_of([[(15, 100), (196, 100)]])
    later = pixels_of([[(196, 500), (10, 500)]])
    window = Window(dt.date(2023, 1, 31), dt.date(2024, 1, 30))
    seen = []

    def encode(some, of):
        seen.append((of, some.s2.values[0, 0]))
        return mean_bands(some, of)

    def zero(values):
        return np.zeros(len(values))

    made = robustness(
        pixels, YEAR, np.zeros(1), encode=encode, predict=zero, score=accuracy, later={30: (later, window)}
    )
    assert (window, 500) in seen
    assert [each.variant for each in made][-2:] == ["30 days later", "60 days later"]
    assert made[-1].samples == 1


def test_nothing_left_is_said():
    pixels = pixels_of([[(15, 100)]], [[(196, 4)]])
    made = robustness(pixels, YEAR, np.zeros(1), encode=mean_bands, predict=lambda v: v[:, 1], score=accuracy)
    row = next(each for each in made if each.variant == "no winter")
    assert (row.samples, row.lost) == (0, 1)
    assert row.to_dict()["score"] is None


def test_an_encoder_is_scored_as_it_is_shipped():
    pixels, model = random_pixels(30, seed=2), random_model(VARIANTS["v2-student"].config)
    encode = shipped_encoder(model)
    full = encode(pixels, YEAR)
    np.testing.assert_array_equal(full, encode_series(pixels, YEAR, model, quantiser="v2").floats())
    side = full[:, 0] > np.nanmedian(full[:, 0])
    made = robustness(
        pixels, YEAR, side, encode=encode, predict=lambda v: v[:, 0] > np.nanmedian(full[:, 0]), score=accuracy, seed=5
    )
    by_name = {each.variant: each for each in made}
    assert by_name["all"].cosine == pytest.approx(1.0)
    assert by_name["5 dates"].cosine < by_name["20 dates"].cosine < 1
    assert all(each.reference == 1.0 for each in made)
    assert min(each.score for each in made) < 1


def test_cosines_of_rows():
    one = np.array([[1, 0], [3, 4], [0, 0]], np.float32)
    other = np.array([[1, 1], [-3, -4], [1, 1]], np.float32)
    np.testing.assert_allclose(cosines(one, other), [np.sqrt(0.5), -1, 0])
