"""Places with a climate, crops of their own and orbits that fit.

Months of rain and cloud are rounded from climate normals and MODIS cloud climatologies by eye; shares of crops and
shifts of calendars from national statistics and crop calendars, likewise. Names of granules and numbers of orbits are
near the real ones, their times are those of a Sun-synchronous orbit, and their dates are made up.
"""

from __future__ import annotations

import datetime as dt
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from tessera_cli.errors import UsageError
from tessera_cli.simulate.orbits import SENTINEL_1, SENTINEL_2, Overpass
from tessera_cli.simulate.site import Site

Months = tuple[float, ...]


class Grown(NamedTuple):
    """A crop as a place grows it."""

    share: float
    """Of the fields; grassland and alfalfa too."""
    shift: float = 0.0
    """Days by which its season is later than that of `crops.CROPS`."""
    irrigated: float = 0.0
    """Share of its fields that droughts and the dry season do not reach."""


class Double(NamedTuple):
    """A crop before the main one on the same field in the same season, which no label tells of."""

    share: float
    up: float
    down: float
    end: float
    delay: float
    """Days by which the main crop is later after it."""


NO_DOUBLE = Double(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Place:
    """A region as a landscape of it is drawn."""

    name: str
    site: Site
    crops: dict[str, Grown]
    rain: Months
    """Probability of rain on a day, January to December."""
    cloud: Months
    """Mean cloud cover of passes."""
    soils: tuple[tuple[float, float, float], ...]
    """Colours of the soil between which the ground goes over: factors in visible, near and shortwave infrared."""
    south: bool = False
    dry: tuple[float, float, float] = (0.0, 200.0, 250.0)
    """How far the dry season of each year withers what is not irrigated, 0..1, and the days of the season it lasts."""
    cover_crops: float = 0.3
    """Share of the fields with a cover crop or volunteers between harvest and the next sowing."""
    double: Double = NO_DOUBLE
    fields: float = 1.0
    """Width and length of fields, of those of the plain landscape."""

    @property
    def key(self) -> int:
        """Return a number that stands for the name in seeds."""
        return zlib.crc32(self.name.encode())


def _site(
    epsg: int, column: int, row: int, granules: tuple[str, str], longitude: float, tracks: tuple[int, int]
) -> Site:
    """Return a site with Sentinel-2 at about 10:55 and Sentinel-1 at about 6 and 18 o'clock of local solar time."""
    noon = dt.timedelta(hours=12 - longitude / 15)  # UTC of local noon
    optical = []
    for track in range(tracks[0]):  # the first pass of each satellite, five days apart; a second track a few days later
        relative = (94, 51)[track] + (epsg % 40)
        at = (
            dt.datetime(2023, 1, 2 + 2 * track + epsg % 3)
            + noon
            - dt.timedelta(minutes=65 + 10 * track, seconds=epsg % 60)
        )
        optical += [Overpass("S2A", relative, "descending", at)]
        optical += [Overpass("S2B", relative, "descending", at + dt.timedelta(days=5, seconds=2))]
    radar = [
        Overpass("S1A", 80 + epsg % 60, "ascending", dt.datetime(2024, 4, 19 + epsg % 4) + noon + dt.timedelta(hours=6))
    ]
    if tracks[1] > 1:
        radar += [
            Overpass(
                "S1A", 20 + epsg % 60, "descending", dt.datetime(2024, 4, 15 + epsg % 5) + noon - dt.timedelta(hours=6)
            )
        ]
    if tracks[1] > 2:
        second = radar[0].when + dt.timedelta(days=6, minutes=8)
        radar += [Overpass("S1A", 153 + epsg % 20, "ascending", second)]
    return Site(epsg, column, row, granules, tuple(optical), tuple(radar), range(0))


PLACES = {
    place.name: place
    for place in (
        Place(
            "flanders",
            Site(32631, 118, 1098, optical=SENTINEL_2, radar=SENTINEL_1),
            {
                "winter wheat": Grown(0.21),
                "winter barley": Grown(0.09),
                "maize": Grown(0.22),
                "potato": Grown(0.15),
                "sugar beet": Grown(0.09),
                "rapeseed": Grown(0.07),
                "grassland": Grown(0.17),
            },
            rain=(0.58, 0.52, 0.48, 0.42, 0.42, 0.42, 0.43, 0.43, 0.45, 0.50, 0.56, 0.60),
            cloud=(0.78, 0.72, 0.66, 0.58, 0.57, 0.57, 0.56, 0.55, 0.57, 0.65, 0.75, 0.80),
            soils=((0.95, 1.0, 1.0), (0.75, 0.8, 0.85), (1.15, 1.1, 1.1)),
            cover_crops=0.7,
        ),
        Place(
            "castile",
            _site(32630, 68, 906, ("30TUM", "30TVM"), -4.8, (1, 2)),
            {
                "winter wheat": Grown(0.24, -16),
                "winter barley": Grown(0.22, -18),
                "maize": Grown(0.10, -2, 1.0),
                "sugar beet": Grown(0.07, -8, 1.0),
                "sunflower": Grown(0.13, -4, 0.1),
                "alfalfa": Grown(0.08, -15, 0.7),
                "rapeseed": Grown(0.07, -14),
                "grassland": Grown(0.09, -22),
            },
            rain=(0.30, 0.26, 0.24, 0.30, 0.28, 0.13, 0.06, 0.07, 0.15, 0.28, 0.32, 0.32),
            cloud=(0.58, 0.50, 0.46, 0.48, 0.42, 0.24, 0.12, 0.14, 0.28, 0.44, 0.56, 0.60),
            soils=((1.35, 1.25, 1.2), (1.1, 1.15, 1.1), (1.6, 1.35, 1.25)),
            dry=(0.75, 168, 275),
            cover_crops=0.08,
            fields=1.15,
        ),
        Place(
            "mazovia",
            _site(32634, 90, 1129, ("34UDC", "34UEC"), 20.4, (2, 2)),
            {
                "winter wheat": Grown(0.20, 9),
                "spring barley": Grown(0.14, 4),
                "maize": Grown(0.17, 3),
                "potato": Grown(0.11, 4),
                "rapeseed": Grown(0.14, 9),
                "sugar beet": Grown(0.07, 4),
                "grassland": Grown(0.17, 12),
            },
            rain=(0.50, 0.46, 0.42, 0.38, 0.41, 0.43, 0.43, 0.38, 0.38, 0.40, 0.48, 0.54),
            cloud=(0.82, 0.76, 0.64, 0.56, 0.52, 0.54, 0.53, 0.48, 0.50, 0.62, 0.80, 0.85),
            soils=((1.25, 1.15, 1.1), (1.0, 1.0, 1.0), (0.6, 0.65, 0.75)),
            cover_crops=0.35,
            fields=0.8,
        ),
        Place(
            "iowa",
            _site(32615, 88, 910, ("15TVG", "15TWG"), -93.6, (1, 2)),
            {
                "maize": Grown(0.42, -10),
                "soybean": Grown(0.34, -6),
                "alfalfa": Grown(0.07, 10),
                "winter wheat": Grown(0.06, 0),
                "grassland": Grown(0.11, 14),
            },
            rain=(0.25, 0.24, 0.30, 0.37, 0.40, 0.37, 0.32, 0.30, 0.29, 0.27, 0.26, 0.26),
            cloud=(0.62, 0.60, 0.60, 0.56, 0.53, 0.46, 0.40, 0.40, 0.42, 0.46, 0.60, 0.65),
            soils=((0.55, 0.6, 0.7), (0.8, 0.85, 0.9), (0.65, 0.7, 0.8)),
            cover_crops=0.1,
            fields=1.2,
        ),
        Place(
            "pampas",
            _site(32720, 134, 1217, ("20HNH", "20HPH"), -61.0, (1, 1)),
            {
                "soybean": Grown(0.36, 0),
                "maize": Grown(0.20, -26),
                "winter wheat": Grown(0.12, -38),
                "sunflower": Grown(0.10, -14),
                "alfalfa": Grown(0.09, -20),
                "grassland": Grown(0.13, -20),
            },
            rain=(0.28, 0.27, 0.28, 0.23, 0.16, 0.13, 0.13, 0.13, 0.18, 0.26, 0.27, 0.28),
            cloud=(0.38, 0.38, 0.38, 0.40, 0.46, 0.50, 0.48, 0.42, 0.42, 0.44, 0.40, 0.38),
            soils=((0.75, 0.8, 0.85), (0.95, 0.95, 1.0), (0.65, 0.7, 0.8)),
            south=True,
            cover_crops=0.2,
            double=Double(0.3, 15, 132, 152, 22),
            fields=1.2,
        ),
        Place(
            "malwa",
            _site(32643, 113, 501, ("43QEF", "43QFF"), 75.9, (1, 1)),
            {
                "soybean": Grown(0.38, 26),
                "maize": Grown(0.22, 36),
                "rice": Grown(0.14, 6, 1.0),
                "alfalfa": Grown(0.07, 0, 0.9),
                "potato": Grown(0.07, 60, 1.0),
                "grassland": Grown(0.12, 100),
            },
            rain=(0.04, 0.03, 0.03, 0.02, 0.06, 0.32, 0.62, 0.60, 0.34, 0.08, 0.04, 0.03),
            cloud=(0.22, 0.18, 0.18, 0.18, 0.24, 0.58, 0.85, 0.84, 0.58, 0.26, 0.22, 0.24),
            soils=((0.5, 0.55, 0.65), (0.65, 0.65, 0.75), (0.9, 0.95, 1.1)),
            dry=(0.85, 75, 172),
            cover_crops=0.0,
            double=Double(0.65, -10, 66, 84, 3),
            fields=0.65,
        ),
    )
}  # fmt: skip


def find_place(name: str) -> Place:
    """Return the place of this name. Raises UsageError."""
    if name not in PLACES:
        raise UsageError(f"There is no place {name!r}. Give one of {', '.join(PLACES)}.")
    return PLACES[name]
