"""Published weights from a hub: a fake one on loopback, asked by a process of its own, as the environment decides."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tessera_cli.errors import CredentialsError, TesseraError
from tessera_cli.models import hub as models_hub
from tessera_cli.models.download import download
from tessera_cli.net import Client
from tests.helpers import servers
from tests.helpers.fake_hub import CONTENT, REFUSALS, SHA256, Hub, environment, serving
from tests.helpers.raw_servers import OK, RawServer, flood
from tests.helpers.servers import FileServer

FILE = "ckpt/student_nano.pt"

CLIENT = """
import hashlib, json, logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
from tessera_cli.errors import TesseraError
from tessera_cli.models import hub
from tessera_cli.net import retries
from tessera_cli.models.spec import HubFile
hub._TIMEOUT, hub._LONGEST, retries.TIME_SCALE = 2.0, 6.0, 0.02
repo, sha256 = sys.argv[1:]
try:
    path = Path(hub.fetch(HubFile(repo, "ckpt/student_nano.pt", None, sha256 or None)))
    answer = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
except TesseraError as error:
    answer = {"code": error.exit_code, "message": str(error)}
print(json.dumps(answer))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


def ask(home: Path, hub: Hub | str, repo: str = "own/nano", sha256: str = SHA256, **more: str) -> dict[str, Any]:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, repo, sha256],
        env=environment(home, hub if isinstance(hub, str) else hub.endpoint, **more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert time.monotonic() - start < 15
    if "message" in answer:
        assert "\n" not in answer["message"]
    return {**answer, "log": done.stderr}


NOWHERE = "http://127.0.0.1:9"


def test_download_then_cache(tmp_path: Path, hub: Hub) -> None:
    found = ask(tmp_path, hub)
    assert found["sha256"] == SHA256
    assert Path(found["path"]).is_relative_to(tmp_path / "hub")
    assert "could not be checked" not in found["log"]
    assert ask(tmp_path, hub)["path"] == found["path"]
    assert hub.gets() == [None]
    # Without a network, and in offline mode.
    assert ask(tmp_path, NOWHERE)["path"] == found["path"]
    assert ask(tmp_path, hub, HF_HUB_OFFLINE="1")["path"] == found["path"]


def test_a_cache_filled_by_others_is_used(tmp_path: Path, hub: Hub) -> None:
    code = "import huggingface_hub, sys; print(huggingface_hub.hf_hub_download(*sys.argv[1:]))"
    others = subprocess.run(
        [sys.executable, "-c", code, "own/nano", FILE],
        env=environment(tmp_path, hub.endpoint),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ask(tmp_path, NOWHERE)["path"] == others.stdout.strip()


def test_a_damaged_file_in_the_cache(tmp_path: Path, hub: Hub) -> None:
    """It keeps its name, so only its content tells; and deleting the link alone would bring it back."""
    path = Path(ask(tmp_path, hub)["path"])
    path.write_bytes(CONTENT[:-1])
    for sha256 in (SHA256, ""):
        damaged = ask(tmp_path, hub, sha256=sha256)
        assert damaged["code"] == 2
        assert "this is not ckpt/student_nano.pt as published" in damaged["message"]
        assert f"Delete {path.resolve()} and try again" in damaged["message"]
    path.resolve().unlink()
    assert ask(tmp_path, hub)["sha256"] == SHA256


@pytest.mark.parametrize("owner", ["dropping", "forgetful"])
def test_a_broken_connection_is_taken_up_again(tmp_path: Path, hub: Hub, owner: str) -> None:
    found = ask(tmp_path, hub, f"{owner}/nano")
    assert found["sha256"] == SHA256
    first, second = hub.gets()
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= len(CONTENT) // 2
    assert "Going on" in found["log"]
    assert "Repeated requests: truncated 1" in found["log"]


def test_a_download_retries_by_the_policies_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cause by its own policy, from the beginning after every request that brought something."""
    servers.hurry(monkeypatch)
    (tmp_path / "file").write_bytes(CONTENT)
    faults = [servers.status(503), servers.reset, servers.status(429), *[servers.truncated] * 8, servers.status(416)]
    with FileServer(tmp_path) as server:
        server.faults = lambda request: faults[len(server.log) - 1] if len(server.log) <= len(faults) else None
        client, partial = Client(), tmp_path / "file.incomplete"
        download(f"{server.url}/file", partial, client, headers={}, size=len(CONTENT))
        assert partial.read_bytes() == CONTENT
        assert client.stats.to_dict()["requests"] == len(server.log) == len(faults) + 1
        assert client.stats.to_dict()["retries"] == {"busy": 1, "server error": 1, "truncated": 9, "unreachable": 1}
        server.faults = servers.always(servers.status(403))
        with pytest.raises(CredentialsError):
            download(f"{server.url}/file", tmp_path / "other", client, headers={}, size=len(CONTENT))


def test_a_killed_download_is_resumed_by_the_next_run(tmp_path: Path, hub: Hub) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", CLIENT, "hanging/nano", SHA256],
        env=environment(tmp_path, hub.endpoint),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size > 30_000 for part in tmp_path.rglob("*.incomplete")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    there = next(tmp_path.rglob("*.incomplete")).stat().st_size
    assert ask(tmp_path, hub, "hanging/nano")["sha256"] == SHA256
    assert hub.gets() == [None, f"bytes={there}-"]
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_hub_that_never_gets_to_the_end(tmp_path: Path, hub: Hub) -> None:
    """What arrives after each break is half of the rest: in the end nothing does."""
    answer = ask(tmp_path, hub, "lifeless/nano")
    assert answer["code"] == 75
    assert "what has arrived is kept" in answer["message"]
    assert next(tmp_path.rglob("*.incomplete")).stat().st_size > len(CONTENT) // 2


def test_two_at_once_download_once(tmp_path: Path, hub: Hub) -> None:
    command = [sys.executable, "-c", CLIENT, "own/nano", SHA256]
    both = [
        subprocess.Popen(command, env=environment(tmp_path, hub.endpoint), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        assert json.loads(one.communicate(timeout=60)[0])["sha256"] == SHA256
    assert hub.gets() == [None]


def test_an_error_leaves_no_lock_behind(tmp_path: Path, hub: Hub) -> None:
    """Notebooks keep the last error, and with it all that it refers to."""
    code = """
import sys
from tessera_cli.errors import TesseraError
from tessera_cli.models import hub
from tessera_cli.models.spec import HubFile
errors = []
for _ in range(2):
    try:
        hub.fetch(HubFile("altered/nano", "file", None, sys.argv[1]))
    except TesseraError as error:
        errors.append(error)
assert len(errors) == 2
"""
    done = subprocess.run([sys.executable, "-c", code, SHA256], env=environment(tmp_path, hub.endpoint), timeout=30)
    assert done.returncode == 0


def test_a_leftover_that_is_too_long(tmp_path: Path, hub: Hub) -> None:
    blobs = tmp_path / "hub" / "models--own--nano" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{SHA256}.incomplete").write_bytes(CONTENT + b"!")
    assert ask(tmp_path, hub)["sha256"] == SHA256
    assert hub.gets() == [None]


@pytest.mark.parametrize("there", [1000, len(CONTENT)])
def test_a_leftover_of_something_else(tmp_path: Path, hub: Hub, there: int) -> None:
    blobs = tmp_path / "hub" / "models--own--nano" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{SHA256}.incomplete").write_bytes(b"x" * there)
    answer = ask(tmp_path, hub)
    assert answer["code"] == 2
    assert "another file than ckpt/student_nano.pt as published" in answer["message"]
    assert "It was deleted; try again" in answer["message"]
    assert ask(tmp_path, hub)["sha256"] == SHA256


def test_large_files_lie_elsewhere_and_are_not_told_the_token(tmp_path: Path, hub: Hub) -> None:
    assert ask(tmp_path, hub, "lfs/nano", HF_TOKEN="hf_mine")["sha256"] == SHA256
    tokens = {(path.split("/")[1], headers.get("authorization")) for _, path, headers in hub.asked}
    assert tokens == {("lfs", "Bearer hf_mine"), ("cdn", None)}


@pytest.mark.parametrize(
    ("endpoint", "token"),
    [
        ("https://huggingface.co", None),
        ("https://hub.test:8443", None),
        ("http://127.0.0.1:8080", None),
        ("http://[::1]:8080", None),
        ("http://hub.test", False),
        ("http://huggingface.co", False),
        ("http://127.0.0.1.hub.test", False),
        ("ftp://huggingface.co", False),
    ],
)
def test_a_hub_that_is_asked_in_the_clear_does_not_get_the_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, endpoint: str, token: bool | None
) -> None:
    """None leaves it to huggingface_hub, which takes HF_TOKEN."""
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert models_hub._token(f"{endpoint}/own/nano/resolve/main/{FILE}") is token
    assert ("HF_TOKEN is not sent" in caplog.text) == (token is False)
    assert "hf_mine" not in caplog.text


def test_a_hub_whose_address_may_be_read_in_two_ways(tmp_path: Path, hub: Hub) -> None:
    answer = ask(tmp_path, hub.endpoint.replace("://", "://me:s3cret@"))
    assert answer["code"] == 69
    assert "s3cret" not in answer["message"]
    assert not hub.asked


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_download_takes_no_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    """A server that sends without end."""
    servers.hurry(monkeypatch)
    monkeypatch.setattr("tessera_cli.models.download.MOST", len(CONTENT))
    endless = flood(OK + b"\r\n", itertools.repeat(bytes(1 << 16)))
    with RawServer(endless) as server, pytest.raises(TesseraError):
        download(server.url, tmp_path / "file", Client(), headers={}, size=size)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT) + (1 << 16)


@pytest.mark.parametrize("owner", ["altered", "other"])
def test_another_content_is_refused_and_not_kept(tmp_path: Path, hub: Hub, owner: str) -> None:
    answer = ask(tmp_path, hub, f"{owner}/nano")
    assert answer["code"] == 2
    assert "another file than ckpt/student_nano.pt as published" in answer["message"]
    assert f"expected {SHA256[:12]}…" in answer["message"]
    assert ask(tmp_path, NOWHERE, f"{owner}/nano")["code"] == 75
    if owner == "other":  # the hub says so beforehand
        assert not hub.gets()


@pytest.mark.parametrize("owner", ["own", "plain"])
def test_without_a_known_sha256_a_warning(tmp_path: Path, hub: Hub, owner: str) -> None:
    for where in (hub, NOWHERE):
        found = ask(tmp_path, where, f"{owner}/nano", sha256="")
        assert "could not be checked: no SHA-256 is known of ckpt/student_nano.pt" in found["log"]
        assert f"That of this file is {SHA256}" in found["log"]


def test_without_a_known_sha256_the_hub_s_own_counts(tmp_path: Path, hub: Hub) -> None:
    answer = ask(tmp_path, hub, "altered/nano", sha256="")
    assert answer["code"] == 2
    assert "another file than" in answer["message"]


def test_without_a_network(tmp_path: Path) -> None:
    answer = ask(tmp_path, NOWHERE)
    assert answer["code"] == 75
    for part in (
        "ckpt/student_nano.pt",
        "https://huggingface.co/own/nano",
        "cannot be reached",
        "--weights FILE",
        "HF_HOME",
    ):
        assert part in answer["message"]


def test_in_offline_mode(tmp_path: Path, hub: Hub) -> None:
    answer = ask(tmp_path, hub, HF_HUB_OFFLINE="1")
    assert answer["code"] == 2
    assert "HF_HUB_OFFLINE forbids" in answer["message"]
    assert "--weights FILE" in answer["message"]
    assert not hub.asked


@pytest.mark.parametrize("owner", ["absent", "gated", "empty", "gone"])
def test_what_the_hub_does_not_give_out_is_fetched_by_hand(tmp_path: Path, hub: Hub, owner: str) -> None:
    answer = ask(tmp_path, hub, f"{owner}/nano", sha256="")
    assert answer["code"] == 69, answer
    for part in (
        f"HTTP {REFUSALS[owner][0]}",
        f"Open https://huggingface.co/{owner}/nano in a browser, download student_nano.pt",
        "`tessera embed --weights FILE ...`",
    ):
        assert part in answer["message"]


@pytest.mark.parametrize("owner", ["broken", "stalled", "dripping"])
def test_a_hub_in_trouble(tmp_path: Path, hub: Hub, owner: str) -> None:
    answer = ask(tmp_path, hub, f"{owner}/nano")
    assert answer["code"] == 75, answer
    assert f"{owner}/nano" in answer["message"]
    assert "--weights FILE" in answer["message"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, hub: Hub) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    answer = ask(file, hub)
    assert answer["code"] == 2
    for part in ("ckpt/student_nano.pt", "cache cannot be used", str(file), "HF_HOME"):
        assert part in answer["message"]
