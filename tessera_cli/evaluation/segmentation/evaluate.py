"""Segmentation as an evaluation: the same draws of parcels for all features, scored over blocks of ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.cells import Cell, CellFolder
from tessera_cli.evaluation.protocol import Draw as SampleDraw
from tessera_cli.evaluation.protocol import Draws, Settings
from tessera_cli.evaluation.run import Evaluation
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.scores import Scorer
from tessera_cli.evaluation.segmentation.areas import Areas
from tessera_cli.evaluation.segmentation.network import Kind
from tessera_cli.evaluation.segmentation.scene import NONE, Draw, Scene
from tessera_cli.evaluation.segmentation.segment import segment
from tessera_cli.evaluation.verdicts import CONSTANT, differences
from tessera_cli.learning.budgets import Budget, NotPossible, draw_labels
from tessera_cli.learning.folds import balanced_folds
from tessera_cli.learning.splits import Split

SCORED = 500_000
"""Labelled pixels that are scored at most, spread evenly; all are predicted."""


@dataclass(frozen=True, eq=False)
class Raster:
    """One set of features of all tiles, and the network that learns from it."""

    name: str
    kind: Kind
    scenes: Sequence[Scene]
    origin: str
    identity: str
    """What its values follow from, so that finished cells are known again."""


@dataclass(frozen=True, eq=False)
class _Ground:
    """All labelled pixels, N, tile after tile and row after row."""

    classes: np.ndarray
    parcels: np.ndarray
    blocks: np.ndarray
    scored: np.ndarray
    """int64: numbers of the pixels that are scored."""

    @classmethod
    def of(cls, areas: Areas) -> _Ground:
        masks = [each != NONE for each in areas.labels]

        def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate([each[mask] for each, mask in zip(arrays, masks, strict=True)]).astype(np.int64)

        classes = joined(areas.labels)
        scored = np.unique(np.linspace(0, len(classes) - 1, min(len(classes), SCORED)).astype(np.int64))
        return cls(classes, joined(areas.parcels), joined(areas.blocks), scored)


def run_segmentation(
    areas: Areas,
    rasters: Sequence[Raster],
    settings: Settings,
    cells: CellFolder | None = None,
    *,
    folds: int = 5,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Train a network per set of features and draw, and score what it says of blocks that it has not seen.

    Parcels that reach into a block of the test are not learned from. Raises UsageError where too few blocks hold
    labels.
    """
    ground = _Ground.of(areas)
    fold_of = _fold_of_blocks(ground, folds, settings.seed)
    split = Split("blocked", fold_of[ground.blocks[ground.scored]], ground.blocks[ground.scored], areas.size)
    samples = _samples(areas, rasters, ground)
    every = [_draws(ground, fold_of, settings, budget, folds) for budget in settings.budgets]
    possible = [each for each in every if each.draws]
    start(sum(len(each.draws) for each in possible) * len(rasters))
    scorer = Scorer(samples, split, settings.seed)
    scores, kept = [], []
    for draws in possible:
        constant = _constant(samples, ground, draws)
        for raster, features in zip(rasters, samples.features, strict=True):
            cell = _cell(raster, features, draws, ground, fold_of, samples, settings, cells, advance)
            scores += [each.of(raster.name) for each in scorer.score(constant)] + scorer.score(cell)
            if draws.budget.whole:
                kept.append(cell)
    return Evaluation(
        samples,
        split,
        settings,
        tuple(each for each in every if not each.draws),
        tuple(scores),
        tuple(differences(samples, scores)),
        (),
        tuple(kept),
    )


def _fold_of_blocks(ground: _Ground, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each block, int64 (B,)."""
    there = np.unique(ground.blocks)
    if len(there) < folds:
        raise UsageError(
            f"The labels lie in {len(there)} blocks of ground, too few for {folds} folds. Give a smaller --block or "
            "fewer --folds."
        )
    fold_of = np.zeros(int(ground.blocks.max()) + 1, np.int64)
    fold_of[ground.blocks] = balanced_folds(ground.blocks, ground.classes, folds, seed)
    return fold_of


def _samples(areas: Areas, rasters: Sequence[Raster], ground: _Ground) -> LabelledSamples:
    """Return the scored pixels as samples; their features stay in the tiles."""
    count = len(ground.scored)
    nowhere = np.broadcast_to(np.float32(np.nan), (count, 1))
    features = tuple(
        FeatureSet(
            each.name,
            "embedding" if each.kind == "decoder" else "raw",
            np.broadcast_to(nowhere, (count, each.scenes[0].dims)),
            each.origin,
            identity=each.identity,
        )
        for each in rasters
    )
    parcels = ground.parcels[ground.scored]
    return LabelledSamples(
        task="segmentation",
        unit="pixel",
        features=features,
        targets=ground.classes[ground.scored],
        classes=areas.classes,
        lonlat=np.full((count, 2), np.nan),
        parcels=parcels,
        groups=parcels,
        left_out=areas.left_out,
    )


def _draws(ground: _Ground, fold_of: np.ndarray, settings: Settings, budget: Budget, folds: int) -> Draws:
    """Return draws whose numbers are parcels to learn from and scored pixels to test on."""
    parcels, first = np.unique(ground.parcels, return_index=True)
    classes, scored_fold = ground.classes[first], fold_of[ground.blocks[ground.scored]]
    made = []
    for number in range(folds if budget.whole else max(settings.draws, folds)):
        fold = number % folds
        touched = np.zeros(int(parcels.max()) + 1, bool)
        touched[ground.parcels[fold_of[ground.blocks] == fold]] = True
        drawn = draw_labels(
            budget,
            parcels,
            classes,
            ~touched[parcels],
            task="classification",
            seed=settings.seed,
            draw=number,
            keys=parcels.astype(np.uint64),
        )
        if isinstance(drawn, NotPossible):
            return Draws(budget, (), drawn.reason)
        made.append(SampleDraw(parcels[drawn], np.flatnonzero(scored_fold == fold)))
    return Draws(budget, tuple(made))


def _constant(samples: LabelledSamples, ground: _Ground, draws: Draws) -> Cell:
    """Return the commonest class of the pixels that were learned from, everywhere."""
    made = []
    for draw in draws.draws:
        known = np.bincount(ground.classes[np.isin(ground.parcels, draw.train)], minlength=len(samples.classes))
        made.append(np.full(len(draw.test), int(known.argmax())))
    return Cell(samples.features[0].name, CONSTANT, draws, tuple(made), tuple({} for _ in made))


def _cell(
    raster: Raster,
    features: FeatureSet,
    draws: Draws,
    ground: _Ground,
    fold_of: np.ndarray,
    samples: LabelledSamples,
    settings: Settings,
    cells: CellFolder | None,
    advance: Callable[[int], object],
) -> Cell:
    found = None if cells is None else cells.find(features, raster.kind, draws, settings.seed)
    if found is not None:
        advance(len(draws.draws))
        return found
    predictions, chosen = [], []
    folds = int(fold_of.max()) + 1
    for number, draw in enumerate(draws.draws):
        blocks = np.flatnonzero(fold_of == number % folds)
        wanted = Draw(draws.budget.name, number, draw.train, np.intersect1d(blocks, ground.blocks))
        (made,) = segment(
            raster.scenes,
            [wanted],
            raster.kind,
            classes=len(samples.classes),
            seed=settings.seed + number,
            threads=settings.threads,
        )
        position = np.full(len(ground.classes), -1, np.int64)
        position[np.isin(ground.blocks, wanted.test)] = np.arange(len(made.predicted))
        predictions.append(made.predicted[position[ground.scored[draw.test]]].astype(np.int64))
        chosen.append({"steps": float(made.steps), "parameters": float(made.parameters)})
        advance(1)
    cell = Cell(raster.name, raster.kind, draws, tuple(predictions), tuple(chosen))
    if cells is not None:
        cells.keep(cell, features, settings.seed)
    return cell
