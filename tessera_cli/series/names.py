"""Recognise the columns of a long table by their usual names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import UsageError, listed
from tessera_cli.series.mapping import NAMES, Columns

_S2 = ("", "s2-l2a-", "s2_l2a_", "s2-", "s2_", "s2:", "optical-", "optical_")
_S1 = ("", "s1-sigma0-", "s1_sigma0_", "s1-gamma0-", "s1_gamma0_", "s1-", "s1_", "s1:", "sar-", "sar_")
WORLDCEREAL = "s1-sigma0-"
"""How names of radar columns begin whose values are amplitudes as integers: dB = 20 log10(value) - 83."""
WORLDCEREAL_OFFSET = -83.0
_PLAIN: Mapping[str, Sequence[str]] = {
    "sample": ("sample", "sample_id", "id", "pixel_id", "point_id"),
    "date": ("date", "timestamp", "time", "datetime"),
    "lon": ("lon", "longitude", "long", "lng"),
    "lat": ("lat", "latitude"),
    "group": (),
    "orbit": ("orbit", "orbit_direction", "orbit_state", "sat:orbit_state"),
    "clear": ("clear",),
}
USUAL: Mapping[str, Sequence[str]] = {
    **_PLAIN,
    **{
        band: [
            prefix + name for prefix in _S2 for name in dict.fromkeys((band.lower(), band.lower().replace("b0", "b")))
        ]
        for band in S2_BANDS
    },
    **{name: [prefix + name.lower() for prefix in _S1] for name in ("VV", "VH")},
    "SCL": [prefix + "scl" for prefix in _S2],
}
"""One of `NAMES` -> usual names in lower case, in order of preference."""


def usual(what: str, there: Sequence[str]) -> str | None:
    """Return the column of a table that is called as one of `NAMES` usually is, in any case; None without any."""
    lower = {name.lower(): name for name in reversed(there)}
    return next((lower[name] for name in USUAL[what] if name in lower), None)


def resolve(columns: Columns, there: Sequence[str], origin: str) -> Columns:
    """Return the mapping with all columns of the table named that can be; UsageError where what is needed is missing.

    Needed are a sample, a date, and at least one sensor: bands of Sentinel-2 (all of them, substitutes counted), or VV
    or VH. `there` are the table's columns.
    """
    names: dict[str, str] = {}
    for what in NAMES:
        if what in columns.names:
            if columns.names[what] not in there:
                raise UsageError(f"{origin} has no column {columns.names[what]} ({what}). It has: {listed(there, 40)}.")
            names[what] = columns.names[what]
        elif found := usual(what, there):
            names[what] = found
    for what in ("sample", "date"):
        if what not in names:
            raise UsageError(
                f"{origin} has no column that tells the {what}. Name it with --columns {what}=NAME. "
                f"It has: {listed(there, 40)}."
            )
    bands = [band for band in S2_BANDS if band in names]
    if not bands and "VV" not in names and "VH" not in names:
        raise UsageError(
            f"{origin} has no bands of Sentinel-2 and neither VV nor VH. Name them with --columns B02=NAME and so on. "
            f"It has: {listed(there, 40)}."
        )
    if bands:
        check_bands(bands, columns, origin)
    return _with_radar(dataclasses.replace(columns, names=names))


def check_bands(bands: Sequence[str], columns: Columns, origin: str) -> None:
    """Raise UsageError unless each band of Sentinel-2 is there, or one of those that are is named in its place."""
    for band in S2_BANDS:
        other = columns.substitute.get(band)
        if band not in bands and (other is None or other not in bands):
            near = "B08" if band == "B8A" else "B8A" if band == "B08" else next(b for b in S2_BANDS if b in bands)
            why = "" if other is None else f", nor {other}, which is to stand for it"
            raise UsageError(
                f"{origin} holds no {band}{why}. Name its column with --columns {band}=NAME, or another band in its "
                f"place with --columns substitute.{band}={near}."
            )


def _with_radar(columns: Columns) -> Columns:
    """Return the mapping with the units that follow from the names of the radar columns, where the user says none."""
    of_radar = [columns.names[what] for what in S1_BANDS if what in columns.names]
    if columns.radar is not None or not of_radar:
        return columns
    if all(name.lower().startswith(WORLDCEREAL) for name in of_radar):
        offset = columns.radar_offset or WORLDCEREAL_OFFSET
        return dataclasses.replace(columns, radar="amplitude", radar_offset=offset)
    return dataclasses.replace(columns, radar="db")
