"""The measures of a run: the same pixels and the same views each time, so that only the encoder makes a difference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.errors import TesseraError
from tessera_cli.pretrain.config import FIXED_NUMBER, ProbeSettings, Settings, ViewSettings
from tessera_cli.pretrain.data.batch import View
from tessera_cli.pretrain.data.ragged import Ragged, Series
from tessera_cli.pretrain.data.views import everything, see, view_keys
from tessera_cli.pretrain.evaluation.labels import Labelled, labelled, shuffled
from tessera_cli.pretrain.evaluation.probe import balanced_accuracy, knn, linear, split
from tessera_cli.pretrain.evaluation.stability import agreement, retrieval
from tessera_cli.pretrain.metrics import rank_me
from tessera_cli.sampling import BucketedSampling

if TYPE_CHECKING:
    from tessera_cli.pretrain.data.shards import Shards

logger = logging.getLogger(__name__)

Embed = Callable[[View], np.ndarray]
"""A view of N pixels -> their embeddings, float32 (N, R)."""
DATES = (5, 10, 20)
"""Observations per sensor at which the drift is measured."""
CHUNK = 1024
"""Pixels whose views are made and embedded at once."""
FIRST, SECOND = 7, 8
"""Numbers of the views; training has 0 and 1."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is measured, and on which pixels."""

    held: Ragged
    """Pixels of ground that training never sees."""
    labelled: Labelled | None
    views: ViewSettings
    """As in training, but no view misses a season, an orbit or a sensor."""
    bins: BucketedSampling
    settings: ProbeSettings
    seed: int
    without_radar: bool = True
    """Whether `embed` shows a missing sensor as training does, so that its lack can be measured."""

    @classmethod
    def of(cls, shards: Shards, settings: Settings) -> Evaluation:
        """At most `probe.pixels` of the held-out pixels, and as many labelled ones from everywhere.

        Training sees no label, so labelled pixels may be training pixels: the probes' folds keep them apart.
        """
        number = min(settings.probe.pixels, len(shards.held))
        held = shards.held.take(np.argsort(shuffled(shards.held.keys))[:number])
        if number < 2:
            logger.warning("No pixels are held out, so there are no measures without labels. Raise data.holdout.")
        path = settings.probe.labels
        known = labelled((*shards.train, shards.held), settings.probe, Path(path)) if path else None
        whole = {"drop_season": 0.0, "drop_orbit": 0.0, "drop_s1": 0.0, "drop_s2": 0.0}
        views = settings.views.model_copy(update=whole)
        return cls(
            held,
            known,
            views,
            settings.model.bins,
            settings.probe,
            settings.train.seed,
            settings.model.family not in FIXED_NUMBER,
        )

    def measure(self, embed: Embed) -> dict[str, float]:
        """Measures by name; those that need labels or held-out pixels only where there are some.

        retrieval, agreement: of two random views of held-out pixels (`stability.py`). drift_5, drift_10, drift_20,
        drift_no_radar: agreement of so many observations per sensor, or none of Sentinel-1, with all observations.
        rank_me: of the first views' embeddings. probe_knn, probe_linear: balanced accuracy, each labelled pixel seen
        through one random view.
        """
        return {**self._label_free(embed), **self._probes(embed)}

    def _label_free(self, embed: Embed) -> dict[str, float]:
        if len(self.held) < 2:
            return {}
        first = self._embedded(embed, self.held, lambda part: self._random(part, FIRST))
        second = self._embedded(embed, self.held, lambda part: self._random(part, SECOND))
        found = {
            "retrieval": retrieval(first, second),
            "agreement": agreement(first, second),
            "rank_me": rank_me(first),
        }
        every = self._embedded(embed, self.held, self._all)
        for dates in DATES:
            found[f"drift_{dates}"] = agreement(every, self._embedded(embed, self.held, self._few(dates)))
        both = np.flatnonzero((self.held.s2.counts > 0) & (self.held.s1.counts > 0))
        if self.without_radar and len(both) > 1:
            blind = self._embedded(embed, _without_radar(self.held.take(both)), self._all)
            found["drift_no_radar"] = agreement(every[both], blind)
        return found

    def _probes(self, embed: Embed) -> dict[str, float]:
        if self.labelled is None:
            return {}
        embeddings = self._embedded(embed, self.labelled.pixels, lambda part: self._random(part, FIRST))
        classes = self.labelled.classes
        folds = split(self.labelled.groups, classes, self.settings.folds)
        return {
            "probe_knn": balanced_accuracy(classes, knn(embeddings, classes, folds)),
            "probe_linear": balanced_accuracy(classes, linear(embeddings, classes, folds)),
        }

    def _random(self, pixels: Ragged, view: int) -> View:
        return see(pixels, self.views, self.bins, self._keys(pixels, view))

    def _all(self, pixels: Ragged) -> View:
        return everything(pixels, self.bins)

    def _few(self, dates: int) -> Callable[[Ragged], View]:
        few = ViewSettings(n_obs=dates, replacement="never", order=self.views.order)
        return lambda pixels: see(pixels, few, self.bins, self._keys(pixels, FIRST))

    def _keys(self, pixels: Ragged, view: int) -> np.ndarray:
        return view_keys(pixels.keys, seed=self.seed, epochs=np.zeros(len(pixels), np.int64), view=view)

    def _embedded(self, embed: Embed, pixels: Ragged, view: Callable[[Ragged], View]) -> np.ndarray:
        """float32 (N, R)"""
        found = np.concatenate([embed(view(part)) for part in _chunks(pixels)])
        if not np.isfinite(found).all():
            raise TesseraError(
                "The encoder gives embeddings that are not finite: training diverged. Lower optim.lr, or start from an "
                "earlier checkpoint."
            )
        return found


def selection(measures: Mapping[str, float]) -> float | None:
    """What the best checkpoint has most of: probe_knn, else retrieval; None if neither was measured."""
    return measures.get("probe_knn", measures.get("retrieval"))


def _chunks(pixels: Ragged) -> Iterator[Ragged]:
    for start in range(0, len(pixels), CHUNK):
        yield pixels.take(np.arange(start, min(start + CHUNK, len(pixels))))


def _without_radar(pixels: Ragged) -> Ragged:
    s1 = pixels.s1
    return replace(pixels, s1=Series(s1.values[:0], s1.doy[:0], s1.streams[:0], np.zeros_like(s1.starts)))
