"""The report of a run as one HTML page: measures, curves, configuration, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tessera_cli.figures.numbers import number
from tessera_cli.figures.style import NEEDED, drawable
from tessera_cli.pages import blocks
from tessera_cli.pages.document import document, facts
from tessera_cli.pretraining.callbacks import COLLAPSED, Row
from tessera_cli.pretraining.report.charts import drawn, of_rows
from tessera_cli.pretraining.report.measures import MEASURES, headline, measure

Sections = Mapping[str, Mapping[str, Any]]
"""A configuration as JSON."""


def report(rows: Sequence[Row], config: Sections, notes: Mapping[str, str]) -> str:
    """Return a self-contained HTML page, without scripts.

    `rows`: those of `metrics.jsonl`, by rising step; measures that are absent or not finite are left out. `notes`:
    names and values to show below the title.
    """
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval"]
    name = str(_setting(config, "model", "name") or "an encoder")
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    body = (
        f"<h1>Pretraining of {escape(name)}</h1>\n"
        + (facts(notes) if notes else "")
        + (_COLLAPSED if train and train[-1].get("collapsed") else "")
        + f'<div class="tiles">{"".join(_tiles(train, evaluations, config))}</div>\n'
        + _curves(train, evaluations, config)
        + (_table(evaluations[-1]) if evaluations else "")
        + f'<h2>Settings</h2>\n<div class="settings">{"".join(map(_section, config.items()))}</div>\n'
    )
    return document(f"Pretraining of {name}", blocks.STYLE + style, body)


def _curves(train: Sequence[Row], evaluations: Sequence[Row], config: Sections) -> str:
    size, clip = _setting(config, "model", "representation"), _setting(config, "optim", "clip")
    charts = [chart for chart in of_rows(train, evaluations, size, clip) if chart.curves]
    if not charts:
        return "<p>Nothing has been measured yet.</p>\n"
    if not drawable():
        return f"<p>There are no curves here. {escape(NEEDED)}</p>\n"
    return blocks.figures(map(drawn, charts))


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
    if (taught := measure(found, "teacher_all")) is not None:
        yield _tile("Cosine to the teacher", number(taught), f"from 10 dates {number(measure(found, 'teacher_10'))}")
    if (rms := measure(last, "offdiag_rms")) is not None:
        chance = number(measure(last, "offdiag_rms_chance"))
        yield _tile("Off-diagonal RMS", number(rms), f"chance {chance}, collapse {COLLAPSED}")
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
    taught = any(key.endswith("_teacher") for key in row)
    others = ("_random", "_teacher") if taught else ("_random",)
    lines = []
    for key, (label, meaning) in MEASURES.items():
        if (value := measure(row, key)) is not None:
            beside = [measure(row, key + other) for other in others]
            decimals = 3 if abs(value) <= 1 else 1
            shown = ["\u2013" if one is None else f"{one:.{decimals}f}" for one in (value, *beside)]
            shown.append("\u2013" if beside[0] is None else f"{value - beside[0]:+.{decimals}f}")
            cells = "".join(f'<td class="number">{cell}</td>' for cell in shown)
            lines.append(f"<tr><th>{label}</th>{cells}<td>{meaning}</td></tr>\n")
    names = ("Encoder", "Random", *(("Teacher",) if taught else ()), "Difference" + (" from random" if taught else ""))
    heads = "".join(f"<th>{name}</th>" for name in names)
    head = f"<tr><th>Measure</th>{heads}<th>What it is</th></tr>"
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
