"""Networks: whether an address lies in the open, in a private network or on this machine, and who may name it.

Documents from the web are written by strangers. What they name is requested from here, and here is often inside: beside
a router's page, a database, the metadata service of a cloud.
"""

from __future__ import annotations

import ipaddress
import threading
from enum import StrEnum

from tessera_cli.net.address import AddressError, is_url, web

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
    if isinstance(address, ipaddress.IPv6Address):
        if inner := address.ipv4_mapped or address.sixtofour:
            return network_of(inner)
        if address in _NAT64:
            return network_of(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.is_loopback or address.is_unspecified:  # which connects to this machine as well
        return Network.LOOPBACK
    if address.is_link_local:
        return Network.LINK_LOCAL
    return Network.PUBLIC if address.is_global and not address.is_multicast else Network.PRIVATE


def network_named(host: str) -> Network | None:
    """Return the network of a host, as its name alone tells it, numbers in any form that resolvers read; else None."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return Network.LOOPBACK
    try:
        return network_of(ipaddress.ip_address(name))
    except ValueError:
        pass
    import socket

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
    """The networks and hosts that requests may reach; shared by all threads of a run.

    The public network always. Others only where the user named a catalogue or an endpoint there, or allows all.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self._lock = threading.Lock()
        self._networks = set(Network) if everywhere else {Network.PUBLIC}
        self._hosts: set[str] = set()

    def add(self, address: str) -> None:
        """Allow what the user named: the host of a URL, and the network that its name tells; of a local file, all."""
        url = web(address)
        with self._lock:
            if url is not None:
                self._hosts.add(url.host)
                self._networks |= {network_named(url.host) or Network.PUBLIC}
            elif not is_url(address):
                self._networks |= set(Network)

    def check(self, url: str, peer: IpAddress | None = None) -> None:
        """Raise AddressError unless the URL may be requested: by the name of its host, and by where that was found.

        `peer`: the address that is really connected to; None before there is a connection, or behind a proxy.
        """
        parsed = web(url)
        host = parsed.host if parsed else ""
        network = network_named(host) if peer is None else network_of(peer)
        with self._lock:
            if network is None or network in self._networks:
                return
            if host in self._hosts:  # the user's own server: others of its network are reached like it
                self._networks.add(network)
                return
        raise AddressError(
            url, f"it leads into a {network} network; --allow-private-hosts lets a catalogue name such hosts"
        )
