"""What `verify` says of one thing that it has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckStatus = Literal["sound", "empty", "beside", "stale", "damaged", "failed", "missing"]
SOUND: tuple[CheckStatus, ...] = ("sound", "empty", "beside", "stale")
"""What viewers left beside our rasters is not ours: where it is stale, the rasters are sound all the same."""


@dataclass(frozen=True)
class Check:
    """The result for one tile, list of the folder, store or weights file."""

    name: str
    status: CheckStatus
    reason: str = ""

    @property
    def is_sound(self) -> bool:
        return self.status in SOUND
