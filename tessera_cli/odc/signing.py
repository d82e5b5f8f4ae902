"""One signer for the files of all sources: who signs is told by the host."""

from __future__ import annotations

from functools import cached_property
from urllib.parse import urlsplit

from tessera_cli import config
from tessera_cli.catalog.earthdata import DOMAINS, EarthdataSigner
from tessera_cli.catalog.signing import PlanetaryComputerSigner
from tessera_cli.net import RequestStats, SignedRequest, Signer


class AnySigner:
    """Signs for Planetary Computer (blob storage of Azure) and for NASA's Earthdata; other hrefs pass unchanged."""

    def __init__(self, stats: RequestStats) -> None:
        self._stats, self._blobs = stats, PlanetaryComputerSigner(stats=stats)

    @cached_property
    def _earthdata(self) -> EarthdataSigner:
        """With the credentials of the environment, which are looked for when a file of NASA is read."""
        return EarthdataSigner(config.earthdata(), stats=self._stats)

    def sign(self, href: str) -> SignedRequest:
        return self._for(href).sign(href)

    def renew(self, href: str) -> bool:
        return self._for(href).renew(href)

    def stop(self) -> None:
        self._blobs.stop()
        if "_earthdata" in vars(self):
            self._earthdata.stop()

    def _for(self, href: str) -> Signer:
        return self._earthdata if (urlsplit(href).hostname or "").endswith(DOMAINS) else self._blobs
