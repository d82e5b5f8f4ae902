"""Files behind nginx: open, and signed as Azure signs them, with a token in the query that expires."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tessera_cli.net import SignedRequest
from tests.integration.processes import Server, Unavailable, free_port

SECRET = "only the storage knows"

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    types {{ image/tiff tif; application/json json; }}
    default_type application/octet-stream;
    log_format asked '$status $uri "$http_range" "$args"';
    access_log {folder}/asked.log asked;
    server {{
        listen 127.0.0.1:{port};
        location /open/ {{ alias {folder}/files/; }}
        location /signed/ {{
            secure_link $arg_sig,$arg_se;
            secure_link_md5 "$secure_link_expires {secret}";
            error_page 403 @refused;
            if ($secure_link = "") {{ return 403; }}  # no token, or a wrong one
            if ($secure_link = "0") {{ return 403; }}  # expired
            alias {folder}/files/;
        }}
        location @refused {{
            types {{ }}
            default_type application/xml;
            return 403 '<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>';
        }}
    }}
}}
"""


class Storage:
    """Serves `files` at `url`/open/ and, with a token, at `url`/signed/."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise Unavailable("nginx is not installed; run tests/integration/setup.sh")
        self.files, self._log = folder / "files", folder / "asked.log"
        self.files.mkdir(mode=0o755)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        configuration = folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, secret=SECRET))
        command = [program, "-p", folder, "-c", configuration, "-e", "stderr"]
        self.server = Server(command, folder, lambda: _listens(port), demoted=True)

    def asked(self) -> list[str]:
        """Every request so far: status, path, range, query."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[Storage]:
    made = Storage(folder)
    with made.server:
        yield made


class TokenAccess:
    """Signs hrefs below `url`/signed/ with one token, that is kept until the storage refuses it.

    The storage counts in whole seconds: a token of -1 seconds has expired.
    """

    def __init__(self, storage: Storage, lifetimes: Iterator[float]) -> None:
        self._prefix, self._lifetimes = f"{storage.url}/signed/", lifetimes
        self._lock = threading.Lock()
        self._expires = 0
        self.issued = self.asked = 0
        self.on_ticket: Callable[[int], None] = lambda asked: None
        """Told of every ticket for a signed href, counted from 1."""
        self._issue()

    def _issue(self) -> None:
        self._expires = int(time.time() + next(self._lifetimes))
        self.issued += 1

    def sign(self, href: str) -> SignedRequest:
        if not href.startswith(self._prefix):
            return SignedRequest(href)
        with self._lock:
            self.asked += 1
            self.on_ticket(self.asked)
            return SignedRequest(f"{href}?{token(self._expires)}")

    def renew(self, href: str) -> bool:
        with self._lock:
            if self._expires < time.time():  # else another thread was quicker
                self._issue()
        return True

    def stop(self) -> None: ...

    def expire(self) -> None:
        """Wait until the storage refuses the token."""
        time.sleep(max(0.0, self._expires + 1.05 - time.time()))


def token(expires: int, secret: str = SECRET) -> str:
    """The query of a signed URL: `se` the end in seconds since 1970, `sig` as nginx's secure_link_md5 has it."""
    digest = hashlib.md5(f"{expires} {secret}".encode()).digest()
    return f"se={expires}&sig={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
