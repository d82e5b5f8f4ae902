"""int8 codes and scales."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_cli.errors import TileError
from tessera_cli.models.quantise import dequantise, quantise


@pytest.mark.parametrize(("rule", "zero_scale"), [("v2", 1e-12 / 127), ("v1", 1e-8)])
def test_rules(rule: str, zero_scale: float) -> None:
    values = np.array([[0, 0, 0], [127, 0.5, -1.5], [-254, 5, 3], [2.5, 127, -127]], np.float32)
    codes, scales = quantise(values, rule)  # type: ignore[arg-type]
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)
    np.testing.assert_array_equal(scales, np.array([zero_scale, 1, 2, 1], np.float32))
    np.testing.assert_array_equal(codes, [[0, 0, 0], [127, 0, -2], [-127, 2, 2], [2, 127, -127]])  # half to even


@pytest.mark.parametrize("rule", ["v1", "v2"])
def test_round_trip_stays_within_half_a_step(rule: str) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(40000, 16)) * 10.0 ** rng.integers(-4, 5, (40000, 1))).astype(np.float32)
    codes, scales = quantise(values, rule)  # type: ignore[arg-type]
    assert codes.min() >= -127  # -128 is free for "no data"
    assert (np.abs(dequantise(codes, scales) - values) <= scales[:, None] * 0.50001).all()


def test_pixels_do_not_influence_each_other() -> None:
    values = np.random.default_rng(1).normal(size=(20000, 8)).astype(np.float32)
    codes, scales = quantise(values, "v2")
    some = np.array([19999, 3, 16384])
    for whole, part in zip((codes, scales), quantise(values[some], "v2"), strict=True):
        np.testing.assert_array_equal(whole[some], part)


def test_no_pixels() -> None:
    codes, scales = quantise(np.empty((0, 128), np.float32), "v2")
    assert (codes.shape, scales.shape) == ((0, 128), (0,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    values = np.zeros((20, 4), np.float32)
    values[7, 2] = bad
    with pytest.raises(TileError, match="1 embeddings hold NaN or infinite"):
        quantise(values, "v2")


def test_nodata_scale_gives_nan() -> None:
    decoded = dequantise(np.zeros((2, 3), np.int8), np.array([np.nan, 1], np.float32))
    assert np.isnan(decoded[0]).all()
    assert (decoded[1] == 0).all()
