"""Published weights: from the Hugging Face cache, or downloaded into it, and checked against their SHA-256.

HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeVar

from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError, UsageError, reason
from tessera_cli.files import sha256_of
from tessera_cli.models.download import download
from tessera_cli.models.spec import HubFile, PackagedFile
from tessera_cli.net import Client
from tessera_cli.net.address import AddressError, parse, redact
from tessera_cli.net.reach import Reach, secure
from tessera_cli.net.trust import untrusted

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

T = TypeVar("T")

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0
"""Seconds for the first response: without a network the user should learn it soon."""
_LONGEST = 60.0
"""Seconds for all that huggingface_hub asks at once: its timeouts begin anew with every byte."""
_REFUSALS = {
    400: "it does not understand the request",
    401: "there is no such repository, or it is not public (HF_TOKEN gives access to yours)",
    403: "the repository is not public (HF_TOKEN gives access to yours)",
    404: "there is no such file or repository",
    410: "it is gone",
}


def fetch(file: HubFile | PackagedFile) -> Path:
    """The path of the file in the package, or in the local cache. The network is used only if the cache lacks it.

    The whole file is hashed every time: nothing else would notice that it was cut or altered.
    """
    if isinstance(file, PackagedFile):
        if (path := cached(file)) is None:
            raise UsageError(f"This installation lacks its weights {file.name}. Install tessera-embed again.")
        return path
    path = cached(file) or _downloaded(file)
    expected = file.sha256 or _as_sha256(path.resolve().name)
    sha256 = sha256_of(path)
    if expected is not None and sha256 != expected:
        raise UsageError(
            f"{path}: this is not {file.path} as published (SHA-256 {sha256[:12]}…, expected {expected[:12]}…). "
            f"Delete {path.resolve()} and try again."
        )
    if file.sha256 is None:
        logger.warning(
            "%s could not be checked: no SHA-256 is known of %s of %s. That of this file is %s.",
            path,
            file.path,
            file.url,
            sha256,
        )
    return path


def cached(file: HubFile | PackagedFile) -> Path | None:
    """Where the file lies in the package or the local cache, unchecked; None if it is not there."""
    if isinstance(file, PackagedFile):
        path = _packaged(file)
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo, file.path)
    return Path(found) if isinstance(found, str) else None


def _packaged(file: PackagedFile) -> Path:
    return Path(str(resources.files(__package__) / "data" / file.name))


def _downloaded(file: HubFile) -> Path:
    """Puts the content where huggingface_hub keeps contents, and has it do the rest of its bookkeeping."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        url = hf_hub_url(file.repo, file.path)
        parse(url)  # HF_ENDPOINT may be anything
        Client().check_authorities(url)
        token = _token(url)
        # One request without retries first: hf_hub_download repeats it for minutes where there is no network.
        _fill(file, url, _soon(lambda: get_hf_file_metadata(url, token=token, timeout=_TIMEOUT)), token)
        return Path(_soon(lambda: hf_hub_download(file.repo, file.path, token=token, etag_timeout=_TIMEOUT)))
    except (UsageError, AddressError):
        raise
    except Exception as error:  # ours, or of its HTTP library, which changed between 0.26 and 2.x
        raise _explained(file, error) from error


def _token(url: str) -> Literal[False] | None:
    """What to tell huggingface_hub of HF_TOKEN: False, to keep it back from a hub that is asked in the clear."""
    from huggingface_hub import get_token

    if secure(url):
        return None
    if get_token():
        logger.warning("HF_TOKEN is not sent to %s: the connection is not encrypted", redact(url))
    return False


def _soon(call: Callable[[], T]) -> T:
    """The result of a call, or TimeoutError: in a thread of its own, which nothing can end."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="huggingface_hub", daemon=True).start()
    try:
        return result.result(_LONGEST)
    except TimeoutError as error:
        if result.done():
            raise
        raise TimeoutError(f"no answer in {_LONGEST:g} seconds") from error


def _fill(file: HubFile, url: str, offered: HfFileMetadata, token: Literal[False] | None) -> None:
    """The blob of the cache, named after the ETag: the SHA-256 of large files. What is incomplete lies beside it."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    etag = offered.etag or ""
    if not re.fullmatch(r"[\w-]+", etag):
        raise ValueError(f"the response for {url} has no usable ETag")
    promised = _as_sha256(etag)
    expected = file.sha256 or promised
    if promised is not None and expected is not None and promised != expected:
        raise UsageError(_not_as_published(file, etag, expected) + _by_hand(file))
    folder = repo_folder_name(repo_id=file.repo, repo_type="model")
    blob = Path(HF_HUB_CACHE, folder, "blobs", etag)
    lock = Path(HF_HUB_CACHE, ".locks", folder, f"{etag}.lock")
    for parent in (blob.parent, lock.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock) as held:
        try:
            if not blob.exists():
                _complete(file, url, blob.with_name(f"{etag}.incomplete"), offered.size, expected, token)
                blob.with_name(f"{etag}.incomplete").replace(blob)
        finally:
            held.release()  # old releases forget it after an error


def _complete(
    file: HubFile, url: str, partial: Path, size: int | None, expected: str | None, token: Literal[False] | None
) -> None:
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    whole = "size unknown" if size is None else f"{size / 1e6:,.0f} MB"
    logger.info("Downloading %s of %s (%s)", file.path, file.url, whole)
    client = Client(reach=Reach())
    client.reach.add(url)
    try:
        download(url, partial, client, headers=build_hf_headers(token=token), size=size)
    finally:
        if retries := client.stats.to_dict()["retries"]:
            logger.info("Repeated requests: %s", ", ".join(f"{cause} {count}" for cause, count in retries.items()))
    sha256 = sha256_of(partial)
    if expected is not None and sha256 != expected:
        partial.unlink()
        raise UsageError(_not_as_published(file, sha256, expected) + "It was deleted; try again.")


def _not_as_published(file: HubFile, sha256: str, expected: str) -> str:
    return (
        f"The hub gave another file than {file.path} as published (SHA-256 {sha256[:12]}…, expected {expected[:12]}…). "
    )


def _by_hand(file: HubFile) -> str:
    name = PurePosixPath(file.path).name
    return f"Open {file.url} in a browser, download {name} and give it as FILE: `tessera embed --weights FILE ...`."


def _explained(file: HubFile, error: Exception) -> TesseraError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    what = f"The weights {file.path} of {file.url} are not in the local cache"
    ways_out = (
        "Download the file by hand and give it with --weights FILE, or set HF_HOME to a cache filled on a machine "
        "with network by `tessera weights pull`."
    )
    if any(isinstance(c, OfflineModeIsEnabled) for c in causes):
        return UsageError(f"{what}, and HF_HUB_OFFLINE forbids the download. {ways_out}")
    if refused := untrusted(file.url, error):
        return refused
    if any(isinstance(c, OSError) and _is_disk_error(c) for c in causes):
        return UsageError(f"{what}, and the cache cannot be used ({reason(error)}). Set HF_HOME to another folder.")
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status in _REFUSALS:
        return SourceRefusedError(
            f"{what}, and the hub does not give them out: HTTP {status}, {_REFUSALS[status]}. {_by_hand(file)}"
        )
    return SourceUnavailableError(
        f"{what}, and the hub cannot be reached ({reason(error)}). Try again: what has arrived is kept. {ways_out}"
    )


def _is_disk_error(error: OSError) -> bool:
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)  # a socket has no file name


def _as_sha256(name: str) -> str | None:
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None
