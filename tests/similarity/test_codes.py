"""Short codes: against numpy's singular vectors, and what their cosines are off by."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_cli.similarity.codes import Codes, quantised

RNG = np.random.default_rng(5)


def vectors(count: int, dims: int, rank: int, noise: float = 0.01) -> np.ndarray:
    made = RNG.normal(size=(count, rank)) @ RNG.normal(size=(rank, dims)) + 2 * RNG.normal(size=dims)
    return (made + noise * RNG.normal(size=made.shape)) * RNG.lognormal(size=(count, 1))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("dims", "count"), [(128, 16), (40, 16), (9, 9), (2, 2), (1, 1)])
def test_axes_are_singular_vectors_without_a_mean_taken_away(dims: int, count: int) -> None:
    sample = vectors(3000, dims, 30)
    found = Codes.of(sample)
    assert found.axes.shape == (count, dims)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(count), atol=1e-9)
    _, lengths, due = np.linalg.svd(unit(sample), full_matrices=False)
    np.testing.assert_allclose(np.abs((found.axes * due[:count]).sum(axis=1)), 1, atol=1e-6)
    assert found.kept == pytest.approx((lengths[:count] ** 2).sum() / (lengths**2).sum())


def test_cosines_are_off_by_what_is_told() -> None:
    sample = vectors(4000, 128, 12)
    found = Codes.of(sample[:2000])
    codes = found.encode(sample[2000:].T.reshape(128, 40, 50).astype(np.float32), None)
    short, whole = unit(codes.reshape(16, -1).T.astype(float)), unit(sample[2000:])
    away = np.abs(short @ short.T - whole @ whole.T)
    assert away.mean() == pytest.approx(found.difference[0], rel=0.1)
    assert np.percentile(away, 99) == pytest.approx(found.difference[1], rel=0.15)
    assert away.max() < 0.02
    assert found.kept > 0.999
    np.testing.assert_allclose(found.project(sample[2000:]), short, atol=0.02)


def test_scales_and_gaps() -> None:
    sample = vectors(500, 24, 5)
    found = Codes.of(sample)
    scales = (np.abs(sample).max(axis=1) / 127).astype(np.float32).reshape(20, 25)
    stored = np.rint(sample / scales.reshape(-1, 1)).astype(np.int8).T.reshape(24, 20, 25)
    codes = found.encode(stored, scales)
    assert codes.dtype == np.int8
    assert (np.abs(codes).max(axis=0) == 127).all()
    scales[3, 4], stored[:, 3, 4] = np.nan, -128
    again = found.encode(stored, scales)
    assert not again[:, 3, 4].any()
    again[:, 3, 4] = codes[:, 3, 4]
    np.testing.assert_array_equal(again, codes)


def test_no_direction_is_no_code() -> None:
    assert not quantised(np.zeros((3, 16))).any()
    assert quantised(np.array([[1e-30, -4e-30]])).tolist() == [[32, -127]]
