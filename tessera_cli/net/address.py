"""Addresses: the one place that parses them, resolves references, and tells signatures from the rest of a query.

An address is an http(s) URL, a path of this machine, a `file:` URI, or names a bucket (`s3://`).
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus, unquote_to_bytes

from tessera_cli.errors import SourceRefusedError, TesseraError

WEB = ("http", "https")
BUCKETS = ("s3", "gs", "az", "abfs", "abfss")
"""Schemes that name a bucket and not this machine."""

SIGNATURES = {
    "sig",  # Azure
    "x-amz-signature",
    "x-goog-signature",
    "signature",  # the older S3 and GCS, CloudFront
    *("token", "access_token", "auth", "jwt", "hmac", "hdnts", "hdnea", "q-signature"),
    *("api_key", "api-key", "apikey", "subscription-key", "x-api-key", "x-amz-security-token"),
    *("access-token", "accesstoken", "auth_token", "authtoken", "id_token", "bearer", "authorization"),
    *("password", "passwd", "pwd", "secret", "client_secret", "credential", "credentials", "sessionid", "ticket"),
}
"""Fields of a query that grant access, in lower case: what makes a URL a signed one."""
COMPANIONS = {
    *("sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "si", "sdd", "ses", "scid", "saoid", "suoid"),
    *("skoid", "sktid", "skt", "ske", "sks", "skv", "skdutid", "sduoid"),
    *("expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "security-token"),
}
"""Fields that belong to a signature where there is one, and may mean anything else where there is none."""
COMPANION_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "q-")

_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
"""Scheme, authority, path, query and fragment (RFC 3986, appendix B); matches any text."""
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_-][A-Za-z0-9._-]*))(?::([0-9]{0,5}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


Origin = tuple[str, str, int]
"""Scheme, host and port: what a secret is meant for."""


class AddressError(SourceRefusedError):
    """An address that is not used."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{redact(address)} is refused: {why}. Check the address.")
        self.address = address
        """As it was given. It may hold secrets."""
        self.why = why
        """In one clause."""

    def retold(self, text: str) -> TesseraError:
        return SourceRefusedError(text)

    def __reduce__(self) -> tuple[type[SourceRefusedError], tuple[str]]:
        return SourceRefusedError, (str(self),)  # to another process, without secrets


@dataclass(frozen=True)
class Url:
    """The parts of an http or https URL that say where it leads. Scheme and host are in lower case."""

    scheme: str
    host: str
    """Without the brackets of IPv6."""
    path: str
    port: int = 0
    """The one that is connected to, whether it is written or not."""

    @property
    def origin(self) -> Origin:
        return self.scheme, self.host, self.port


def is_url(address: str) -> bool:
    """Return whether an address is on the web, by its scheme alone."""
    return _split(address)[0] in WEB


def is_bucket(address: str) -> bool:
    """Return whether an address names a bucket and not this machine."""
    scheme, authority, *_ = _split(address)
    return scheme in BUCKETS and authority is not None


@functools.lru_cache(4096)
def parse(address: str) -> Url:
    """Return the parts of a URL; AddressError if two readers might understand it differently."""
    scheme, authority, path, _, _ = _split(address)
    if _CONTROL.search(address) or "\\" in address:
        raise AddressError(address, "it holds a backslash or control characters")
    if scheme not in WEB:
        raise AddressError(address, "it is no http or https address")
    if authority and "@" in authority:
        raise AddressError(address, "it holds a user name or a password")
    found = _AUTHORITY.fullmatch(authority or "")
    if found is None or not 0 < int(found[3] or 1) < 65536:
        raise AddressError(address, "its host is not understood")
    try:
        host = str(ipaddress.IPv6Address(found[1])) if found[1] else found[2]
    except ValueError:
        raise AddressError(address, "its host is not understood") from None
    return Url(scheme, host.lower(), path, int(found[3] or (443 if scheme == "https" else 80)))


def web(address: str) -> Url | None:
    """Return the parts of a URL; None for whatever else, and for what `parse` refuses."""
    try:
        return parse(address)
    except AddressError:
        return None


def resolve(base: str, reference: str) -> str:
    """Return the address that a reference means in the document that was read at `base`, a URL or absolute path.

    By RFC 3986; percent-encoding stays as it is. AddressError for what is refused: a document from the web names
    nothing on this machine, not even by way of the working directory.
    """
    if not is_url(base):
        return _beside(Path(base), reference)
    reference = reference.strip(" ")
    scheme, authority, *_ = _split(reference)
    if scheme in BUCKETS and authority:
        return reference
    if scheme not in (None, *WEB):
        raise AddressError(reference, "a document from the web may name web addresses only")
    found = reference if scheme else _join(base, reference)
    parse(found)
    return found


def local_path(address: str) -> str:
    """Return the path of a file on this machine, given as it is or as a `file:` URI; AddressError if it is none."""
    scheme, authority, path, _, _ = _split(address)
    if scheme is None or (scheme != "file" and authority is None):
        path = address
    elif scheme != "file":
        raise AddressError(address, "only http, https and local files are supported")
    elif authority not in (None, "", "localhost"):
        raise AddressError(address, "it is a file of another machine")
    elif not path.startswith("/"):
        raise AddressError(address, "a file: address wants an absolute path")
    else:
        path = os.fsdecode(unquote_to_bytes(path))
    if path.startswith("/vsi"):
        raise AddressError(address, "only http, https and local files are supported")
    if _CONTROL.search(path):
        raise AddressError(address, "it holds control characters")
    return path


def unsigned(address: str) -> tuple[str, str | None]:
    """Return a URL without the fields of its query that sign it, and the query with them; None if it is unsigned."""
    scheme, _, _, query, fragment = _split(address)
    if scheme is None or not query:
        return address, None
    fields = query[1:].split("&")
    names = [unquote_plus(field.partition("=")[0]).lower() for field in fields]
    if not SIGNATURES.intersection(names):
        return address, None
    kept = [field for field, name in zip(fields, names, strict=True) if field and not _signs(name)]
    return _before_query(address) + (f"?{'&'.join(kept)}" if kept else "") + (fragment or ""), query[1:]


def with_query(address: str, query: str) -> str:
    """Return a URL with another query."""
    return f"{without_query(address)}?{query}{_split(address)[4] or ''}"


def without_query(address: str) -> str:
    """Return a URL without its query and fragment: what identifies a file; paths stay as they are."""
    return _before_query(address) if is_url(address) else address


def query_of(address: str) -> str:
    """Return the query of a URL, without its question mark."""
    return (_split(address)[3] or "?")[1:]


def redact(address: str) -> str:
    """Return the address as it may be shown: without query, where signatures stand, password and control characters."""
    scheme, authority, path, _, _ = _split(address)
    shown = without_query(address) if authority is None else f"{scheme or ''}://{authority.rpartition('@')[2]}{path}"
    return _CONTROL.sub("?", shown)


def _split(address: str) -> tuple[str | None, str | None, str, str | None, str | None]:
    found = _PARTS.fullmatch(address)
    assert found is not None  # the expression matches any text
    return found[1] and found[1].lower(), found[2], found[3], found[4], found[5]


def _before_query(address: str) -> str:
    return re.split("[?#]", address, maxsplit=1)[0]


def _signs(name: str) -> bool:
    return name in SIGNATURES or name in COMPANIONS or name.startswith(COMPANION_PREFIXES)


def _join(base: str, reference: str) -> str:
    """RFC 3986, 5.2.2. `urljoin` drops empty segments, which are part of a key in a bucket."""
    scheme, authority, path, query, _ = _split(base)
    _, other, below, asked, fragment = _split(reference)
    if other is not None:
        authority, path, query = other, _without_dots(below), asked
    elif below:
        if not below.startswith("/"):
            below = f"{path.rpartition('/')[0]}/{below}"
        path, query = _without_dots(below), asked
    elif asked is not None:
        query = asked
    return f"{scheme}://{authority}{path}{query or ''}{fragment or ''}"


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4, of a path that begins with a slash or is empty."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment not in (".", ".."):
            kept.append(segment)
        elif segment == ".." and len(kept) > 1:
            kept.pop()
    return "/".join([*kept, ""] if segments[-1] in (".", "..") else kept)


def _beside(document: Path, reference: str) -> str:
    """Return what a reference in a local document means: a path as it is spelled, else decoded, if it is no URI."""
    scheme, authority, path, _, _ = _split(reference)
    if scheme in WEB:
        parse(reference)
        return reference
    if scheme == "file":
        local_path(reference)  # which may refuse it
        return reference
    if scheme and authority is not None:
        return reference
    if _CONTROL.search(reference):
        raise AddressError(reference, "it holds control characters")
    literal = _below(document, reference)
    if scheme or not set("%?#").intersection(reference) or exists(literal):
        return literal
    return _below(document, os.fsdecode(unquote_to_bytes(path)))


def _below(document: Path, path: str) -> str:
    return path if path.startswith("/") else str((document.parent / path).resolve())


def exists(path: str) -> bool:
    """Return whether there is such a file; False for what cannot be a path."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
