"""Earthdata Login: the tokens that NASA requires to download its files."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tessera_cli.catalog.tokens import LONGEST, SharedToken, Token, printable
from tessera_cli.errors import CredentialsError, SourceUnavailableError
from tessera_cli.net import Client, RequestStats, SignedRequest
from tessera_cli.net.address import parse, web
from tessera_cli.net.reach import Reach, secure

LOGIN = "https://urs.earthdata.nasa.gov/api/users/find_or_create_token"
DOMAINS = (".earthdatacloud.nasa.gov", ".earthdata.nasa.gov", ".asf.alaska.edu")
"""Whose servers ask for a token, at the port of https."""
OPEN_HOSTS = ("cmr.earthdata.nasa.gov", "urs.earthdata.nasa.gov")
"""Among them, those that need none: a token that has expired would only make them refuse."""
WAYS = (
    "Set EARTHDATA_TOKEN (make one at https://urs.earthdata.nasa.gov/profile), or EARTHDATA_USERNAME and "
    "EARTHDATA_PASSWORD, or add an entry for urs.earthdata.nasa.gov to ~/.netrc."
)


@dataclass(frozen=True)
class Credentials:
    """Earthdata credentials of the user: a token, or a name and a password, or nothing."""

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    origin: str = ""
    """Where they were found, for messages."""

    def __post_init__(self) -> None:
        if self.token is not None and not printable(self.token):
            raise CredentialsError(f"{self.origin or 'The token'} holds what no token has (spaces, lines). {WAYS}")

    @property
    def given(self) -> bool:
        return self.token is not None or (self.user is not None and self.password is not None)

    @property
    def lacking(self) -> str | None:
        """Return why they cannot work, as far as is known without a request; None if they may."""
        if self.token is not None:
            end = expiry(self.token)
            if end <= time.time():
                day = dt.datetime.fromtimestamp(end, dt.timezone.utc).date()
                return f"Earthdata Login: the token in {self.origin or 'use'} expired on {day}"
        return None if self.given else "Earthdata Login: no credentials, which the radar files want"


class EarthdataSigner:
    """Signer that adds a token to requests to NASA and to servers that the user named, never to others."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        servers: Iterable[str | None] = (),
        stats: RequestStats | None = None,
        login: str = LOGIN,
    ) -> None:
        """Set up a signer; `servers`: URLs whose origins may see the token, if it is not sent there in the clear."""
        self.credentials = credentials
        self._origins = {parse(server).origin for server in servers if server and secure(server)}
        self._login = login
        self._client = Client(stats=stats, connections=1, reach=Reach())
        self._client.reach.add(login)
        self._token = SharedToken(self._log_in)

    def sign(self, href: str) -> SignedRequest:
        return (
            SignedRequest(href, {"Authorization": f"Bearer {self._text()}"})
            if self.wants(href)
            else SignedRequest(href)
        )

    def renew(self, href: str) -> bool:
        if self.credentials.token is not None or not self.wants(href):
            return False
        self._token.drop()
        return True

    def stop(self) -> None:
        self._client.stop()

    def wants(self, href: str) -> bool:
        """Return whether the href gets the token: NASA always, the servers that the user named if there is one."""
        url = web(href)
        if url is None or url.host in OPEN_HOSTS:
            return False
        if url.origin == ("https", url.host, 443) and url.host.endswith(DOMAINS):
            return True
        return self.credentials.given and url.origin in self._origins

    def _text(self) -> str:
        why = self.credentials.lacking
        if why:
            raise CredentialsError(f"{why}. {WAYS}")
        return self.credentials.token or self._token.get()

    def _log_in(self) -> Token:
        user = f"{self.credentials.user}:{self.credentials.password}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(user).decode('ascii')}"}
        try:
            response = self._client.json(self._login, posted=b"", headers=headers, most=LONGEST)
        except CredentialsError as error:
            raise CredentialsError(
                f"Earthdata Login refused the name and password in {self.credentials.origin or 'use'} "
                f"(HTTP {error.status}). {WAYS}"
            ) from None
        text = response.json.get("access_token") if isinstance(response.json, dict) else None
        if not isinstance(text, str) or not printable(text):
            raise SourceUnavailableError("Earthdata Login sent no token. Try again later.")
        return Token(text, expiry(text))


def expiry(token: str) -> float:
    """Return the expiry of a JSON Web Token as POSIX time in seconds; infinity if it names none."""
    try:
        payload = token.split(".")[1]
        found = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, binascii.Error, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
    return max(found, 0.0) if not math.isnan(found) else math.inf
