"""Certificates: an authority of one's own is trusted by every client, and what is not trusted is not asked again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from tessera_cli import environment
from tessera_cli.errors import SourceRefusedError, UsageError
from tessera_cli.net import Client, get_range
from tests.helpers import fake_hub
from tests.helpers.certificates import Authority
from tests.helpers.servers import FileServer

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PULL = """
import json, sys
from tessera_cli.errors import TesseraError
from tessera_cli.models import hub
from tessera_cli.models.spec import HubFile
try: print(json.dumps([0, str(hub.fetch(HubFile("own/nano", "ckpt/student_nano.pt", None, sys.argv[1])))]))
except TesseraError as error: print(json.dumps([error.exit_code, str(error)]))
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _no_authorities(monkeypatch):
    for name in (*VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def serving(folder, authority, **certificate):
    (folder / "data.json").write_text("{}")
    server = FileServer(folder)
    authority.encrypt(server, **certificate)
    return server


def href(server, host="localhost"):
    return f"https://{host}:{server.server_port}/data.json"


def trust(monkeypatch, name, path):
    """Set one variable, as a user does before the command starts."""
    environ = {name: str(path)}
    environment.settle(environ)
    for each, value in environ.items():
        monkeypatch.setenv(each, value)


@pytest.mark.parametrize("name", VARIABLES)
def test_any_one_variable_is_enough_for_catalogues_and_files(tmp_path, authority, monkeypatch, name):
    trust(monkeypatch, name, authority.path)
    with serving(tmp_path, authority) as server:
        assert Client().json(href(server)).body == b"{}"
        assert get_range(Client(), href(server), 0, 1).data == b"{"


@pytest.fixture
def hub(authority):
    with fake_hub.Hub() as server:
        authority.encrypt(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def pull(hub, home, **variables):
    """Download weights: exit code, and their path or what went wrong."""
    endpoint = f"https://localhost:{hub.server_port}"
    environ = fake_hub.environment(home, endpoint, **{name: str(path) for name, path in variables.items()})
    command = [sys.executable, "-c", PULL, fake_hub.SHA256]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", VARIABLES)
def test_any_one_variable_is_enough_for_weights(tmp_path, authority, hub, name):
    code, path = pull(hub, tmp_path, **{name: authority.path})
    assert (code, path.startswith(str(tmp_path))) == (0, True)


def test_weights_from_a_hub_that_is_not_trusted(tmp_path, hub):
    code, message = pull(hub, tmp_path)
    assert code == 69
    assert "is not trusted: " in message
    assert "SSL_CERT_FILE" in message


CERTIFICATES = {
    "unknown authority": ({}, "is not trusted", False),
    "another host": ({"host": "example.org"}, "[Hh]ostname mismatch", True),
    "over": ({"days": -1}, "certificate has expired", True),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_what_is_not_trusted_is_refused_at_once(tmp_path, authority, monkeypatch, kind):
    certificate, why, known = CERTIFICATES[kind]
    if known:
        trust(monkeypatch, "SSL_CERT_FILE", authority.path)
    client = Client()
    with (
        serving(tmp_path, authority, **certificate) as server,
        pytest.raises(SourceRefusedError, match=f"{why}.*SSL_CERT_FILE") as caught,
    ):
        client.get(href(server) + "?sig=secret")
    assert caught.value.exit_code == 69
    assert "secret" not in str(caught.value)
    assert client.stats.to_dict()["retries"] == {}


def test_a_command_whose_catalogue_is_not_trusted(tmp_path, authority, tessera):
    with serving(tmp_path, authority) as server:
        where = ("--bbox", "3", "50", "3.01", "50.01", "--year", "2023", "--catalog", href(server))
        code, _, stderr = tessera("plan", *where)
    assert code == 69
    assert "SSL_CERT_FILE" in stderr


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["absent", "empty", "no PEM"])
def test_authorities_that_cannot_be_read(tmp_path, monkeypatch, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    trust(monkeypatch, "SSL_CERT_FILE", path)
    with pytest.raises(UsageError, match=f"{path} cannot be used.*SSL_CERT_FILE"):
        Client().get("https://localhost:9/")


def test_weights_with_authorities_that_cannot_be_read(tmp_path, hub):
    code, message = pull(hub, tmp_path, SSL_CERT_FILE="/nowhere/ca.pem")
    assert code == 2
    assert "/nowhere/ca.pem cannot be used: No such file" in message


def test_where_nothing_is_encrypted_no_authorities_are_needed(tmp_path, monkeypatch):
    trust(monkeypatch, "SSL_CERT_FILE", "/nowhere/ca.pem")
    (tmp_path / "data.json").write_text("{}")
    with FileServer(tmp_path) as server:
        assert Client().get(f"{server.url}/data.json").body == b"{}"
