"""AOI + window + source -> Scenes: one search per run, frozen, in the one order that decides overlaps."""

from tessera_cli.catalog.scene import Scene, Sensor
from tessera_cli.catalog.scenes import Scenes, by_date
from tessera_cli.catalog.search import search
from tessera_cli.catalog.signing import Signer, signer_of
from tessera_cli.catalog.sources import MPC, Source, source_named

__all__ = ["MPC", "Scene", "Scenes", "Sensor", "Signer", "Source", "by_date", "search", "signer_of", "source_named"]
