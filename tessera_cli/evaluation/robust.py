"""How accuracy holds when observations are missing: robustness of each model, by the headline adapter on all labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.baselines import shipped_encoder
from tessera_cli.evaluation.encoded import names_of
from tessera_cli.evaluation.read import BESIDE
from tessera_cli.evaluation.reading import Read
from tessera_cli.evaluation.robustness import robustness
from tessera_cli.evaluation.thinning import SHIFTS
from tessera_cli.learning.adapters import HEADLINE, fit
from tessera_cli.learning.metrics import MAIN, scores
from tessera_cli.learning.splits import Split

MOST = 1000
"""Samples that are encoded for each variant."""


def robust_rows(
    read: Read, split: Split, asked: Asked, advance: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """Return a row per model and variant, as plain JSON; none without observations or models.

    The adapter learns from all labels of the first draw, from all observations. What is tested are at most `MOST` of
    that draw's test samples, with fewer observations each time.
    """
    samples, observed = read.samples, read.observed
    if observed is None or not asked.models:
        return []
    tested = split.test(0)
    if len(tested) > MOST:
        tested = np.sort(np.random.default_rng(asked.seed).choice(tested, MOST, replace=False))
    pixels, classes = observed.pixels.take(tested), len(samples.classes)
    metric = MAIN[samples.task]
    known = np.flatnonzero(split.train(0))
    moved = {days: observed.later(days) for days in SHIFTS}
    later = {days: (each[0].take(tested), each[1]) for days, each in moved.items() if each is not None}
    rows = []
    sets = {each.name: each for each in samples.features}
    for name, model in zip(names_of(asked.models), asked.models, strict=True):
        features = sets.get(f"{name}{BESIDE}", sets.get(name))
        assert features is not None
        fitted = fit(
            HEADLINE[samples.task],
            samples.task,
            features.values[known],
            samples.targets[known],
            samples.groups[known],
            classes=classes,
            seed=asked.seed,
            threads=asked.threads,
        )

        def score(truth: np.ndarray, predicted: np.ndarray) -> float:
            return scores(samples.task, truth, predicted, classes)[metric]

        found = robustness(
            pixels,
            observed.window,
            samples.targets[tested],
            encode=shipped_encoder(model, seed=asked.seed, threads=asked.threads),
            predict=fitted.predict,
            score=score,
            seed=asked.seed,
            later=later,
            progress=advance,
        )
        for each in found:
            plain = each.to_dict()
            rows.append(
                {
                    "features": features.name,
                    "variant": plain["variant"],
                    "dates": plain["value"] if plain["kind"] == "dates" else None,
                    "cosine": plain["cosine"],
                    "metric": metric,
                    "value": plain["score"],
                    "reference": plain["reference"],
                    "samples": plain["samples"],
                    "lost": plain["lost"],
                }
            )
    return rows
