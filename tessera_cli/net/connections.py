"""Connections: to the host that was meant, at an address that may be reached, and with an end.

urllib3 opens a connection by the name of a host alone. Ours asks, before a packet leaves, whether the address that the
name stands for may be reached, and tells the deadline of the request which connection to cut.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import prepend_scheme_if_needed, select_proxy
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.util import parse_url
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssl_ import create_urllib3_context

from tessera_cli.net.address import AddressError, Url
from tessera_cli.net.deadlines import Deadline, OverError
from tessera_cli.net.reach import IpAddress

Told = Callable[[IpAddress], None]
"""Is told the address of a host. Before a connection is made, it raises AddressError if that may not be reached."""
NOT_UNDERSTOOD = "its host is not understood"


class UnansweredError(Exception):
    """A connection that ended before an answer began."""


class _Request(threading.local):
    """What this thread is asking for."""

    deadline: Deadline | None = None
    admit: Told | None = None
    reached: Told | None = None
    url: Url | None = None


_REQUEST = _Request()


class _Adapter(HTTPAdapter):
    """Maker of pools, of connections to servers and to proxies, as the environment names those; all are guarded."""

    def init_poolmanager(self, *given: Any, **more: Any) -> None:
        super().init_poolmanager(*given, **more)
        self.poolmanager.pool_classes_by_scheme = _guarded_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **more)
        if not known:
            manager.pool_classes_by_scheme = _guarded_pools(manager)
        return manager


@dataclass(frozen=True)
class Sent:
    """A request as it leaves."""

    method: str
    target: str
    """Path and query, or the whole address for a proxy that is told it (see `Way.whole`)."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None
    timeout: Timeout


@dataclass(frozen=True)
class Way:
    """How a server is reached: by which pools, trusting whom."""

    manager: PoolManager
    """Of connections to servers, or to a proxy."""
    trust: Mapping[str, Any]
    whole: bool
    """Whether the proxy is told whole addresses: those of http, where it is no SOCKS proxy."""


class Connections:
    """Pools of connections that keep to what `send` says of a request."""

    def __init__(self, each: int) -> None:
        """Keep at most so many connections to a host."""
        self._adapter = _Adapter(pool_connections=8, pool_maxsize=each, max_retries=0)

    def way(self, address: str, proxies: Mapping[str, str], authorities: str | None) -> Way:
        """Return the way to a URL. `authorities`: a file or folder of certificates; None: those of the package certifi.

        Raises InvalidProxyURL of requests if the environment names a proxy that is none.
        """
        manager, named = self._adapter.poolmanager, select_proxy(address, dict(proxies))
        proxy = prepend_scheme_if_needed(named, "http") if named else ""
        if proxy:
            if not parse_url(proxy).host:
                raise InvalidProxyURL("Check the proxy that the environment names: it has no host.")
            manager = self._adapter.proxy_manager_for(proxy)
        trust = {"ssl_context": _trusting(authorities)} if address.startswith("https:") else {}
        return Way(manager, trust, whole=bool(proxy) and not trust and not proxy.lower().startswith("socks"))

    def send(
        self, way: Way, request: Sent, url: Url, deadline: Deadline, admit: Told, reached: Told
    ) -> BaseHTTPResponse:
        """Send a request that ends by the deadline, to the host of `url` alone, at an address that `admit` admits.

        `reached` is told where it has answered. The body of the response has not been read. Raises errors of urllib3;
        UnansweredError where the connection ended before an answer.
        """
        with _sending(deadline, admit, reached, url):
            try:
                pool = way.manager.connection_from_host(url.host, url.port, url.scheme, dict(way.trust))
                return pool.urlopen(
                    request.method,
                    request.target,
                    body=request.body,
                    headers=request.headers,
                    timeout=request.timeout,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
            except ProtocolError as error:
                raise UnansweredError(error) from error


@contextmanager
def _sending(deadline: Deadline, admit: Told, reached: Told, url: Url) -> Iterator[None]:
    _REQUEST.deadline, _REQUEST.admit, _REQUEST.reached, _REQUEST.url = deadline, admit, reached, url
    try:
        yield
    finally:
        _REQUEST.deadline = _REQUEST.admit = _REQUEST.reached = _REQUEST.url = None


@functools.cache
def _trusting(authorities: str | None) -> ssl.SSLContext:
    """Return what checks certificates, made once: to read the authorities takes longer than a request."""
    context, path = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED), authorities or certifi.where()
    folder = Path(path).is_dir()
    context.load_verify_locations(None if folder else path, path if folder else None)
    return context


def _guarded_pools(manager: Any) -> dict[str, Any]:
    return {scheme: _guarded(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}


@functools.cache
def _guarded(pool: Any) -> Any:
    """Return the class of connection pools with connections of ours."""
    connection = type("Guarded", (_Guarded, pool.ConnectionCls), {})
    return type(f"Guarded{pool.__name__}", (pool,), {"ConnectionCls": connection})


class _Guarded(HTTPConnection):
    """Connection that the deadline of a request can cut."""

    def _new_conn(self) -> socket.socket:
        deadline = _REQUEST.deadline
        assert deadline is not None
        if hasattr(self, "_socks_options"):
            found: socket.socket = super()._new_conn()
            deadline.cuts(found.fileno())
            return found
        try:
            found = self._connected(deadline)
        except UnicodeError as error:
            raise AddressError(f"{_REQUEST.url and _REQUEST.url.scheme}://{self.host}", NOT_UNDERSTOOD) from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return found

    def connect(self) -> None:
        super().connect()  # and, for https, a look at the certificate
        if self.proxy is None and not hasattr(self, "_socks_options") and _REQUEST.reached is not None:
            _REQUEST.reached(_ip_address(self.sock.getpeername()))

    def _connected(self, deadline: Deadline) -> socket.socket:
        """Return a connection to the first address of the host that may be reached and answers."""
        failure: Exception = OSError("the host has no address")
        for family, kind, protocol, _, address in _addresses(self._dns_host, self.port, deadline):
            deadline.check()
            made = socket.socket(family, kind, protocol)
            try:
                if self.proxy is None and _REQUEST.admit is not None:
                    _REQUEST.admit(_ip_address(address))
                for option in self.socket_options or ():
                    made.setsockopt(*option)
                if isinstance(self.timeout, int | float):
                    made.settimeout(self.timeout)
                deadline.cuts(made.fileno())
                made.connect(address)
                deadline.check()
                return made
            except (OSError, AddressError) as error:
                made.close()
                failure = error
            except BaseException:
                made.close()
                raise
        raise failure

    def request(self, *given: Any, **more: Any) -> None:
        deadline, url = _REQUEST.deadline, _REQUEST.url
        assert deadline is not None
        assert url is not None
        if self.proxy is None and (_plain(self.host), self.port) != (url.host.rstrip("."), url.port):
            raise AddressError(f"{url.scheme}://{url.host}", NOT_UNDERSTOOD)
        if self.sock is not None:
            deadline.cuts(self.sock.fileno())
        super().request(*given, **more)


def _addresses(host: str, port: int, deadline: Deadline) -> list[Any]:
    """Return what `socket.getaddrinfo` finds, in a thread of its own: nothing can interrupt it."""
    found: Future[list[Any]] = Future()

    def look() -> None:
        with contextlib.suppress(InvalidStateError):  # nobody waits any more
            try:
                found.set_result(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

    deadline.calls(found.cancel)
    threading.Thread(target=look, name="resolver", daemon=True).start()
    try:
        return found.result()
    except CancelledError:
        raise OverError from None


def _ip_address(address: tuple[Any, ...]) -> IpAddress:
    """Return the IP address of an address of the socket module."""
    return ipaddress.ip_address(str(address[0]).partition("%")[0])


def _plain(host: str) -> str:
    """Return a host as `address.parse` spells it."""
    try:
        return str(ipaddress.IPv6Address(host.strip("[]")))
    except ValueError:
        return host.lower()
