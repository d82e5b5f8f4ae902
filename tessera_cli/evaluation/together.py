"""Embeddings and raw features side by side: what an embedding lost of the observations that it was made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tessera_cli.evaluation.baselines import RAW
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples

BESIDE_RAW = RAW[0]
"""The raw features that stand beside embeddings, declared in advance: those that hold most of the observations."""


def with_raw(samples: LabelledSamples) -> LabelledSamples:
    """Return the samples with a further set `NAME + raw-series` of each embedding, the columns of both side by side.

    Prefixes and other precisions of an embedding get none. Without `raw-series` the samples are returned as they are.
    """
    raw = next((each for each in samples.features if each.kind == "raw" and each.name == BESIDE_RAW), None)
    if raw is None:
        return samples
    made = [_joined(each, raw) for each in samples.features if each.kind == "embedding" and not each.variant_of]
    return replace(samples, features=(*samples.features, *made))


def _joined(one: FeatureSet, other: FeatureSet) -> FeatureSet:
    tested = None
    if one.test_values is not None or other.test_values is not None:
        tested = np.concatenate([one.tested, other.tested], axis=1)
    return FeatureSet(
        f"{one.name} + {other.name}",
        "both",
        np.concatenate([one.values, other.values], axis=1),
        f"{one.name} and {other.name} side by side",
        tested,
        parts=(one.name, other.name),
    )
