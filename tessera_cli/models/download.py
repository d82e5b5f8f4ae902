"""One file over HTTP, resumed where an earlier attempt stopped: huggingface_hub throws partial downloads away."""

from __future__ import annotations

import http
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import SourceRefusedError, SourceUnavailableError
from tessera_cli.net import Client
from tessera_cli.net.address import redact
from tessera_cli.net.bodies import Take
from tessera_cli.net.ranges import content_range
from tessera_cli.net.retries import Cause, RetryableError

if TYPE_CHECKING:
    from tessera_cli.net.answers import Answer

logger = logging.getLogger(__name__)

HEARTBEAT = 10.0
"""Seconds between two lines of progress."""
MOST = 32 << 30
"""Bytes of a file of unknown size beyond which no more is written."""


def download(url: str, partial: Path, client: Client, *, headers: Mapping[str, str], size: int | None = None) -> None:
    """Append to `partial`, which may hold a beginning or be absent, what it lacks of the file at `url`.

    `size` is that of the whole file, where it is known. Whatever has arrived stays in `partial` for the next call, and
    retries count from the beginning after each request that brought something. Raises the errors of `Client` and
    OSError of the disk.
    """

    def append() -> None:
        start = _held(partial, size)
        if start == size:
            return
        if start:
            logger.info("Going on at %s", _megabytes(start, size))
        try:
            _append(url, partial, client, {"Accept-Encoding": "identity", **headers}, start, size)
        except RetryableError as error:
            error.progress = _held(partial, size) > start
            raise

    partial.touch()
    client.retrying(url, append)


def _append(url: str, partial: Path, client: Client, headers: Mapping[str, str], start: int, size: int | None) -> None:
    """Send one request for what is missing from `start` on."""
    other = RetryableError(Cause.TRUNCATED, SourceUnavailableError("other bytes arrived than were requested"))
    beat = time.monotonic()
    try:
        with ExitStack() as stack:

            def begin(answer: Answer) -> Take:
                resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
                if resumed and content_range(answer.headers)[0] != start:
                    partial.unlink()  # begin again
                    raise other
                file = stack.enter_context(partial.open("ab" if resumed else "wb", buffering=0))
                return lambda piece: write(file, piece)

            def write(file: FileIO, piece: bytes) -> bool:
                nonlocal beat
                file.write(piece[: (MOST if size is None else size) + 1 - file.tell()])
                if size is None and file.tell() > MOST:
                    raise SourceRefusedError(f"{redact(url)} sends more than {MOST >> 30} GB, which no weights need.")
                if time.monotonic() - beat > HEARTBEAT:
                    beat = time.monotonic()
                    logger.info("Downloaded %s", _megabytes(file.tell(), size))
                return size is None or file.tell() <= size

            asked = {**headers, "Range": f"bytes={start}-"} if start else headers
            client.receive(url, begin, asked, patient=True)
    except SourceRefusedError as error:
        if not start or error.status != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        partial.unlink()  # it holds more than there is
        raise other from error
    if size not in (None, _held(partial, size)):
        raise other


def _held(partial: Path, size: int | None) -> int:
    """Bytes that are there already; what is longer than the file is no part of it and is removed."""
    held = partial.stat().st_size if partial.exists() else 0
    if size is not None and held > size:
        partial.unlink()
        return 0
    return held


def _megabytes(held: int, size: int | None) -> str:
    return f"{held / 1e6:,.0f} MB" if size is None else f"{held / 1e6:,.0f} of {size / 1e6:,.0f} MB"
