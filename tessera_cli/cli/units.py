"""Sizes and durations in the unit that a person would choose, and lists and lines cut to what a screen holds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

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
        return _counted(f"{seconds:,.0f}", "second")
    if seconds < 90 * 60:
        return _counted(f"{seconds / 60:,.0f}", "minute")
    if seconds < 48 * 3600:
        return _counted(f"{seconds / 3600:,.1f}", "hour")
    return _counted(f"{seconds / 86400:,.1f}", "day")


def _counted(number: str, unit: str) -> str:
    return f"{number} {unit}{'' if number == '1' else 's'}"


def cut(entries: Iterable[str], rest: str) -> Iterator[str]:
    """Yield the first entries, and where there are more, how many; `rest` says where they stand."""
    every = list(entries)
    yield from every[:SHOWN]
    if len(every) > SHOWN:
        yield f"and {len(every) - SHOWN:,} more ({rest})"


def entry(name: str, text: str, width: int = 13) -> list[str]:
    """Return a name and what is said of it, wrapped at 80 columns beside the name; words are never broken."""
    indent = " " * width
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=f"{name:{width}s}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
