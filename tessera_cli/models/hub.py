"""Published weights: from the Hugging Face cache, or downloaded into it, and checked against their SHA-256.

HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from pathlib import Path

from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError, UsageError
from tessera_cli.models.spec import HubFile

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0
"""Seconds for the first answer. Afterwards huggingface_hub's own bounded retries apply."""


def fetch(file: HubFile) -> Path:
    """The path of the file in the local cache. The network is asked only if the cache lacks it."""
    path = _cached(file) or _downloaded(file)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != file.sha256:
        raise UsageError(
            f"{path}: this is not {file.path} as published (SHA-256 {sha256[:12]}…, expected {file.sha256[:12]}…). "
            "Delete it from the cache and try again."
        )
    return path


def _cached(file: HubFile) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(file.repo, file.path, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except OSError as error:
        raise _explained(file, error) from error


def _downloaded(file: HubFile) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    logger.info("Downloading %s of %s (%.0f MB)", file.path, file.url, file.bytes / 1e6)
    try:
        # One question without retries first: hf_hub_download repeats it for minutes where there is no network.
        get_hf_file_metadata(hf_hub_url(file.repo, file.path), timeout=_TIMEOUT)
        return Path(hf_hub_download(file.repo, file.path, etag_timeout=_TIMEOUT))
    except Exception as error:  # its HTTP library, and with it the errors, changed between 0.26 and 2.x
        raise _explained(file, error) from error


def _explained(file: HubFile, error: Exception) -> TesseraError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    what = f"The weights {file.path} of {file.url} are not in the local cache"
    ways_out = (
        "Download the file by hand and give it with --weights FILE, or set HF_HOME to a cache filled on a machine "
        "with network by running `tessera` there."
    )
    if any(isinstance(c, OfflineModeIsEnabled) for c in causes):
        return UsageError(f"{what}, and HF_HUB_OFFLINE forbids the download. {ways_out}")
    if any(isinstance(c, OSError) and _is_disk_error(c) for c in causes):
        return UsageError(
            f"{what}, and the cache cannot be used ({_first_line(error)}). Set HF_HOME to another folder."
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status in (400, 401, 403, 404, 410):
        return SourceRefusedError(f"{what}, and the hub refused it: {_first_line(error)} {ways_out}")
    return SourceUnavailableError(f"{what}, and the hub cannot be reached ({_first_line(error)}). {ways_out}")


def _is_disk_error(error: OSError) -> bool:
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)  # a socket has no file name


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
