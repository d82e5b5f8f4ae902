"""The transport below the client: one request with its redirects, and who gets to see what goes along with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict

from tessera_cli.errors import SourceRefusedError
from tessera_cli.net import retries
from tessera_cli.net.address import AddressError, is_url, parse, redact, resolve
from tessera_cli.net.answers import Answer
from tessera_cli.net.connections import NOT_UNDERSTOOD, Adapter
from tessera_cli.net.deadlines import Deadline
from tessera_cli.net.reach import Reach, here
from tessera_cli.net.signing import SignedRequest
from tessera_cli.net.trust import check_authorities

MOST_REDIRECTS = 10
PUBLIC_HEADERS = {
    *("accept", "accept-encoding", "connection", "content-type", "user-agent"),
    *("range", "if-range", "if-match", "if-none-match", "cmr-search-after"),
}
"""Headers that a redirect to another origin takes along; any other might be a secret."""
_MOVED = (301, 302, 303, 307, 308)
_DRAINED = 1 << 14
"""Bytes of a redirect's body up to which reading it is cheaper than a new connection."""


class Transport:
    """Sends requests: with proxies and trust as the environment has them, without cookies and without ~/.netrc."""

    def __init__(self, reach: Reach, connections: int) -> None:
        self.reach = reach
        self._environment = requests.Session()
        self._adapter = Adapter(pool_connections=8, pool_maxsize=connections, max_retries=0)

    def settings(self, url: str) -> dict[str, Any]:
        """Return proxies and trust, as the environment has them, after a look at the certificates it names."""
        found: Any = self._environment.merge_environment_settings(url, {}, None, None, None)
        if here(url):  # which also keeps tokens for servers here from proxies elsewhere
            found["proxies"] = {}
        if isinstance(found["verify"], str) and url.startswith("https:"):
            check_authorities(found["verify"])
        return {name: found[name] for name in ("proxies", "verify", "cert")}

    @contextmanager
    def asking(
        self, signed: SignedRequest, headers: Mapping[str, str], posted: bytes | None, deadline: Deadline
    ) -> Iterator[Answer]:
        """Send one request, a POST if there is something `posted`; follow redirects, and yield the answer.

        An origin is a scheme, a host and a port: another one than that of the request sees PUBLIC_HEADERS alone.
        """
        url, moves = signed.url, 0
        sent = CaseInsensitiveDict({**requests.utils.default_headers(), "Accept-Encoding": "gzip"})
        sent.update(headers)
        sent.update(signed.headers)
        while True:
            try:
                response = self._send(url, sent, posted, deadline)
            except AddressError as error:
                raise (_refused(signed.url, url, error.why) if moves else error) from None
            try:
                target = response.headers.get("Location") if response.status_code in _MOVED else None
                if target is None:
                    yield Answer(response, url, moves > 0, deadline)
                    return
                _drain(response)
            finally:
                response.close()
            moves += 1
            found = _target(url, target, moves)
            if parse(found).origin != parse(url).origin:
                sent = CaseInsensitiveDict({k: v for k, v in sent.items() if k.lower() in PUBLIC_HEADERS})
            if response.status_code not in (307, 308):
                posted = None
            url = found

    def _send(
        self, url: str, headers: Mapping[str, str], posted: bytes | None, deadline: Deadline
    ) -> requests.Response:
        meant = parse(url)  # which refuses what requests and urllib3 may read in two ways
        self.reach.check(url)
        request = requests.Request("GET" if posted is None else "POST", url, headers=dict(headers), data=posted)
        try:
            prepared = request.prepare()
            if parse(prepared.url or "").origin != meant.origin:
                raise AddressError(url, NOT_UNDERSTOOD)
            timeout = (retries.CONNECT_TIMEOUT * retries.TIME_SCALE, retries.READ_TIMEOUT * retries.TIME_SCALE)
            return self._adapter.within(
                deadline,
                lambda peer: self.reach.check(url, peer),
                lambda peer: self.reach.reached(url, peer),
                meant,
                prepared,
                timeout=timeout,
                **self.settings(url),
            )
        except ValueError as error:  # of requests, http.client or a codec; their texts may quote a secret
            if isinstance(error, requests.exceptions.InvalidProxyURL | urllib3.exceptions.HTTPError):
                raise
            raise SourceRefusedError(f"{redact(url)} is refused: it cannot be requested. Check the address.") from None


def _drain(response: requests.Response) -> None:
    """Read the short body of a redirect, so that the connection can be used again."""
    length = getattr(response.raw, "length_remaining", None)
    if length is not None and 0 <= length <= _DRAINED:
        response.raw.read(_DRAINED, decode_content=False)


def _target(url: str, location: str, moves: int) -> str:
    """Return where a redirect leads; SourceRefusedError if it may not, or is one too many."""
    with contextlib.suppress(UnicodeError):  # else it is what it looks like
        location = location.encode("latin-1").decode()
    try:
        if moves > MOST_REDIRECTS:
            raise AddressError(location, f"it is the redirect number {moves}")
        found = resolve(url, location)
        if not is_url(found):
            raise AddressError(location, "it is no http or https address")
        parse(found)
    except AddressError as error:
        raise _refused(url, location, error.why) from None
    return found


def _refused(url: str, location: str, why: str) -> SourceRefusedError:
    return SourceRefusedError(
        f"{redact(url)} redirects to {redact(location)}, which is refused: {why}. Check the address."
    )
