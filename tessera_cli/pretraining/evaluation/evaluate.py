"""Measures of an encoder, always on the same pixels and views, so that only the encoder makes a difference."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.errors import TesseraError
from tessera_cli.learning.adapters import fit
from tessera_cli.learning.folds import balanced_folds
from tessera_cli.learning.metrics import scores
from tessera_cli.learning.needed import check_packages
from tessera_cli.pretraining.config import FIXED_NUMBER, PretrainConfig, ViewConfig
from tessera_cli.pretraining.data.batch import View
from tessera_cli.pretraining.data.views import full_view, random_view, view_keys
from tessera_cli.pretraining.evaluation.labels import Labelled, label_pixels, shuffled
from tessera_cli.pretraining.evaluation.metrics import agreement, rank_me, retrieval
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries

if TYPE_CHECKING:
    from tessera_cli.pretraining.data.shards import Shards
    from tessera_cli.pretraining.data.taught import Taught

logger = logging.getLogger(__name__)

Embed = Callable[[View[np.ndarray]], np.ndarray]
"""A view of N pixels -> their embeddings, float32 (N, R)."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Embeddings, float32 (N, R) -> what they predict of a teacher's, less its mean over the training pixels: (N, D)."""
DATES = (5, 10, 20)
"""Observations per sensor at which the drift is measured."""
CHUNK = 1024
"""Pixels whose views are drawn and embedded at once."""
NEIGHBOURS = 20
"""k of probe_knn, the same for every encoder."""
FIRST, SECOND = 7, 8
"""Numbers of the views; training has 0 and 1."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The pixels and views to measure an encoder with."""

    holdout: RaggedPixels
    """Pixels of ground that training never sees."""
    labelled: Labelled | None
    config: PretrainConfig
    """As in training, but no view misses a season, an orbit or a sensor, or is perturbed: what `embed` sees."""
    teacher: Embedded | None = None
    """The teacher's embeddings of these pixels."""

    @classmethod
    def of(cls, shards: Shards, config: PretrainConfig, taught: Taught | None = None) -> Evaluation:
        """Choose at most `probe.pixels` of the holdout pixels, and as many labelled ones from everywhere.

        Training sees no label, so labelled pixels may be training pixels: the probes' folds keep them apart.
        """
        number = min(config.probe.pixels, len(shards.holdout))
        holdout = shards.holdout.take(np.argsort(shuffled(shards.holdout.keys))[:number])
        if number < 2:
            logger.warning("No pixels are held out, so there are no measures without labels. Raise data.holdout.")
        known = None
        if path := config.probe.labels:
            check_packages("--probe")
            origins = [each["name"] for each in shards.header["origins"]]
            known = label_pixels((*shards.train, shards.holdout), config.probe, Path(path), origins)
        as_embedded = {"drop_season": 0.0, "drop_orbit": 0.0, "drop_s1": 0.0, "drop_s2": 0.0}
        as_embedded |= {"gain": 0.0, "noise": 0.0, "shift_days": 0}
        views = config.views.model_copy(update=as_embedded)
        teacher = None if taught is None else Embedded.of(taught, shards, holdout, known)
        return cls(holdout, known, config.model_copy(update={"views": views}), teacher)

    @functools.cached_property
    def of_teacher(self) -> dict[str, float]:
        """Return the probes of the teacher by name; empty without labels, teacher, or labelled pixels that it knows."""
        if self.teacher is None or self.teacher.labelled is None or not np.isfinite(self.teacher.labelled).any():
            return {}
        return {f"{name}_teacher": value for name, value in self._both_probes(self.teacher.labelled, "_all").items()}

    def measure(self, embed: Embed, predict: Predict | None = None) -> dict[str, float]:
        """Return measures by name; those that need labels or holdout pixels only if there are some.

        retrieval, agreement: of two random views of holdout pixels (`metrics.py`). drift_5, drift_10, drift_20,
        drift_no_radar: agreement of the embedding from so many observations per sensor, or without Sentinel-1, with
        that from all observations. rank_me: of the first views' embeddings. probe_knn, probe_linear: balanced accuracy
        of the 20 nearest neighbours and of a ridge regression, each labelled pixel embedded from one random view and
        predicted out of fold. With a teacher: probe_knn_all, probe_linear_all from all observations, which the teacher
        has seen, too, and with `predict` teacher_5, teacher_10, teacher_20, teacher_all: agreement of the teacher's
        embedding with what is predicted from so many observations per sensor.
        """
        return {**self._label_free(embed, predict), **self._probes(embed)}

    def _label_free(self, embed: Embed, predict: Predict | None) -> dict[str, float]:
        pixels = self.holdout
        if len(pixels) < 2:
            return {}
        first, second = (self._embed_random(embed, pixels, self.config.views, view) for view in (FIRST, SECOND))
        measures = {
            "retrieval": retrieval(first, second),
            "agreement": agreement(first, second),
            "rank_me": rank_me(first),
        }
        full = self._embed(embed, pixels, self._full_view)
        for dates in DATES:
            few = ViewConfig(n_obs=dates, replacement="never", order=self.config.views.order)
            found = self._embed_random(embed, pixels, few, FIRST)
            measures[f"drift_{dates}"] = agreement(full, found)
            measures |= self._match(f"teacher_{dates}", found, predict)
        measures |= self._match("teacher_all", full, predict)
        both = np.flatnonzero((pixels.s2.counts > 0) & (pixels.s1.counts > 0))
        # Where a family's `embed` and training represent a missing sensor differently, its lack cannot be measured.
        if self.config.model.family not in FIXED_NUMBER and len(both) > 1:
            blind = self._embed(embed, _without_radar(pixels.take(both)), self._full_view)
            measures["drift_no_radar"] = agreement(full[both], blind)
        return measures

    def _probes(self, embed: Embed) -> dict[str, float]:
        if self.labelled is None:
            return {}
        pixels = self.labelled.pixels
        found = self._both_probes(self._embed_random(embed, pixels, self.config.views, FIRST), "")
        if self.teacher is not None:
            found |= self._both_probes(self._embed(embed, pixels, self._full_view), "_all")
        return found

    def _match(self, name: str, embeddings: np.ndarray, predict: Predict | None) -> dict[str, float]:
        """Return how well embeddings of the holdout pixels predict the teacher's, of those that have some."""
        if self.teacher is None or predict is None:
            return {}
        there = np.isfinite(self.teacher.holdout).all(axis=1)
        if there.sum() < 2:
            return {}
        return {name: agreement(self.teacher.holdout[there], predict(embeddings[there]) + self.teacher.mean)}

    def _both_probes(self, embeddings: np.ndarray, suffix: str) -> dict[str, float]:
        """Return both probes of embeddings of the labelled pixels; one that is NaN is taken for the mean."""
        if (absent := ~np.isfinite(embeddings).all(axis=1)).any():
            embeddings = np.where(absent[:, None], np.nanmean(embeddings, axis=0), embeddings)
        return {
            f"probe_knn{suffix}": self._probe(embeddings, "knn", {"k": NEIGHBOURS}),
            f"probe_linear{suffix}": self._probe(embeddings, "ridge"),
        }

    def _probe(self, embeddings: np.ndarray, adapter: str, fixed: Mapping[str, float] | None = None) -> float:
        """Return the balanced accuracy of an adapter that is fitted on the pixels of the other folds."""
        assert self.labelled is not None
        truth, groups, count = self.labelled.classes, self.labelled.groups, len(self.labelled.names)
        folds = balanced_folds(groups, truth, self.config.probe.folds)
        predicted, seed = np.empty_like(truth), self.config.train.seed
        for fold in np.unique(folds):
            known = folds != fold
            labels = truth[known], groups[known]
            model = fit(adapter, "classification", embeddings[known], *labels, classes=count, seed=seed, fixed=fixed)
            predicted[~known] = model.predict(embeddings[~known])
        return scores("classification", truth, predicted, count)["balanced_accuracy"]

    def _full_view(self, pixels: RaggedPixels) -> View[np.ndarray]:
        return full_view(pixels, self.config.model.buckets)

    def _embed_random(self, embed: Embed, pixels: RaggedPixels, views: ViewConfig, number: int) -> np.ndarray:
        """Embed pixels from random views, float32 (N, R); `number`: which of several views."""

        def view(part: RaggedPixels) -> View[np.ndarray]:
            epochs = np.zeros(len(part), np.int64)
            keys = view_keys(part.keys, seed=self.config.train.seed, epochs=epochs, view=number)
            return random_view(part, views, self.config.model.buckets, keys)

        return self._embed(embed, pixels, view)

    def _embed(
        self, embed: Embed, pixels: RaggedPixels, view: Callable[[RaggedPixels], View[np.ndarray]]
    ) -> np.ndarray:
        """Embed pixels in chunks, float32 (N, R)."""
        chunks = np.split(np.arange(len(pixels)), range(CHUNK, len(pixels), CHUNK))
        embeddings = np.concatenate([embed(view(pixels.take(chunk))) for chunk in chunks])
        if not np.isfinite(embeddings).all():
            raise TesseraError(
                "The encoder gives embeddings that are not finite: training diverged. Lower optim.lr, or start from an "
                "earlier checkpoint."
            )
        return embeddings


@dataclass(frozen=True, eq=False)
class Embedded:
    """A teacher's embeddings, from all observations; NaN of pixels of which it knows nothing."""

    holdout: np.ndarray
    """float32 (N, D)"""
    labelled: np.ndarray | None
    """float32 (M, D)"""
    mean: np.ndarray
    """float32 (D,): of the training pixels."""

    @classmethod
    def of(cls, taught: Taught, shards: Shards, holdout: RaggedPixels, known: Labelled | None) -> Embedded:
        labelled = None if known is None else taught.of_pixels(shards, known.pixels)
        return cls(taught.of_pixels(shards, holdout), labelled, taught.mean)


def selection(measures: Mapping[str, float]) -> float | None:
    """Return the measure that selects the best checkpoint: probe_knn, else retrieval; None if neither was measured."""
    return measures.get("probe_knn", measures.get("retrieval"))


def _without_radar(pixels: RaggedPixels) -> RaggedPixels:
    s1 = pixels.s1
    return replace(pixels, s1=RaggedSeries(s1.values[:0], s1.doy[:0], s1.streams[:0], np.zeros_like(s1.starts)))
