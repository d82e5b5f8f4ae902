"""What is compared, on which draws of labels: the plan of an evaluation, the same for all features and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.adapters import ALLOWED, HEADLINE, NAMES
from tessera_cli.learning.budgets import Budget, NotPossible, draw_labels
from tessera_cli.learning.splits import Split
from tessera_cli.learning.task import Task

ALL = Budget(fraction=1.0)
DRAWS = 10
"""Of each budget, unless asked for others."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Samples to learn from and to test on: int64 numbers each."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Draws:
    """The draws of one budget; none where it is not possible, and why."""

    budget: Budget
    draws: tuple[Draw, ...]
    why: str = ""


@dataclass(frozen=True)
class Wanted:
    """How the user wants to be answered; what depends on the samples is told when they are read."""

    budgets: tuple[Budget, ...]
    adapters: tuple[str, ...] = ()
    """Those named; none: all of the task."""
    draws: int | None = None
    """None: `DRAWS`, or one per fold where each takes a network."""
    folds: int = 5
    block: float | None = None
    """Side of blocks of ground in metres; None: from the variogram of the labels."""
    leave_out: bool = False
    """Whether the groups are regions that are left out in turn."""


@dataclass(frozen=True)
class Settings:
    """What a user may choose."""

    adapters: tuple[str, ...]
    """By falling importance; `constant` is always among them."""
    budgets: tuple[Budget, ...]
    draws: int = DRAWS
    """Draws of labels of each budget but that of all labels, which has one per fold."""
    seed: int = 0
    threads: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what results depend on, as plain JSON."""
        return {
            "adapters": list(self.adapters),
            "budgets": [budget.name for budget in self.budgets],
            "draws": self.draws,
            "seed": self.seed,
        }


def chosen_adapters(task: Task, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the adapters to use: `constant` and the headline adapter of the task always; UsageError."""
    for name in given or ():
        if name not in ALLOWED[task]:
            raise UsageError(f"--adapter {name}: {task} has no such adapter. There are: {', '.join(ALLOWED[task])}.")
    wanted = NAMES[task] if not given else ("constant", HEADLINE[task], *given)
    return tuple(dict.fromkeys(wanted))


def chosen_budgets(percent: str | Sequence[float], shots: str | Sequence[int] | None) -> tuple[Budget, ...]:
    """Return budgets of percentages, then of labels per class, each once; UsageError for what is none."""
    shares = [Budget.share(f"{word}%") for word in _words(percent)]
    numbers = [Budget.per_class(word) for word in _words(() if shots is None else shots)]
    if not shares + numbers:
        raise UsageError("No budget of labels is given. Give --budgets 1,5,10,30,100 or --shots 1,5,10,50.")
    return tuple(dict.fromkeys(shares + numbers))


def _words(given: str | float | Sequence[float] | Sequence[str]) -> list[str]:
    """Return numbers, given as text with commas, as one or as several, as texts without a percent sign."""
    several = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int | float) else given
    return [str(word).strip().removesuffix("%").strip() for word in several if str(word).strip()]


def draws_of(samples: LabelledSamples, split: Split, settings: Settings, budget: Budget) -> Draws:
    """Return the draws of a budget: draw d is tested on fold d, counted round, and learns from labels of the others."""
    folds = split.count
    made: list[Draw] = []
    for number in range(folds if budget.whole else max(settings.draws, folds)):
        drawn = draw_labels(
            budget,
            samples.parcels,
            samples.targets,
            split.train(number),
            task=samples.task,
            seed=settings.seed,
            draw=number,
            keys=samples.keys,
        )
        if isinstance(drawn, NotPossible):
            return Draws(budget, (), drawn.reason)
        made.append(Draw(drawn, split.test(number)))
    return Draws(budget, tuple(made))
