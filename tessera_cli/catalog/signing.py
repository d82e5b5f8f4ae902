"""Select the signer of a source, and check that its credentials work."""

from __future__ import annotations

import re
import threading

from tessera_cli.catalog.earthdata import WAYS, Credentials, EarthdataSigner
from tessera_cli.catalog.hrefs import BLOBS
from tessera_cli.catalog.scene import Sensor
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.catalog.sources import Source
from tessera_cli.catalog.tokens import LONGEST, SharedToken, Token, printable
from tessera_cli.errors import CredentialsError, SourceUnavailableError, TesseraError
from tessera_cli.net import Client, RequestStats, SignedRequest, Signer, get_range
from tessera_cli.net.address import is_url, query_of, redact, unsigned, web, with_query
from tessera_cli.net.reach import Reach, here, secure

_CONTAINER = re.compile(r"[a-z0-9]+/[a-z0-9$-]+")
"""Account and container, as Azure names them."""


class PlanetaryComputerSigner:
    """Signer that adds a signature to hrefs in Azure blob storage; others pass unchanged.

    Signatures come from the token service that the planetary-computer library is configured for (PC_SDK_SAS_URL,
    PC_SDK_SUBSCRIPTION_KEY), one per container. They are requested by our own client, since the library waits for a
    response without end.
    """

    def __init__(self, *, stats: RequestStats | None = None) -> None:
        self._client = Client(stats=stats, connections=2, reach=Reach())
        self._lock = threading.Lock()
        self._tokens: dict[str, SharedToken] = {}

    def sign(self, href: str) -> SignedRequest:
        token = self._token(href)
        if token is None:
            return SignedRequest(href)
        return SignedRequest(with_query(href, "&".join(filter(None, (query_of(href), token.get())))))

    def renew(self, href: str) -> bool:
        token = self._token(href)
        if token is None:
            return False
        token.drop()
        return True

    def stop(self) -> None:
        self._client.stop()

    def _token(self, href: str) -> SharedToken | None:
        """Return the token of the container that the href points into; None if it needs no signature."""
        url = web(href)
        if url is None or url.origin != ("https", url.host, 443) or unsigned(href)[1]:
            return None
        container = f"{url.host.removesuffix(BLOBS)}/{url.path[1:].partition('/')[0]}"
        if not url.host.endswith(BLOBS) or not _CONTAINER.fullmatch(container):
            return None
        with self._lock:
            if container not in self._tokens:
                self._tokens[container] = SharedToken(lambda: self._request(container))
            return self._tokens[container]

    def _request(self, container: str) -> Token:
        from planetary_computer.sas import SASToken
        from planetary_computer.settings import Settings

        settings = Settings.get()
        url = f"{settings.sas_url}/{container}"
        self._client.reach.add(url)  # of the user's choice
        headers = {}
        if settings.subscription_key and secure(url):
            headers["Ocp-Apim-Subscription-Key"] = settings.subscription_key
        response = self._client.json(url, headers=headers, most=LONGEST)
        try:
            signature = SASToken(**response.json)
            expires = signature.expiry.timestamp()
        except (TypeError, ValueError, OverflowError):  # without the reason, which may quote the response
            expires = None
        if expires is None or not printable(signature.token):
            raise SourceUnavailableError(f"{redact(url)} sends no signature. Try again later.")
        return Token(signature.token, expires)


def signer_for(
    source: Source,
    credentials: Credentials | None = None,
    *,
    catalog: str | None = None,
    radar_catalog: str | None = None,
    stats: RequestStats | None = None,
) -> Signer:
    """Return the signer of a source.

    Earthdata `credentials` also go to the origin of `radar_catalog`, and to that of `catalog` if it is on this machine.
    """
    if source.signer == "planetary-computer":
        return PlanetaryComputerSigner(stats=stats)
    servers = [radar_catalog, catalog if catalog and here(catalog) else None]
    return EarthdataSigner(credentials or Credentials(), servers=servers, stats=stats)


def missing_credentials(scenes: Scenes, client: Client) -> tuple[str, ...]:
    """Return what a run on these scenes would lack, as far as can be told without a request."""
    signer = client.signer
    if not isinstance(signer, EarthdataSigner) or not any(
        signer.wants(href) and not client.given.uses(href) for href in _radar(scenes)
    ):
        return ()
    return (f"{signer.credentials.lacking}. {WAYS}",) if signer.credentials.lacking else ()


def check_credentials(scenes: Scenes, client: Client) -> None:
    """Request a byte of the first radar file, before a run starts on thousands. Raises CredentialsError.

    Whatever else may be wrong with that one file is not judged here.
    """
    missing = missing_credentials(scenes, client)
    if missing:
        raise CredentialsError(missing[0])
    first = next((href for href in _radar(scenes) if is_url(href)), None)
    if first is None or not isinstance(client.signer, EarthdataSigner):
        return
    client.given.sign(first)  # a login that fails says so itself
    try:
        get_range(client, first, 0, 1)
    except CredentialsError as error:
        raise CredentialsError(f"{error} Is the account allowed to read OPERA's files? {WAYS}") from error
    except TesseraError as error:
        if error.status == 200:  # a page in place of data is the form to log in
            raise CredentialsError(f"{redact(first)} asks to log in. {WAYS}") from error


def _radar(scenes: Scenes) -> list[str]:
    """Return the hrefs of the radar files, in mosaic order."""
    listed = scenes.of(Sensor.S1, Sensor.S1_ASC, Sensor.S1_DESC)
    return [str(asset["href"]) for scene in listed for asset in scene.item["assets"].values()]
