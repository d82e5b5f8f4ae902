"""Signatures and tokens: put on when a request is sent, never before, since they expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class SignedRequest:
    """A URL with its signature, and headers with tokens. Secret: never logged, never written."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the host of `url` alone, not to those that it redirects to."""


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
