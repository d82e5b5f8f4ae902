"""Observations of pixels -> embeddings by several models, and by random weights, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.evaluation.baselines import RANDOM, embedding_features, random_model
from tessera_cli.evaluation.samples import FeatureSet
from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import RaggedPixels

if TYPE_CHECKING:
    from tessera_cli.models.load import Model


def embedded(
    pixels: RaggedPixels,
    window: Window,
    models: Sequence[Model],
    *,
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    beside: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[FeatureSet, ...], np.ndarray]:
    """Return the sets of all models, and of the first one's architecture with random weights.

    They hold the pixels that all models embed; which these are, bool (N,), is returned beside them. Arguments are those
    of `embedding_features`; `progress` is called with the pixels done and in all, of all models.
    """
    done, rounds = 0, len(models) + any(model.encoder is not None for model in models)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, rounds * len(pixels))

    def embed(model: Model, name: str, kind: str) -> tuple[FeatureSet, ...]:
        return embedding_features(
            pixels,
            window,
            model,
            name=name,
            kind="random" if kind == "random" else "embedding",
            min_s2=min_s2,
            min_s1=min_s1,
            seed=seed,
            threads=threads,
            beside=beside and kind != "random",
            progress=advance,
        )

    sets: list[FeatureSet] = []
    names = names_of(models)
    for model, name in zip(models, names, strict=True):
        sets += embed(model, name, "embedding")
    trained = next((model for model in models if model.encoder is not None), None)
    if trained is not None:
        name = RANDOM if RANDOM not in names else f"{RANDOM} weights"
        sets += embed(random_model(trained, seed), name, "random")
    there = np.ones(len(pixels), bool)
    for each in sets:
        there &= np.isfinite(each.values).all(axis=1)
    return tuple(each.take(there) for each in sets), there


def names_of(models: Sequence[Model]) -> list[str]:
    """Return what the features of each model are called: none twice."""
    names: list[str] = []
    for model in models:
        names.append(model.name if model.name not in names else f"{model.name} {len(names) + 1}")
    return names
