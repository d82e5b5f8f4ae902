"""All that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.fuzz import areas, catalogues, folders, rasters
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (*catalogues.TARGETS, *areas.TARGETS, *rasters.TARGETS, *folders.TARGETS, folders.COMMANDS)
}


def names(given: Sequence[str] | None) -> Iterator[str]:
    """Yield the names of targets: those given, else all."""
    for name in given or TARGETS:
        if name not in TARGETS:
            raise SystemExit(f"There is no target {name}. There are: {', '.join(TARGETS)}.")
        yield name
