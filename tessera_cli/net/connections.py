"""Connections: to the host that was meant, and at an address that may be reached."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from requests.utils import select_proxy
from yarl import URL

from tessera_cli.errors import UsageError
from tessera_cli.net.address import AddressError, Url, redact
from tessera_cli.net.loop import LOOP, aside
from tessera_cli.net.reach import IpAddress

Told = Callable[[IpAddress], None]
"""Is told the address of a host. Before a connection is made, it raises AddressError if that may not be reached."""
NOT_UNDERSTOOD = "its host is not understood"
AHEAD = 1 << 18
"""Bytes of a body from which on no more is read until somebody takes them; twice as many may be there."""


class UnansweredError(Exception):
    """A server that speaks, but not HTTP."""


@dataclass(frozen=True)
class Way:
    """How a server is reached."""

    proxy: str | None = field(repr=False)
    """Its address, perhaps with a password; None: directly."""
    trust: ssl.SSLContext | None
    """Which certificates are accepted; None where nothing is encrypted."""

    @classmethod
    def to(cls, address: str, proxies: Mapping[str, str], authorities: str | None) -> Way:
        """Return the way to a URL. `authorities`: a file or folder of certificates; None: those of the package certifi.

        UsageError if the environment names a proxy that is none, or whose kind is not supported.
        """
        proxy = select_proxy(address, dict(proxies)) or None
        if proxy is not None:
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            try:
                usable = bool(URL(proxy).host) and URL(proxy).port is not None
            except ValueError:
                usable = False
            if not usable or not proxy.lower().startswith(("http://", "https://")):
                raise UsageError(
                    f"The proxy {redact(proxy)} cannot be used: http://HOST:PORT and https://HOST:PORT are supported. "
                    "Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, whichever names it."
                )
        encrypted = [each for each in (address, proxy or "") if each.lower().startswith("https:")]
        return cls(proxy, _trusting(authorities) if encrypted else None)


@functools.cache
def _trusting(authorities: str | None) -> ssl.SSLContext:
    """Return what checks certificates, made once: to read the authorities takes longer than a request."""
    path = authorities or certifi.where()
    folder = Path(path).is_dir()
    return ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)


@dataclass(frozen=True)
class Sent:
    """A request as it leaves."""

    method: str
    address: str
    """As it is written on the wire."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None
    connect_timeout: float
    """Seconds."""
    read_timeout: float
    """Seconds without a byte."""


@dataclass(frozen=True)
class _Asked:
    """What the task that runs is asking for."""

    url: Url
    proxied: bool
    admit: Told
    reached: Told


_ASKED: ContextVar[_Asked] = ContextVar("asked")


class Connections:
    """Connections that are used again; they keep to what `send` says of a request. Belongs to the loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, way: Way, request: Sent, url: Url, admit: Told, reached: Told) -> aiohttp.ClientResponse:
        """Send a request to the host of `url` alone, at an address that `admit` admits.

        `reached` is told where it has answered. The body of the response has not been read. Raises errors of aiohttp,
        and UnansweredError.
        """
        self._begin()
        _ASKED.set(_Asked(url, way.proxy is not None, admit, reached))
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=request.connect_timeout, sock_read=request.read_timeout
        )
        try:
            return await self._session.request(
                request.method,
                URL(request.address, encoded=True),
                data=request.body,
                headers=request.headers,
                proxy=way.proxy,
                ssl=way.trust or True,  # True: nothing is encrypted
                timeout=timeout,
                allow_redirects=False,
            )
        except aiohttp.ClientHttpProxyError:
            raise
        except aiohttp.ClientResponseError as error:  # its text quotes what the server said, at any length
            raise UnansweredError(f"what it says is no HTTP ({error.message.split(':')[0][:80]})") from error
        except (OSError, RuntimeError) as error:
            if isinstance(error, aiohttp.ClientError):
                raise
            raise UnansweredError(str(error)) from error

    def _begin(self) -> None:
        """Be ready in the loop that runs; after a fork it is another one."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop = loop
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, use_dns_cache=False, resolver=_Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=AHEAD,
            max_field_size=1 << 16,
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        )
        self._session._retry_connection = False  # or a request would be sent twice without being counted
        weakref.finalize(self, _close, self._session, loop)


_LEFT: list[aiohttp.ClientSession] = []
"""Of before a fork: the sockets are those of the parent too, and are not closed properly here."""


def _close(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections of a client that is gone."""
    if loop is LOOP.begun:
        asyncio.run_coroutine_threadsafe(session.close(), loop)
    else:
        _LEFT.append(session)


class _Connector(aiohttp.TCPConnector):
    async def connect(self, req: Any, *given: Any, **more: Any) -> Any:
        asked = _ASKED.get()
        if not asked.proxied and (_plain(req.url.raw_host or ""), req.url.port) != (asked.url.host, asked.url.port):
            raise AddressError(f"{asked.url.scheme}://{asked.url.host}", NOT_UNDERSTOOD)
        connection = await super().connect(req, *given, **more)
        if not asked.proxied:
            peer = connection.transport and connection.transport.get_extra_info("peername")
            if not peer:
                connection.close()
                raise aiohttp.ClientOSError("the connection ended at once")
            asked.reached(_ip_address(peer))
        return connection


class _Resolver(AbstractResolver):
    """Finds the addresses of a host that may be reached."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        asked = _ASKED.get()
        return await aside(lambda: _admitted(host, port, asked))

    async def close(self) -> None: ...


def _admitted(host: str, port: int, asked: _Asked) -> list[ResolveResult]:
    """Return the addresses of a host that may be reached; AddressError if none of them may."""
    try:
        found = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except UnicodeError as error:
        raise AddressError(f"http://{host}", NOT_UNDERSTOOD) from error
    admitted: list[ResolveResult] = []
    refusal: Exception = OSError("the host has no address")
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    for family, _, protocol, _, address in found:
        try:
            if not asked.proxied:
                asked.admit(_ip_address(address))
        except AddressError as error:
            refusal = error
            continue
        where = str(address[0]), int(address[1])
        admitted.append(
            ResolveResult(hostname=host, host=where[0], port=where[1], family=family, proto=protocol, flags=flags)
        )
    if not admitted:
        raise refusal
    return admitted


def _ip_address(address: tuple[Any, ...]) -> IpAddress:
    """Return the IP address of an address of the socket module."""
    return ipaddress.ip_address(str(address[0]).partition("%")[0])


def _plain(host: str) -> str:
    """Return a host as `address.parse` spells it."""
    return str(ipaddress.IPv6Address(host.strip("[]"))) if ":" in host else host.lower()
