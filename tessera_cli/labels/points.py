"""Points with a class or value each: they label the pixel that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tessera_cli.labels.targets import Targets
from tessera_cli.learning.task import Task


@dataclass(frozen=True, eq=False)
class PointLabels:
    """N points; each is a parcel of its own."""

    lonlat: np.ndarray
    """float64 (N, 2), degrees."""
    values: np.ndarray
    """int64 (N,), index into `names`; or float64 (N,) for regression."""
    names: tuple[str, ...]
    task: Task
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further columns that were asked for -> values (N,)."""
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, lonlat: np.ndarray, targets: Targets, origin: str, columns: Mapping[str, np.ndarray] | None = None
    ) -> PointLabels:
        """Keep the points that have a place, float64 (N, 2), NaN for none, and a target."""
        placed = np.isfinite(lonlat).all(axis=1)
        kept = np.flatnonzero(placed & targets.given)
        lines = []
        if absent := int((~placed).sum()):
            lines.append(f"{origin}: {absent:,} of {len(placed):,} points have no geometry")
        if absent := int((placed & ~targets.given).sum()):
            lines.append(f"{origin}: {absent:,} of {len(placed):,} points have no label")
        further = {name: values[kept] for name, values in (columns or {}).items()}
        return cls(lonlat[kept], targets.values[kept], targets.names, targets.task, further, tuple(lines))

    def name(self, value: int) -> str:
        return self.names[value]
