"""Features without a trained encoder, made of the observations that the embedding had, and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.evaluation.raw.components import principal_components
from tessera_cli.evaluation.raw.gapfill import STEPS, gap_filled, grid_days
from tessera_cli.evaluation.raw.observed import observed, streams_of
from tessera_cli.evaluation.raw.spread import metrics, seasonal_medians
from tessera_cli.evaluation.samples import FeatureKind, FeatureSet
from tessera_cli.extent.window import Window
from tessera_cli.models.quantise import dequantise, quantise
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.encode import encode_series

if TYPE_CHECKING:
    from tessera_cli.models.load import Model

RAW = ("raw-series", "raw-pca", "raw-seasonal", "raw-metrics")
RANDOM = "random"
"""The usual name of embeddings of random weights."""


def raw_features(pixels: RaggedPixels, window: Window, *, seed: int = 0, steps: int = STEPS) -> tuple[FeatureSet, ...]:
    """Return the features `RAW` of N pixels with observations in a window; none where no pixel has any.

    - `raw-series`: reflectance and decibels on a grid of `steps` parts of the window, linear in time between
      observations, the nearest one before the first and after the last; each orbit direction on its own.
    - `raw-pca`: up to 32 principal components of it, fitted without labels.
    - `raw-seasonal`: medians of the bands in the four seasons.
    - `raw-metrics`: percentiles 10, 25, 50, 75, 90 and standard deviations of bands, NDVI, NDWI, NDMI and NBR.

    What a pixel lacks is NaN.
    """
    return raw_of_parts([(pixels, window)], seed=seed, steps=steps)


def raw_of_parts(
    parts: Sequence[tuple[RaggedPixels, Window]], *, seed: int = 0, steps: int = STEPS
) -> tuple[FeatureSet, ...]:
    """Return the features of `raw_features` of pixels in several windows, one after the other, in the same columns."""
    streams = tuple(dict.fromkeys(name for pixels, _ in parts for name in streams_of(pixels)))
    if not streams:
        return ()
    made = [(observed(pixels, window, streams), window) for pixels, window in parts]
    series = np.concatenate([gap_filled(some, grid_days(window, steps)) for some, window in made])
    medians = np.concatenate([seasonal_medians(some, window) for some, window in made])
    over = " and ".join(dict.fromkeys(str(window) for _, window in parts))
    return (
        FeatureSet(RAW[0], "raw", series, f"gap-filled to {steps} steps of {over}"),
        FeatureSet(RAW[1], "raw", principal_components(series, seed), "principal components of raw-series"),
        FeatureSet(RAW[2], "raw", medians, f"seasonal medians of {over}"),
        FeatureSet(
            RAW[3],
            "raw",
            np.concatenate([metrics(some) for some, _ in made]),
            f"percentiles and deviations over {over}",
        ),
    )


def embedding_features(
    pixels: RaggedPixels,
    window: Window,
    model: Model,
    *,
    name: str | None = None,
    kind: FeatureKind = "embedding",
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    threads: int = 1,
    beside: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[FeatureSet, ...]:
    """Return a model's embeddings as it is shipped, codes times scales; NaN of pixels with too few observations.

    Args:
        pixels: Observations of N pixels in `window`.
        window: Their window.
        model: A loaded model with statistics.
        name: Of the features; None: the model's.
        kind: `random` of a model of `random_model`.
        min_s2: Pixels with fewer observations of Sentinel-2 get no embedding.
        min_s1: The same of Sentinel-1.
        seed: Random seed (v1.0 models only).
        threads: Cores to compute with.
        beside: Return float32, and the shorter prefixes that the model offers, beside it.
        progress: Called with the number of pixels finished since its last call.
    """
    spec, name = model.spec, name or model.name
    limits: dict[str, Any] = {"min_s2": min_s2, "min_s1": min_s1}
    made = encode_series(pixels, window, model, **limits, seed=seed, threads=threads, progress=progress)
    shipped = _shipped(made.values, made.valid, model, spec.default_dims)
    sets = [FeatureSet(name, kind, shipped, f"{model.name}, {window}")]
    if beside and spec.quantiser is not None:
        full = made.values[:, : spec.default_dims]
        about = f"{model.name}, {window}, without quantising"
        sets.append(FeatureSet(f"{name} float32", kind, full, about, variant_of=name))
    if beside:
        for dims in sorted(set(spec.dims) - {spec.default_dims}, reverse=True):
            values = _shipped(made.values, made.valid, model, dims)
            about = f"{model.name}, {window}, the first {dims} values"
            sets.append(FeatureSet(f"{name} :{dims}", kind, values, about, variant_of=name))
    return tuple(sets)


def shipped_encoder(
    model: Model, *, min_s2: int = 1, min_s1: int = 0, seed: int = 0, threads: int = 1
) -> Callable[[RaggedPixels, Window], np.ndarray]:
    """Return a function of pixels and their window that makes the first set of `embedding_features`."""

    def encode(pixels: RaggedPixels, window: Window) -> np.ndarray:
        more: dict[str, Any] = {"min_s2": min_s2, "min_s1": min_s1, "seed": seed, "threads": threads}
        return embedding_features(pixels, window, model, **more)[0].values

    return encode


def random_model(model: Model, seed: int = 0) -> Model:
    """Return the same architecture with random weights, in the same precision and on the same device."""
    from tessera_cli.models.encoder import seeded
    from tessera_cli.models.load import prepare_model

    if model.config is None or model.encoder is None:
        raise ValueError(f"{model.name} has no network")
    fresh = dataclasses.replace(model, encoder=seeded(model.config, seed), sha256="")
    return prepare_model(fresh, str(model.encoder.device), model.precision)


def _shipped(values: np.ndarray, valid: np.ndarray, model: Model, dims: int) -> np.ndarray:
    """Return the first values as a folder holds them, float32 (N, dims): quantised where the model is."""
    made = np.full((len(values), dims), np.nan, np.float32)
    some = values[valid, :dims]
    rule = model.spec.quantiser
    made[valid] = some if rule is None else dequantise(*quantise(some, rule))
    return made
