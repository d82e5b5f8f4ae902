"""What is compared, on which draws of labels: the plan of an evaluation, the same for all features and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.learning.adapters import HEADLINE, NAMES, OTHERS
from tessera_cli.learning.budgets import Budget, NotPossible, draw_labels
from tessera_cli.learning.splits import Split

ALL = Budget(fraction=1.0)
HEADLINE_METRIC = {"classification": "macro_f1", "regression": "rmse", "segmentation": "miou"}
"""What verdicts are about; of regressions the smaller the better."""


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
class Settings:
    """What a user may choose."""

    adapters: tuple[str, ...]
    """By falling importance; `constant` is always among them."""
    budgets: tuple[Budget, ...]
    draws: int = 10
    """Draws of labels of each budget but that of all labels, which has one per fold."""
    seed: int = 0
    threads: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what results depend on, as plain JSON."""
        return {
            "adapters": list(self.adapters),
            "budgets": [str(budget) for budget in self.budgets],
            "draws": self.draws,
            "seed": self.seed,
        }


def chosen_adapters(task: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the adapters to use: `constant` and the headline adapter of the task always; UsageError."""
    known = (*NAMES[task], *OTHERS[task])  # type: ignore[index]
    for name in given or ():
        if name not in known:
            raise UsageError(f"--adapter {name}: a {task} has no such adapter. There are: {', '.join(known)}.")
    wanted = NAMES[task] if not given else ("constant", HEADLINE[task], *given)  # type: ignore[index]
    return tuple(dict.fromkeys(wanted))


def draws_of(samples: LabelledSamples, split: Split, settings: Settings, budget: Budget) -> Draws:
    """Return the draws of a budget: draw d is tested on fold d, counted round, and learns from labels of the others."""
    folds = int(split.folds.max()) + 1
    made: list[Draw] = []
    for number in range(folds if budget == ALL else max(settings.draws, folds)):
        tested = split.folds == number % folds
        drawn = draw_labels(
            budget,
            samples.parcels,
            samples.targets,
            ~tested,
            task=samples.task,
            seed=settings.seed,
            draw=number,
            keys=samples.keys,
        )
        if isinstance(drawn, NotPossible):
            return Draws(budget, (), drawn.reason)
        made.append(Draw(drawn, np.flatnonzero(tested)))
    return Draws(budget, tuple(made))
