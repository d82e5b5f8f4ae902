"""Select one of several copies of an acquisition that the ground segment processed more than once."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Hashable

import shapely

from tessera_cli.catalog.scene import Scene, Sensor, utc_time
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.extent.antimeridian import rejoin, unwrap

Baseline = tuple[int, int]

SLIVER = 0.05
"""Share of a footprint that copies of one acquisition may differ by."""
_BASELINE = re.compile(r"(\d{1,2})\.(\d{1,2})")
_OUTSIDE_ESA = (99, 99)
"""What Sen2Cor writes when somebody else runs it: no baseline."""
_BASELINE_SUFFIX = re.compile(r"_N\d\d\.?\d\d$")
_DATATAKE = re.compile(r"(S2[A-Z])_(\d{8}T\d{6})(?!\d)")
"""GS2A_20210701T105031_031463: the mission and when the datatake began, which product names repeat."""
_PRODUCT = re.compile(r"(S2[A-Z])_MSIL2A_(\d{8}T\d{6})_(?:N\d{4}_)?R\d{3}_T\d{2}[A-Z]{3}_")
_MGRS_TILE = re.compile(r"(\d{1,2}[A-Z]{3})")
_TILE_IN_ID = re.compile(r"_T?(\d{1,2}[A-Z]{3})_")
_DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_")
_BURST = re.compile(r"(OPERA_L2_RTC-S1_T\d+-\d+-IW\d_\d{8}T\d{6}Z)_(\d{8}T\d{6}Z)_(S1[A-Z]_\d+)_v(\d+)\.(\d+)")


def latest_reprocessing(scenes: Scenes) -> Scenes:
    """Return the scenes with only the latest reprocessing of each acquisition.

    The choice does not depend on the order of the scenes; if a copy is absent, the next best is used.
    Scenes of which the acquisition is unknown are all kept.
    """
    copies: dict[Hashable, list[Scene]] = defaultdict(list)
    for scene in scenes.scenes:
        copies[acquisition(scene) or scene.id].append(scene)
    kept = {scene.id for group in copies.values() for scene in _best(group)}
    return scenes.without(scene.id for scene in scenes.scenes if scene.id not in kept)


def acquisition(scene: Scene) -> Hashable | None:
    """Return a key that all copies of an acquisition share; without datetime, which differs by minutes.

    Sentinel-2: datatake and MGRS tile. OPERA: burst and its sensing time. None if the item does not tell.
    """
    if scene.sensor is not Sensor.S2:
        burst = _BURST.fullmatch(scene.id)
        return (burst[1], burst[3]) if burst else None
    datatake, tile = _datatake(scene), _tile(scene)
    return (datatake, tile) if datatake and tile else None


def baseline(scene: Scene) -> Baseline | None:
    """Return the processing baseline of Sentinel-2, (5, 9) for `05.09`; None if it is absent or unreadable."""
    found = _BASELINE.fullmatch(str(scene.baseline))
    numbers = (int(found[1]), int(found[2])) if found else None
    return None if numbers == _OUTSIDE_ESA else numbers


def _best(copies: list[Scene]) -> list[Scene]:
    """Return the best copy; where a tile's datatake is split in two datastrips, both halves of the best baseline and
    the copies of other baselines that they do not cover."""
    if len(copies) == 1:
        return copies
    if copies[0].sensor is not Sensor.S2:
        return [max(copies, key=_radar_rank)]
    best = max(copies, key=_optical_rank)
    halves: dict[str, list[Scene]] = defaultdict(list)
    for scene in copies:
        if baseline(scene) == baseline(best):
            halves[_datastrip(scene) or _datastrip(best)].append(scene)
    kept = [max(half, key=_optical_rank) for half in halves.values()]
    for scene in sorted(copies, key=_optical_rank, reverse=True):
        if baseline(scene) != baseline(best) and not _covered(scene, kept):
            kept.append(scene)
    return kept


def _covered(scene: Scene, kept: list[Scene]) -> bool:
    """Return whether the kept scenes cover the scene but for a negligible share; true if a footprint is unknown."""
    if scene.footprint is None or any(other.footprint is None for other in kept):
        return True
    ours = rejoin(scene.footprint)
    theirs = shapely.union_all([unwrap(rejoin(other.footprint), ours.centroid.x) for other in kept if other.footprint])
    return bool(ours.difference(theirs).area <= SLIVER * ours.area)


def _optical_rank(scene: Scene) -> tuple[bool, Baseline, dt.datetime, str]:
    never = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
    made = utc_time(scene.item["properties"].get("s2:generation_time")) or never
    return not scene.missing, baseline(scene) or (-1, -1), made, scene.id


def _radar_rank(scene: Scene) -> tuple[bool, str, Baseline, str]:
    burst = _BURST.fullmatch(scene.id)
    assert burst is not None  # else it had no copies
    return not scene.missing, burst[2], (int(burst[4]), int(burst[5])), scene.id


def _datatake(scene: Scene) -> Hashable | None:
    named = _BASELINE_SUFFIX.sub("", str(scene.item["properties"].get("s2:datatake_id") or ""))
    found = _DATATAKE.search(named) or (None if named else _PRODUCT.match(scene.id))
    return found.groups() if found else named or None


def _tile(scene: Scene) -> str | None:
    properties = scene.item["properties"]
    named = (str(properties.get(key) or "") for key in ("s2:mgrs_tile", "grid:code"))
    found = next((match for name in named if (match := _MGRS_TILE.search(name))), None) or _TILE_IN_ID.search(scene.id)
    return found[1].zfill(5) if found else None


def _datastrip(scene: Scene) -> str:
    found = _DATASTRIP.search(str(scene.item["properties"].get("s2:datastrip_id")))
    return found[1] if found else ""
