"""A hub on loopback that answers as huggingface.co does, in good and in bad days."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTENT = b"weights" * 30_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

REFUSALS = {
    "absent": (401, {"X-Error-Message": "Invalid username or password."}),  # what the hub says of what is not there
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "empty": (404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40}),
    "gone": (404, {"X-Error-Code": "RepoNotFound"}),
    "broken": (503, {}),
}


class Hub(http.server.ThreadingHTTPServer):
    """The same content for every file; the owners of its repositories are named after their trouble."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """The client has left: no fault of ours."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request for a file."""
        self.released = threading.Event()
        """Lets stalled answers end."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self, header: str = "range") -> list[str | None]:
        """One header of each download."""
        return [headers.get(header) for method, _, headers in self.asked if method == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner = "absent" if "/TESSERA-V-1.0/" in self.path else self.path.split("/")[1]
        if owner != "api":  # huggingface_hub's own business
            self.server.asked.append((self.command, self.path, headers))
        if owner == "stalled":
            self.server.released.wait(30)
        elif owner == "dripping":
            self.send_response(200)
            self.flush_headers()
            while not self.server.released.wait(0.1):
                self.wfile.write(b"X-Slow: 1\r\n")
        elif owner in REFUSALS or owner == "api":
            self.head(*REFUSALS.get(owner, (404, {})), length=0)
        elif owner == "lfs":
            location = f"http://localhost:{self.server.server_port}/cdn/file"
            linked = {"X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(len(CONTENT)), "Location": location}
            self.head(302, {**linked, "X-Repo-Commit": "0" * 40}, length=0)
        else:
            self.deliver(owner, headers.get("range"))

    def deliver(self, owner: str, asked: str | None) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and owner != "forgetful" else 0
        ranged = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        etag = {"other": "1" * 64, "plain": "abc123"}.get(owner, SHA256)
        common = {"ETag": f'"{etag}"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
        body = CONTENT[start:].swapcase() if owner == "altered" else CONTENT[start:]
        self.head(206 if start else 200, {**common, **ranged}, length=len(body))
        if self.command == "HEAD":
            return
        tries = len(self.server.gets())
        if owner == "lifeless" or (owner in ("dropping", "forgetful", "hanging") and tries == 1):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if owner == "hanging":
                self.server.released.wait(30)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Of a process that knows no hub but this one."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name[:3] != "HF_"}
    return {**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **more}
