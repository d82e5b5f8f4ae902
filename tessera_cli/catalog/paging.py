"""Guard paged searches against servers that send pages without end."""

from __future__ import annotations

from collections.abc import Iterable

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.responses import redact


class Pages:
    """Check of the pages of one search, which ends it if the server leads in circles."""

    def __init__(self, url: str) -> None:
        self._url = redact(url)
        self._ids: set[str] = set()
        self._ways: set[str] = set()

    def check(self, ids: Iterable[str], onwards: str | None) -> None:
        """Record the ids of a page. `onwards` identifies the next page; None if this is the last.

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
