"""One signer for the files of all sources: who signs is told by the host."""

from __future__ import annotations

from tessera_cli import config
from tessera_cli.catalog.earthdata import EarthdataSigner
from tessera_cli.catalog.signing import PlanetaryComputerSigner
from tessera_cli.net import RequestStats, SignedRequest, Signer


class AnySigner:
    """Signs for Planetary Computer (blob storage of Azure) and for NASA's Earthdata; other hrefs pass unchanged."""

    def __init__(self, stats: RequestStats) -> None:
        """The credentials of Earthdata Login are those of the environment (see `config.earthdata`)."""
        self._blobs = PlanetaryComputerSigner(stats=stats)
        self._earthdata = EarthdataSigner(config.earthdata(), stats=stats)

    def sign(self, href: str) -> SignedRequest:
        return self._for(href).sign(href)

    def renew(self, href: str) -> bool:
        return self._for(href).renew(href)

    def stop(self) -> None:
        self._blobs.stop()
        self._earthdata.stop()

    def _for(self, href: str) -> Signer:
        return self._earthdata if self._earthdata.wants(href) else self._blobs
