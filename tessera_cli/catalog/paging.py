"""Searches whose results come in pages: a guard against servers that never end."""

from __future__ import annotations

from collections.abc import Iterable

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.responses import redact


class Pages:
    """Checks the pages of one search, so that it ends where a server leads in circles."""

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._ids: set[str] = set()
        self._ways: set[str] = set()

    def check(self, ids: Iterable[str], onwards: str | None) -> None:
        """Note a page. `onwards`: what identifies the next one; None: this is the last.

        Raises SourceRefusedError if the next page was requested before, or nothing on this one is new.
        """
        if onwards is None:
            return
        new = set(ids) - self._ids
        if not new or onwards in self._ways:
            raise SourceRefusedError(
                f"{self._url} leads in circles: it keeps sending items that it has sent before. "
                "Search with another --catalog, and tell the provider."
            )
        self._ids |= new
        self._ways.add(onwards)
