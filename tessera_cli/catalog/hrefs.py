"""Hrefs of STAC items and links: made absolute, cleared of signatures, and whether we can read what they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from tessera_cli.net.address import AddressError, exists, is_url, local_path, parse, redact, resolve, unsigned, web
from tessera_cli.net.reach import ASK_HOSTS, ASK_OUTSIDE, Reach

OPEN_BUCKETS = {"sentinel-cogs": "us-west-2"}
"""Buckets that anybody may read, with their region."""
CLOSED_BUCKETS = ("sentinel-s2-l2a",)
"""Buckets whose readers pay: ESA's JPEG 2000 files."""
BLOBS = ".blob.core.windows.net"
"""Hosts whose files take a signature in the query."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'<>]+")
"""An address in a text."""
REFUSED, SIGNED = "tessera:refused", "tessera:signed"
"""Fields of an asset: why its href is not used; whether its href came with a signature, which is not kept."""


def absolute(item: Mapping[str, Any], location: str, reach: Reach, *, listed: bool = True) -> dict[str, Any]:
    """Return the item with the absolute hrefs of its assets. `location`: where the document that holds it was read.

    `reach`: what documents may name.

    On the web, hrefs of an item that a page or a list of items holds (`listed`) count from the item's self link, if it
    has one, and those of any other document from where that was read. On this machine, where catalogues are copied to
    with self links that lead back to the web, they count from the document, and from the self link only where no such
    file lies here. An asset with an href that we refuse gets REFUSED, and an href without secrets.
    """
    origin = self_link(item, location, reach)
    base = origin if listed and origin and is_url(location) else location
    assets = {}
    for key, asset in (item.get("assets") or {}).items():
        if isinstance(asset, Mapping) and asset.get("href"):
            try:
                assets[key] = {**asset, "href": located(location, base, str(asset["href"]), origin, reach)}
            except AddressError as error:
                told = error.address if _may_be_allowed(error.why) else redact(error.address)
                assets[key] = {**asset, "href": told, REFUSED: error.why}
    return {**item, "assets": assets}


def permitted(assets: Mapping[str, Any], reach: Reach) -> dict[str, Any]:
    """Return the assets of a frozen item, each REFUSED or not by what the user allows now."""
    found = {}
    for key, asset in assets.items():
        found[key] = asset
        why = asset.get(REFUSED, "")
        if (reach.everywhere and why.endswith(ASK_HOSTS)) or (reach.outside and why.endswith(ASK_OUTSIDE)):
            found[key] = {name: value for name, value in asset.items() if name != REFUSED}
        if REFUSED not in found[key]:
            try:
                reach.frozen(asset["href"])
            except AddressError as error:
                found[key] = {**asset, REFUSED: error.why}
    return found


def _may_be_allowed(why: str) -> bool:
    """Return whether it is for the user to allow what was refused."""
    return why.endswith((ASK_OUTSIDE, ASK_HOSTS))


def links(content: Mapping[str, Any], *relations: str) -> list[Mapping[str, Any]]:
    """Return the links of a STAC document with these relations, as they stand."""
    given = content.get("links")
    listed = given if isinstance(given, list) else []
    return [link for link in listed if _leads(link) and link.get("rel") in relations]


def _leads(link: Any) -> bool:
    return isinstance(link, dict) and isinstance(link.get("href"), str) and bool(link["href"])


def linked(content: Mapping[str, Any], location: str, reach: Reach, *relations: str) -> list[str]:
    """Return the addresses of the links with these relations in a document that was read at `location`.

    Those that it may not name are left out.
    """
    found = []
    for link in links(content, *relations):
        with suppress(AddressError):
            found.append(reach.named(location, resolve(location, link["href"])))
    return found


def self_link(content: Mapping[str, Any], location: str, reach: Reach) -> str | None:
    """Return the address on the web that a document, read at `location`, names as its own; None if it names none."""
    found = next(iter(linked(content, location, reach, "self")), "")
    return found if is_url(found) else None


def located(location: str, base: str, href: str, origin: str | None, reach: Reach) -> str:
    """Return the address of an href, which counts from `base`; of a file that is absent here, that at `origin`.

    AddressError for one that the document at `location` may not name.
    """
    found = resolve(base, href)
    if origin and not is_url(base) and found.startswith("/") and not exists(found):
        found = resolve(origin, href)
    return reach.named(location, found)


def used(assets: Mapping[str, Any], keys: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the assets that have an href, by our keys, with unsigned hrefs, and the signed query of each href."""
    listed = {key: asset for key, asset in assets.items() if isinstance(asset, Mapping) and asset.get("href")}
    folded = {key.lower(): asset for key, asset in sorted(listed.items(), reverse=True)}
    found, queries = {}, {}
    for key in keys:
        if key.lower() in folded:
            asset = listed.get(key) or folded[key.lower()]
            href, query = unsigned(web_address(str(asset["href"])))
            found[key] = {**asset, "href": href}
            if query:
                queries[href] = query
                found[key][SIGNED] = True
    return found, queries


def cleared(value: Any) -> Any:
    """Return a JSON value whose addresses hold no signatures and no passwords."""
    if isinstance(value, str):
        return _ADDRESS.sub(_cleared_address, value) if "://" in value else value
    if isinstance(value, Mapping):
        return {key: cleared(inner) for key, inner in value.items()}
    return [cleared(inner) for inner in value] if isinstance(value, list) else value


def _cleared_address(found: re.Match[str]) -> str:
    address = unsigned(found[0])[0]
    user, at, _ = re.split("[/?#]", address.partition("://")[2], maxsplit=1)[0].rpartition("@")
    secret = at and (":" in user or is_url(address))  # those of Azure's buckets have an @, too
    return redact(address) if secret else address


def web_address(href: str) -> str:
    """Return the URL of an href into a bucket that anybody may read; other hrefs as they are."""
    scheme, _, rest = href.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() == "s3" and bucket in OPEN_BUCKETS:
        return f"https://{bucket}.s3.{OPEN_BUCKETS[bucket]}.amazonaws.com/{key}"
    return href


def closed_bucket(href: str) -> str | None:
    """Return the bucket that an href points into; None if it is public."""
    scheme, _, rest = href.partition("://")
    if scheme.lower() == "s3":
        return rest.partition("/")[0]
    url = web(href)
    label = url.host.partition(".")[0] if url else ""
    return label if url and label in CLOSED_BUCKETS and url.host.endswith(".amazonaws.com") else None


def unreadable(asset: Mapping[str, Any]) -> str | None:
    """Return why an asset cannot be read, as far as its href tells: "lies in the bucket X, which is not open"."""
    if why := asset.get(REFUSED):
        return f"({redact(str(asset['href']))}) is refused: {why}"
    href = str(asset["href"])
    if bucket := closed_bucket(href):
        return f"lies in the bucket {bucket}, which is not open"
    try:
        parse(href) if is_url(href) else local_path(href)
    except AddressError as error:
        return f"({redact(href)}) is refused: {error.why}"
    return None
