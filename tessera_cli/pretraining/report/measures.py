"""What an evaluation measures: names, meanings, and which measure sums it up."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tessera_cli.pretraining.callbacks import Row

HEADLINES = ("probe_knn", "probe_linear", "retrieval")
"""Measures that sum up an evaluation, in order of preference."""

_DRIFT = "Agreement of a held-out pixel's embedding from {} with the one from all its observations; 1: no drift."
_TEACHER = (
    "Mean cosine, after the mean is subtracted, between the teacher's embedding of a held-out pixel from all its "
    "observations and what is predicted of it from {}."
)
MEASURES: Mapping[str, tuple[str, str]] = {
    "probe_knn": (
        "kNN probe",
        "Balanced accuracy (mean recall of the classes) when each labelled pixel takes the "
        "commonest class of its 20 nearest embeddings from other parcels.",
    ),
    "probe_linear": (
        "Linear probe",
        "Balanced accuracy of a linear map from embedding to class, fitted on other parcels.",
    ),
    "probe_knn_all": (
        "kNN probe, all dates",
        "The same from all observations of a pixel, which the teacher has, too.",
    ),
    "probe_linear_all": (
        "Linear probe, all dates",
        "The same from all observations of a pixel, which the teacher has, too.",
    ),
    "teacher_5": ("Teacher, 5 dates", _TEACHER.format("5 dates per sensor")),
    "teacher_10": ("Teacher, 10 dates", _TEACHER.format("10 dates per sensor")),
    "teacher_20": ("Teacher, 20 dates", _TEACHER.format("20 dates per sensor")),
    "teacher_all": ("Teacher, all dates", _TEACHER.format("all its observations")),
    "retrieval": (
        "Retrieval",
        "Share of held-out pixels whose embedding from one random choice of dates is nearest, "
        "among all held-out pixels, to their own from another choice.",
    ),
    "agreement": (
        "Agreement",
        "Mean cosine of the two embeddings of a held-out pixel, after the mean embedding is "
        "subtracted: 1 is the same, 0 unrelated.",
    ),
    "drift_5": ("5 dates", _DRIFT.format("5 dates per sensor")),
    "drift_10": ("10 dates", _DRIFT.format("10 dates per sensor")),
    "drift_20": ("20 dates", _DRIFT.format("20 dates per sensor")),
    "drift_no_radar": ("No radar", _DRIFT.format("Sentinel-2 alone")),
    "rank_me": (
        "RankMe",
        "Exponential of the entropy of the embeddings' singular values: about how many dimensions "
        "are in use. A random encoder may use more; only a fall to a few is a warning.",
    ),
    "offdiag_rms": (
        "Off-diagonal RMS",
        "Root mean square of the correlations between different outputs of the "
        "projector. Independent noise has 1/\u221abatch; at 1 they all say the same: collapse.",
    ),
}
"""Measures of an evaluation: name and meaning."""


def measure(row: Row, key: str) -> float | None:
    """Return a measure of a row, or None if it is no finite number."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def headline(row: Row) -> str | None:
    """Return the measure that sums up an evaluation."""
    return next((key for key in HEADLINES if measure(row, key) is not None), None)
