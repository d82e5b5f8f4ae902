"""Reach: in which network an address lies, however it is written, and which documents may name it."""

import ipaddress
import socket

import pytest

from tessera_cli.net.address import AddressError
from tessera_cli.net.reach import Network, Reach, _looked_up, network_named, network_of

PUBLIC = "https://catalogue.test/v1/search"
PEERS = {Network.PUBLIC: "93.184.216.34", Network.PRIVATE: "10.0.0.7", Network.LOOPBACK: "127.0.0.1"}


def refused(call, *given):
    try:
        call(*given)
    except AddressError as error:
        return "--allow-" in str(error) or "web addresses only" in str(error)
    return False


def connect(reach, url, network):
    """As the client does: ask, and tell once the host has answered."""
    reach.check(url, peer(network))
    reach.reached(url, peer(network))


def peer(network):
    return ipaddress.ip_address(PEERS[network])


@pytest.mark.parametrize(
    ("network", "hosts"),
    {
        Network.LOOPBACK: "localhost LOCALHOST. a.localhost 127.0.0.1 127.1 127.0.0.1. 2130706433 0x7f000001 0x7f.1 "
        "017700000001 0177.0.0.1 0 0.0.0.0 0.0.0.1 ::1 :: ::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1 64:ff9b::7f00:1 "
        "2002:7f00:1:: localhost.localdomain ip6-localhost",
        Network.LINK_LOCAL: "169.254.169.254 2852039166 0xa9fea9fe fe80::1 ::ffff:169.254.169.254 "
        "metadata.google.internal metadata 64:ff9b::a9fe:a9fe",
        Network.PRIVATE: "10.1.2.3 172.16.0.1 192.168.1.1 100.64.0.1 100.100.100.200 fc00::1 fd00:ec2::254 fec0::1 "
        "198.18.0.1 224.0.0.1 ff02::1 255.255.255.255 240.0.0.1 192.0.2.1 167772161 ::ffff:10.0.0.1",
        Network.PUBLIC: "8.8.8.8 134744072 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 100.128.0.1 172.32.0.1",
        None: "example.test localhost.example.test 10.example.test nas 1.2.3.4.example.test",
    }.items(),
)
def test_networks_of_hosts_however_they_are_written(network, hosts):
    assert {host: network_named(host) for host in hosts.split()} == dict.fromkeys(hosts.split(), network)


def test_networks_of_addresses():
    assert network_of(ipaddress.ip_address("2001:0:7f00:1:0:0:80ff:fffe")) is Network.LOOPBACK  # Teredo of 127.0.0.1
    assert network_of(ipaddress.ip_address("2001:db8::1")) is Network.PRIVATE


# --- what documents may name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named",
    [
        *("http://127.0.0.1:9000/x.tif", "http://localhost/x", "http://[::1]/x", "http://0x7f000001/x", "http://0/x"),
        *("http://10.0.0.1/x", "http://169.254.169.254/latest/meta-data", "http://metadata.google.internal/x"),
        *("/etc/passwd", "file:///etc/passwd", "x.tif"),
    ],
)
def test_a_document_from_the_open_web_names_nothing_inside(named):
    reach = Reach()
    reach.add(PUBLIC)
    assert refused(reach.named, PUBLIC, named)
    assert refused(reach.frozen, named)
    assert refused(Reach(outside=True).named, PUBLIC, named)
    if "://" in named and not named.startswith("file:"):
        assert refused(reach.check, named)
        everywhere = Reach(everywhere=True)
        assert everywhere.named(PUBLIC, named) == everywhere.frozen(named) == named
        everywhere.check(named)


@pytest.mark.parametrize("named", ["https://elsewhere.test/x", "http://8.8.8.8/x", "s3://bucket/key", "https://nas/x"])
def test_what_a_name_does_not_tell_is_found_out_on_connecting(named):
    reach = Reach()
    assert reach.named(PUBLIC, named) == reach.frozen(named) == named
    if named.startswith("http"):
        reach.check(named)
        reach.check(named, peer(Network.PUBLIC))
        assert refused(reach.check, named, peer(Network.PRIVATE))
        assert refused(reach.check, named, peer(Network.LOOPBACK))


@pytest.mark.parametrize(
    ("base", "named", "ok"),
    [
        ("http://127.0.0.1:8000/c.json", "http://127.0.0.1:9000/x.tif", True),
        ("http://localhost:8000/c.json", "http://[::1]:9000/x.tif", True),
        ("http://localhost:8000/c.json", "http://10.0.0.1/x.tif", False),
        ("http://localhost:8000/c.json", "http://169.254.169.254/x", False),
        ("http://192.168.1.5/c.json", "http://192.168.1.6/x.tif", True),
        ("http://192.168.1.5/c.json", "http://169.254.169.254/x", False),
        ("http://192.168.1.5/c.json", "http://127.0.0.1/x", False),
    ],
)
def test_a_catalogue_inside_names_hosts_of_its_own_network(base, named, ok):
    for call, given in ((Reach.named, (base, named)), (Reach.frozen, (named,))):
        reach = Reach()
        reach.add(base)
        assert refused(call, reach, *given) is not ok
        assert refused(reach.check, named) is not ok


def test_a_catalogue_inside_that_has_a_name():
    reach = Reach()
    reach.add("https://nas.test/c.json")
    reach.check("https://nas.test/c.json")
    connect(reach, "https://nas.test/c.json", Network.PRIVATE)
    assert reach.named("https://nas.test/c.json", "http://10.0.0.5/x.tif")
    connect(reach, "http://10.0.0.5/x.tif", Network.PRIVATE)
    connect(reach, "https://tiles.test/x.tif", Network.PRIVATE)
    assert refused(reach.check, "https://nas.test/c.json", peer(Network.LOOPBACK))


def test_a_public_catalogue_does_not_move_in_later():
    """DNS may answer otherwise the second time."""
    reach = Reach()
    reach.add(PUBLIC)
    connect(reach, PUBLIC, Network.PUBLIC)
    assert refused(reach.check, PUBLIC, peer(Network.LOOPBACK))


@pytest.fixture
def looked_up(monkeypatch):
    """What DNS says: host -> address."""
    known = {}

    def look_up(host, port, *more, **other):
        if host not in known:
            raise socket.gaierror("not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    _looked_up.cache_clear()
    yield known
    _looked_up.cache_clear()


def test_an_address_that_has_not_answered_opens_no_network():
    """DNS may give this machine as one of several addresses of a catalogue, where nobody listens."""
    reach = Reach()
    reach.add(PUBLIC)
    reach.check(PUBLIC, peer(Network.LOOPBACK))
    connect(reach, PUBLIC, Network.PUBLIC)
    for named in ("http://127.0.0.1:8000/admin", "http://10.0.0.1/x"):
        assert refused(reach.named, PUBLIC, named)
        assert refused(reach.check, named)
    assert refused(reach.check, "https://other.test/", peer(Network.LOOPBACK))


def test_a_frozen_name_leads_nowhere_that_a_search_would_not(looked_up):
    looked_up["catalogue.test"] = PEERS[Network.PUBLIC]
    reach = Reach()
    reach.add(PUBLIC)
    reach.frozen("https://tiles.test/x.tif")
    reach.check("https://tiles.test/x.tif", peer(Network.PUBLIC))
    for network in (Network.PRIVATE, Network.LOOPBACK):
        assert refused(reach.check, "https://tiles.test/x.tif", peer(network))


def test_a_run_that_goes_on_reaches_the_network_of_its_catalogue(looked_up):
    """Which nobody asks any more: its scenes are frozen."""
    looked_up["nas.test"] = PEERS[Network.PRIVATE]
    reach = Reach()
    reach.add("https://nas.test/c.json")
    for named in ("https://tiles.test/x.tif", "http://10.0.0.5/x.tif"):
        assert reach.frozen(named) == named
        connect(reach, named, Network.PRIVATE)
    assert refused(reach.check, "https://tiles.test/x.tif", peer(Network.LOOPBACK))


def test_dns_does_not_say_that_a_catalogue_is_on_this_machine(looked_up):
    """It is asked behind a proxy, where nothing else tells; it is in the hands of whoever owns the name."""
    looked_up["catalogue.test"] = PEERS[Network.LOOPBACK]
    reach = Reach()
    reach.add(PUBLIC)
    assert refused(reach.named, PUBLIC, "http://127.0.0.1:8000/admin")
    assert refused(reach.frozen, "http://127.0.0.1:8000/admin")


def test_a_public_document_that_an_inner_one_links_to_names_nothing_inside():
    reach = Reach()
    reach.add("http://127.0.0.1:8000/c.json")
    assert refused(reach.named, PUBLIC, "http://127.0.0.1:8000/admin")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(tmp_path):
    """In a folder that is reached by a symlink, with links that lead out of it and about in it."""
    folder = tmp_path / "real" / "catalogue"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "real" / "beside.tif").touch()
    (folder / "x.tif").touch()
    (folder / "items.json").touch()
    (folder / "out.tif").symlink_to(tmp_path / "real" / "beside.tif")
    (folder / "up").symlink_to("..")
    (folder / "sub" / "in.tif").symlink_to("../x.tif")
    (tmp_path / "short").symlink_to(folder)
    return tmp_path / "short"


@pytest.mark.parametrize("named", ["catalogue", "file", "uri"])
def test_a_document_here_names_files_below_its_folder(catalogue, named):
    given = {"catalogue": str(catalogue), "file": f"{catalogue}/items.json", "uri": f"file://{catalogue}/items.json"}
    reach, real, base = Reach(), catalogue.resolve(), str(catalogue.resolve() / "items.json")
    reach.add(given[named])
    for inside in ("x.tif", "sub/../x.tif", "sub/in.tif", "none.tif"):
        for folder in (catalogue, real, f"file://{real}"):
            path = f"{folder}/{inside}"
            assert reach.named(base, path) == reach.frozen(path) == path
    for outside in ("../beside.tif", "out.tif", "up/beside.tif", "../catalogue2/x.tif", "sub/../../none.tif"):
        for folder in (catalogue, real, f"file://{real}"):
            path = f"{folder}/{outside}"
            if not (folder == catalogue and outside.startswith("../catalogue2")):
                assert refused(reach.named, base, path), path
                assert refused(reach.frozen, path), path
    assert Reach(outside=True).named(base, "/etc/passwd") == "/etc/passwd"


def test_a_document_here_is_the_users_own_and_names_any_host(catalogue):
    reach, base = Reach(), str(catalogue.resolve() / "items.json")
    reach.add(str(catalogue))
    for named in ("http://127.0.0.1:9/x", "http://10.0.0.1/x", "https://nas.test/x"):
        assert reach.named(base, named) == named
        reach.check(named)
        reach.check(named, peer(Network.PRIVATE) if "nas" in named else None)
    assert refused(reach.check, "http://10.0.0.2/x")
    again = Reach()
    again.add(str(catalogue))
    assert again.frozen("http://10.0.0.1/x")
    again.check("http://10.0.0.1/x")
