"""AOI + window + source -> Scenes: one search per run, frozen, in the one order that decides overlaps."""

from tessera_cli.catalog.access import access_of, check_access, missing_credentials
from tessera_cli.catalog.earthdata import Credentials
from tessera_cli.catalog.scene import Scene, Sensor
from tessera_cli.catalog.scenes import Scenes, by_date
from tessera_cli.catalog.search import search
from tessera_cli.catalog.sources import AWS, MPC, Source, source_named

__all__ = [
    "AWS",
    "MPC",
    "Credentials",
    "Scene",
    "Scenes",
    "Sensor",
    "Source",
    "access_of",
    "by_date",
    "check_access",
    "missing_credentials",
    "search",
    "source_named",
]
