"""JSON as others write it -> plain values: what we can write again, and look into without falling."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

DEEPEST = 100
"""Levels of lists and objects; documents that mean something have twenty."""
DIGITS = 300
"""Of a whole number; those with more are beyond any float."""
MEMORY = 750_000_000
"""Bytes that the values of one text may take: a list of empty lists takes 24 times as many as its text has."""
_CONTAINERS = (dict, list)
_HALF_LETTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:
    """Return the value of a JSON text; bytes may be UTF-8, -16 or -32. ValueError, with the reason, if it is none.

    Python, R and their databases write NaN and Infinity, which JSON does not have: they become None, as do numbers too
    large for a float; `strict`, for what is no document of a catalogue, refuses them. Halves of letters (lone
    surrogates), which no file takes, become U+FFFD. Of equal keys the last counts.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    check_memory(text)
    try:
        if strict:
            value = json.loads(text, parse_constant=_refuse)
        else:
            value = json.loads(text, parse_float=_float, parse_int=_int, parse_constant=_nothing)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    return _with_whole_letters(value) if _HALF_LETTER.search(text) else value


def check_memory(text: str) -> None:
    """Raise ValueError for a JSON text whose values would take more than MEMORY, before any is made.

    About 200 bytes for an object, 64 for whatever else follows a bracket, comma or colon.
    """
    if 200 * len(text) <= MEMORY:
        return
    due = 200 * text.count("{") + 64 * sum(map(text.count, "[,:"))
    if due > MEMORY:
        raise ValueError(
            f"its values would take {due / 1e6:,.0f} MB of memory, and at most {MEMORY / 1e6:,.0f} are used"
        )


def _float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _int(text: str) -> int | None:
    return int(text) if len(text) <= DIGITS else None


def _nothing(text: str) -> None:
    return None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, _CONTAINERS)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _with_whole_letters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_with_whole_letters(inner) for inner in value]
    if isinstance(value, dict):
        return {_with_whole_letters(key): _with_whole_letters(inner) for key, inner in value.items()}
    return value
