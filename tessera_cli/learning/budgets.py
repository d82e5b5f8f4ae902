"""Few labels: which parcels are known, drawn anew for each draw, the same for all features and adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.learning.folds import strata_of
from tessera_cli.learning.hashes import shuffled
from tessera_cli.learning.task import Task


@dataclass(frozen=True)
class Budget:
    """How many labels are known: a share of the parcels to learn from, or a number of each class."""

    fraction: float | None = None
    """0 < fraction <= 1"""
    shots: int | None = None

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.shots is None):
            raise ValueError("either a fraction or shots")

    @classmethod
    def share(cls, text: str) -> Budget:
        """Parse `5%`, `5 %` or `0.05`."""
        try:
            digits = text.strip().removesuffix("%")
            number = float(digits) / (100 if "%" in text else 1)
        except ValueError:
            number = math.nan
        if not 0 < number <= 1:
            raise UsageError(f"{text} is no share of the labels. Give one such as 5% or 0.05, at most 100%.")
        return cls(fraction=number)

    @classmethod
    def per_class(cls, text: str) -> Budget:
        """Parse a number of labels per class."""
        if not text.strip().isdecimal() or not int(text):
            raise UsageError(f"{text} is no number of labels per class. Give whole numbers from 1, such as 1,5,10.")
        return cls(shots=int(text))

    @property
    def name(self) -> str:
        """`5 %` or `10 per class`."""
        return f"{self.shots} per class" if self.fraction is None else f"{100 * self.fraction:g} %"

    @property
    def whole(self) -> bool:
        """Whether all labels are known, so that draws do not differ."""
        return self.fraction == 1


@dataclass(frozen=True)
class NotPossible:
    """A budget that cannot be drawn."""

    reason: str


def draw_labels(
    budget: Budget,
    parcels: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    *,
    task: Task,
    seed: int,
    draw: int,
    keys: np.ndarray | None = None,
) -> np.ndarray | NotPossible:
    """Return the samples whose labels are known, int64 (M,), rising: those of some parcels, whole.

    `parcels` int64 (N,), `targets` (N,), `train` bool (N,): samples to learn from. Parcels are drawn in proportion to
    their classes, at least one of each that can be learned, by largest remainder, or evenly over deciles of their mean
    values; patches of a segmentation without regard to classes. Parcels come in one order per draw, so that what few
    labels hold is, but for rounding, part of what more hold. `keys`, uint64 (N,), make it independent of the order of
    the samples.
    """
    numbers = np.flatnonzero(train)
    names, members = np.unique(parcels[numbers], return_inverse=True)
    if not len(names):
        return NotPossible("there is nothing to learn from")
    if budget.whole:
        return numbers
    identity = np.full(len(names), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(identity, members, (numbers if keys is None else keys[numbers]).astype(np.uint64))
    strata = _strata(members, targets[numbers], task)
    counts = np.bincount(strata)
    wanted = _wanted(budget, counts, task)
    if isinstance(wanted, NotPossible):
        return wanted
    order = np.lexsort((shuffled(identity, seed, draw), strata))
    rank = np.arange(len(names)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.zeros(len(names), bool)
    taken[order] = rank < wanted[strata[order]]
    return numbers[taken[members]]


def _strata(members: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """Return the stratum of each parcel, int64 (P,), 0..S-1, each of which occurs."""
    sizes = np.bincount(members)
    if task == "segmentation":
        return np.zeros(len(sizes), np.int64)
    if task == "regression":
        found = strata_of(np.bincount(members, targets) / sizes)
    else:
        first = np.unique(members, return_index=True)[1]
        found = targets[first]
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _wanted(budget: Budget, counts: np.ndarray, task: Task) -> np.ndarray | NotPossible:
    """Return how many parcels of each stratum are drawn, int64 (S,)."""
    total, classes = int(counts.sum()), task == "classification"
    if budget.fraction is None:
        assert budget.shots is not None
        if not classes:
            return NotPossible("labels per class are for classification")
        if counts.min() < budget.shots:
            return NotPossible(f"the smallest class has {counts.min()} of {budget.shots} labels")
        return np.full(len(counts), budget.shots)
    number = round(budget.fraction * total)
    least = len(counts) if classes else 1 if task == "segmentation" else 2
    if number < least:
        what = f"{len(counts)} classes" if classes else f"at least {least}"
        return NotPossible(f"{budget.name} of {total} labels are {number}, for {what}")
    return _shared_out(number, counts, at_least=1 if classes else 0)


def _shared_out(number: int, counts: np.ndarray, at_least: int) -> np.ndarray:
    """Divide a number over strata in proportion to their counts, by largest remainder, with a least one for each."""
    quota = number * counts / counts.sum()
    shares = np.minimum(np.maximum(np.floor(quota).astype(np.int64), at_least), counts)
    while shares.sum() < number:
        shares[np.where(shares < counts, quota - shares, -np.inf).argmax()] += 1
    while shares.sum() > number:
        shares[np.where(shares > at_least, shares - quota, -np.inf).argmax()] -= 1
    return shares
