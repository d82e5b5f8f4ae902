"""The transport below the client: one request with its redirects, and who gets to see what goes along with it."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import requests
from multidict import CIMultiDict
from yarl import URL

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net import retries
from tessera_cli.net.address import AddressError, Origin, is_url, parse, redact, resolve
from tessera_cli.net.answers import Answer
from tessera_cli.net.connections import NOT_UNDERSTOOD, Connections, Sent, Way
from tessera_cli.net.deadlines import Deadline
from tessera_cli.net.loop import aside
from tessera_cli.net.reach import Reach, here
from tessera_cli.net.signing import SignedRequest
from tessera_cli.net.trust import check_authorities

MOST_REDIRECTS = 10
PUBLIC_HEADERS = {
    *("accept", "accept-encoding", "connection", "content-type", "user-agent"),
    *("range", "if-range", "if-match", "if-none-match", "cmr-search-after"),
}
"""Headers that a redirect to another origin takes along; any other might be a secret."""
DEFAULT_HEADERS = {
    "User-Agent": requests.utils.default_user_agent(),
    "Accept-Encoding": "gzip",
    "Accept": "*/*",
    "Connection": "keep-alive",
}
_ORDINARY = re.compile(
    r"https?://([a-z][a-z0-9-]*(\.[a-z0-9-]+)*\.[a-z]+|([1-9][0-9]*|0)(\.([1-9][0-9]*|0)){3})(:[1-9][0-9]*)?"
    r"(/[A-Za-z0-9_~?&=-][A-Za-z0-9_~?&=.-]*)+"
)
"""URLs that are written as they are, which takes a while to find out of others."""
_NUMBERS = re.compile(r"[0-9.]+")
_MOVED = (301, 302, 303, 307, 308)
_DRAINED = 1 << 14
"""Bytes of a redirect's body up to which reading it is cheaper than a new connection."""


class Transport:
    """Sends requests: with proxies and trust as the environment has them, without cookies and without ~/.netrc."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self._environment = requests.Session()
        self._connections = Connections()
        self._ways: dict[Origin, Way] = {}

    def way(self, url: str) -> Way:
        """Return how a server is reached, as the environment has it; UsageError for authorities that cannot be used."""
        origin = parse(url).origin
        if (known := self._ways.get(origin)) is None:
            found: Any = self._environment.merge_environment_settings(url, {}, None, None, None)
            authorities = found["verify"] if isinstance(found["verify"], str) else None
            if authorities and url.startswith("https:"):
                check_authorities(authorities)
            # A token for a server here is kept from proxies elsewhere.
            known = Way.to(url, {} if here(url) else found["proxies"], authorities)
            self._ways[origin] = known
        return known

    @asynccontextmanager
    async def asking(
        self, signed: SignedRequest, headers: Mapping[str, str], posted: bytes | None, deadline: Deadline
    ) -> AsyncIterator[Answer]:
        """Send one request to a URL that may be reached, a POST if there is something `posted`; follow redirects, and
        yield the answer.

        An origin is a scheme, a host and a port: another one than that of the request sees PUBLIC_HEADERS alone.
        """
        url, moves = signed.url, 0
        sent = CIMultiDict(DEFAULT_HEADERS)
        sent.update(headers)
        sent.update(signed.headers)
        while True:
            try:
                if moves:  # the first has been checked
                    await aside(functools.partial(self.reach.check, url))
                response = await self._send(url, sent, posted)
            except AddressError as error:
                raise (_refused(signed.url, url, error.why) if moves else error) from None
            try:
                found_headers = _headers(response)
                target = found_headers.get("Location") if response.status in _MOVED else None
                if target is None:
                    yield Answer(response, found_headers, url, moves > 0, deadline)
                    return
                await _drain(response)
            finally:
                response.close()
            moves += 1
            found = _target(url, target, moves)
            if parse(found).origin != parse(url).origin:
                sent = CIMultiDict({k: v for k, v in sent.items() if k.lower() in PUBLIC_HEADERS})
            if response.status not in (307, 308):
                posted = None
            url = found

    async def _send(self, url: str, headers: Mapping[str, str], posted: bytes | None) -> aiohttp.ClientResponse:
        parse(url)  # which refuses what others may read in two ways
        try:
            address = _spelled(url)
            for value in headers.values():
                value.encode("latin-1")
            request = Sent(
                "GET" if posted is None else "POST",
                address,
                headers,
                posted,
                retries.CONNECT_TIMEOUT * retries.TIME_SCALE,
                retries.READ_TIMEOUT * retries.TIME_SCALE,
            )
            return await self._connections.send(
                self.way(url),
                request,
                parse(address),
                lambda peer: self.reach.check(url, peer),
                lambda peer: self.reach.reached(url, peer),
            )
        except ValueError as error:  # of requests, aiohttp or a codec; their texts may quote a secret
            if isinstance(error, aiohttp.ClientError) and not isinstance(error, aiohttp.InvalidURL):
                raise  # such as one about a certificate
            raise SourceRefusedError(f"{redact(url)} is refused: it cannot be requested. Check the address.") from None


@functools.lru_cache(4096)
def _spelled(url: str) -> str:
    """Return a URL as it is written in a request; AddressError if that leads elsewhere."""
    if _ORDINARY.fullmatch(url):
        return url
    whole = requests.Request("GET", url).prepare().url or ""
    if parse(whole).origin != parse(url).origin:
        raise AddressError(url, NOT_UNDERSTOOD)
    address = URL(str(requests.utils.urldefragauth(whole)), encoded=True)
    host = parse(url).host
    try:  # 127.1, 0x7f000001, 2130706433
        return str(address.with_host(socket.inet_ntoa(socket.inet_aton(host))))
    except OSError:
        if _NUMBERS.fullmatch(host):
            raise AddressError(url, NOT_UNDERSTOOD) from None
        return str(address)


def _headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Return the headers as text, each byte a character; of several with one name the values with commas between."""
    found: CIMultiDict[str] = CIMultiDict()
    for key, value in response.raw_headers:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the short body of a redirect, so that the connection can be used again."""
    if (length := response.content_length) is not None and 0 <= length <= _DRAINED:
        await response.content.read(_DRAINED)
        await response.content.read(1)


def _target(url: str, location: str, moves: int) -> str:
    """Return where a redirect leads; SourceRefusedError if it may not, or is one too many."""
    with contextlib.suppress(UnicodeError):  # else it is what it looks like
        location = location.encode("latin-1").decode()
    try:
        if moves > MOST_REDIRECTS:
            raise AddressError(location, f"it is the redirect number {moves}")
        found = resolve(url, location)
        if not is_url(found):
            raise AddressError(location, "it is no http or https address")
        parse(found)
    except AddressError as error:
        raise _refused(url, location, error.why) from None
    return found


def _refused(url: str, location: str, why: str) -> SourceRefusedError:
    return SourceRefusedError(
        f"{redact(url)} redirects to {redact(location)}, which is refused: {why}. Check the address."
    )
