"""How embeddings, and what is predicted from them, change when observations are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tessera_cli.evaluation.thinning import Kind, Variant, applied, variants
from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import RaggedPixels

Encode = Callable[[RaggedPixels, Window], np.ndarray]
"""Observations of a window -> embeddings float32 (N, R), NaN of pixels that have too few."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Embeddings float32 (M, R) -> predictions (M,), by an adapter that was fitted on full embeddings of other pixels."""
Score = Callable[[np.ndarray, np.ndarray], float]
"""(targets, predictions), (M,) each -> the headline metric."""


@dataclass(frozen=True)
class Robustness:
    """What came of one variant."""

    variant: str
    kind: Kind | None
    """None: nothing was taken away."""
    value: int | None
    """Dates left of each sensor, or days by which the window begins later."""
    samples: int
    """Samples that have an embedding, with all observations and with these."""
    lost: int
    """Samples that have one with all observations alone."""
    cosine: float
    """Mean similarity to the embedding of all observations; NaN without samples."""
    score: float
    """Metric of the predictions; NaN without samples."""
    reference: float
    """The metric on the same samples with all observations."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: null in place of NaN."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def robustness(
    pixels: RaggedPixels,
    window: Window,
    targets: np.ndarray,
    *,
    encode: Encode,
    predict: Predict,
    score: Score,
    seed: int = 0,
    later: Mapping[int, tuple[RaggedPixels, Window]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Robustness, ...]:
    """Encode samples with observations missing, and hold the result against that of all observations.

    Args:
        pixels: Observations of N samples that `predict` was not fitted on.
        window: Their window.
        targets: (N,), as `score` takes them.
        encode: Makes embeddings.
        predict: Predicts from embeddings.
        score: Compares predictions with targets.
        seed: Which dates are drawn.
        later: Days -> the same samples in a window that begins so much later. Without them, only what lies before is
            taken away.
        progress: Called with the variants done and in all.

    Returns:
        All observations first, then each variant.
    """
    every = variants(pixels, window)
    full = encode(pixels, window)
    there: np.ndarray = np.asarray(np.isfinite(full).all(axis=1))
    predicted = np.empty(len(full), np.asarray(targets).dtype)
    if there.any():
        predicted[there] = predict(full[there])
    rows = []
    for number, variant in enumerate((None, *every)):
        if variant is None:
            made = full
        elif variant.kind == "window" and later and variant.value is not None and variant.value in later:
            made = encode(*later[variant.value])
        else:
            made = encode(applied(variant, pixels, window, seed), window)
        both: np.ndarray = np.asarray(there & np.isfinite(made).all(axis=1))
        rows.append(_row(variant, full, made, predicted, targets, there, both, predict, score))
        if progress:
            progress(number + 1, len(every) + 1)
    return tuple(rows)


def _row(
    variant: Variant | None,
    full: np.ndarray,
    made: np.ndarray,
    predicted: np.ndarray,
    targets: np.ndarray,
    there: np.ndarray,
    both: np.ndarray,
    predict: Predict,
    score: Score,
) -> Robustness:
    name, kind, value = ("all", None, None) if variant is None else (variant.name, variant.kind, variant.value)
    samples, lost = int(both.sum()), int((there & ~both).sum())
    shown = value if kind in ("dates", "window") else None
    if not samples:
        return Robustness(name, kind, shown, 0, lost, np.nan, np.nan, np.nan)
    return Robustness(
        variant=name,
        kind=kind,
        value=shown,
        samples=samples,
        lost=lost,
        cosine=float(cosines(full[both], made[both]).mean()),
        score=float(score(targets[both], predict(made[both]))),
        reference=float(score(targets[both], predicted[both])),
    )


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of rows, float64 (N,); 0 where one of them is zero."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
