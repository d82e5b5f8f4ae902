"""Baselines have the inputs that the embedding had; embeddings are scored as they are shipped."""

from __future__ import annotations

import dataclasses

import numpy as np

from tessera_cli.evaluation.baselines import RAW, embedding_features, random_model, raw_features
from tessera_cli.extent.window import Window
from tessera_cli.models.families import family_spec
from tessera_cli.models.quantise import dequantise
from tessera_cli.series.encode import encode_series
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.encoders import random_model as made_up_model
from tests.helpers.ragged import pixels_of, random_pixels

YEAR = Window.from_name("2023")


def test_raw_features_are_named_and_shaped():
    pixels = random_pixels(50)
    sets = raw_features(pixels, YEAR, steps=12)
    assert tuple(each.name for each in sets) == RAW
    assert {each.kind for each in sets} == {"raw"}
    assert [each.values.shape for each in sets] == [(50, 12 * 14), (50, 32), (50, 4 * 14), (50, 6 * 18)]
    assert all(each.values.dtype == np.float32 for each in sets)
    assert raw_features(pixels_of([[], []]), YEAR) == ()


def test_only_observations_of_the_pixel_matter():
    pixels = random_pixels(20)
    whole, some = (raw_features(each, YEAR) for each in (pixels, pixels.take(np.arange(5, 9))))
    for one, other in zip(whole, some, strict=True):
        if one.name != "raw-pca":
            np.testing.assert_array_equal(one.values[5:9], other.values)


def test_embeddings_are_codes_times_scales_and_others_stand_beside():
    model, pixels = made_up_model(VARIANTS["v2-student"].config), random_pixels(12, seed=3)
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, dims=(16, 32, 64, 128)))
    sets = embedding_features(pixels, YEAR, model, min_s2=1, beside=True)
    assert [each.name for each in sets] == ["random", "random float32", "random :64", "random :32", "random :16"]
    shipped = encode_series(pixels, YEAR, model, quantiser="v2")
    np.testing.assert_array_equal(sets[0].values, shipped.floats())
    plain = encode_series(pixels, YEAR, model)
    np.testing.assert_array_equal(sets[1].values, plain.values)
    short = encode_series(pixels, YEAR, model, dims=32, quantiser="v2")
    assert short.scales is not None
    np.testing.assert_array_equal(sets[3].values[short.valid], dequantise(short.values, short.scales)[short.valid])
    assert np.isnan(sets[3].values[~short.valid]).all()


def test_random_weights_follow_from_the_seed():
    model, pixels = made_up_model(VARIANTS["v1.1"].config, "v1.1", seed=9).bind_source("mpc"), random_pixels(8)
    assert model.spec.family == family_spec("v1.1", "x", model.config).family
    one, again, other = (
        embedding_features(pixels, YEAR, random_model(model, seed), name="random", kind="random")[0]
        for seed in (1, 1, 2)
    )
    assert one.kind == "random"
    np.testing.assert_array_equal(one.values, again.values)
    assert not np.array_equal(one.values, other.values)
    trained = embedding_features(pixels, YEAR, model, name="trained")[0]
    assert trained.kind == "embedding"
    assert trained.values.shape == one.values.shape
    assert not np.array_equal(one.values, trained.values)
