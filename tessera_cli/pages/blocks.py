"""Parts of reports: figures with a caption, and tables that scroll on narrow screens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("blocks.css").read_text(encoding="utf-8")
"""CSS that follows the theme."""


def figure(title: str, drawing: str, caption: str = "", legend: str = "") -> str:
    """Return a figure. `drawing` and `legend` are HTML, the rest is escaped here."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    keys = f'<div class="legend">{legend}</div>\n' if legend else ""
    return f"<figure><h3>{escape(title)}</h3>{keys}{drawing}\n{below}</figure>\n"


def figures(parts: Iterable[str]) -> str:
    """Return figures side by side where there is room; empty without one."""
    shown = "".join(parts)
    return f'<div class="figures">{shown}</div>\n' if shown else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0, kind: str = "plain") -> str:
    """Return a table of plain text, escaped here; empty without rows. Columns from `numbers` on are right-aligned."""

    def cell(tag: str, text: str, column: int) -> str:
        kind = ' class="number"' if numbers and column >= numbers else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    lines = []
    for row in rows:
        cells = "".join(cell("td" if column else "th", text, column) for column, text in enumerate(row))
        lines.append(f"<tr>{cells}</tr>\n")
    if not lines:
        return ""
    top = "".join(cell("th", name, column) for column, name in enumerate(head))
    return f'<div class="wide"><table class="{kind}"><tr>{top}</tr>\n{"".join(lines)}</table></div>\n'


def listing(lines: Iterable[str], kind: str = "plain") -> str:
    """Return a list of plain text, escaped here; empty without a line."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>\n' if items else ""
