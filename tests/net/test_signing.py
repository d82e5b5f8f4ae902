"""Signatures that hrefs came with: used first, dropped when refused, never shown."""

import pytest

from tessera_cli.errors import CredentialsError, SourceRefusedError
from tessera_cli.net import OPEN, Client, SignedRequest, get_range
from tessera_cli.net.signing import GivenSignatures
from tests.helpers.servers import FileServer, hurry, status

HREF = "https://x.blob.core.windows.net/c/a.tif"


class Service:
    """Signs everything, or refuses to."""

    def __init__(self, refuses=False):
        self.refuses, self.renewed = refuses, 0

    def sign(self, href):
        if self.refuses:
            raise SourceRefusedError("no such container")
        return SignedRequest(f"{href}?sig=service")

    def renew(self, href):
        self.renewed += 1
        return True

    def stop(self): ...


def test_a_given_signature_comes_before_that_of_the_service():
    service = Service()
    given = GivenSignatures(service)
    given.add({HREF: "sv=1&sig=s3cret", f"{HREF}?file=7": "file=7&sig=s3cret"})
    assert given.sign(HREF).url == f"{HREF}?sv=1&sig=s3cret"
    assert given.sign(f"{HREF}?file=7").url == f"{HREF}?file=7&sig=s3cret"
    assert given.sign(f"{HREF}x").url == f"{HREF}x?sig=service"
    assert "s3cret" not in repr(given) + repr(given.sign(HREF))
    assert given.renew(HREF)
    assert (given.sign(HREF).url, service.renewed) == (f"{HREF}?sig=service", 0)
    assert given.renew(HREF)
    assert service.renewed == 1


def test_a_signature_of_many_files_is_refused_once():
    given = GivenSignatures(Service())
    given.add({HREF: "sig=old", f"{HREF}2": "sig=old", f"{HREF}3": "sig=other"})
    given.renew(HREF)
    assert [given.sign(HREF + n).url.rpartition("=")[2] for n in ("", "2", "3")] == ["service", "service", "other"]
    given.add({HREF: "sig=new"})
    assert given.sign(HREF).url == f"{HREF}?sig=new"


def test_a_signature_of_a_container_serves_its_other_files():
    given, host = GivenSignatures(Service()), "https://x.blob.core.windows.net"
    given.add(
        {f"{host}/c/items.json": "sr=c&sig=c", f"{host}/d/a.tif": "sr=b&sig=d", "https://y.test/z": "srt=o&sig=y"}
    )
    for href, signature in {
        f"{host}/c/a/b.tif": "c",
        f"{host}/d/a.tif": "d",
        f"{host}/d/b.tif": "service",
        f"{host}/cc/b.tif": "service",
        f"{host}.evil.test/c/b.tif": "service",
        f"{host}:443/c/b.tif": "c",
        f"{host}:8443/c/b.tif": "service",
        f"{host}./c/b.tif": "service",
        "https://evil.test\\@x.blob.core.windows.net/c/b.tif": "service",
        "https://x.blob.core.windows.net@evil.test/c/b.tif": "service",
        "https://X.blob.core.windows.net/c/b.tif": "c",
        "https://x.blob.core.windows.net/C/b.tif": "service",
        "http://x.blob.core.windows.net/c/b.tif": "service",
        "https://y.test/any/file.tif": "y",
        f"{host}/c/own.tif?sig=own&x=service": "service",
    }.items():
        assert given.sign(href).url.rpartition("=")[2] == signature, href
    given.renew(f"{host}/c/a.tif")
    assert given.sign(f"{host}/c/b.tif").url.endswith("sig=service")


@pytest.mark.parametrize("other", [OPEN, Service(refuses=True)], ids=["none", "refuses"])
def test_without_another_signature_the_user_is_told_to_get_a_new_one(other):
    given = GivenSignatures(other)
    given.add({HREF: "sig=s3cret"})
    given.renew(HREF)
    with pytest.raises(CredentialsError, match=r"expired.*new signatures") as caught:
        given.sign(HREF)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("code", [400, 401, 403])
def test_a_server_that_refuses_a_given_signature(tmp_path, monkeypatch, code):
    """S3 and GCS call an expired signature a bad request."""
    hurry(monkeypatch)
    (tmp_path / "x.tif").write_bytes(b"0123456789")
    with FileServer(tmp_path, faults=lambda request: None if request.query == "sig=good" else status(code)) as server:
        href, client = f"{server.url}/x.tif", Client()
        client.given.add({href: "sig=good"})
        assert get_range(client, href, 2, 3).data == b"234"
        client.given.add({href: "sig=old"})
        with pytest.raises(CredentialsError, match="expired"):
            get_range(client, href, 2, 3)
        with pytest.raises((CredentialsError, SourceRefusedError)) as caught:  # nothing was given for this one
            get_range(client, f"{server.url}/y.tif", 2, 3)
        assert "expired" not in str(caught.value)
    assert len(server.log) == 3


def test_ranges_of_one_file_that_find_its_signature_refused_side_by_side():
    """Each is told what to do, whichever came first."""
    given = GivenSignatures(OPEN)
    given.add({HREF: "sig=s3cret"})
    assert given.renew(HREF)
    assert given.renew(HREF)
    with pytest.raises(CredentialsError, match="expired"):
        given.sign(HREF)
