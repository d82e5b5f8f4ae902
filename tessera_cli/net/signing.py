"""The right to read: signatures and tokens are put on when a question is asked, never before; they expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class SignedRequest:
    """What to ask a server for, now. Secret: never logged, never written."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the host of `url` alone, not to those that it redirects to."""


class Signer(Protocol):
    """Turns an unsigned href into what can be asked for now."""

    def sign(self, href: str) -> SignedRequest:
        """Valid for at least a minute. Raises TesseraError if there is none to be had."""

    def renew(self, href: str) -> bool:
        """The server refused the last ticket: forget it. False if the next one would be the same."""

    def stop(self) -> None:
        """The run is over: who waits for a ticket gives up."""


class Open:
    """Files that anybody may read."""

    def sign(self, href: str) -> SignedRequest:
        return SignedRequest(href)

    def renew(self, href: str) -> bool:
        return False

    def stop(self) -> None: ...


OPEN = Open()
