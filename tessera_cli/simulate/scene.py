"""A scene: a landscape at a site, under an atmosphere, in one year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.air import FAIR, Air
from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.orbits import Overpass
from tessera_cli.simulate.site import BRUSSELS, Site


@dataclass(frozen=True, eq=False)
class Scene:
    """What the sensors look at, and when."""

    ground: Landscape
    key: tuple[int, ...]
    """Where the random numbers of its passes begin: the seed, and whatever else tells scenes apart."""
    optical: list[tuple[Overpass, float]]
    """Passes of Sentinel-2, with the share of the area under cloud or cirrus."""
    radar: list[tuple[Overpass, str]]
    """Passes of Sentinel-1, with their modes."""
    site: Site = BRUSSELS
    air: Air = FAIR
    change: np.ndarray | None = None
    """uint8 (parcels,): what has changed for good since the year before, a row of `varied.changes.NAMES`; None where
    nothing may."""
