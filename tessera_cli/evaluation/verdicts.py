"""What was shown, in sentences: nobody is named the winner within an interval, or if the constant lies inside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.evaluation.scores import Difference, Score, difference
from tessera_cli.learning.adapters import HEADLINE
from tessera_cli.learning.budgets import Budget
from tessera_cli.learning.metrics import MAIN

CONSTANT = "constant"
MANY = 20
"""Comparisons of which chance alone is expected to show one."""


def differences(samples: LabelledSamples, scores: Sequence[Score]) -> list[Difference]:
    """Return, per adapter and budget, how each set of features compares with the constant and with the others.

    An embedding and raw features side by side are held against the two alone.
    """
    parts = _parts(samples)
    of_unit = [_comparable(samples, score) for score in scores if score.unit == samples.unit]
    constants = {score.budget: score for score in of_unit if score.adapter == CONSTANT}
    made: list[Difference] = []
    for adapter, budget in dict.fromkeys((s.adapter, s.budget) for s in of_unit if s.adapter != CONSTANT):
        every = [score for score in of_unit if (score.adapter, score.budget) == (adapter, budget)]
        row = [score for score in every if score.features not in parts]
        made += [difference(samples.task, score, constants[budget], CONSTANT) for score in row]
        for position, one in enumerate(row):
            made += [difference(samples.task, one, other, other.features) for other in row[position + 1 :]]
        alone = {score.features: score for score in row}
        for both in every:
            made += [difference(samples.task, both, alone[name], name) for name in parts.get(both.features, ())]
    return made


def _parts(samples: LabelledSamples) -> dict[str, tuple[str, ...]]:
    """Return the names of sets of features that stand side by side, by the name of what they make together."""
    return {each.name: each.parts for each in samples.features if each.parts}


def verdicts(samples: LabelledSamples, scores: Sequence[Score], found: Sequence[Difference]) -> list[str]:
    """Return a sentence per budget for the adapter that was declared in advance, then what others show beside it."""
    headline = HEADLINE[samples.task]
    budgets = list(dict.fromkeys(score.budget for score in scores))
    made = [_verdict(samples, budget, headline, scores, found) for budget in budgets]
    for adapter in dict.fromkeys(each.adapter for each in found if each.adapter != headline):
        for budget in budgets:
            here = _of(found, adapter, budget)
            shown = [each.features for each in here if each.against == CONSTANT and each.low > 0]
            headlined = [
                each.features for each in _of(found, headline, budget) if each.against == CONSTANT and each.low > 0
            ]
            if bool(shown) != bool(headlined):
                told = (
                    f"{_listed(shown)} {'beats' if len(shown) == 1 else 'beat'} the constant"
                    if shown
                    else "no features beat the constant"
                )
                made.append(f"{_named(budget)}, with {adapter} instead: {told}.")
    return [*made, *_by_chance(found)]


def _by_chance(found: Sequence[Difference]) -> Iterator[str]:
    """Yield how many of many comparisons show something although nothing differs."""
    count = len(found)
    if count >= MANY:
        yield f"Of {count} comparisons that differ in nothing about {count / 20:.0f} would show something by chance."


def _verdict(
    samples: LabelledSamples, budget: Budget, adapter: str, scores: Sequence[Score], found: Sequence[Difference]
) -> str:
    here = _of(found, adapter, budget)
    start = f"{_named(budget)} ({adapter}): "
    to_constant = {each.features: each for each in here if each.against == CONSTANT}
    shown = [name for name, each in to_constant.items() if each.low > 0]
    if not to_constant:
        return start + "not measured."
    if not shown:
        closest = max(to_constant.values(), key=lambda each: -np.inf if np.isnan(each.value) else each.value)
        return start + (
            f"nothing was shown. No features are better than the constant beyond the interval; the best, "
            f"{closest.features}, by {_amount(samples, closest)}."
        )
    metric, parts = MAIN[samples.task], _parts(samples)
    sign = -1 if samples.task == "regression" else 1
    means = {
        score.features: sign * score.metrics[metric]
        for score in (_comparable(samples, score) for score in scores)
        if (score.adapter, score.budget, score.unit) == (adapter, budget, samples.unit) and score.features not in parts
    }
    order = sorted(means, key=means.__getitem__, reverse=True)
    if len(order) == 1:
        return start + f"{order[0]} is better than the constant by {_amount(samples, to_constant[order[0]])}."
    best = order[0]
    rivals = {name: _between(here, best, name) for name in order[1:]}
    level = [name for name, each in rivals.items() if not each.low > 0]  # an unknown one shows nothing
    if best not in shown:
        return start + f"no winner: {best} has the best mean, but the constant lies within its interval."
    if level:
        each = rivals[level[0]]
        return start + (
            f"no winner: {_listed([best, *level])} lie within the interval ({best} against {level[0]}: "
            f"{_amount(samples, each)})."
        )
    nearest = min(rivals, key=lambda name: rivals[name].low)
    each = rivals[nearest]
    others = f"all others; nearest is {nearest}," if len(rivals) > 1 else nearest
    return (
        start + f"{best} is better than {others} in {each.better} of {each.draws} draws, by {_amount(samples, each)}."
    )


def _comparable(samples: LabelledSamples, score: Score) -> Score:
    """Return a score under the name of the headline adapter, where a set of features has a network of its own."""
    if samples.task != "segmentation" or score.adapter == CONSTANT:
        return score
    return replace(score, adapter=HEADLINE[samples.task])


def _of(found: Iterable[Difference], adapter: str, budget: Budget) -> list[Difference]:
    return [each for each in found if (each.adapter, each.budget) == (adapter, budget)]


def _between(found: Sequence[Difference], one: str, other: str) -> Difference:
    """Return how much better `one` is, whichever way round it was computed."""
    for each in found:
        if (each.features, each.against) == (one, other):
            return each
        if (each.features, each.against) == (other, one):
            return each.turned()
    raise KeyError((one, other))


def _named(budget: Budget) -> str:
    return budget.name if budget.fraction is None else f"{budget.name} of the labels"


def _amount(samples: LabelledSamples, each: Difference) -> str:
    """Return a difference with its interval: +10.4 [6.1, 14.2] points of Macro-F1, or in units of the target."""
    return f"{_interval(samples, each)} {_measure(samples)}"


def _interval(samples: LabelledSamples, each: Difference) -> str:
    if samples.task == "regression":
        return f"{each.value:+.3g} [{each.low:.3g}, {each.high:.3g}]"
    return f"{100 * each.value:+.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]"


def _measure(samples: LabelledSamples) -> str:
    """Return what differences are in."""
    return {"classification": "points of macro-F1", "regression": "RMSE", "segmentation": "points of mean IoU"}[
        samples.task
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(samples: LabelledSamples, found: Sequence[Difference]) -> Iterator[str]:
    """Yield, per embedding, how it compares with the baselines at the smallest budget, by the declared adapter.

    Then what raw features beside it are worth with the most labels: whether the embedding lost something.
    """
    headline = HEADLINE[samples.task]
    budgets = list(dict.fromkeys(each.budget for each in found if each.adapter == headline))
    baselines = [each.name for each in samples.features if each.kind in ("raw", "random")]
    parts = _parts(samples)
    if not budgets:
        return
    here = _of(found, headline, budgets[0])
    metric = _measure(samples)
    several = len(samples.features) - len(parts) != 2  # of two the verdict says it
    for features in samples.features:
        if features.kind == "embedding" and baselines and several:
            pairs = ((name, _between(here, features.name, name)) for name in baselines)
            told = (
                f"{name} {_interval(samples, each)}, better in {each.better} of {each.draws} draws"
                for name, each in pairs
            )
            yield f"{_named(budgets[0])}, {features.name} in {metric} against: {'; '.join(told)}."
    most = max(budgets, key=lambda budget: (budget.fraction or 0, budget.shots or 0))
    for both, (name, raw) in ((both, names) for both, names in parts.items() if len(names) == 2):
        each = _between(_of(found, headline, most), both, name)
        lost = f"the embedding lost something that {raw} holds" if each.low > 0 else "nothing was shown to be lost"
        yield (
            f"{_named(most)}, adding {raw} to {name} is worth {_amount(samples, each)}, better in {each.better} of "
            f"{each.draws} draws: {lost}."
        )
