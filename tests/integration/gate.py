"""A gate before the STAC API: sees every request, and can answer in its place or do something first."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit


class Gate(http.server.ThreadingHTTPServer):
    """Passes requests on; `next` links lead back here, since the API goes by the Host header."""

    daemon_threads = True

    def __init__(self, api: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host, self.port = urlsplit(api).hostname, urlsplit(api).port
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.searches: list[int] = []
        """The status of the answer to each search."""
        self.others = 0
        self.before: Callable[[int], int | None] = lambda nth: None
        """Called before the nth search is passed on, from 1; a status is answered in place of the API."""
        self.lock = threading.Lock()

    def reset(self) -> None:
        self.searches, self.others, self.before = [], 0, lambda nth: None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Gate

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes | None) -> None:
        if urlsplit(self.path).path != "/search":
            self.server.others += 1
            self.deliver(*self.passed_on(body))
            return
        with self.server.lock:
            nth = len(self.server.searches)
            self.server.searches.append(0)
        status = self.server.before(nth + 1)
        answer = (status, "text/plain", b"out of order") if status else self.passed_on(body)
        self.server.searches[nth] = answer[0]
        self.deliver(*answer)

    def passed_on(self, body: bytes | None) -> tuple[int, str, bytes]:
        with contextlib.closing(http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)) as api:
            headers = {name: value for name, value in self.headers.items() if name != "Accept-Encoding"}
            api.request(self.command, self.path, body, headers)
            answer = api.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()

    def deliver(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def gate(api: str) -> Iterator[Gate]:
    with Gate(api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
