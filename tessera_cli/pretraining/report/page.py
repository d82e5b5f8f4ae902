"""The report of a run as one HTML page: measures, curves, configuration, and what the numbers mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tessera_cli.pages.document import document, facts
from tessera_cli.pretraining.callbacks import COLLAPSED, Row
from tessera_cli.pretraining.report import chart
from tessera_cli.pretraining.report.chart import Curve, Level, number

Sections = Mapping[str, Mapping[str, Any]]
"""A configuration as JSON."""

HEADLINES = ("probe_knn", "probe_linear", "retrieval")
"""Measures that sum up an evaluation, in order of preference."""

_DRIFT = "Agreement of a held-out pixel's embedding from {} with the one from all its observations; 1: no drift."
MEASURES: Mapping[str, tuple[str, str]] = {
    "probe_knn": (
        "kNN probe",
        "Balanced accuracy (mean recall of the classes) when each labelled pixel takes the "
        "commonest class of its 20 nearest embeddings from other parcels.",
    ),
    "probe_linear": (
        "Linear probe",
        "Balanced accuracy of a linear map from embedding to class, fitted on other parcels.",
    ),
    "retrieval": (
        "Retrieval",
        "Share of held-out pixels whose embedding from one random choice of dates is nearest, "
        "among all held-out pixels, to their own from another choice.",
    ),
    "agreement": (
        "Agreement",
        "Mean cosine of the two embeddings of a held-out pixel, after the mean embedding is "
        "subtracted: 1 is the same, 0 unrelated.",
    ),
    "drift_5": ("5 dates", _DRIFT.format("5 dates per sensor")),
    "drift_10": ("10 dates", _DRIFT.format("10 dates per sensor")),
    "drift_20": ("20 dates", _DRIFT.format("20 dates per sensor")),
    "drift_no_radar": ("No radar", _DRIFT.format("Sentinel-2 alone")),
    "rank_me": (
        "RankMe",
        "Exponential of the entropy of the embeddings' singular values: about how many dimensions "
        "are in use. A random encoder may use more; only a fall to a few is a warning.",
    ),
    "offdiag_rms": (
        "Off-diagonal RMS",
        "Root mean square of the correlations between different outputs of the "
        "projector. Independent noise has 1/\u221abatch; at 1 they all say the same: collapse.",
    ),
}
"""Measures of an evaluation: name and meaning."""


def report(rows: Sequence[Row], config: Sections, notes: Mapping[str, str]) -> str:
    """Return a self-contained HTML page, without scripts.

    `rows`: those of `metrics.jsonl`, by rising step; measures that are absent or not finite are left out. `notes`:
    names and values to show below the title.
    """
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval"]
    name = str(_setting(config, "model", "name") or "an encoder")
    charts = "".join(_charts(train, evaluations, config))
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    body = (
        f"<h1>Pretraining of {escape(name)}</h1>\n"
        + (facts(notes) if notes else "")
        + (_COLLAPSED if train and train[-1].get("collapsed") else "")
        + f'<div class="tiles">{"".join(_tiles(train, evaluations, config))}</div>\n'
        + (f'<div class="charts">{charts}</div>\n' if charts else "<p>Nothing has been measured yet.</p>\n")
        + (_table(evaluations[-1]) if evaluations else "")
        + f'<h2>Settings</h2>\n<div class="settings">{"".join(map(_section, config.items()))}</div>\n'
    )
    return document(f"Pretraining of {name}", style + chart.STYLE, body)


def measure(row: Row, key: str) -> float | None:
    """Return a measure of a row, or None if it is no finite number."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def headline(row: Row) -> str | None:
    """Return the measure that sums up an evaluation."""
    return next((key for key in HEADLINES if measure(row, key) is not None), None)


_COLLAPSED = (
    '<p class="collapsed"><b>Collapsed.</b> The outputs of the projector all say the same (off-diagonal RMS beyond '
    f"{COLLAPSED}): nothing makes the dimensions of the embedding differ. "
    "Raise loss.lambda or lower optim.lr, and train anew.</p>\n"
)


def _tiles(train: Sequence[Row], evaluations: Sequence[Row], config: Sections) -> Iterator[str]:
    """Yield the most important figures."""
    found = evaluations[-1] if evaluations else {}
    last = train[-1] if train else {}
    if key := headline(found):
        random = measure(found, f"{key}_random")
        remark = "" if random is None else f"random encoder {number(random)}"
        yield _tile(MEASURES[key][0], number(measure(found, key)), remark)
    chance = number(measure(last, "offdiag_rms_chance"))
    yield _tile("Off-diagonal RMS", number(measure(last, "offdiag_rms")), f"chance {chance}, collapse {COLLAPSED}")
    steps, batch = _setting(config, "train", "steps"), _setting(config, "train", "batch")
    done = int(max(measure(last, "step") or 0, measure(found, "step") or 0))
    yield _tile("Steps", f"{done:,}", f"of {steps:,}" if isinstance(steps, int) else "")
    if isinstance(batch, int):
        yield _tile("Pixels seen", f"{done * batch:,}", f"{batch:,} per step")
    waited = measure(last, "wait_share")
    wait = "" if waited is None else f"{100 * waited:.0f} % waiting for data"
    yield _tile("Pixels/s", number(measure(last, "pixels_per_second")), wait)


def _tile(name: str, value: str, remark: str) -> str:
    return f"<div><span>{name}</span><b>{value}</b><span>{remark}</span></div>"


def _table(row: Row) -> str:
    """Return the table of an evaluation beside the random encoder."""
    lines = []
    for key, (label, meaning) in MEASURES.items():
        if (value := measure(row, key)) is not None:
            random = measure(row, f"{key}_random")
            decimals = 3 if abs(value) <= 1 else 1
            beside = (
                ("\u2013",) * 2 if random is None else (f"{random:.{decimals}f}", f"{value - random:+.{decimals}f}")
            )
            cells = "".join(f'<td class="number">{cell}</td>' for cell in (f"{value:.{decimals}f}", *beside))
            lines.append(f"<tr><th>{label}</th>{cells}<td>{meaning}</td></tr>\n")
    head = "<tr><th>Measure</th><th>Encoder</th><th>Random</th><th>Difference</th><th>What it is</th></tr>"
    best = " (the best so far)" if row.get("best") else ""
    title = f"<h2>Evaluation at step {number(measure(row, 'step'))}{best}</h2>"
    return f'{title}\n<div class="wide"><table class="measures">{head}\n{"".join(lines)}</table></div>\n'


def _section(section: tuple[str, Mapping[str, Any]]) -> str:
    lines = (f"<tr><th>{escape(str(key))}</th><td>{_value(value)}</td></tr>" for key, value in section[1].items())
    return f"<table><caption>{escape(str(section[0]))}</caption>{''.join(lines)}</table>\n"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "\u2013"
    if value is None or value == "":
        return "\u2013"
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _setting(config: Sections, section: str, key: str) -> Any:
    return config.get(section, {}).get(key)


def _curve(rows: Iterable[Row], key: str, name: str, style: str = "c1") -> Curve:
    pairs = ((measure(row, "step"), measure(row, key)) for row in rows)
    return Curve(name, [(step, value) for step, value in pairs if step is not None and value is not None], style)


def _charts(train: Sequence[Row], evaluations: Sequence[Row], config: Sections) -> Iterator[str]:
    losses = [_curve(train, "loss_above_floor", "above the floor"), _curve(train, "loss", "loss", "plain")]
    caption = (
        "B pixels cannot make D outputs independent: D\u00b2/(B\u22121) \u2212 D of the off-diagonal terms "
        "always remain, often most of the loss. What training changes is what lies above."
    )
    yield chart.chart("Loss above its floor", caption, losses, log=True)

    chance = measure(train[-1], "offdiag_rms_chance") if train else None
    levels = [] if chance is None else [Level("chance, 1/\u221abatch", chance, "good")]
    levels.append(Level("collapse", COLLAPSED, "bad"))
    rms = _curve(train, "offdiag_rms", "training")
    yield chart.chart("Off-diagonal RMS", MEASURES["offdiag_rms"][1], [rms], levels, zero=True)

    yield _beside_random("Probes", evaluations, "probe_knn", "probe_linear")
    yield _beside_random("Two views of a pixel", evaluations, "retrieval", "agreement")

    drift = [key for key in MEASURES if key.startswith("drift_")]
    caption = "Agreement of an embedding from fewer observations with the one from all of them; 1: no drift."
    curves = [_curve(evaluations, key, MEASURES[key][0], f"c{colour}") for colour, key in enumerate(drift, 1)]
    yield chart.chart("Fewer observations", caption, curves)

    ranks = [
        _curve(train, "rank_me", "training"),
        _curve(evaluations, "rank_me", "held out", "c2"),
        _curve(evaluations, "rank_me_random", "held out, random", "c2 dashed"),
    ]
    size = _setting(config, "model", "representation")
    title = "RankMe" if size is None else f"RankMe of {size} dimensions"
    yield chart.chart(title, MEASURES["rank_me"][1], ranks, zero=True)

    caption = "Rises while the optimiser warms up, then falls to 0 along a cosine."
    yield chart.chart("Learning rate", caption, [_curve(train, "lr", "rate")], zero=True)

    caption = "Before clipping. Single spikes are harmless; a rise without end is not: lower optim.lr."
    clip = _setting(config, "optim", "clip")
    levels = [Level("clipped at", clip, "bad")] if isinstance(clip, int | float) else []
    yield chart.chart("Gradient norm", caption, [_curve(train, "gradient_norm", "norm")], levels, log=True)


def _beside_random(title: str, evaluations: Sequence[Row], *keys: str) -> str:
    curves = []
    for colour, key in enumerate(keys, 1):
        label = MEASURES[key][0]
        curves.append(_curve(evaluations, key, label, f"c{colour}"))
        curves.append(_curve(evaluations, f"{key}_random", f"{label}, random", f"c{colour} dashed"))
    return chart.chart(title, " ".join(MEASURES[key][1] for key in keys), curves)
