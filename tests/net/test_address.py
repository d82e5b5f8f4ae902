"""Addresses: references by the table of RFC 3986, what is refused, and which fields of a query are signatures."""

import pickle

import pytest

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net.address import (
    AddressError,
    Url,
    is_url,
    local_path,
    parse,
    redact,
    resolve,
    unsigned,
    web,
    with_query,
    without_query,
)

BASE = "http://a/b/c/d;p?q"
RFC = {
    "g": "http://a/b/c/g",
    "./g": "http://a/b/c/g",
    "g/": "http://a/b/c/g/",
    "/g": "http://a/g",
    "//g": "http://g",
    "?y": "http://a/b/c/d;p?y",
    "g?y": "http://a/b/c/g?y",
    "#s": "http://a/b/c/d;p?q#s",
    "g#s": "http://a/b/c/g#s",
    "g?y#s": "http://a/b/c/g?y#s",
    ";x": "http://a/b/c/;x",
    "g;x": "http://a/b/c/g;x",
    "g;x?y#s": "http://a/b/c/g;x?y#s",
    ".": "http://a/b/c/",
    "./": "http://a/b/c/",
    "..": "http://a/b/",
    "../": "http://a/b/",
    "../g": "http://a/b/g",
    "../..": "http://a/",
    "../../": "http://a/",
    "../../g": "http://a/g",
    "../../../g": "http://a/g",
    "../../../../g": "http://a/g",
    "/./g": "http://a/g",
    "/../g": "http://a/g",
    "g.": "http://a/b/c/g.",
    ".g": "http://a/b/c/.g",
    "g..": "http://a/b/c/g..",
    "..g": "http://a/b/c/..g",
    "./../g": "http://a/b/g",
    "./g/.": "http://a/b/c/g/",
    "g/./h": "http://a/b/c/g/h",
    "g/../h": "http://a/b/c/h",
    "g;x=1/./y": "http://a/b/c/g;x=1/y",
    "g;x=1/../y": "http://a/b/c/y",
    "g?y/./x": "http://a/b/c/g?y/./x",
    "g?y/../x": "http://a/b/c/g?y/../x",
    "g#s/./x": "http://a/b/c/g#s/./x",
    "g#s/../x": "http://a/b/c/g#s/../x",
}
"""Section 5.4, without `g:h` and `http:g`, which name no host."""


@pytest.mark.parametrize(("reference", "expected"), [*RFC.items(), ("", BASE)])
def test_references_of_the_standard(reference, expected):
    assert resolve(BASE, reference) == expected


@pytest.mark.parametrize(
    ("base", "reference", "expected"),
    [
        ("https://x.test/stac/items.json", "/data/B02.tif", "https://x.test/data/B02.tif"),
        ("https://x.test/stac/items.json?sig=s3cret", "B02.tif", "https://x.test/stac/B02.tif"),
        ("https://x.test", "B02.tif", "https://x.test/B02.tif"),
        ("https://x.test?q", "./B02.tif", "https://x.test/B02.tif"),
        ("https://x.test/a/b", "my%20file%2Fx.tif", "https://x.test/a/my%20file%2Fx.tif"),
        ("https://x.test/a/b", "my file.tif", "https://x.test/a/my file.tif"),
        ("https://x.test/a//b/c", "d//e.tif", "https://x.test/a//b/d//e.tif"),  # empty segments are part of a key
        ("https://x.test/a", "%2e%2e/x", "https://x.test/%2e%2e/x"),
        ("https://x.test/a", "file?id=7", "https://x.test/file?id=7"),
        ("https://[::1]:80/a", "b", "https://[::1]:80/b"),
        ("https://x.test/a", "HTTPS://y.test/b", "HTTPS://y.test/b"),
        ("https://x.test/a", "/vsicurl/x.tif", "https://x.test/vsicurl/x.tif"),
        ("https://x.test/a", " https://y.test/b ", "https://y.test/b"),
        ("https://x.test/a", "s3://sentinel-cogs/k.tif", "s3://sentinel-cogs/k.tif"),
        ("/c/items.json", "https://y.test/b?x=1", "https://y.test/b?x=1"),
        ("/c/items.json", "/data/x.tif", "/data/x.tif"),
        ("/c/items.json", "s3://bucket/x.tif", "s3://bucket/x.tif"),
        ("/c/items.json", "file:///data/a%20b.tif", "file:///data/a%20b.tif"),
        ("/c/d/items.json", "../x.tif", "/c/x.tif"),
    ],
)
def test_references(base, reference, expected):
    assert resolve(base, reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        *("file:///etc/passwd", "FILE:/etc/passwd", "file://localhost/etc/passwd", "///etc/passwd", "///vsicurl/x"),
        *(
            "C:/data/x.tif",
            "c:x.tif",
            "g:h",
            "http:g",
            "https:///x.tif",
            "vrt://x",
            "data:,x",
            "ftp://x.test/y",
            "s3:x.tif",
            "s3:///x",
            "az:/x",
        ),
        *("http://user:secret@y.test/x", "//user@y.test/x", "https://evil.test\\@y.test/x", "a\\b.tif", "//y.test\\x"),
        *("https://y.test/\nx", "x\0.tif", "x\x1b[2J.tif", "https://y.test:port/x", "https://y.test:70000/x"),
        *("https://[::1/x", "https://[::g]/x", "https://[1.2.3.4]/x", "https://m\xfcnchen.test/x", "https://a b/x"),
    ],
)
def test_what_a_document_from_the_web_may_not_name(reference):
    with pytest.raises(AddressError):
        resolve("https://x.test/stac/items.json", reference)


def test_files_beside_a_document(tmp_path):
    """As it is spelled, else decoded."""
    document = str(tmp_path / "items.json")
    for name in ("my file.tif", "100%25.tif", "a#b.tif", "T10:56.tif", "ümlaut.tif"):
        (tmp_path / name).touch()
    for reference, name in {
        "./my%20file.tif": "my file.tif",
        "my file.tif": "my file.tif",
        f"{tmp_path}/my%20file.tif": "my file.tif",
        "100%25.tif": "100%25.tif",
        "a#b.tif": "a#b.tif",
        "T10:56.tif": "T10:56.tif",
        "%C3%BCmlaut.tif": "ümlaut.tif",
        "my%20file.tif?version=1": "my file.tif",
        "none.tif": "none.tif",
    }.items():
        assert resolve(document, reference) == str(tmp_path / name)
    (tmp_path / "my%20file.tif").touch()
    assert resolve(document, "./my%20file.tif") == str(tmp_path / "my%20file.tif")


@pytest.mark.parametrize(
    "reference", ["file://other.test/x.tif", "file:x.tif", "x\0.tif", "https://a@b/x", "file:/%00"]
)
def test_what_a_local_document_may_not_name(tmp_path, reference):
    with pytest.raises(AddressError):
        resolve(str(tmp_path / "items.json"), reference)


def test_paths_of_this_machine():
    for address in ("file:///a%20b", "file:/a%20b", "file://localhost/a%20b", "FILE:///a%20b", "/a b"):
        assert local_path(address) == "/a b"
    assert local_path("/a%20b") == "/a%20b"
    assert local_path("file:///%FF") == "/\udcff"  # a name that is no UTF-8
    assert local_path("a:b.tif") == "a:b.tif"
    for address in ("s3://b/x", "/vsicurl/https://x.test", "file:///vsizip/x", "https://x.test/x", "file://x.test/a"):
        with pytest.raises(AddressError):
            local_path(address)


@pytest.mark.parametrize("url", ["http://.x.test/", "http://./", "http://x.test:0/", "http://x.test:65536/"])
def test_hosts_and_ports_that_nobody_has(url):
    with pytest.raises(AddressError, match="its host is not understood"):
        parse(url)


def test_an_error_may_be_told_in_other_words_and_to_another_process():
    error = AddressError("https://x.test/a?sig=s3cret", "it may not")
    assert type(error.retold("other words")) is SourceRefusedError
    assert str(error.retold("other words")) == "other words"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (SourceRefusedError, str(error))
    assert b"s3cret" not in pickle.dumps(error)


def test_parts():
    assert parse("HTTPS://X.Test:8080/a/B?c#d") == Url("https", "x.test", "/a/B", 8080)
    assert parse("http://[2001:DB8::0:1]") == Url("http", "2001:db8::1", "", 80)
    assert web("https://xn--mnchen-3ya.test/x") == Url("https", "xn--mnchen-3ya.test", "/x", 443)
    assert web("file:///x") is web("/x") is web("https://a\\@b/x") is None
    assert is_url("HTTPS://x")
    assert not any(map(is_url, ("http_cogs/x.tif", "/http://x", "s3://x", "")))


AWS = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=s3cret&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-Signature=s3cret"
SIGNATURES = {
    "SAS": "sv=2021-06-08&st=a&se=b&sr=c&sp=rl&sig=s3cret%3D",
    "SAS of a user": "skoid=a&sktid=b&skt=c&ske=d&sks=b&skv=e&sv=f&se=g&sr=b&sp=r&sig=s3cret",
    "account SAS": "sv=a&ss=b&srt=co&sp=rl&se=a&spr=https&sig=s3cret",
    "S3": AWS,
    "S3 in capitals": AWS.upper(),
    "S3, encoded": AWS.replace("-", "%2D"),
    "S3 with a session": f"{AWS}&X-Amz-Security-Token=s3cret",
    "S3, version 2": "AWSAccessKeyId=s3cret&Signature=s3cret%3D&Expires=1700000000",
    "GCS": "X-Goog-Algorithm=a&X-Goog-Credential=s3cret&X-Goog-Date=d&X-Goog-Expires=9&X-Goog-Signature=s3cret",
    "GCS, version 2": "GoogleAccessId=a&Expires=1&Signature=s3cret",
    "CloudFront": "Policy=s3cret&Signature=s3cret&Key-Pair-Id=K",
    "CloudFront, short": "Expires=1&Signature=s3cret&Key-Pair-Id=K",
    "token": "token=s3cret",
    "key": "api_key=s3cret",
}


@pytest.mark.parametrize("query", SIGNATURES.values(), ids=SIGNATURES)
def test_signatures_are_told_from_the_rest_of_a_query(query):
    href = "https://x.test/a.tif"
    assert unsigned(f"{href}?{query}") == (href, query)
    assert unsigned(f"{href}?file=7&{query}&part=b") == (f"{href}?file=7&part=b", f"file=7&{query}&part=b")
    assert unsigned(f"{href}?{query}#x") == (f"{href}#x", query)
    assert with_query(*unsigned(f"{href}?file=7&{query}")) == f"{href}?file=7&{query}"
    assert without_query(f"{href}?{query}#x") == href
    assert redact(f"{href}?{query}") == href


@pytest.mark.parametrize(
    "href",
    ["https://x.test/a", "https://x.test/a?", "https://x.test/a?file=7&expires=1&se=2&policy=open", "/a?sig=1.tif", ""],
)
def test_what_is_no_signature(href):
    assert unsigned(href) == (href, None)


def test_what_is_shown():
    assert redact("https://user:s3cret@x.test/a?s3cret#s3cret") == "https://x.test/a"
    assert redact("https://[x?sig=s3cret") == "https://[x"
    assert redact("https:x?sig=s3cret") == "https:x"
    assert redact("/data/a?b.tif") == "/data/a?b.tif"
    assert redact("/data/\x1b[2J\n") == "/data/?[2J?"
