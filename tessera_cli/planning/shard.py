"""A share of a run for one of several processes: each tile is in one of them, and they cost about the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tessera_cli.errors import UsageError

MAX_SHARDS = 100_000
"""As many as an area may have tiles."""
_SHARD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raise UsageError for a share that there is not."""
        if not 1 <= self.index <= self.count:
            known = f"1/{self.count} to {self.count}/{self.count}" if self.count else "1/1"
            raise UsageError(f"--shard {self}: there is no such share. Give {known}.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `2/5`; UsageError for anything else."""
        if not (match := _SHARD.fullmatch(text.strip())):
            raise UsageError(f"--shard {text} is no share. Write 2/5 for the second of five, or auto in a job array.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, costs: Sequence[int]) -> slice:
        """Return which of the tiles that cost so much, in their order, are in this share."""
        shares = shares_of(costs, self.count)
        first = sum(share < self.index for share in shares)
        return slice(first, first + sum(share == self.index for share in shares))


def check_shards(count: int | None) -> None:
    """Raise UsageError for a number of shares that no run can have."""
    if count is not None and not 1 <= count <= MAX_SHARDS:
        raise UsageError(f"--shards {count} is no number of shares. Give 1 to {MAX_SHARDS:,}.")


def shares_of(costs: Sequence[int], count: int) -> list[int]:
    """Return the share of each tile, rising from 1: that in which the middle of its cost lies.

    So each share is a run of neighbours, and costs at most one tile more or less than the mean. Python's whole numbers
    are exact: all processes cut alike.
    """
    costs = [max(cost, 1) for cost in costs]
    total = sum(costs)
    middles = (2 * end - cost for end, cost in zip(accumulate(costs), costs, strict=True))
    return [1 + middle * count // (2 * total) for middle in middles]
