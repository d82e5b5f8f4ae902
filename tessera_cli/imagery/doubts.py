"""What was found wrong with the answers of servers in a run, and what is to be made of it."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace

from tessera_cli.net import RangeResponse, Version
from tessera_cli.net.address import parse


class Doubts:
    """Hosts that sent other bytes than a file holds, and what their ETags mean. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doubted: set[str] = set()
        self._cut: set[str] = set()
        self._md5: set[str] = set()
        """Hosts of which an ETag was the MD5 of a file: it cannot be by chance."""
        self._other: set[str] = set()
        """Hosts of which an ETag was of that form and another number."""
        self._fickle: set[str] = set()
        """Hosts that give one file several ETags."""

    def cast(self, href: str) -> None:
        """Doubt what the host of this URL sends: from now on, bytes without a checksum are asked for twice."""
        with self._lock:
            self._doubted.add(parse(href).host)

    def cut(self, href: str) -> None:
        """Remember that an answer for this file may have ended early: then nothing proves that the file is broken."""
        with self._lock:
            self._cut.add(href)

    def is_whole(self, href: str) -> bool:
        """Return whether all answers for this file were known to be whole."""
        return href not in self._cut

    def changed(self, href: str, seen: Sequence[Version]) -> None:
        """Look at the versions of a file in the order in which one reading of it has seen them.

        One that is back after another says nothing: several machines behind one address may each have an ETag of
        their own for the same file, and some make it of the part that they send. Then size and date decide.
        """
        order = [version for version, _ in itertools.groupby(seen)]
        if len(set(order)) < len(order) and len({(version.size, version.modified) for version in order}) == 1:
            with self._lock:
                self._fickle.add(parse(href).host)

    def version(self, href: str, told: Version) -> Version:
        """Return what can be held against the file of this version, without an ETag that says nothing."""
        fickle = told.modified and parse(href).host in self._fickle
        return replace(told, etag="") if fickle else told

    def __contains__(self, href: str) -> bool:
        return parse(href).host in self._doubted

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts that are doubted."""
        with self._lock:
            return frozenset(self._doubted)

    def contradiction(self, href: str, whole: bytes, said: RangeResponse) -> str | None:
        """Return in which checksum of the server a whole file differs from what was received; None: in none.

        Many ETags are MD5s, and others only look like it. So one that differs says something once another file of the
        host had the MD5 of its ETag; files before that are doubted then.
        """
        if said.md5 is None and said.etag_md5 is None:
            return None
        md5, host = hashlib.md5(whole, usedforsecurity=False).hexdigest(), parse(href).host
        if said.md5 is not None and md5 != said.md5:
            return "Content-MD5"
        with self._lock:
            if said.etag_md5 == md5:
                self._md5.add(host)
            elif said.etag_md5 is not None:
                self._other.add(host)
            if host in self._md5 & self._other:
                self._doubted.add(host)
            return "ETag" if said.etag_md5 not in (None, md5) and host in self._md5 else None
