"""The body of an evaluation: labelled samples -> split -> draws -> cells -> scores -> differences -> what was shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.evaluation.cells import Cell, CellFolder, make_cell
from tessera_cli.evaluation.protocol import ALL, Draws, Settings, draws_of
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.scores import Difference, Score, Scorer
from tessera_cli.evaluation.verdicts import CONSTANT, differences
from tessera_cli.learning.adapters import HEADLINE
from tessera_cli.learning.metrics import MAIN
from tessera_cli.learning.metrics import scores as metrics
from tessera_cli.learning.splits import Split, random

logger = logging.getLogger(__name__)

_MOST_PARTS = 5
"""Of a random split beside one that was given."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of it."""

    samples: LabelledSamples
    split: Split
    settings: Settings
    impossible: tuple[Draws, ...]
    """Budgets without a draw."""
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    random_split: tuple[RandomSplit, ...]
    cells: tuple[Cell, ...]
    """Those of the headline adapter on all labels, one per set of features."""


@dataclass(frozen=True)
class RandomSplit:
    """The headline metric of the headline adapter on all labels, when samples are split at random, and as they were."""

    features: str
    metric: str
    random: float
    blocked: float


def run_evaluation(
    samples: LabelledSamples,
    split: Split,
    settings: Settings,
    cells: Path | None = None,
    *,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Fit all adapters to all features on the same draws of labels, and compare what they predict.

    `cells`: a folder in which finished cells are kept and found again. `start` and `advance` are told of fits.
    """
    folder = None if cells is None else CellFolder.of(cells, samples.targets, samples.parcels, samples.groups)
    every = [draws_of(samples, split, settings, budget) for budget in settings.budgets]
    possible = [draws for draws in every if draws.draws]
    for draws in every:
        if not draws.draws:
            logger.warning("%s of the labels is not possible: %s", draws.budget.name, draws.why)
    total = sum(len(draws.draws) for draws in possible)
    beside_them = _parts(split) if any(draws.budget.whole for draws in possible) else 0
    start(len(samples.features) * ((len(settings.adapters) - 1) * total + beside_them) + total)
    scorer = Scorer(samples, split, settings.seed)
    scores, kept = [], []
    headline = HEADLINE[samples.task]
    for features, adapter, draws in _cells(samples, settings, possible):
        cell = _cell(samples, features, adapter, draws, settings, folder, advance)
        for score in scorer.score(cell):
            named = samples.features if adapter == CONSTANT else (features,)  # the constant looks at none of them
            scores += [score.of(each.name) for each in named]
        if adapter == headline and draws.budget.whole:
            kept.append(cell)
    beside = _random_split(samples, split, settings, kept, folder, advance)
    return Evaluation(
        samples,
        split,
        settings,
        tuple(draws for draws in every if not draws.draws),
        tuple(scores),
        tuple(differences(samples, scores)),
        tuple(beside),
        tuple(kept),
    )


def _cell(
    samples: LabelledSamples,
    features: FeatureSet,
    adapter: str,
    draws: Draws,
    settings: Settings,
    folder: CellFolder | None,
    advance: Callable[[int], object],
) -> Cell:
    """Return a cell that was kept, or make and keep it."""
    cell = None if folder is None else folder.find(features, adapter, draws, settings.seed)
    if cell is not None:
        advance(len(draws.draws))
        return cell
    cell = make_cell(samples, features, adapter, draws, seed=settings.seed, threads=settings.threads, advance=advance)
    if folder is not None:
        folder.keep(cell, features, settings.seed)
    return cell


def _cells(
    samples: LabelledSamples, settings: Settings, possible: list[Draws]
) -> Iterator[tuple[FeatureSet, str, Draws]]:
    """Yield what is to be computed, small budgets first."""
    for draws in possible:
        for adapter in settings.adapters:
            for features in samples.features[:1] if adapter == CONSTANT else samples.features:
                yield features, adapter, draws


def _random_split(
    samples: LabelledSamples,
    split: Split,
    settings: Settings,
    kept: list[Cell],
    folder: CellFolder | None,
    advance: Callable[[int], object],
) -> Iterator[RandomSplit]:
    """Yield the metric under a split that pays no heed to place or parcel, which flatters."""
    if not kept:
        return
    at_random = random(samples.targets, _parts(split), seed=settings.seed, keys=samples.keys)
    metric = MAIN[samples.task]
    draws = draws_of(samples, at_random, settings, ALL)
    if not draws.draws:
        return
    for cell in kept:
        features = next(each for each in samples.features if each.name == cell.features)
        made = _cell(samples, features, cell.adapter, draws, settings, folder, advance)
        yield RandomSplit(features.name, metric, _mean(samples, made, metric), _mean(samples, cell, metric))


def _parts(split: Split) -> int:
    """Return the parts of a split at random: as many, or of one that was given those that test about as much."""
    return split.count if split.count > 1 else min(max(2, round(1 / float((split.folds >= 0).mean()))), _MOST_PARTS)


def _mean(samples: LabelledSamples, cell: Cell, metric: str) -> float:
    """Return a metric averaged over the draws of a cell."""
    pairs = zip(cell.tests, cell.predictions, strict=True)
    classes = len(samples.classes)
    found = [metrics(samples.task, samples.targets[test], predicted, classes)[metric] for test, predicted in pairs]
    known = np.array(found)[~np.isnan(found)]
    return float(known.mean()) if len(known) else float("nan")
