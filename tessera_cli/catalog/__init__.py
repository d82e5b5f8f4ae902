"""AOI + window + source -> Scenes: one search per run, frozen, in the one order that decides overlaps."""

from tessera_cli.catalog.earthdata import Credentials
from tessera_cli.catalog.scene import Scene, Sensor
from tessera_cli.catalog.scenes import Scenes, by_date
from tessera_cli.catalog.search import search
from tessera_cli.catalog.signing import check_credentials, missing_credentials, signer_for
from tessera_cli.catalog.sources import AWS, MPC, Source, get_source

__all__ = [
    "AWS",
    "MPC",
    "Credentials",
    "Scene",
    "Scenes",
    "Sensor",
    "Source",
    "by_date",
    "check_credentials",
    "get_source",
    "missing_credentials",
    "search",
    "signer_for",
]
