"""What the values of a report are called, and how they are written: on the page, in figures, and on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tessera_cli.figures.numbers import number, percent

NOTHING = "\u2013"


@dataclass(frozen=True)
class Metric:
    """How a measure is read."""

    label: str
    meaning: str
    percent: bool = True
    """A share that is written as per cent; its differences are points."""
    rises: bool = True
    """Larger is better."""


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("Accuracy", "Share of the test samples whose class is right."),
    "balanced_accuracy": Metric("Balanced accuracy", "Mean over the classes of the share that is right."),
    "macro_f1": Metric(
        "Macro-F1",
        "Mean over the classes of F1, which is high where few of a class are missed and few others are taken for it; "
        "small classes count as much as large ones.",
    ),
    "miou": Metric("Mean IoU", "Mean over the classes of the area that is right among all that is or was called so."),
    "rmse": Metric("RMSE", "Root mean square error, in units of the target; smaller is better.", False, False),
    "mae": Metric("MAE", "Mean absolute error, in units of the target; smaller is better.", False, False),
    "r2": Metric("R\u00b2", "Share of the variance that is explained; 0 is the mean of the test samples.", False),
    "bias": Metric("Bias", "Mean of predicted less true, in units of the target; 0 is none.", False),
}

ADAPTERS = {
    "constant": "the commonest class, or the mean, of the training labels: what knows nothing of the features",
    "ridge": "linear regression with a penalty",
    "logistic": "logistic regression with a penalty",
    "knn": "the nearest neighbours among the labels",
    "forest": "a random forest",
    "mlp": "a small neural network",
    "decoder": "a light convolutional decoder on frozen features",
    "unet": "a U-Net trained from scratch on raw composites",
}


def metric(name: str) -> Metric:
    """Return how a measure is read; one that is not known is a plain number."""
    return METRICS.get(name) or Metric(name, "", False)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def value(name: str, found: Any) -> str:
    """Return a value as text: per cent with a decimal, else three digits; a dash for nothing."""
    if found is None or not is_number(found):
        return NOTHING
    if metric(name).percent:
        return f"{100 * found:.1f}"
    return f"{found:#.3g}" if 0.001 <= abs(found) < 100 else number(found)


def with_interval(name: str, result: Mapping[str, Any]) -> str:
    """Return a result's value and interval: 81.2 [78.0, 84.1]."""
    found, low, high = (result.get(key, {}).get(name) for key in ("metrics", "low", "high"))
    ends = f" [{value(name, low)}, {value(name, high)}]" if is_number(low) and is_number(high) else ""
    return value(name, found) + ends


def difference(comparison: Mapping[str, Any]) -> str:
    """Return a difference and its interval, signed: +10.4 [6.1, 14.2]."""
    points = metric(comparison["metric"]).percent
    said = []
    for key, sign in (("difference", "+"), ("low", ""), ("high", "")):
        found = comparison.get(key)
        if found is None or not is_number(found):
            said.append(NOTHING)
        elif points:
            said.append(f"{100 * found:{sign}.1f}")
        else:
            said.append(f"{found:{sign}.3g}")
    return f"{said[0]} [{said[1]}, {said[2]}]"


def shows(comparison: Mapping[str, Any]) -> str:
    """Return what a difference shows: `better`, `worse`, or `nothing` where 0 lies within the interval."""
    low, high = comparison.get("low"), comparison.get("high")
    if is_number(low) and low > 0:  # type: ignore[operator]
        return "better"
    return "worse" if is_number(high) and high < 0 else "nothing"  # type: ignore[operator]


def unit_of(name: str) -> str:
    """Return what values of a measure are in: for heads of tables and axes."""
    found = metric(name)
    return f"{found.label}, %" if found.percent else found.label


def budget(entry: Mapping[str, Any]) -> str:
    """Return a budget of labels as text: 10 %, or 5 per class."""
    if is_number(entry.get("labels")):
        return percent(entry["labels"])
    return f"{entry.get('shots')} per class"
