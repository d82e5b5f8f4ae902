"""Where scenes come from: the source, its catalogues, what may be reached. Each process opens its own connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tessera_cli import config
from tessera_cli.catalog import Scenes, Source, search, signer_for
from tessera_cli.catalog.search import allow_named
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.imagery import GDAL_OPTIONS, Reader
from tessera_cli.net import Client, RequestStats
from tessera_cli.net.address import is_url, unsigned
from tessera_cli.net.reach import Reach


@dataclass(frozen=True)
class Origin:
    """The catalogue of a run, and what it may name."""

    source: Source
    catalog: str | None = None
    radar_catalog: str | None = None
    allow_private_hosts: bool = False
    allow_outside: bool = False

    @property
    def signatures(self) -> dict[str, str]:
        """Return unsigned address -> query of the catalogues: a signature of Azure is often one for a container."""
        pairs = [unsigned(given) for given in (self.catalog, self.radar_catalog) if given]
        return {href: query for href, query in pairs if query}

    def absolute(self) -> Origin:
        """Return the same for a process in another working directory."""
        return replace(self, catalog=_absolute(self.catalog), radar_catalog=_absolute(self.radar_catalog))

    def client(self) -> Client:
        """Return a client that asks the source's servers, with the user's credentials from the environment."""
        stats = RequestStats()
        credentials = config.earthdata() if self.source.signer == "earthdata" else None
        catalogs = {"catalog": self.catalog, "radar_catalog": self.radar_catalog}
        signer = signer_for(self.source, credentials, **catalogs, stats=stats)
        reach = Reach(everywhere=self.allow_private_hosts, outside=self.allow_outside)
        return Client(signer, stats=stats, reach=reach)

    def reader(self) -> Reader:
        """Return a reader of the source's files, with the GDAL options that the user's environment leaves to us."""
        return Reader(self.client(), gdal_options=config.gdal_options(GDAL_OPTIONS))

    def admit(self, client: Client) -> None:
        """Let the client reach the catalogues, with the signatures that the user gave them."""
        client.given.add(self.signatures)
        allow_named(self.source, client, self.catalog, self.radar_catalog)

    def search(self, tiles: Iterable[Tile], windows: Sequence[Window], client: Client) -> Scenes:
        """Return the scenes that the catalogue lists for tiles now."""
        return search(
            list(dict.fromkeys(tiles)),
            windows,
            self.source,
            client=client,
            catalog=self.catalog,
            radar_catalog=self.radar_catalog,
        )


def _absolute(catalog: str | None) -> str | None:
    return catalog if catalog is None or is_url(catalog) else str(Path(catalog).expanduser().absolute())
