"""Sizes and durations in the unit that a person would choose, and lists and lines cut to what a screen holds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from tessera_cli.errors import counted

COLUMNS = 80
SHOWN = 5
"""Entries of a list that text shows; --json has all."""


def size(count: float) -> str:
    """Return bytes as B, kB, MB, GB or TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds as seconds, minutes, hours or days, with one decimal from hours on."""
    if seconds < 90:
        return counted(round(seconds), "second")
    if seconds < 90 * 60:
        return counted(round(seconds / 60), "minute")
    if seconds < 48 * 3600:
        return counted(round(seconds / 3600, 1), "hour")
    return counted(round(seconds / 86400, 1), "day")


def cut(entries: Iterable[str], rest: str) -> Iterator[str]:
    """Yield the first entries, and where there are more, how many; `rest` says where they stand."""
    every = list(entries)
    yield from every[:SHOWN]
    if len(every) > SHOWN:
        yield f"and {len(every) - SHOWN:,} more ({rest})"


def entry(name: str, text: str) -> list[str]:
    """Return a name and what is said of it, wrapped at 80 columns beside the name; words are never broken."""
    rows = textwrap.wrap(text, COLUMNS - 13, break_long_words=False, break_on_hyphens=False)
    return [f"{'' if number else name:13s}{row}" for number, row in enumerate(rows)]
