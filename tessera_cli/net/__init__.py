"""HTTP: one client, one set of retry policies, and what a response means."""

from tessera_cli.net.bodies import Response
from tessera_cli.net.client import Client
from tessera_cli.net.ranges import ChangedError, RangeResponse, Version, get_range, get_ranges
from tessera_cli.net.signing import OPEN, SignedRequest, Signer
from tessera_cli.net.stats import RequestStats

__all__ = [
    "OPEN",
    "ChangedError",
    "Client",
    "RangeResponse",
    "RequestStats",
    "Response",
    "SignedRequest",
    "Signer",
    "Version",
    "get_range",
    "get_ranges",
]
