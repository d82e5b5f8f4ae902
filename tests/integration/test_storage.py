"""Reading files behind nginx: ranges, tokens that expire, a server that goes away, and a file that is not there."""

import itertools
import json
import threading
import time

import pytest
import requests

from tests.conftest import make_catalog
from tests.integration.conftest import LOSSY, LOST, OPEN, SIGNED, error_line, hashes, publish
from tests.integration.planetary import shipped
from tests.integration.storage import TokenAccess, token

pytestmark = pytest.mark.integration


@pytest.fixture
def signed(world, monkeypatch):
    """Makes the command line use tokens of these lifetimes in seconds; the last one is issued again and again."""

    def use(*lifetimes):
        signer = TokenAccess(world.storage, itertools.chain(lifetimes, itertools.repeat(lifetimes[-1])))
        monkeypatch.setattr("tessera_cli.planning.origin.signer_for", lambda *args, **kwargs: signer)
        return signer

    return use


def asked_since(world, before):
    """Status and query of each request for a signed file after the first `before` requests of the log."""
    lines = [line.split() for line in world.storage.asked()[before:]]
    return [(int(line[0]), line[-1]) for line in lines if "/signed/" in line[1]]


def test_the_storage_is_what_it_imitates(world):
    """Ranges, and 403 without a token, with a wrong one, and with one that has expired."""
    file = "S2A_2021-02-10/B02.tif"
    content = (world.local.folder / "cogs" / file).read_bytes()
    url, soon = f"{world.storage.url}/signed/{file}", int(time.time()) + 60
    part = requests.get(f"{url}?{token(soon)}", headers={"Range": "bytes=100-199"}, timeout=10)
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(content)}"
    assert requests.get(f"{world.storage.url}/open/{file}", timeout=10).content == content
    for query in ("", token(soon, "another secret"), token(int(time.time()) - 1), f"se={soon + 1}&{token(soon)[4:]}"):
        refused = requests.get(f"{url}?{query}", timeout=10)
        assert refused.status_code == 403
        assert refused.headers["Content-Type"] == "application/xml"


def test_a_token_that_expires_during_the_run(world, tessera, tmp_path, expected, signed):
    signer = signed(1, 60)
    signer.on_ticket = lambda asked: signer.expire() if asked == 20 and signer.issued == 1 else None
    before, out = len(world.storage.asked()), tmp_path / "out"
    code, stdout, stderr = tessera("embed", *world.options(SIGNED, out))
    assert code == 0, stderr
    assert signer.issued == 2
    answers = asked_since(world, before)
    assert {status for status, _ in answers} == {206, 403}
    assert hashes(out) == expected(SIGNED)
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file()) + (stdout + stderr).encode()
    assert b"sig=" not in written  # the scene list and records hold plain hrefs


def test_tokens_that_are_refused_for_good(world, tessera, tmp_path, expected, signed):
    signer = signed(60, -1)
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", *world.options(SIGNED, tmp_path / "first"))
    assert code == 0, stderr  # the second token is not needed
    signer = signed(-1)
    code, stdout, stderr = tessera("embed", *world.options(SIGNED, out))
    assert (code, stdout) == (77, "")
    line = error_line(stderr)
    assert "HTTP 403" in line
    assert "sig=" not in stderr
    assert signer.issued - 1 <= signer.asked <= 400  # bounded
    assert hashes(out) == {}
    signed(60)
    code, _, stderr = tessera("embed", *world.options(SIGNED, out))
    assert code == 0, stderr
    assert hashes(out) == expected(SIGNED) == hashes(tmp_path / "first")


def test_signed_files_without_a_token(world, tessera, tmp_path):
    code, stdout, stderr = tessera("embed", *world.options(SIGNED, tmp_path / "out"))
    assert (code, stdout) == (77, "")
    assert "HTTP 403" in error_line(stderr)
    assert hashes(tmp_path / "out") == {}


def test_nginx_restarted_during_the_run(world, tessera, tmp_path, expected, signed):
    """Away for half a second, while files are asked for."""
    signer, server = signed(60), world.storage.server
    back = threading.Timer(0.5, server.start)

    def stop(asked):
        if asked == 20:
            server.stop()
            back.start()

    signer.on_ticket = stop
    out = tmp_path / "out"
    code, stdout, stderr = tessera("embed", *world.options(SIGNED, out), "--json")
    back.join()
    assert code == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["network"]["retries"]["unreachable"] > 0
    assert hashes(out) == expected(SIGNED)


def test_nginx_down_for_good(world, tessera, tmp_path, expected, signed, monkeypatch):
    """No hole, no tile from half of the scenes; the same command goes on later."""
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.03)
    signer = signed(60)
    signer.on_ticket = lambda asked: world.storage.server.stop() if asked == 15 else None
    out, started = tmp_path / "out", time.monotonic()
    options = [*world.options(SIGNED, out), "--allow-missing", "99"]
    try:
        code, stdout, stderr = tessera("embed", *options)
    finally:
        world.storage.server.start()
    assert (code, stdout) == (75, "")
    assert time.monotonic() - started < 30
    assert world.storage.url in error_line(stderr)
    assert hashes(out) == {}
    code, _, stderr = tessera("embed", *options)
    assert code == 0, stderr
    assert hashes(out) == expected(SIGNED)


def test_a_file_that_is_not_there(world, tessera, tmp_path, expected):
    """404 on one asset fails the tiles that want it, or makes its scene a hole."""
    out = tmp_path / "out"
    code, _, stderr = tessera("embed", *world.options(LOSSY, out))
    assert code == 4
    assert LOST in stderr
    assert hashes(out) == {}
    code, _, stderr = tessera("embed", *world.options(LOSSY, out), "--allow-missing", "1")
    assert code == 0, stderr
    assert hashes(out) == expected(LOSSY, [item for item in world.items(LOSSY) if item["id"] != LOST])


def test_files_of_many_blocks(world, tessera, tmp_path):
    """More than the first request for a file brings."""
    large = make_catalog(tmp_path / "large", size=400)
    publish(large, world.storage.files / "large")
    items = shipped(json.loads(large.items.read_text())["features"], f"{world.storage.url}/open/large")
    before, local = len(world.storage.asked()), tmp_path / "local"
    assert tessera("embed", *large.options(local))[0] == 0
    large.items.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    code, _, stderr = tessera("embed", *large.options(tmp_path / "served"))
    assert code == 0, stderr
    assert hashes(tmp_path / "served") == hashes(local)
    files = [line.split()[1] for line in world.storage.asked()[before:]]
    assert len(files) > len(set(files)) >= 7


def test_only_ranges_are_asked_for(world, tessera, tmp_path):
    """Never a whole file, and nothing outside of the bands that are used."""
    before = len(world.storage.asked())
    code, _, stderr = tessera("embed", *world.options(OPEN, tmp_path / "out"))
    assert code == 0, stderr
    lines = world.storage.asked()[before:]
    assert lines
    assert {line.split()[0] for line in lines} == {"206"}
    assert not [line for line in lines if "AOT" in line or "WVP" in line or "visual" in line]
