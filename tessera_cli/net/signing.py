"""Signatures and tokens: put on when a request is sent, never before, since they expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tessera_cli.errors import CredentialsError, SourceRefusedError
from tessera_cli.net.address import Origin, Url, redact, web, with_query


@dataclass(frozen=True)
class SignedRequest:
    """A URL with its signature, and headers with tokens. Secret: never logged, never written."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the origin of `url` alone (scheme, host, port), not to others that it redirects to."""


class Signer(Protocol):
    """Protocol of signers, which add signatures or tokens to requests for restricted files."""

    def sign(self, href: str) -> SignedRequest:
        """Return a request that is valid for at least a minute. Raises TesseraError if there is none to be had."""

    def renew(self, href: str) -> bool:
        """Drop the signature that the server refused. Return False if the next one would be the same."""

    def stop(self) -> None:
        """Make threads that wait for a signature give up: the run is over."""


class Unsigned:
    """Signer of public files: leaves requests unchanged."""

    def sign(self, href: str) -> SignedRequest:
        return SignedRequest(href)

    def renew(self, href: str) -> bool:
        return False

    def stop(self) -> None: ...


OPEN = Unsigned()


class GivenSignatures:
    """Signer that puts on the signatures that hrefs came with, and leaves all other hrefs to another signer.

    They live in memory alone. One that a server has refused is not used again: the other signer gets its turn.
    """

    def __init__(self, other: Signer) -> None:
        self._other = other
        self._queries: dict[str, str] = {}
        """Unsigned href -> the query it came with."""
        self._shared: dict[tuple[Origin, str], str] = {}
        """Origin and container -> a signature of Azure for all files there; "" for all containers of the origin."""
        self._refused: set[str] = set()
        """Signed queries."""

    def add(self, queries: Mapping[str, str]) -> None:
        """Keep signatures, by unsigned href."""
        self._queries.update(queries)
        for href, query in queries.items():
            names, url = {field.partition("=")[0] for field in query.split("&")}, web(href)
            if url is not None and ("srt" in names or "sr=c" in query.split("&")):
                self._shared[url.origin, "" if "srt" in names else _container(url)] = query

    def uses(self, href: str) -> bool:
        """Return whether the href is signed with a signature that was given."""
        query = self._query(href)
        return query is not None and query not in self._refused

    def sign(self, href: str) -> SignedRequest:
        query = self._query(href)
        if query is None:
            return self._other.sign(href)
        if query not in self._refused:
            return SignedRequest(with_query(href, query))
        try:
            signed = self._other.sign(href)
        except (CredentialsError, SourceRefusedError):
            signed = SignedRequest(href)
        if signed == SignedRequest(href):
            raise CredentialsError(
                f"{redact(href)} refused the signature that the catalogue gives for it: it has expired, or does not "
                "allow to read. Get a catalogue with new signatures, and run the same command again."
            )
        return signed

    def renew(self, href: str) -> bool:
        query = self._query(href)
        if query is None:
            return self._other.renew(href)
        if query in self._refused:  # of another thread's request, or it was the other signer's
            self._other.renew(href)
        self._refused.add(query)
        return True

    def _query(self, href: str) -> str | None:
        url = web(href) if self._shared and "?" not in href else None
        if href in self._queries or url is None or url.scheme != "https":
            return self._queries.get(href)
        return self._shared.get((url.origin, _container(url))) or self._shared.get((url.origin, ""))

    def stop(self) -> None:
        self._other.stop()


def _container(url: Url) -> str:
    return url.path[1:].partition("/")[0]
