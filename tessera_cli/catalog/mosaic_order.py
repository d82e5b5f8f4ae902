"""The one order in which scenes win a pixel: the first clear one does."""

from __future__ import annotations

from collections.abc import Iterable

from tessera_cli.catalog.scene import Scene, Sensor
from tessera_cli.catalog.sources import Source


def in_mosaic_order(scenes: Iterable[Scene], source: Source) -> list[Scene]:
    """Return the scenes in the order that decides overlaps (the first wins), whatever the order of the catalogue.

    Sentinel-2: date, datetime string ascending, id descending. Sentinel-1: date, orbit, then datetime and id, both
    descending or both ascending. (spec: the order the official preprocessing gets from the APIs.)
    """
    by_id = sorted(scenes, key=lambda s: s.id, reverse=True)
    optical = sorted((s for s in by_id if s.sensor is Sensor.S2), key=lambda s: s.timestamp)
    radar = sorted(
        (s for s in by_id if s.sensor is not Sensor.S2), key=lambda s: (s.time, s.id), reverse=source.s1_newest_first
    )
    optical.sort(key=lambda s: s.date)
    radar.sort(key=lambda s: (s.date, s.sensor))
    return optical + radar
