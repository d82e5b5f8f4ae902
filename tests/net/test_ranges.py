"""Ranges belong to one version of a file, whatever its server says of versions."""

import base64
import hashlib
import os
from collections import Counter

import pytest

from tessera_cli.errors import AbsentError, SourceUnavailableError
from tessera_cli.net import ChangedError, Client, RangeResponse, SignedRequest, Version, get_range, get_ranges
from tessera_cli.net.retries import Cause
from tests.helpers import servers
from tests.helpers.servers import FileServer, Reply, always, status, with_date, with_etag

OLD, NEW = b"old" * 500, b"new" * 500
DIGEST = hashlib.md5(OLD).digest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    servers.hurry(monkeypatch)
    (tmp_path / "a.tif").write_bytes(OLD)
    os.utime(tmp_path / "a.tif", (1e9, 1e9))
    with FileServer(tmp_path) as running:
        yield running


@pytest.fixture
def href(server):
    return f"{server.url}/a.tif"


def replaced(server):
    (server.folder / "a.tif").write_bytes(NEW)


def weak(path, content):
    return {"ETag": f"W/{with_etag(path, content)['ETag']}"}


@pytest.mark.parametrize(
    ("validators", "condition"),
    [(with_etag, "If-Match"), (weak, None), (with_date, "If-Unmodified-Since"), (lambda *file: {}, None)],
    ids=["strong ETag", "weak ETag", "Last-Modified", "neither"],
)
def test_a_file_of_the_same_length_in_place_of_another_is_noticed(server, href, validators, condition):
    server.validators = validators
    known = get_range(Client(), href, 0, 10).version
    assert known.size == len(OLD)
    assert get_range(Client(), href, 500, 10, known=known).data == OLD[500:510]
    conditions = [name for name in server.log[-1].request.headers if name.startswith("If-")]
    assert conditions == ([condition] if condition else [])
    replaced(server)
    if validators(server.folder / "a.tif", b""):
        with pytest.raises(ChangedError, match="changes while it is being read"):
            get_range(Client(), href, 500, 10, known=known)
    else:  # nobody can see it
        assert get_range(Client(), href, 500, 10, known=known).data == NEW[500:510]


@pytest.mark.parametrize("validators", [with_etag, with_date])
def test_a_server_that_heeds_no_conditions_is_seen_through(server, href, validators):
    server.validators = validators
    known = get_range(Client(), href, 0, 10).version
    replaced(server)

    def heedless(handler, reply):
        if reply.status == 412:
            headers = {"Content-Range": f"bytes 500-509/{len(NEW)}", **validators(server.folder / "a.tif", NEW)}
            reply = Reply(206, headers, NEW[500:510])
        handler.send(reply)

    server.faults = always(heedless)
    with pytest.raises(ChangedError):
        get_range(Client(), href, 500, 10, known=known)


def test_a_server_that_refuses_conditions_is_asked_without(server, href):
    server.validators = with_etag
    known = get_range(Client(), href, 0, 10).version
    server.faults = lambda request: status(412) if "If-Match" in request.headers else None
    assert get_range(Client(), href, 500, 10, known=known).data == OLD[500:510]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Version(5, '"a"'), Version(5, '"a"'), True),
        (Version(5, '"a"'), Version(5, 'W/"a"'), True),  # as nginx makes of it, where it compresses other answers
        (Version(5, '"a"'), Version(5, '"b"'), False),
        (Version(5, '"a"', "Monday"), Version(5, '"a"', "Tuesday"), True),
        (Version(5, '"a"', "Monday"), Version(5, '"b"', "Monday"), False),
        (Version(5, "", "Monday"), Version(5, '"b"', "Tuesday"), False),
        (Version(5, '"a"', "Monday"), Version(5, "", "Monday"), True),
        (Version(5, '"a"'), Version(6, '"a"'), False),
        (Version(None, '"a"'), Version(6, '"a"'), True),
        (Version(5), Version(5, '"a"', "Monday"), True),
    ],
)
def test_versions(one, other, same):
    if same:
        one.check(other, "a.tif")
    else:
        with pytest.raises(ChangedError, match=r"a\.tif changes while it is being read: it has .* now, .* was opened"):
            one.check(other, "a.tif")


@pytest.mark.parametrize("digits", [16, 400, 5000])
@pytest.mark.parametrize("where", ["bytes {}-9/1500", "bytes 0-{}/1500", "bytes 0-9/{}", "bytes \u0660-9/1500"])
def test_numbers_of_any_length_in_a_content_range(server, href, digits, where):
    value = where.format("1" * digits).encode().decode("latin-1")
    server.faults = always(lambda handler, reply: handler.send(Reply(206, {"Content-Range": value}, OLD[:10])))
    with pytest.raises(SourceUnavailableError):
        get_range(Client(), href, 0, 10)


BASE64 = base64.b64encode(DIGEST).decode()
DIGESTS = {
    "Azure": ({"x-ms-blob-content-md5": BASE64}, DIGEST.hex()),
    "Google": ({"x-goog-hash": f"crc32c=AAAAAA==, md5={BASE64}"}, DIGEST.hex()),
    "Google, unpacked": ({"x-goog-hash": f"md5={BASE64}", "x-goog-stored-content-encoding": "gzip"}, None),
    "RFC 1864, of the part": ({"Content-MD5": BASE64}, None),
    "nonsense": ({"x-ms-blob-content-md5": "%%%"}, None),
    "too short": ({"x-ms-blob-content-md5": "AAAA"}, None),
}


@pytest.mark.parametrize("kind", DIGESTS)
def test_checksums_of_the_whole_file(server, href, kind):
    headers, expected = DIGESTS[kind]
    server.validators = lambda path, content: headers
    assert get_range(Client(), href, 0, 10).md5 == expected
    if "Content-MD5" in headers:
        assert get_range(Client(), href, 0, len(OLD)).md5 == DIGEST.hex()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, DIGEST.hex()),
        ({"x-amz-server-side-encryption": "AES256"}, DIGEST.hex()),
        ({"x-amz-server-side-encryption": "aws:kms"}, None),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, None),
        ({"ETag": f'"{DIGEST.hex()}-3"'}, None),
        ({"ETag": f'W/"{DIGEST.hex()}"'}, None),
    ],
)
def test_etags_that_may_be_checksums(server, href, headers, expected):
    server.validators = lambda path, content: {**with_etag(path, content), **headers}
    assert get_range(Client(), href, 0, 10).etag_md5 == expected


def test_each_range_has_a_patience_of_its_own(server, href, monkeypatch):
    """Of ranges side by side: one comes at once, one after two failures, one is refused, one never comes."""
    servers.hurry(monkeypatch)
    client = Client()

    def faults(request):
        start = request.range[0]
        if start == 100 and request.nth < 2:
            return status(503)
        return {200: status(404), 300: status(503)}.get(start)

    server.faults = faults
    found = get_ranges(client, href, [(0, 10), (100, 10), (200, 10), (300, 10)])
    assert [type(one) for one in found] == [RangeResponse, RangeResponse, AbsentError, SourceUnavailableError]
    assert client.stats.to_dict()["retries"] == {Cause.SERVER: 2 + 5}
    asked = Counter(exchange.range[0] for exchange in server.log)
    assert asked == {0: 1, 100: 3, 200: 1, 300: 6}
    assert client.stats.to_dict()["requests"] == len(server.log)


def test_a_signature_is_renewed_once_for_all_ranges_that_found_it_expired(server, href, monkeypatch):
    servers.hurry(monkeypatch)
    renewed = []

    class Expiring:
        def sign(self, url):
            return SignedRequest(f"{url}?sig={len(renewed)}")

        def renew(self, url):
            renewed.append(url)
            return True

        def stop(self): ...

    server.faults = lambda request: status(403) if request.query == "sig=0" else None
    found = get_ranges(Client(Expiring()), href, [(10 * n, 10) for n in range(5)])
    assert all(isinstance(one, RangeResponse) for one in found)
    assert renewed == [href]
