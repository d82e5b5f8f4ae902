"""What is said of a map: parcels left out with their blocks, exact intervals."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_cli.evaluation.mapping.accuracy import accuracy, out_of_fold, share, split_of
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.learning.splits import grouped


def samples(x, y, lonlat, parcels, task="classification", classes=("a", "b")):
    return LabelledSamples(
        task, "pixel", (FeatureSet("f", "embedding", np.asarray(x, np.float32)),), y, classes, lonlat, parcels, parcels
    )


def test_exact_intervals_in_closed_form():
    """All of n right: the lower end is (alpha / 2) ** (1 / n); none right: the mirror image."""
    found = share(np.ones(20, bool))
    assert (found["low"], found["high"]) == (pytest.approx(0.025 ** (1 / 20)), 1)
    assert share(np.zeros(20, bool))["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert share(np.zeros(0, bool))["accuracy"] is None


def test_parcels_vote_and_count_once():
    parcels = np.array([0, 0, 0, 1, 1, 2])
    truth, found = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0])
    told = accuracy(samples(np.zeros((6, 1)), truth, np.zeros((6, 2)), parcels), found)
    assert (told["overall"]["right"], told["overall"]["of"]) == (2, 3)
    assert told["pixel_accuracy"] == pytest.approx(4 / 6)
    assert told["confusion"] == [[1, 0], [1, 1]]
    assert [each["producers"]["accuracy"] for each in told["classes"]] == [1, 0.5]
    assert [each["users"]["accuracy"] for each in told["classes"]] == [0.5, 1]


def test_values_in_closed_form():
    y, found = np.array([1.0, 2, 3, 6]), np.array([2.0, 2, 3, 4])
    told = accuracy(samples(np.zeros((4, 1)), y, np.zeros((4, 2)), np.arange(4), "regression", ()), found)
    assert told["rmse"] == pytest.approx(np.sqrt(5 / 4))
    assert told["mae"] == pytest.approx(3 / 4)
    assert told["bias"] == pytest.approx(-1 / 4)
    assert told["r2"] == pytest.approx(1 - 5 / 14)


def test_what_only_a_neighbour_in_the_block_knows_is_not_predicted():
    """Features name the block, and blocks have classes at random: the model of a random split would be right."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(40), 25)
    y = rng.integers(0, 2, 40)[blocks]
    x = rng.standard_normal((40, 8))[blocks] + 0.01 * rng.standard_normal((1000, 8))
    lonlat = np.stack([5 + 0.1 * blocks, np.full(1000, 50.0)], axis=1) + rng.uniform(0, 0.002, (1000, 2))
    given = samples(x, y, lonlat, np.arange(1000))
    split = split_of(given, 1000, 0)
    assert split.kind == "blocked"
    told = out_of_fold(given, split, "knn", seed=0, threads=1)
    mixed = out_of_fold(given, grouped(np.arange(1000), y), "knn", seed=0, threads=1)
    assert (mixed == y).mean() > 0.99
    assert (told == y).mean() < 0.75


def test_labels_of_one_block_tell_nothing(caplog):
    given = samples(np.zeros((9, 1)), np.arange(9) % 2, np.full((9, 2), 5.0), np.arange(9))
    assert split_of(given, 1000, 0) is None
    assert "how right the map is cannot be estimated" in caplog.text
