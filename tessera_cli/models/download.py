"""One file over HTTP, resumed where an earlier attempt stopped: huggingface_hub throws partial downloads away."""

from __future__ import annotations

import http
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.net import retries
from tessera_cli.net.retries import Cause

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

HEARTBEAT = 10.0
"""Seconds between two lines of progress."""
_CHUNK = 1 << 14
"""Bytes: what a broken connection may cost."""


def download(url: str, partial: Path, *, headers: Mapping[str, str] | None = None, size: int | None = None) -> None:
    """Add to `partial`, which may hold a beginning or be absent, what it lacks of the file at `url`.

    `size` is that of the whole file, where it is known. Errors are those of `requests` and of the disk; whatever has
    arrived stays in `partial` for the next call.
    """
    import requests
    from requests.adapters import HTTPAdapter

    partial.touch()
    failed = 0
    with requests.Session() as session:
        session.headers.update({"Accept-Encoding": "identity", **(headers or {})})
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries.adapter()))
        while True:
            before = _held(partial, size)
            failure: Exception | None = None
            try:
                if before == size or _append(session, url, partial, before, size):
                    return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failure = error
            held = _held(partial, size)
            failed = 1 if held > before else failed + 1
            if failed > retries.RETRY_POLICIES[Cause.TRUNCATED].retries:
                raise failure or requests.ConnectionError(f"no more than {_megabytes(held, size)} arrived")
            logger.info("Download interrupted at %s. Going on.", _megabytes(held, size))
            time.sleep(retries.pause(Cause.TRUNCATED, failed))


def _append(session: requests.Session, url: str, partial: Path, start: int, size: int | None) -> bool:
    """One request for what is missing; whether nothing is missing any more."""
    ranged = {"Range": f"bytes={start}-"} if start else {}
    with session.get(
        url, headers=ranged, stream=True, timeout=(retries.CONNECT_TIMEOUT, retries.READ_TIMEOUT)
    ) as answer:
        if answer.status_code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if answer.headers.get("Content-Range") == f"bytes */{start}":
                return True
            partial.unlink()  # it holds more than there is
            return False
        answer.raise_for_status()
        resumed = answer.status_code == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not _begins_at(answer.headers.get("Content-Range", ""), start):
            partial.unlink()  # an answer to another question: ask for the whole file
            return False
        beat = time.monotonic()
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                if time.monotonic() - beat > HEARTBEAT:
                    beat = time.monotonic()
                    logger.info("Downloaded %s", _megabytes(file.tell(), size))
    return size is None or _held(partial, size) == size


def _begins_at(content_range: str, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", content_range)
    return found is not None and int(found[1]) == start


def _held(partial: Path, size: int | None) -> int:
    """Bytes that are there already; what is longer than the file is no part of it and is removed."""
    try:
        held = partial.stat().st_size
    except FileNotFoundError:
        return 0
    if size is not None and held > size:
        partial.unlink()
        return 0
    return held


def _megabytes(held: int, size: int | None) -> str:
    return f"{held / 1e6:,.0f} MB" if size is None else f"{held / 1e6:,.0f} of {size / 1e6:,.0f} MB"
