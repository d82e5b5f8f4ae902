"""What may be reached: whether an address lies in the open, in a private network or on this machine, and who names it.

Documents from the web are written by strangers. What they name is requested from here, and here is often inside: beside
a router's page, a database, the metadata service of a cloud. Documents on this machine may come from strangers as well;
what they name of this machine lies beside them.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import threading
from enum import StrEnum
from pathlib import Path

from tessera_cli.net.address import AddressError, is_bucket, is_url, local_path, parse, web

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""IPv4 addresses written as IPv6, by an older custom."""
_THIS_HOST = ipaddress.IPv4Network("0.0.0.0/8")
"""Connecting to these leads to this machine as well."""
_LOCAL_NAMES = ("localhost", "localdomain", "localhost6", "ip6-localhost", "ip6-loopback")
_METADATA = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")
"""Names of the services that hand out a cloud's credentials."""

OUTSIDE = "it lies outside the folder of the catalogue"
ASK_OUTSIDE = "--allow-outside lets it name files anywhere"
ASK_HOSTS = "--allow-private-hosts lets a catalogue name such hosts"


class Network(StrEnum):
    """Where an IP address lies."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Of a local network, or reserved: whatever is not routed on the Internet."""
    LINK_LOCAL = "link-local"
    """Of one cable; metadata services of clouds live there."""
    LOOPBACK = "loopback"
    """This machine."""


def network_of(address: IpAddress) -> Network:
    """Return where an IP address lies; an IPv4 address that is wrapped in one of IPv6 counts by itself."""
    if isinstance(address, ipaddress.IPv6Address) and (inner := _wrapped(address)):
        return network_of(inner)
    if address.is_loopback or address.is_unspecified or address in _THIS_HOST:
        return Network.LOOPBACK
    if address.is_link_local:
        return Network.LINK_LOCAL
    inside = address.is_multicast or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    return Network.PUBLIC if address.is_global and not inside else Network.PRIVATE


def _wrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if inner := address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]:
        return inner
    wrapped = address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)  # :: and ::1 are no IPv4
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if wrapped else None


@functools.lru_cache(4096)
def network_named(host: str) -> Network | None:
    """Return the network of a host, as its name alone tells it, numbers in any form that resolvers read; else None."""
    name = host.rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith((".localhost", ".localdomain")):
        return Network.LOOPBACK
    if name in _METADATA:
        return Network.LINK_LOCAL
    try:
        return network_of(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433
        return network_of(ipaddress.IPv4Address(socket.inet_aton(name)))
    except (OSError, UnicodeError):
        return None


def here(url: str) -> bool:
    """Return whether a URL leads to this machine, by the name of its host."""
    parsed = web(url)
    return parsed is not None and network_named(parsed.host) is Network.LOOPBACK


def secure(url: str) -> bool:
    """Return whether a secret may be sent to a URL: encrypted, or without leaving this machine."""
    parsed = web(url)
    return parsed is not None and (parsed.scheme == "https" or here(url))


class Reach:
    """The hosts and files that the documents of a run may name; shared by all its threads.

    The public network always. Others where the user named a catalogue or an endpoint there, where a document of the
    same network or of this machine names a host, or where all are allowed. Files below the folders of the catalogues on
    this machine that the user named, or anywhere if that is allowed.
    """

    def __init__(self, *, everywhere: bool = False, outside: bool = False) -> None:
        self.everywhere, self.outside = everywhere, outside
        self._lock = threading.Lock()
        self._networks = set(Network) if everywhere else {Network.PUBLIC}
        self._hosts: dict[str, Network | None] = {}
        """Hosts that may lead anywhere, and where they led first: later they may lead there and nowhere else."""
        self._users: set[str] = set()
        """Hosts that the user named; others of their network are reached like them."""
        self._folders: set[str] = set()
        self._local = False
        """Whether the user named a catalogue on this machine."""

    def add(self, address: str) -> None:
        """Allow what the user named: the host of a URL, and its network; the folder of a catalogue on this machine."""
        with self._lock:
            if is_url(address):
                if (url := web(address)) is not None:
                    self._users.add(url.host)
                    self._hosts.setdefault(url.host, None)
                    self._networks |= {network_named(url.host) or Network.PUBLIC}
                return
            try:
                path = os.path.expanduser(local_path(address))  # noqa: PTH111 - Path fails for users without a home
                given, real = os.path.abspath(path), os.path.realpath(path)  # noqa: PTH100
                folders = (given, real) if Path(real).is_dir() else (Path(given).parent, Path(real).parent)
                self._folders |= {os.path.realpath(folder) for folder in folders}
                self._local = True
            except (AddressError, ValueError, OSError):
                return  # reading it will tell

    def named(self, base: str, found: str) -> str:
        """Return `found`, an address that the document at `base` names; AddressError if it may not.

        A document on this machine is the user's own: it may name any host, and files below its folder. One on the web
        may name its own host, hosts of its own network and public ones. What a name does not tell is found out on
        connecting, by `check`.
        """
        if is_bucket(found):
            return found
        if not is_url(found):
            self._file(base, found)
            return found
        host = parse(found).host
        network = network_named(host)
        if is_url(base):
            own = parse(base).host
            if host != own and network not in (None, Network.PUBLIC, self._network(own)) and not self.everywhere:
                raise _unreachable(found, network)
            if network in (None, Network.PUBLIC):
                return found
        with self._lock:
            self._hosts.setdefault(host, None)
        return found

    def frozen(self, found: str) -> str:
        """Return `found`, an address of a scene list that an earlier run has frozen; AddressError if what the user
        named now does not allow it.
        """
        if is_url(found) and not self._local:
            host = parse(found).host
            network = network_named(host)
            if network in (None, Network.PUBLIC):
                return found
            if not self._open(network):
                raise _unreachable(found, network)
            with self._lock:
                self._hosts.setdefault(host, None)
            return found
        return self.named("/" if self._local else "https://web.invalid", found)

    def check(self, url: str, peer: IpAddress | None = None) -> None:
        """Raise AddressError unless the URL may be requested: by the name of its host, and by where that was found.

        `peer`: the address that is about to be connected to; None before one is known, or behind a proxy.
        """
        parsed = web(url)
        host = parsed.host if parsed else ""
        network = network_named(host) if peer is None else network_of(peer)
        with self._lock:
            known = host in self._hosts and self._hosts[host] in (None, network)
        if network is not None and not known and not self._open(network):
            raise _unreachable(url, network)

    def reached(self, url: str, peer: IpAddress) -> None:
        """Record where the host of a URL has answered, by its certificate if it has one.

        Not before: a name may stand for several addresses, and whoever owns it can put any among them.
        """
        parsed = web(url)
        if parsed is None:
            return
        with self._lock:
            if self._hosts.get(parsed.host, Network.PUBLIC) is None:
                self._hosts[parsed.host] = network_of(peer)
                if parsed.host in self._users:
                    self._networks.add(network_of(peer))

    def _open(self, network: Network) -> bool:
        """Return whether every host of the network may be reached: one that the user named lies there."""
        return network in self._networks or any(self._network(host) is network for host in list(self._users))

    def _network(self, host: str) -> Network | None:
        """Return the network of a host, as its name or connecting to it has told; of the user's own, as DNS does."""
        known = network_named(host) or self._hosts.get(host)
        return _looked_up(host) if known is None and host in self._users else known

    def _file(self, base: str, found: str) -> None:
        path = local_path(found)
        if is_url(base):
            raise AddressError(found, "a document from the web may name web addresses only")
        if self.outside:
            return
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(folder) for folder in self._folders):
            raise AddressError(found, f"{OUTSIDE}; {ASK_OUTSIDE}")


@functools.cache
def _looked_up(host: str) -> Network | None:
    """Return the network of a host where DNS says that it is public or private; else None.

    Whoever owns a name on the web can let it stand for this machine, or for the services of a cloud.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        network = network_of(ipaddress.ip_address(str(found[0][4][0]).partition("%")[0]))
    except (OSError, UnicodeError, ValueError):
        return None
    return network if network in (Network.PUBLIC, Network.PRIVATE) else None


def _unreachable(url: str, network: Network | None) -> AddressError:
    where = "leads to this machine" if network is Network.LOOPBACK else f"leads into a {network} network"
    return AddressError(url, f"it {where}; {ASK_HOSTS}")
