"""Segmentation as an evaluation: the same draws of parcels for all features, scored over blocks of ground."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tessera_cli.evaluation.cells import Cell, CellFolder
from tessera_cli.evaluation.protocol import Draw as SampleDraw
from tessera_cli.evaluation.protocol import Draws, Settings
from tessera_cli.evaluation.run import Evaluation
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.scores import Scorer
from tessera_cli.evaluation.segmentation.areas import Areas
from tessera_cli.evaluation.segmentation.network import Kind
from tessera_cli.evaluation.segmentation.scene import NONE, Draw, Scene, member
from tessera_cli.evaluation.segmentation.segment import segment
from tessera_cli.evaluation.segmentation.truth import Truth
from tessera_cli.evaluation.verdicts import CONSTANT, differences
from tessera_cli.learning.budgets import NotPossible

logger = logging.getLogger(__name__)

SCORED = 500_000
"""Labelled pixels that are scored at most, spread evenly; all are predicted."""


NOTES = (
    "Unless asked for more, segmentation has a draw of labels per fold at each budget, where light adapters have ten: "
    "a draw costs a network. Its intervals are rougher for that.",
    "No random split of pixels is measured for segmentation: networks see the neighbours of every pixel.",
)
"""What a reader of the report should know."""


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
    def of(cls, truth: Truth) -> _Ground:
        masks = [each != NONE for each in truth.labels]

        def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate([each[mask] for each, mask in zip(arrays, masks, strict=True)]).astype(np.int64)

        classes = joined(truth.labels)
        scored = np.unique(np.linspace(0, len(classes) - 1, min(len(classes), SCORED)).astype(np.int64))
        return cls(classes, joined(truth.parcels), joined(truth.blocks), scored)


def run_segmentation(
    areas: Areas,
    rasters: Sequence[Raster],
    settings: Settings,
    cells: CellFolder | None = None,
    *,
    start: Callable[[int], object] = lambda total: None,
    advance: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Train a network per set of features and draw, and score what it says of blocks that it has not seen."""
    truth, ground = areas.truth, _Ground.of(areas.truth)
    fold_of = np.full(int(truth.block_of_parcel.max()) + 1, -1, np.int64)
    fold_of[truth.block_of_parcel] = truth.split.folds
    blocks = ground.blocks[ground.scored]
    split = replace(truth.split, folds=fold_of[blocks], blocks=blocks)
    samples = _samples(areas, rasters, ground)
    every = [
        (budget, truth.draws(budget, max(settings.draws, split.count), settings.seed)) for budget in settings.budgets
    ]
    possible = [(budget, found) for budget, found in every if not isinstance(found, NotPossible)]
    impossible = [Draws(budget, (), found.reason) for budget, found in every if isinstance(found, NotPossible)]
    for each in impossible:
        logger.warning("%s of the labels is not possible: %s", each.budget.name, each.why)
    start(sum(len(made) for _, made in possible) * len(rasters))
    scorer = Scorer(samples, split, settings.seed)
    scores, kept = [], []
    for budget, wanted in possible:
        # what learns are parcels, what is tested are scored pixels
        draws = Draws(
            budget, tuple(SampleDraw(each.train, np.flatnonzero(member(blocks, each.test))) for each in wanted)
        )
        constant = _constant(samples, ground, draws)
        for raster, features in zip(rasters, samples.features, strict=True):
            made = []
            for draw, of in zip(draws.draws, wanted, strict=True):  # kept one by one: an interruption costs a network
                alone = Draws(budget, (draw,))
                cell = None if cells is None else cells.find(features, raster.kind, alone, settings.seed)
                if cell is None:
                    cell = _cell(raster, alone, of, ground, len(samples.classes), settings)
                    if cells is not None:
                        cells.keep(cell, features, settings.seed)
                made.append(cell)
                advance(1)
            cell = _joined(draws, made)
            scores += [each.of(raster.name) for each in scorer.score(constant)] + scorer.score(cell)
            if budget.whole:
                kept.append(cell)
    return Evaluation(
        samples,
        split,
        settings,
        tuple(impossible),
        tuple(scores),
        tuple(differences(samples, scores)),
        (),
        tuple(kept),
    )


def _samples(areas: Areas, rasters: Sequence[Raster], ground: _Ground) -> LabelledSamples:
    """Return the scored pixels as samples; their features stay in the tiles."""
    count = len(ground.scored)
    nothing = np.float32(np.nan)
    features = tuple(
        FeatureSet(
            each.name,
            "embedding" if each.kind == "decoder" else "raw",
            np.broadcast_to(nothing, (count, each.scenes[0].dims)),
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
        classes=areas.truth.classes,
        lonlat=np.full((count, 2), np.nan),
        parcels=parcels,
        groups=parcels,
        left_out=areas.left_out,
    )


def _constant(samples: LabelledSamples, ground: _Ground, draws: Draws) -> Cell:
    """Return the commonest class of the pixels that were learned from, everywhere."""
    made = []
    for draw in draws.draws:
        known = np.bincount(ground.classes[member(ground.parcels, draw.train)], minlength=len(samples.classes))
        made.append(np.full(len(draw.test), int(known.argmax())))
    return Cell(samples.features[0].name, CONSTANT, draws, tuple(made), tuple({} for _ in made))


def _cell(raster: Raster, alone: Draws, of: Draw, ground: _Ground, classes: int, settings: Settings) -> Cell:
    """Return the cell of a single draw; `of` says of parcels and blocks what `alone` says of scored pixels."""
    seed = settings.seed + of.number
    made = segment(raster.scenes, of, raster.kind, classes=classes, seed=seed, threads=settings.threads)
    everywhere = np.full(len(ground.classes), NONE, np.int64)
    everywhere[member(ground.blocks, of.test)] = made.predicted
    (draw,) = alone.draws
    chosen = {"parameters": float(made.parameters)}
    return Cell(raster.name, raster.kind, alone, (everywhere[ground.scored[draw.test]],), (chosen,))


def _joined(draws: Draws, made: Sequence[Cell]) -> Cell:
    """Return cells of a draw each as one."""
    predictions = tuple(each.predictions[0] for each in made)
    return Cell(made[0].features, made[0].adapter, draws, predictions, tuple(each.chosen[0] for each in made))
