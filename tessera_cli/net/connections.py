"""Connections: to the host that was meant, and at an address that may be reached."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
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
from tessera_cli.net.loop import LOOP
from tessera_cli.net.reach import IpAddress

Told = Callable[[IpAddress], None]
"""Is told the address of a host. Before a connection is made, it raises AddressError if that may not be reached."""
NOT_UNDERSTOOD = "its host is not understood"
AHEAD = 1 << 18
"""Bytes of a body that are read before somebody takes them."""


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
        return cls(proxy, _trusting(authorities) if address.startswith("https:") else None)


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

    def __init__(self, most: int) -> None:
        """Have at most so many requests under way."""
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None

    def turn(self) -> AbstractAsyncContextManager[object]:
        """Return what waits until a request more may be under way."""
        self._begin()
        return self._turns

    async def send(self, way: Way, request: Sent, url: Url, admit: Told, reached: Told) -> aiohttp.ClientResponse:
        """Send a request to the host of `url` alone, at an address that `admit` admits.

        `reached` is told where it has answered. The body of the response has not been read. Raises errors of aiohttp,
        and UnansweredError.
        """
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
                ssl=way.trust or True,
                timeout=timeout,
                allow_redirects=False,
            )
        except aiohttp.ClientResponseError as error:  # its text quotes what the server said, at any length
            raise UnansweredError(f"what it says is no HTTP ({error.message.split(':')[0][:80]})") from error

    def _begin(self) -> None:
        """Be ready in the loop that runs; after a fork it is another one."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop, self._turns = loop, asyncio.Semaphore(self._most)
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


def _close(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections of a client that is gone."""
    if loop is LOOP.get():
        asyncio.run_coroutine_threadsafe(session.close(), loop)


class _Connector(aiohttp.TCPConnector):
    async def connect(self, req: Any, *given: Any, **more: Any) -> Any:
        asked = _ASKED.get()
        if not asked.proxied and (_plain(req.url.raw_host or ""), req.url.port) != (asked.url.host, asked.url.port):
            raise AddressError(f"{asked.url.scheme}://{asked.url.host}", NOT_UNDERSTOOD)
        connection = await super().connect(req, *given, **more)
        if not asked.proxied and (transport := connection.transport) is not None:
            asked.reached(_ip_address(transport.get_extra_info("peername")))
        return connection


class _Resolver(AbstractResolver):
    """Finds the addresses of a host that may be reached."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        asked, found = _ASKED.get(), await _addresses(host, port)
        admitted, refusal = [], None
        for family, _, protocol, _, address in found:
            try:
                if not asked.proxied:
                    asked.admit(_ip_address(address))
            except AddressError as error:
                refusal = error
                continue
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            admitted.append(
                ResolveResult(
                    hostname=host, host=address[0], port=address[1], family=family, proto=protocol, flags=flags
                )
            )
        if not admitted:
            raise refusal or OSError("the host has no address")
        return admitted

    async def close(self) -> None: ...


async def _addresses(host: str, port: int) -> list[Any]:
    """Return what `socket.getaddrinfo` finds, in a thread that nothing waits for: nothing can interrupt it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(result: list[Any] | Exception) -> None:
        if not found.done():  # else nobody waits any more
            found.set_exception(result) if isinstance(result, Exception) else found.set_result(result)

    def look() -> None:
        result: list[Any] | Exception
        try:
            result = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        except UnicodeError:
            result = AddressError(f"http://{host}", NOT_UNDERSTOOD)
        except OSError as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the process ends
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=look, name="resolver", daemon=True).start()
    return await found


def _ip_address(address: tuple[Any, ...]) -> IpAddress:
    """Return the IP address of an address of the socket module."""
    return ipaddress.ip_address(str(address[0]).partition("%")[0])


def _plain(host: str) -> str:
    """Return a host as `address.parse` spells it."""
    return str(ipaddress.IPv6Address(host.strip("[]"))) if ":" in host else host.lower()
