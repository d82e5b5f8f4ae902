"""Change JSON, text and bytes at random, as damage and malice would: by a generator, so a seed repeats every mutant."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any


class Raw(str):
    """Text that stands in JSON as it is, whatever it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may be there twice."""


EVIL: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    1.5,
    1e308,
    10**30,
    10**400,
    Raw("9" * 5000),
    Raw("1e999"),
    Raw("-0.0"),
    Raw("NaN"),
    Raw("Infinity"),
    Raw("-Infinity"),
    "",
    " ",
    "NaN",
    "-1",
    "12.5",
    "nan",
    "\u0661\u0662",
    "\ud800",
    "a\x00b",
    "\x1b[2J\x1b]0;owned\x07\ntessera: done",
    "\u202egpj.exe",
    "../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "/vsicurl/http://192.0.2.1/x.tif",
    "http://[::1/x.tif",
    "https://user:word@192.0.2.1\\@x.test/",
    "http://127.0.0.1:1/x.tif",
    "s3://sentinel-s2-l2a/x.jp2",
    "//x.test/a",
    "x" * 10_000,
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2021-07-01T10:56:31.123456789Z",
    "0000-00-00",
    [],
    [None],
    [[]],
    [{}],
    ["x", 1, None],
    [0, 0],
    [Raw("NaN")] * 4,
    {},
    {"a": 1},
    {"href": None},
    Raw("[" * 400 + "]" * 400),
    Raw('{"a":' * 400 + "1" + "}" * 400),
    Raw("[" * 100_000 + "]" * 100_000),
)
"""What may stand in the place of any value."""
NUMBERS = (0, 1, 2, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
"""What may stand in the place of sizes, counts and offsets."""


def mutated(obj: Any, rng: Random) -> bytes:
    """Return the JSON of an object with one to three changes anywhere in it."""
    root = [_copy(obj)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if root:
            container, place = rng.choice(_places(root))
            rng.choice(_CHANGES)(container, place, rng)
    text = _dump(root[0]) if root else ""
    return text.encode("utf-8", "surrogatepass")


def damaged(data: bytes, rng: Random, *, head: int = 1024) -> bytes:
    """Return bytes with one to three changes, most within the first `head`, where formats describe themselves."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not made:
            return bytes(made)
        end = min(head, len(made)) if rng.random() < 0.7 else len(made)
        at = rng.randrange(end)
        kind = rng.randrange(8)
        if kind <= 1:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind <= 4:
            size = rng.choice((2, 4, 8))
            value = rng.choice((*NUMBERS, 2**63 - 1, 2**64 - 1, rng.getrandbits(64))) % 256**size
            made[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 5:
            del made[at : None if rng.random() < 0.5 else at + rng.randrange(1, 64)]
        elif kind == 6:
            made[at:at] = rng.randbytes(rng.choice((1, 4, 64, 4096)))
        else:
            length, other = rng.choice((4, 16, 256)), rng.randrange(len(made))
            made[at : at + length] = made[other : other + length]
    return bytes(made)


def respelled(text: str, rng: Random) -> bytes:
    """Return the text with words and numbers of it replaced by others of it, or by evil ones, or damaged as bytes."""
    import re

    if rng.random() < 0.3:
        return damaged(text.encode(), rng, head=len(text))
    words = list(re.finditer(r'"[^"\n]*"|[^\s=\[\],"]+', text))
    word = rng.choice(words)
    other = rng.choice((rng.choice(words)[0], _dump(rng.choice(EVIL)), f'"{word[0]}', f"[{word[0]}]", ""))
    return (text[: word.start()] + other + text[word.end() :]).encode("utf-8", "surrogatepass")


def _copy(obj: Any) -> Any:
    if isinstance(obj, dict):
        return Pairs((key, _copy(value)) for key, value in obj.items())
    if isinstance(obj, Pairs):
        return Pairs((key, _copy(value)) for key, value in obj)
    if isinstance(obj, tuple):
        return tuple(map(_copy, obj))
    return [_copy(value) for value in obj] if isinstance(obj, list) else obj


def _places(root: list[Any]) -> list[tuple[list[Any], int]]:
    """Return every value as a container and a position in it; one of many coordinates counts less than one property."""
    places, containers = [], [root]
    while containers:
        container = containers.pop()
        shown = range(len(container)) if isinstance(container, Pairs) else range(min(len(container), 3))
        for place in shown:
            value = container[place][1] if isinstance(container, Pairs) else container[place]
            places.append((container, place))
            if isinstance(value, list):
                containers.append(value)
    return places


def _get(container: list[Any], place: int) -> Any:
    return container[place][1] if isinstance(container, Pairs) else container[place]


def _put(container: list[Any], place: int, value: Any) -> None:
    container[place] = (container[place][0], value) if isinstance(container, Pairs) else value


def _replace(container: list[Any], place: int, rng: Random) -> None:
    _put(container, place, _copy(rng.choice(EVIL)))


def _drop(container: list[Any], place: int, rng: Random) -> None:
    del container[place]


def _double(container: list[Any], place: int, rng: Random) -> None:
    again = _copy(container[place])
    if isinstance(container, Pairs) and rng.random() < 0.5:
        again = (again[0], _copy(rng.choice(EVIL)))
    container.insert(rng.randrange(len(container) + 1), again)


def _rename(container: list[Any], place: int, rng: Random) -> None:
    if isinstance(container, Pairs):
        names = ("", "\ud800", "../x", "a\x00", "\x1b[2J", container[place][0].upper(), rng.choice(container)[0])
        container[place] = (rng.choice(names), container[place][1])


def _wrap(container: list[Any], place: int, rng: Random) -> None:
    value = _get(container, place)
    _put(container, place, rng.choice(([value], Pairs([("a", value)]), [value, _copy(value), _copy(value)])))


def _bend(container: list[Any], place: int, rng: Random) -> None:
    """Change a value to a similar one: a number to text, text to a longer one, a list to a shorter one."""
    value = _get(container, place)
    if value is None or isinstance(value, bool | Raw):
        _replace(container, place, rng)
    elif isinstance(value, int | float):
        _put(container, place, rng.choice((str(value), -value, value * 1e6, value + 0.5, rng.choice(NUMBERS))))
    elif isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        evil = rng.choice([each for each in EVIL if isinstance(each, str) and not isinstance(each, Raw)])
        _put(container, place, rng.choice((value[:at], value[at:], value[:at] + evil + value[at:], value + evil)))
    elif value:
        _drop(value, rng.randrange(len(value)), rng)


_CHANGES: tuple[Callable[[list[Any], int, Random], None], ...] = (
    *[_replace] * 6,
    *[_bend] * 3,
    _drop,
    _double,
    _rename,
    _wrap,
)


def _dump(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{_dump(inner)}" for key, inner in value) + "}"
    if isinstance(value, dict):
        return _dump(Pairs(value.items()))
    return "[" + ",".join(map(_dump, value)) + "]" if isinstance(value, list) else json.dumps(value)
