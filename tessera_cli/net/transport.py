"""The transport below the client: sessions, trust and proxies, and the headers that go along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from tessera_cli.net.trust import check_authorities


class Session(requests.Session):
    """Session that takes proxies from the environment, but no passwords from ~/.netrc."""

    def merge_environment_settings(self, url: Any, *given: Any) -> Any:
        """Return proxies and trust, as the environment has them, after a look at the certificates it names."""
        settings = super().merge_environment_settings(url, *given)
        if isinstance(settings["verify"], str) and url.startswith("https:"):
            check_authorities(settings["verify"])
        return settings

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop Authorization on a redirect to another host, without one from ~/.netrc instead."""
        before, after = response.request.url, prepared_request.url
        assert before is not None
        assert after is not None
        if self.should_strip_auth(before, after):
            prepared_request.headers.pop("Authorization", None)


class Headers(requests.auth.AuthBase):
    """Auth that sets the headers of a SignedRequest; requests then ignores ~/.netrc."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.headers)
        return request
