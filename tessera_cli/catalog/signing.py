"""Hrefs are signed when they are read, never when they are found: signatures expire."""

from __future__ import annotations

from typing import Protocol

from tessera_cli.catalog.sources import Source


class Signer(Protocol):
    """Turns an unsigned href into one that can be read now."""

    def __call__(self, href: str) -> str: ...


def unsigned(href: str) -> str:
    """For local files and open storage."""
    return href


def planetary_computer_signer(href: str) -> str:
    """Adds a SAS token to hrefs in Azure blob storage, cached and renewed by the library; others pass unchanged."""
    if ".blob.core.windows.net/" not in href:
        return href
    import planetary_computer

    return str(planetary_computer.sign_url(href))


def signer_of(source: Source) -> Signer:
    return {"planetary-computer": planetary_computer_signer, "none": unsigned}[source.signer]
