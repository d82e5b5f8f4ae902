"""The constants that standardise d-pixels: (x − mean) / std per band, in the raw units of the d-pixel arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import complaint

_Mean = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Std = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
_S2 = Field(min_length=len(S2_BANDS), max_length=len(S2_BANDS))
_S1 = Field(min_length=len(S1_BANDS), max_length=len(S1_BANDS))


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation per band, in the order of S2_BANDS and S1_BANDS."""

    s2_mean: Annotated[tuple[_Mean, ...], _S2]
    s2_std: Annotated[tuple[_Std, ...], _S2]
    s1_asc_mean: Annotated[tuple[_Mean, ...], _S1]
    s1_asc_std: Annotated[tuple[_Std, ...], _S1]
    s1_desc_mean: Annotated[tuple[_Mean, ...], _S1]
    s1_desc_std: Annotated[tuple[_Std, ...], _S1]

    def to_card(self) -> dict[str, list[float]]:
        """Return plain JSON, for the card of our own weights files."""
        return {name: list(values) for name, values in dataclasses.asdict(self).items()}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Statistics:
        """Return the inverse of `to_card`; ValueError names what does not fit."""
        try:
            return TypeAdapter(cls).validate_python(card)
        except ValidationError as error:
            raise ValueError(f"statistics: {complaint(error)}") from error


_V1_0_S1 = ((5484.0407, 3003.7812), (1871.2334, 1726.0670))
V1_0_STATISTICS = Statistics(
    (1711.0938, 1308.8511, 1546.4543, 3010.1293, 3106.5083, 2068.3044, 2685.0845, 2931.5889, 2514.6928, 1899.4922),
    (1926.1026, 1862.9751, 1803.1792, 1741.7837, 1677.4543, 1888.7862, 1736.3090, 1715.8104, 1514.5199, 1398.4779),
    *_V1_0_S1,
    *_V1_0_S1,
)
"""One set for both orbits: `tessera_infer` and `tessera_infer_QAT`."""

_V1_1_MPC = Statistics(
    (2683.4553, 2223.3630, 2432.0950, 3633.1970, 3602.1755, 3006.4324, 3400.2710, 3515.6392, 2456.9163, 1983.8783),
    (2739.5217, 2846.2993, 2690.8250, 2290.0439, 2088.8970, 2673.1106, 2381.4521, 2229.5225, 1601.0942, 1495.3545),
    (5588.3291, 3025.6270),
    (1713.4646, 1693.0471),
    (5552.9683, 2955.0520),
    (1685.5857, 1677.6414),
)
_V1_1_AWS = Statistics(
    (2793.6589, 2356.7776, 2551.0496, 3741.9229, 3713.7844, 3120.1997, 3516.3342, 3637.0342, 2501.0283, 2038.1504),
    (2810.0093, 2933.8835, 2755.6360, 2344.5027, 2145.7986, 2743.9019, 2438.8601, 2286.5977, 1680.7367, 1585.5529),
    (5697.0859, 2838.6687),
    (1671.3737, 1789.4116),
    (5759.1367, 2873.2854),
    (1583.2858, 1747.8390),
)
V1_1_STATISTICS = {"mpc": _V1_1_MPC, "aws": _V1_1_AWS}
"""By the source of the d-pixels: `tessera_infer_QAT`."""

_V2_S2 = (
    (1633.0042, 1341.1090, 1539.5536, 3054.8269, 3117.4658, 2004.1648, 2694.7275, 2945.1504, 2266.6079, 1657.3094),
    (1999.4603, 2014.7549, 1929.2201, 1754.2493, 1649.9807, 1936.8988, 1748.6041, 1708.6991, 1207.5250, 1108.6046),
)
V2_STUDENT_STATISTICS = Statistics(
    *_V2_S2, (5909.3921, 3405.0322), (1507.1750, 1531.2615), (5816.1382, 3277.7576), (1554.6475, 1546.4733)
)
"""One set for both sources: `tessera_infer_v2/student`."""
_V2_TEACHER_S1 = ((5862.7652, 3341.3949), (1531.8051, 1540.2014))
V2_TEACHER_STATISTICS = Statistics(*_V2_S2, *_V2_TEACHER_S1, *_V2_TEACHER_S1)
"""One set for both orbits and sources: `tessera_infer_v2/teacher`."""
