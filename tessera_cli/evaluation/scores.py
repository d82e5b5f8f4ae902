"""How good the predictions of a cell are, with intervals, and how two cells differ on the same draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tessera_cli.evaluation.cells import Cell
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.bootstrap import Bootstrap, interval, stretch
from tessera_cli.learning.budgets import Budget
from tessera_cli.learning.metrics import LARGER_IS_BETTER, MAIN, scores
from tessera_cli.learning.splits import Split
from tessera_cli.learning.task import Task

_SHARE = (0.0, 1.0)
BOUNDS = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "miou"), _SHARE),
    **dict.fromkeys(("rmse", "mae"), (0.0, np.inf)),
    "r2": (-np.inf, 1.0),
}
"""Least and largest values of metrics."""
_ROUNDING = 1e-9
"""Share of a metric below which a difference is one of rounding."""


@dataclass(frozen=True, eq=False)
class Score:
    """The metrics of one cell: means over its draws."""

    features: str
    adapter: str
    budget: Budget
    unit: str
    """`point`, `pixel` or `parcel`; `parcel vote`: pixels predict, and the commonest class of a parcel is its own."""
    trained: float
    """Samples that it learned from, on average."""
    by_draw: Mapping[str, np.ndarray]
    """Metric -> float64 (draws,)."""
    distribution: Mapping[str, np.ndarray]
    """Metric -> float64 (resamples,): of the mean over draws, when blocks and draws are drawn with replacement."""
    chosen: Mapping[str, float]
    """Settings that inner validation chose, the median over the draws."""

    def of(self, features: str) -> Score:
        """Return the same score for other features: the constant's is that of all."""
        return self if features == self.features else replace(self, features=features)

    @property
    def metrics(self) -> dict[str, float]:
        return {name: _mean(values) for name, values in self.by_draw.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        metrics = self.metrics
        ends = {name: _within(name, metrics[name], *interval(each)) for name, each in self.distribution.items()}
        return {
            "features": self.features,
            "adapter": self.adapter,
            "labels": self.budget.fraction,
            "shots": self.budget.shots,
            "unit": self.unit,
            "draws": len(next(iter(self.by_draw.values()))),
            "n_train": round(self.trained, 1),
            "metrics": metrics,
            "low": {name: low for name, (low, _) in ends.items()},
            "high": {name: high for name, (_, high) in ends.items()},
            "chosen": dict(self.chosen),
        }


@dataclass(frozen=True)
class Difference:
    """How much better one score is than another of the same adapter and budget; positive is better in any metric."""

    features: str
    against: str
    """The other features, or `constant`."""
    adapter: str
    budget: Budget
    metric: str
    value: float
    low: float
    high: float
    better: int
    """Draws in which it is better."""
    worse: int
    draws: int

    @property
    def shown(self) -> bool:
        """Return whether the interval holds no 0."""
        return self.low > 0 or self.high < 0

    def turned(self) -> Difference:
        """Return the same seen from the other side; draws that are equal are better for neither."""
        return replace(
            self,
            features=self.against,
            against=self.features,
            value=-self.value,
            low=-self.high,
            high=-self.low,
            better=self.worse,
            worse=self.better,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "features": self.features,
            "against": self.against,
            "adapter": self.adapter,
            "labels": self.budget.fraction,
            "shots": self.budget.shots,
            "metric": self.metric,
            "difference": self.value,
            "low": self.low,
            "high": self.high,
            "better_draws": self.better,
            "draws": self.draws,
        }


class Scorer:
    """Scores cells of the same samples and split: all by the same resamples, so that differences are paired."""

    def __init__(self, samples: LabelledSamples, split: Split, seed: int) -> None:
        self._samples, self._split, self._seed = samples, split, seed

    def score(self, cell: Cell) -> list[Score]:
        """Return the score of a cell; of pixels of parcels also that of the parcels' votes."""
        unit = self._samples.unit
        made = [self._score(cell, unit, cell.tests, cell.predictions)]
        parcels = self._samples.parcels
        if unit == "pixel" and self._samples.classes and len(np.unique(parcels)) < len(parcels):
            voted = [votes(test, found, parcels) for test, found in zip(cell.tests, cell.predictions, strict=True)]
            made.append(self._score(cell, "parcel vote", [v[0] for v in voted], [v[1] for v in voted]))
        return made

    def _score(self, cell: Cell, unit: str, tests: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> Score:
        task, targets, classes = self._samples.task, self._samples.targets, len(self._samples.classes)
        each = [scores(task, targets[test], found, classes) for test, found in zip(tests, predictions, strict=True)]
        by_draw = {name: np.array([one[name] for one in each]) for name in each[0]}
        bootstrap = self._bootstrap(len(tests))
        resampled = bootstrap.distribution(task, tests, targets, predictions, classes)
        factor = stretch(bootstrap.tested(tests))
        return Score(
            cell.features,
            cell.adapter,
            cell.draws.budget,
            unit,
            cell.trained,
            by_draw,
            {name: _centred(values, _mean(by_draw[name]), factor) for name, values in resampled.items()},
            {name: float(np.median(values)) for name, values in _collected(cell.chosen).items()},
        )

    @functools.cache  # noqa: B019 - lives as long as the scorer
    def _bootstrap(self, draws: int) -> Bootstrap:
        return Bootstrap(self._split.blocks, draws, seed=self._seed)


def _within(name: str, value: float, low: float, high: float) -> tuple[float, float]:
    """Return an interval without what the metric cannot be, with the value itself, from which rounding may part it."""
    least, most = BOUNDS.get(name, (-np.inf, np.inf))
    return min(max(low, least), value), max(min(high, most), value)


def _centred(resampled: np.ndarray, value: float, factor: float) -> np.ndarray:
    """Move resampled values so that their median is the value itself, and stretch their deviations.

    Metrics that are averaged over classes are larger in resamples, from which rare classes are absent at times: a bias
    of the bootstrap (Efron and Tibshirani 1993, chapter 10), which would shift the interval away from the value. The
    median, since an R2 of few samples may be anything below 1.
    """
    known = resampled[~np.isnan(resampled)]
    return resampled if not len(known) else value + factor * (resampled - np.median(known))


def _mean(values: np.ndarray) -> float:
    """Return the mean of the draws of which a metric is defined; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _collected(chosen: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the settings of the draws that chose any: labels of one class or value leave nothing to choose."""
    found: dict[str, list[float]] = {}
    for one in chosen:
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return found


def votes(test: np.ndarray, predictions: np.ndarray, parcels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample of each tested parcel, and the class that most of its pixels were predicted to have.

    Of classes equally often predicted the smallest number counts.
    """
    _, first, members = np.unique(parcels[test], return_index=True, return_inverse=True)
    counts = np.zeros((len(first), int(predictions.max()) + 1), np.int64)
    np.add.at(counts, (members.ravel(), predictions), 1)
    return test[first], counts.argmax(axis=1)


def difference(task: Task, one: Score, other: Score, against: str) -> Difference:
    """Compare two scores of the same budget and unit, draw by draw and resample by resample."""
    metric = MAIN[task]
    sign = 1 if LARGER_IS_BETTER[metric] else -1
    by_draw = sign * (one.by_draw[metric] - other.by_draw[metric])
    by_draw = np.where(np.abs(by_draw) <= _ROUNDING * np.abs(other.by_draw[metric]), 0, by_draw)
    moved = sign * (one.distribution[metric] - other.distribution[metric])
    moved = np.where(np.abs(moved) <= _ROUNDING * np.abs(other.distribution[metric]), 0, moved)
    least, most = BOUNDS[metric]
    low, high = np.clip(interval(_centred(moved, _mean(by_draw), 1.0)), least - most, most - least).tolist()
    return Difference(
        one.features,
        against,
        one.adapter,
        one.budget,
        metric,
        _mean(by_draw),
        low,
        high,
        int((by_draw > 0).sum()),
        int((by_draw < 0).sum()),
        len(by_draw),
    )
