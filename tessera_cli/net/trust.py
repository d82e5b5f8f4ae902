"""Which certificates of servers are trusted, and what it means that one is not."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from tessera_cli.errors import SourceRefusedError, UsageError
from tessera_cli.net.address import redact
from tessera_cli.net.responses import innermost
from tessera_cli.reading import check_file


def untrusted(url: str, error: BaseException) -> SourceRefusedError | None:
    """Return the error for a certificate that was not accepted, if that is behind `error`: asking again is no help."""
    cause = innermost(error)
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return None
    return SourceRefusedError(
        f"{redact(url)} is not trusted: {cause.verify_message.rstrip('.')}. If your network has a certificate "
        "authority of its own, set SSL_CERT_FILE to a file with its certificate."
    )


@functools.cache
def check_authorities(path: str) -> None:
    """Raise UsageError unless certificates of authorities can be read from the file, or it is a folder of them."""
    if Path(path).is_dir():
        return
    try:
        check_file(Path(path))
        ssl.create_default_context(cafile=path)
    except OSError as error:
        why = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(
            f"The certificate authorities in {path} cannot be used: {why}. Correct SSL_CERT_FILE, REQUESTS_CA_BUNDLE "
            "or CURL_CA_BUNDLE, whichever names it."
        ) from error
