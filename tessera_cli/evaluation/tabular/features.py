"""Prefixes -> sets of features: the columns whose names begin so, in the order of the numbers in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tessera_cli.errors import UsageError, listed
from tessera_cli.evaluation.tabular.table import ColumnKind

DEFAULT = "Tessera_Band_"
_OWN = re.compile(r"Tessera_Band_\d+")


def feature_columns(
    columns: Mapping[str, ColumnKind], prefixes: Sequence[str], reserved: Collection[str], origin: str
) -> dict[str, list[str]]:
    """Return the names of sets -> their columns.

    A set is called as its prefix. Without any prefix, those of `tessera sample` are taken: Tessera_Band_0 and so on,
    not their deviations.

    Args:
        columns: Of the table.
        prefixes: Given by the user.
        reserved: Columns that are no features, such as that of the labels.
        origin: What the table is called in errors.

    Raises:
        UsageError: A prefix has no columns, or one that holds no numbers; or two have one name.
    """
    free = [name for name in columns if name not in reserved]
    if not prefixes and not any(map(_OWN.fullmatch, free)):
        raise UsageError(
            f"{origin} has no columns {DEFAULT}0 and so on. Say which columns are features with --features PREFIX; "
            f"there are: {_offered(columns, free)}."
        )
    found: dict[str, list[str]] = {}
    for prefix in prefixes or (DEFAULT,):
        own = prefix == DEFAULT
        names = sorted(
            (each for each in free if (_OWN.fullmatch(each) if own else each.startswith(prefix))), key=_natural
        )
        if not names:
            raise UsageError(
                f"{origin} has no column that begins with {prefix!r}. Give --features another prefix; there are: "
                f"{_offered(columns, free)}."
            )
        if bad := [each for each in names if columns[each] != "number"]:
            raise UsageError(
                f"{origin}: the column {bad[0]}, which begins with {prefix!r}, holds no numbers. Give a longer prefix, "
                "or drop the column."
            )
        if prefix in found:
            raise UsageError(f"--features {prefix}: two sets are called {prefix}. Leave one out.")
        found[prefix] = names
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts B2 before B10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _offered(columns: Mapping[str, ColumnKind], free: Sequence[str]) -> str:
    """Return the prefixes that several columns of numbers share, with their counts; else the columns there are."""
    numbers = [name for name in free if columns[name] == "number"]
    stems = Counter(found[1] for name in numbers if (found := re.match(r"(.*?[^\d])\d+([^\d].*)?$", name)))
    many = [f"{stem} ({count} columns)" for stem, count in stems.items() if count > 1]
    return listed(many or numbers or columns, 20) or "none"
