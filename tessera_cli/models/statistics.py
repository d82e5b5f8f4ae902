"""The constants that standardise d-pixels: (x − mean) / sd per band, in the raw units of the d-pixel arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tessera_cli.dpixel import S1_BANDS, S2_BANDS


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per band, in the order of S2_BANDS and S1_BANDS."""

    s2_mean: tuple[float, ...]
    s2_std: tuple[float, ...]
    s1_asc_mean: tuple[float, ...]
    s1_asc_std: tuple[float, ...]
    s1_desc_mean: tuple[float, ...]
    s1_desc_std: tuple[float, ...]

    def to_card(self) -> dict[str, list[float]]:
        """As plain JSON, for the card of our own weights files."""
        return {field.name: list(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_card`; ValueError names what does not fit."""
        values = {}
        for field in dataclasses.fields(cls):
            bands = len(S2_BANDS if field.name.startswith("s2") else S1_BANDS)
            numbers = card.get(field.name)
            if not isinstance(numbers, list) or len(numbers) != bands:
                raise ValueError(f"statistics.{field.name} is not a list of {bands} numbers")
            if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
                raise ValueError(f"statistics.{field.name} holds something else than finite numbers")
            if field.name.endswith("std") and min(numbers) <= 0:
                raise ValueError(f"statistics.{field.name} holds a standard deviation that is not positive")
            values[field.name] = tuple(float(n) for n in numbers)
        return cls(**values)


V2_STUDENT = Statistics(
    s2_mean=(
        1633.0042, 1341.1090, 1539.5536, 3054.8269, 3117.4658, 2004.1648, 2694.7275, 2945.1504, 2266.6079, 1657.3094,
    ),
    s2_std=(
        1999.4603, 2014.7549, 1929.2201, 1754.2493, 1649.9807, 1936.8988, 1748.6041, 1708.6991, 1207.5250, 1108.6046,
    ),
    s1_asc_mean=(5909.3921, 3405.0322),
    s1_asc_std=(1507.1750, 1531.2615),
    s1_desc_mean=(5816.1382, 3277.7576),
    s1_desc_std=(1554.6475, 1546.4733),
)  # fmt: skip
"""One set for both sources: `tessera_infer_v2/student`."""
