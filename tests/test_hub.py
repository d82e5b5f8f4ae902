"""Published weights from a hub: a fake one on loopback, asked by a process of its own, as the environment decides."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()

CLIENT = """
import json, sys
from pathlib import Path
from tessera_cli.errors import TesseraError
from tessera_cli.models import hub
from tessera_cli.models.spec import HubFile
hub._TIMEOUT = 2.0
repo, sha256 = sys.argv[1:]
try:
    path = hub.fetch(HubFile(repo, "ckpt/student_nano.pt", 7000, sha256))
    answer = {"content": Path(path).read_bytes().decode()}
except TesseraError as error:
    answer = {"code": error.exit_code, "message": str(error)}
print(json.dumps(answer))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as huggingface.co does for one file; repositories named after their trouble."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if "/stalled/" in self.path:
            time.sleep(4)
            return
        found = self.path == "/own/nano/resolve/main/ckpt/student_nano.pt"
        self.send_response(200 if found else 503 if "/broken/" in self.path else 404)
        if found:
            self.send_header("ETag", f'"{SHA256}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Accept-Ranges", "bytes")
        elif "/broken/" not in self.path:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if body and found:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(home: Path, endpoint: str, repo: str = "own/nano", sha256: str = SHA256, **more: str) -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name[:3] != "HF_"}
    environment = {**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **more}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, repo, sha256], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert time.monotonic() - start < 15
    if "message" in answer:
        assert "\n" not in answer["message"]
    return answer


def test_download_then_cache(tmp_path: Path, endpoint: str) -> None:
    assert ask(tmp_path, endpoint)["content"].encode() == CONTENT
    # From now on without a network, and in offline mode.
    assert ask(tmp_path, "http://127.0.0.1:9")["content"].encode() == CONTENT
    assert ask(tmp_path, endpoint, HF_HUB_OFFLINE="1")["content"].encode() == CONTENT
    damaged = ask(tmp_path, endpoint, sha256="0" * 64)
    assert damaged["code"] == 2
    assert "not ckpt/student_nano.pt as published" in damaged["message"]
    assert "Delete it" in damaged["message"]


def test_without_a_network(tmp_path: Path) -> None:
    answer = ask(tmp_path, "http://127.0.0.1:9")
    assert answer["code"] == 75
    for part in (
        "ckpt/student_nano.pt",
        "https://huggingface.co/own/nano",
        "cannot be reached",
        "--weights FILE",
        "HF_HOME",
    ):
        assert part in answer["message"]


def test_in_offline_mode(tmp_path: Path, endpoint: str) -> None:
    answer = ask(tmp_path, endpoint, HF_HUB_OFFLINE="1")
    assert answer["code"] == 2
    assert "HF_HUB_OFFLINE forbids" in answer["message"]
    assert "--weights FILE" in answer["message"]


@pytest.mark.parametrize(("repo", "code"), [("no/such", 69), ("broken/nano", 75), ("stalled/nano", 75)])
def test_a_hub_that_does_not_deliver(tmp_path: Path, endpoint: str, repo: str, code: int) -> None:
    answer = ask(tmp_path, endpoint, repo=repo)
    assert answer["code"] == code, answer
    assert repo in answer["message"]
    assert "--weights FILE" in answer["message"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, endpoint: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    answer = ask(file, endpoint)
    assert answer["code"] == 2
    for part in ("ckpt/student_nano.pt", "cache cannot be used", str(file), "HF_HOME"):
        assert part in answer["message"]
