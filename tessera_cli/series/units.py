"""Values of tables -> what encoders are given: DN of Sentinel-2, scaled VV and VH. Pure numpy."""

from __future__ import annotations

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.imagery.sentinel1 import SCALED_MAX, scale
from tessera_cli.series.mapping import Columns

MAX_DN = 65535
LARGEST_REFLECTANCE = 2.0
"""Larger than any reflectance of the ground; DN are beyond it."""
DB_RANGE = (-90.0, 60.0)
"""Decibels that a backscatter can have."""


def dn_of(values: np.ndarray, columns: Columns) -> np.ndarray:
    """Return DN, uint16, of bands in the table's units, float (R, C), finite.

    Reflectance is multiplied with 10000. With an offset the smallest DN of what is not 0 is 1, since 0 means no data.
    """
    dn = values * 10000.0 if columns.optical == "reflectance" else np.asarray(values, np.float64)
    if columns.optical_offset:
        dn = np.where(dn == 0, 0, np.maximum(np.rint(dn + columns.optical_offset), 1))
    return np.rint(dn).clip(0, MAX_DN).astype(np.uint16)


def scaled_of(values: np.ndarray, columns: Columns) -> np.ndarray:
    """Return scaled int16 of VV or VH in the table's units, float, any shape; 0 where NaN and where nothing is left.

    It is `imagery.sentinel1.scale` of linear power, which makes (20 log10(power) + 50) x 200.
    """
    values = np.asarray(values, np.float64) * columns.radar_scale
    if columns.radar == "scaled":
        return np.nan_to_num(values, nan=0.0).clip(0, SCALED_MAX).astype(np.int16)
    with np.errstate(over="ignore", invalid="ignore"):
        power = 10.0 ** (values / 10) if columns.radar == "db" else values
        if columns.radar == "amplitude":
            power = np.where(values > 0, values, np.nan) ** 2
        power = power * 10.0 ** (columns.radar_offset / 10)
    return scale(power)


def check_optical(largest: float, columns: Columns, origin: str) -> None:
    """Raise UsageError where the largest value of all bands shows that they are not in the units that are said."""
    if columns.optical != "reflectance" and 0 < largest <= LARGEST_REFLECTANCE:
        raise UsageError(
            f"{origin}: the largest value of its bands is {largest:g}, so they are no DN. Say --columns "
            "optical=reflectance."
        )
    if columns.optical == "reflectance" and largest > 100:
        raise UsageError(
            f"{origin}: the largest value of its bands is {largest:g}, so they are no reflectance from 0 to 1. Say "
            "--columns optical=dn."
        )


def check_radar(least: float, largest: float, columns: Columns, origin: str) -> None:
    """Raise UsageError where the range of VV and VH shows that they are not decibels, if these are said."""
    if columns.radar != "db" or not np.isfinite([least, largest]).all():
        return
    low, high = (each * columns.radar_scale + columns.radar_offset for each in (least, largest))
    if not DB_RANGE[0] <= low <= high <= DB_RANGE[1] or low > 0:
        raise UsageError(
            f"{origin}: VV and VH lie between {least:g} and {largest:g}, which are no decibels. Say what they are with "
            "--columns radar=linear, amplitude or scaled (and radar_scale, radar_offset)."
        )
