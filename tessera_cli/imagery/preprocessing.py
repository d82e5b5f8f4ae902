"""The two preprocessings of scenes, as the official code does or corrected, where they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tessera_cli.catalog import Scene, Scenes, Sensor, Source
from tessera_cli.catalog.reprocessing import baseline, latest_reprocessing
from tessera_cli.errors import UsageError
from tessera_cli.imagery import sentinel2
from tessera_cli.net.address import web

OFFSET_SINCE = (4, 0)
"""From this processing baseline on, ESA adds 1000 to every DN."""
HARMONISED_BUCKETS = frozenset({"sentinel-cogs"})
"""Element 84 has taken the offset off."""
ESA_BUCKETS = frozenset({"sentinel-s2-l2a"})
"""ESA's own files, offset and all."""


@dataclass(frozen=True)
class Preprocessing:
    """Rules applied to scenes before their pixels are merged."""

    name: str
    select: Callable[[Scenes], Scenes]
    """Which of the scenes on a tile are used; all are accounted for."""
    unusable: Callable[[Scene, Source], str | None]
    """Why a scene's values cannot be interpreted (it counts as missing); None if they can."""
    correct: Callable[[np.ndarray, Scene, str, Source], np.ndarray]
    """DN of a band of a Sentinel-2 scene on the tile's grid, by asset key, uint16 -> DN without offset, uint16."""


class UndecidableError(Exception):
    """Raised with the reason when it is unknown whether an asset's DN carry the offset."""


def owes_offset(scene: Scene, asset: str, source: Source) -> bool:
    """Return whether the DN of a Sentinel-2 asset carry ESA's offset of 1000. Raises UndecidableError.

    Decided by producer and baseline alone: what items say of offsets already applied is missing or wrong on just the
    files in doubt.
    """
    harmonised = source.harmonised
    if harmonised is None:
        harmonised = _harmonised_bucket(str(scene.item["assets"][asset]["href"]))
    if harmonised:
        return False
    since = baseline(scene)
    if since is None:
        raise UndecidableError(f"processing baseline {scene.baseline!r} does not tell whether {asset} has an offset")
    if since < OFFSET_SINCE:
        return False
    if harmonised is None:
        raise UndecidableError(f"its bucket is unknown and does not tell whether {asset} has an offset")
    return True


def get_preprocessing(name: str) -> Preprocessing:
    try:
        return PREPROCESSINGS[name]
    except KeyError:
        known = ", ".join(PREPROCESSINGS)
        raise UsageError(f"--preprocessing {name} is not known. Choose one of: {known}.") from None


def _harmonised_bucket(href: str) -> bool | None:
    """Return whether the bucket in an href holds files without offset; None if it is neither known kind."""
    url = web(href)
    names = {*url.host.split("."), *url.path.split("/")} if url else set(href.split("/"))
    harmonised, raw = bool(names & HARMONISED_BUCKETS), bool(names & ESA_BUCKETS)
    return harmonised if harmonised != raw else None


def _by_date(dn: np.ndarray, scene: Scene, asset: str, source: Source) -> np.ndarray:
    return sentinel2.remove_offset(dn, scene.date, source.offset_after)


def _by_producer(dn: np.ndarray, scene: Scene, asset: str, source: Source) -> np.ndarray:
    return sentinel2.subtract_offset(dn) if owes_offset(scene, asset, source) else dn


def _undecidable(scene: Scene, source: Source) -> str | None:
    if scene.sensor is not Sensor.S2:
        return None
    try:
        for asset in source.s2_band_assets:
            if asset not in scene.missing:
                owes_offset(scene, asset, source)
    except UndecidableError as error:
        return str(error)
    return None


OFFICIAL = Preprocessing(
    "official", select=lambda scenes: scenes, unusable=lambda scene, source: None, correct=_by_date
)
"""The rules of the official code, on which the released models were trained."""

CORRECTED = Preprocessing("corrected", select=latest_reprocessing, unusable=_undecidable, correct=_by_producer)
"""Offset by producer and processing baseline, before scenes meet; one copy of each acquisition."""

PREPROCESSINGS = {preprocessing.name: preprocessing for preprocessing in (OFFICIAL, CORRECTED)}
