"""Sites: where a landscape lies, and the orbits that see it."""

from __future__ import annotations

from dataclasses import dataclass

from tessera_cli.simulate.orbits import SENTINEL_1, SENTINEL_2, Overpass


@dataclass(frozen=True)
class Site:
    """A place on the ground and the ground tracks over it."""

    epsg: int
    """UTM zone, WGS 84."""
    column: int
    """Column of the tile east of the tile border that the landscape lies across."""
    row: int
    """Row of the tile in whose middle the landscape lies."""
    granules: tuple[str, str] = ("31UES", "31UFS")
    """MGRS tiles of Sentinel-2 that share the landscape, the western one first."""
    optical: tuple[Overpass, ...] = SENTINEL_2
    radar: tuple[Overpass, ...] = SENTINEL_1
    """A pass of each satellite on each ground track."""
    silent: range = range(130, 206)
    """Days of the year without descending passes of Sentinel-1: the season with one orbit missing."""

    def track(self, at: Overpass) -> int:
        """Return the number of a pass's ground track among those of its mission, from 0."""
        known = self.optical if at.satellite.startswith("S2") else self.radar
        return sorted({one.relative for one in known}).index(at.relative)


BRUSSELS = Site(32631, 118, 1098)
"""South of Brussels, in the strip that the granules 31UES and 31UFS share."""
