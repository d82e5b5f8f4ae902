"""Open local and remote files by href, with caches that all tiles of a run share."""

from __future__ import annotations

from operator import attrgetter

from tessera_cli.imagery.byte_sources import ByteCache, HttpBytes, LocalBytes
from tessera_cli.imagery.doubts import Doubts
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import Header
from tessera_cli.net import Client
from tessera_cli.net.address import is_url, local_path

HEADER_BYTES, BLOCK_BYTES = 128 * 2**20, 256 * 2**20
"""Kept of remote files."""
DESCRIPTION_BYTES = 16 * 2**20
"""Kept of directories whose meaning is known, of all files."""


class Files:
    """Opener of files by href; one for all threads of a run."""

    def __init__(self, client: Client, *, header_bytes: int = HEADER_BYTES, block_bytes: int = BLOCK_BYTES) -> None:
        self.client = client
        self.doubts = Doubts()
        self._remote: ByteCache[GeoTiffFile] = ByteCache(header_bytes, attrgetter("nbytes"))
        self._blocks: ByteCache[bytes] = ByteCache(block_bytes, len)
        self._nothing: ByteCache[bytes] = ByteCache(0, len)
        self._headers: ByteCache[tuple[bytes, Header]] = ByteCache(DESCRIPTION_BYTES, lambda known: len(known[0]))

    def open(self, href: str, *, anew: bool = False) -> GeoTiffFile:
        """Return the file with its header read.

        `anew`: use nothing that was fetched before. Errors are those of `Client`, and BrokenError.
        """
        if is_url(href):
            file = None if anew else self._remote.get(href)
            source = HttpBytes(href, self.client, self.doubts)
            if file is None or (source.doubted and not file.agreed):
                file = GeoTiffFile.open(source, self._headers, self._nothing if anew else self._blocks)
                self._remote.put(href, file)
            return file
        # The version of a local file is compared while it is read; each read opens it.
        return GeoTiffFile.open(LocalBytes(local_path(href), self.client.stats), self._headers, self._nothing)

    def forget(self, href: str) -> None:
        """Drop the header of a file that has changed. Its blocks are kept by version."""
        self._remote.drop(href)
