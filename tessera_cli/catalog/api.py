"""Search of a live STAC API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tessera_cli.catalog.http import TIMEOUT, error_for, retry, unreachable
from tessera_cli.window import Window

Box = tuple[float, float, float, float]


def api_items(
    url: str, collections: Sequence[str], boxes: Sequence[Box], windows: Sequence[Window]
) -> Iterator[Mapping[str, Any]]:
    """Every item of the collections that touches one of the boxes (degrees) within one of the windows, as JSON.

    Items stay the dictionaries that the API sent: parsing would respell their datetimes, and the order of overlaps
    goes by the spelling. The server's default order and page size are left alone.
    """
    import pystac_client
    import requests
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    try:
        client = pystac_client.Client.open(url, stac_io=StacApiIO(max_retries=retry(), timeout=TIMEOUT))
        for window in windows:
            for box in boxes:
                span = f"{window.start}T00:00:00Z/{window.end}T23:59:59.999999Z"
                yield from client.search(collections=list(collections), bbox=box, datetime=span).items_as_dicts()
    except APIError as error:
        raise error_for(error.status_code, url) from error
    except requests.RequestException as error:
        raise unreachable(url, error) from error
