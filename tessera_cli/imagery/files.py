"""Hrefs -> files, local and remote alike; what was fetched is shared by all tiles of a run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tessera_cli.errors import SourceRefusedError
from tessera_cli.imagery.cache import Cache
from tessera_cli.imagery.file import File, Headers
from tessera_cli.imagery.local import LocalFile
from tessera_cli.imagery.remote import RemoteFile
from tessera_cli.net import Client

HEADER_BYTES, BLOCK_BYTES = 128 * 2**20, 256 * 2**20
"""Kept of remote files."""


class Files:
    """Opens files by href; one for all threads of a run."""

    def __init__(self, client: Client, *, header_bytes: int = HEADER_BYTES, block_bytes: int = BLOCK_BYTES) -> None:
        self.client = client
        self._remote: Cache[RemoteFile] = Cache(header_bytes)
        self._blocks: Cache[bytes] = Cache(block_bytes)
        self._headers = Headers()

    def open(self, href: str, *, anew: bool = False) -> File:
        """`anew`: nothing that was fetched before is used. Errors are those of `Client`, and BrokenError."""
        scheme = urlsplit(href).scheme
        if scheme in ("http", "https"):
            file = None if anew else self._remote.get(href)
            if file is None:
                file = RemoteFile.fetch(href, self.client, self._headers, None if anew else self._blocks)
                self._remote.put(href, file, file.nbytes)
            return file
        if scheme not in ("", "file") or href.startswith("/vsi"):
            raise SourceRefusedError(f"{href} cannot be read: only http, https and local files are supported.")
        return LocalFile(Path(unquote(urlsplit(href).path) if scheme else href), self._headers)
