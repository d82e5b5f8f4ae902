"""A search that is answered in pages, one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.responses import redact


class Pages:
    """Watches one walk through the pages of a search, so that it ends where a server leads in circles."""

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._ids: set[str] = set()
        self._ways: set[str] = set()

    def check(self, ids: Iterable[str], onwards: str | None) -> None:
        """A page has arrived. `onwards`: what would ask for the next one; None: it is the last.

        Raises SourceRefusedError if the next page was asked for before, or nothing on this one is new.
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
