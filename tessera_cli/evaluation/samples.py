"""Labelled samples with sets of features side by side: what an evaluation begins with, wherever they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tessera_cli.learning.task import Task, Unit

FeatureKind = Literal["embedding", "raw", "random", "both"]
"""`random`: of an encoder with random weights; `raw`: made of observations without an encoder; `both`: an embedding and
raw features side by side."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One description of N samples."""

    name: str
    kind: FeatureKind
    values: np.ndarray
    """float32 (N, D), finite but for single missing values of raw features, which are NaN."""
    origin: str = ""
    """What it was made from, for reports: a path and a window, a model, a rule."""
    test_values: np.ndarray | None = None
    """float32 (N, D): what is tested in place of `values`, as where another year is."""

    identity: str = ""
    """What the values follow from, where they are read a part at a time and are not here."""
    variant_of: str = ""
    """The set of which this is a prefix or another precision."""
    parts: tuple[str, ...] = ()
    """Of `both`: the sets that stand side by side."""

    @property
    def tested(self) -> np.ndarray:
        """Return the values that predictions are made from."""
        return self.values if self.test_values is None else self.test_values

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the values, or of what they follow from."""
        if self.identity:
            return hashlib.sha256(self.identity.encode()).hexdigest()
        found = hashlib.sha256(f"{self.values.shape}".encode())
        for values in (self.values, self.tested):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def take(self, numbers: np.ndarray) -> FeatureSet:
        """Return the values of these samples, int (M,) or bool (N,), in this order."""
        tested = None if self.test_values is None else self.test_values[numbers]
        return replace(self, values=self.values[numbers], test_values=tested)


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """N samples that all sets of features know, each with a target."""

    task: Task
    unit: Unit
    features: tuple[FeatureSet, ...]
    targets: np.ndarray
    """int64 (N,), index into `classes`; or float64 (N,), finite, for regression."""
    classes: tuple[str, ...]
    """Names; empty for regression."""
    lonlat: np.ndarray
    """float64 (N, 2) in degrees; NaN where the place is not known."""
    parcels: np.ndarray
    """int64 (N,): samples of one parcel are labelled together; numbers from 0, each its own where there are none."""
    groups: np.ndarray
    """int64 (N,): samples of one group never lie on both sides of a split; at least the parcels."""
    test: np.ndarray | None = None
    """bool (N,): the split that the data bring; None: it is ours to make."""
    left_out: tuple[str, ...] = ()
    """What was left out and why, a line each."""
    keys: np.ndarray | None = None
    """uint64 (N,): identities that do not depend on the order of the samples; None: their number."""

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, numbers: np.ndarray) -> LabelledSamples:
        """Return these samples, int (M,) or bool (N,), in this order."""
        features = tuple(each.take(numbers) for each in self.features)
        return replace(
            self,
            features=features,
            targets=self.targets[numbers],
            lonlat=self.lonlat[numbers],
            parcels=self.parcels[numbers],
            groups=self.groups[numbers],
            test=None if self.test is None else self.test[numbers],
            keys=None if self.keys is None else self.keys[numbers],
        )
