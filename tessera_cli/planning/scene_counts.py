"""How many dates each tile of a run has, told before the run starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_cli.errors import listed
from tessera_cli.planning.overlaps import Overlaps, distinct

NAMES = {"s2": "Sentinel-2", "s1": "Sentinel-1"}
FAR_FEWER = 0.5
"""Share of the median below which a tile has far fewer dates than the others."""
SHOWN = 5
"""Tiles that a line names."""


@dataclass(frozen=True)
class DatesByTile:
    """The dates that the tiles of one window have of one sensor: by footprints, so at most so many observations."""

    tiles: int
    fewest: int
    fewest_tile: str
    most: int
    median: float
    without: tuple[str, ...]
    """Tiles without any scene."""
    few: tuple[str, ...]
    """Tiles with some, but less than half of the median."""


def dates_by_tile(overlaps: Overlaps) -> dict[str, dict[str, DatesByTile]]:
    """Return window -> sensor (s2, s1) -> the dates of the tiles, all of which are asked for in each window."""
    tiles = [tile.id for tile in overlaps.tiles]
    found: dict[str, dict[str, DatesByTile]] = {}
    for window in overlaps.windows:
        counts: dict[str, list[np.ndarray]] = {"s2": [], "s1": []}
        for start, end, tile, scene in overlaps.blocks():
            inside, optical = overlaps.within(window, scene), overlaps.optical[scene]
            for sensor, of_sensor in (("s2", inside & optical), ("s1", inside & ~optical)):
                days = overlaps.days[scene[of_sensor]]
                counts[sensor].append(distinct(tile[of_sensor] - start, days, end - start))
        found[window.name] = {sensor: _counted(tiles, np.concatenate(each)) for sensor, each in counts.items()}
    return found


def _counted(tiles: Sequence[str], counts: np.ndarray) -> DatesByTile:
    """Tell of the numbers of dates of all tiles which stand out."""
    least, median = int(counts.argmin()), float(np.median(counts))
    few = (counts > 0) & (counts < FAR_FEWER * median)
    named = [tuple(tiles[number] for number in np.flatnonzero(those).tolist()) for those in (counts == 0, few)]
    return DatesByTile(len(tiles), int(counts[least]), tiles[least], int(counts.max()), median, *named)


def fewest_text(found: Mapping[str, Mapping[str, DatesByTile]]) -> Iterator[str]:
    """Yield a line per window and sensor: the fewest dates that a tile has."""
    for what, dates in _each(found):
        more = f" ({dates.fewest_tile}), median {dates.median:g}" if dates.tiles > 1 else ""
        yield f"{what}: fewest dates on a tile {dates.fewest}{more}"


def gaps_text(found: Mapping[str, Mapping[str, DatesByTile]]) -> Iterator[str]:
    """Yield a line for tiles without a sensor that others have, and one for those with far fewer dates of it."""
    for what, dates in _each(found):
        missing = dates.without if len(dates.without) < dates.tiles else ()
        too_few = f"less than half of the median of {dates.median:g} dates"
        for lack, tiles in (("no scene", missing), (too_few, dates.few)):
            if tiles:
                yield f"{what}: {lack} on {len(tiles)} of {dates.tiles} tiles: {listed(tiles, SHOWN)}"


def _each(found: Mapping[str, Mapping[str, DatesByTile]]) -> list[tuple[str, DatesByTile]]:
    return [(f"{NAMES[of]} in {window}", dates) for window, sensors in found.items() for of, dates in sensors.items()]
