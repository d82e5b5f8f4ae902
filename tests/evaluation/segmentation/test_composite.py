"""Raw composites against numpy's medians."""

from __future__ import annotations

import numpy as np

from tessera_cli.evaluation.segmentation.composite import NONE, _medians, values


def test_medians_are_numpys():
    rng = np.random.default_rng(0)
    observations = rng.integers(-3000, 12000, (7, 5, 6)).astype(np.int16)
    there = rng.random((7, 5, 6)) < 0.5
    there[:, 0, 0] = False
    there[:, 1, 1] = True
    known = there.any(axis=0)
    expected = np.full((5, 6), np.nan)
    for row, column in np.argwhere(known):
        expected[row, column] = np.floor(np.median(observations[there[:, row, column], row, column]))
    found = _medians(observations, there)
    assert np.array_equal(found == NONE, ~known)
    assert np.array_equal(found[known], expected[known])
    assert (_medians(observations[:0], there[:0]) == NONE).all()


def test_what_was_not_observed_is_nan():
    kept = np.array([[[3, NONE]]], np.int16)
    assert np.array_equal(values(kept, (slice(0, 1), slice(0, 2))), [[[3, np.nan]]], equal_nan=True)
