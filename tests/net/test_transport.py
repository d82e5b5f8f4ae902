"""Below the client: answers that never end, bodies that swell, redirects that lead astray, and who is connected to."""

from __future__ import annotations

import gzip
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tessera_cli.catalog.documents import open_document
from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError, UsageError
from tessera_cli.net import Client, RangeResponse, SignedRequest, get_range, retries
from tessera_cli.net.address import AddressError
from tessera_cli.net.reach import Reach
from tessera_cli.net.retries import Cause, RetryableError
from tests.helpers import servers
from tests.helpers.raw_servers import ENDLESS, OK, RawServer, bomb, chunk, drip, flood, say, silent
from tests.helpers.servers import FileServer, always, status

HANDSHAKE = drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
"""The beginning of a long greeting of TLS."""
STATES = {**ENDLESS, "handshake of TLS": HANDSHAKE}


@pytest.fixture
def soon(monkeypatch):
    """A request has 0.15 seconds in all; silence would be borne for longer."""
    monkeypatch.setattr(retries, "TOTAL_TIMEOUT", 0.15)


def serving(state):
    encrypted = state == "handshake of TLS"
    server = RawServer(STATES[state], reads=not encrypted)
    return server, f"{'https' if encrypted else 'http'}://127.0.0.1:{server.port}/x"


def late(client, url):
    """Why one request failed."""
    with pytest.raises(RetryableError) as caught:
        client.fetch(url)
    assert "too slowly" in str(caught.value.final)
    return caught.value.cause


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_a_request_has_one_deadline_that_no_byte_resets(soon, state):
    server, url = serving(state)
    with server:
        begun = time.monotonic()
        assert late(Client(), url) is Cause.STALLED
        assert time.monotonic() - begun < 1


@pytest.mark.parametrize("state", STATES)
def test_a_run_that_is_over_leaves_every_state_at_once(state):
    server, url = serving(state)
    client, errors = Client(), []

    def ask():
        try:
            client.get(url)
        except TesseraError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    with server:
        thread.start()
        assert server.reached.wait(10)
        time.sleep(0.03)
        client.stop()
        thread.join(1)
        assert not thread.is_alive()
    assert "has been stopped" in str(errors[0])


@pytest.fixture
def unreachable_port():
    """Of a server whose queue is full: it answers no attempt to connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield full.getsockname()[1]
        for each in waiting:
            each.close()


def test_connecting_and_looking_up_names_have_the_same_deadline(soon, monkeypatch, unreachable_port):
    assert late(Client(), f"http://127.0.0.1:{unreachable_port}/") is Cause.STALLED
    asleep = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given: asleep.wait())
    assert late(Client(), "http://slow.test/") is Cause.STALLED
    client = Client()
    threading.Timer(0.05, client.stop).start()
    with pytest.raises(SourceUnavailableError, match="has been stopped"):
        client.get("http://slow.test/")
    asleep.set()


def test_a_chain_of_redirects_shares_the_deadline(soon, tmp_path):
    count = itertools.count()
    with FileServer(tmp_path, latency=0.06) as server:
        server.faults = lambda request: status(302, {"Location": f"/{next(count)}"})
        assert late(Client(), f"{server.url}/x") is Cause.STALLED
        assert len(server.log) <= 4


@pytest.mark.parametrize(
    ("length", "patient", "longer"), [(5000, True, True), (900, True, False), (5000, False, False)]
)
def test_a_long_download_goes_on_while_it_gets_on(monkeypatch, length, patient, longer):
    """A patient reader has time anew for every so many bytes, and not for fewer."""
    monkeypatch.setattr(retries, "PROGRESS", 1000)
    body = say(OK, b"Content-Length: %d\r\n\r\n" % length, bytes(length))
    got, before = [], []

    def begin(answer):
        before.append(answer.deadline.at)
        monkeypatch.setattr(retries, "TOTAL_TIMEOUT", 1000.0)
        return take

    def take(piece):
        got.append(len(piece))
        return True

    with RawServer(body) as server:
        answer = Client().receive(server.url, begin, patient=patient)
    assert sum(got) == length
    assert (answer.deadline.at > before[0] + 500) == longer


def test_connections_are_used_again_and_closed(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with FileServer(tmp_path) as server:
        client = Client()
        client.get(f"{server.url}/x")
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
        for _ in range(20):
            client.get(f"{server.url}/x")
        after = len(os.listdir("/proc/self/fd")) if before else 0  # noqa: PTH208
        assert after <= before + 2
        assert server.accepted == 1


def test_ctrl_c_ends_a_command_whose_threads_wait(catalog, tmp_path):
    with RawServer(ENDLESS["body"]) as server:
        items = tmp_path / "remote.json"
        items.write_text(catalog.items.read_text().replace('"./', f'"{server.url}/'))
        options = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", items, "--model", "null", "--threads", "1"]
        command = [sys.executable, "-m", "tessera_cli", "embed", *map(str, options), "--out", str(tmp_path / "out")]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            assert server.reached.wait(60)
            time.sleep(0.2)
            begun = time.monotonic()
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=20)
            assert time.monotonic() - begun < 5
        finally:
            running.kill()
            running.wait()
    assert running.returncode == 130, told
    assert "Traceback" not in told


def test_connections_that_are_reset_at_once_are_no_broken_files(monkeypatch):
    """Some are reset before we know whom we are connected to."""
    servers.hurry(monkeypatch)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)

    def reset_all():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    threading.Thread(target=reset_all, daemon=True).start()
    client, causes = Client(), Counter()

    def ask(_):
        try:
            client.fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/x")
        except RetryableError as error:
            return error.cause

    with ThreadPoolExecutor(16) as threads:
        causes.update(threads.map(ask, range(400)))
    listening.close()
    assert causes == {Cause.UNREACHABLE: 400}


def test_a_slow_look_up_keeps_nobody_else_waiting(monkeypatch, tmp_path):
    (tmp_path / "x").write_bytes(b"here")
    asleep, real = threading.Event(), socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **other: asleep.wait(20) and real(host, *more, **other)
    )
    reach = Reach()
    reach.add("http://slow.test/")
    reach.add("http://127.0.0.1/")
    with FileServer(tmp_path) as server, ThreadPoolExecutor(1) as thread:
        client = Client(reach=reach)
        client.get(f"{server.url}/x")
        server.faults = lambda request: status(302, {"Location": "http://10.0.0.1/"}) if request.path == "y" else None
        waiting = thread.submit(client.get, f"{server.url}/y")
        time.sleep(0.2)
        begun = time.monotonic()
        assert client.get(f"{server.url}/x").body == b"here"
        assert time.monotonic() - begun < 2
        asleep.set()
        with pytest.raises(TesseraError):
            waiting.result()


def test_a_run_that_is_over_leaves_those_who_wait_for_their_turn():
    with RawServer(silent) as server:
        client, errors = Client(connections=1), []

        def ask():
            try:
                client.get(server.url)
            except TesseraError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert server.reached.wait(10)
        client.stop()
        for thread in threads:
            thread.join(2)
        assert len(errors) == 4
        assert all("has been stopped" in error for error in errors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_asks_anew_and_is_quiet(tmp_path):
    (tmp_path / "x").write_bytes(b"here")
    program = """
import gc, os, sys
from tessera_cli.net import Client
client = Client(connections=1)
assert client.get(sys.argv[1]).body == b"here"
taken = client._turns.taken(1)  # by a thread that the fork does not have
taken.__enter__()
child = os.fork()
if child == 0:
    assert client.get(sys.argv[1]).body == b"here"
    other = Client()
    assert other.get(sys.argv[1]).body == b"here"
    del client, other
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
taken.__exit__(None, None, None)
assert client.get(sys.argv[1]).body == b"here"
"""
    with FileServer(tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, f"{server.url}/x"], capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")


# --- size -------------------------------------------------------------------------------------------------------------

PACKED = bomb(50)
RANGED = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/100000000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
ZEROS = itertools.repeat(bytes(1 << 16))
SWELLING = {
    "gzip bomb": say(OK, GZIP, b"Content-Length: %d\r\n\r\n" % len(PACKED), PACKED),
    "gzip bomb as a range": say(RANGED, GZIP, b"Content-Length: %d\r\n\r\n" % len(PACKED), PACKED),
    "endless chunks": flood(OK + CHUNKED, itertools.repeat(chunk(bytes(1 << 16)))),
    "endless chunks as a range": flood(RANGED + CHUNKED, itertools.repeat(chunk(bytes(1 << 16)))),
    "endless body": flood(OK + b"\r\n", ZEROS),
    "a longer range": flood(RANGED + b"Content-Length: 100000000\r\n\r\n", ZEROS),
    "endless body far away": flood(OK + b"\r\n", ZEROS),
}


@pytest.mark.parametrize("kind", SWELLING)
def test_no_answer_to_a_short_question_is_long(monkeypatch, kind):
    """Whether it is used or not: what was not asked for is neither unpacked nor kept."""
    servers.hurry(monkeypatch)
    monkeypatch.setattr(retries, "RETRY_BUDGET", 0.0)
    start = 20 << 20 if "far" in kind else 0
    with RawServer(SWELLING[kind]) as server:
        tracemalloc.start()
        try:
            found = get_range(Client(), server.url, start, 100)
        except SourceUnavailableError:
            found = None
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert (found is None) == ("range" in kind)
    assert found is None or (found.data, found.proven) == (bytes(100), True)
    assert peak < 2 << 20
    assert server.sent < start + (16 << 20)  # what the system took before we left


@pytest.mark.parametrize("kind", ["gzip bomb", "endless chunks", "endless body"])
def test_a_document_has_a_largest_size(kind):
    with RawServer(SWELLING[kind]) as server:
        for ask in (Client().json, Client().fetch):
            with pytest.raises(SourceRefusedError, match="more than 1 MB"):
                ask(server.url, most=1 << 20)


@pytest.mark.parametrize("value", [b'{"a":1},', b"[],", b"1,", b"{},"])
def test_json_that_swells_is_not_parsed(monkeypatch, value):
    """A megabyte of gzip may be gigabytes of small objects."""
    monkeypatch.setattr("tessera_cli.net.client.MOST_VALUES", 100_000)
    body = gzip.compress(b'{"features": [' + value * 100_000 + b"0]}")
    with RawServer(say(OK, GZIP, b"Content-Length: %d\r\n\r\n" % len(body), body)) as server:
        with pytest.raises(SourceRefusedError, match=r"more than 100,000 values.*download a copy"):
            Client().json(server.url)
        for name in ("items.json", "items.ndjson", "items.ndjson.gz"):
            with pytest.raises(SourceRefusedError, match="more than 100,000 values"):
                open_document(f"{server.url}/{name}", Client())


def test_lines_of_json_have_a_largest_size(monkeypatch):
    monkeypatch.setattr("tessera_cli.net.client.MOST_JSON", 1 << 20)
    body = gzip.compress(b" " * (2 << 20))
    with (
        RawServer(say(OK, b"Content-Length: %d\r\n\r\n" % len(body), body)) as server,
        pytest.raises(SourceRefusedError, match="more than 1 MB"),
    ):
        open_document(f"{server.url}/items.ndjson.gz", Client())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_on_the_way_that_wants_a_password_says_so(monkeypatch, scheme):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer(say(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.removesuffix("/x"))
        client = Client()
        with pytest.raises(SourceRefusedError, match=r"HTTP 407.*HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT"):
            client.get(f"{scheme}://nowhere.example/x")
    assert client.stats.to_dict()["retries"] == {}


def test_a_socks_proxy_is_refused_in_words(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("all_proxy", "socks5h://user:s3cret@127.0.0.1:1080")
    with pytest.raises(UsageError, match=r"socks5h://127\.0\.0\.1:1080 cannot be used.*ALL_PROXY") as caught:
        Client().get("http://nowhere.example/x")
    assert "s3cret" not in str(caught.value)


def test_encrypted_questions_to_a_server_that_does_not_encrypt(monkeypatch):
    monkeypatch.setattr(retries, "RETRY_BUDGET", 0.0)
    with (
        RawServer(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), reads=False) as server,
        pytest.raises(SourceUnavailableError, match="SSL"),
    ):
        Client().get(server.url.replace("http:", "https:"))


def test_a_proxy_that_wants_a_password_says_so():
    with (
        RawServer(say(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")) as server,
        pytest.raises(SourceRefusedError, match=r"HTTP 407.*HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT"),
    ):
        Client().get(server.url)


def test_gzip_of_several_members_and_encodings_that_nobody_asked_for(monkeypatch):
    servers.hurry(monkeypatch)
    members = gzip.compress(b"one ") + gzip.compress(b"two") + bytes(8)
    with RawServer(say(OK, GZIP, b"Content-Length: %d\r\n\r\n" % len(members), members)) as server:
        assert Client().get(server.url).body == b"one two"
    with (
        RawServer(say(OK, b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nxyz")) as server,
        pytest.raises(SourceRefusedError, match="encoding br"),
    ):
        Client().get(server.url)
    assert b"\r\naccept-encoding: gzip\r\n" in server.requests[0].lower()
    for word in (b"aws-chunked", b"aws-chunked,", b"UTF-8", b"binary", b"identity", b""):  # as objects in stores say
        with RawServer(say(OK, b"Content-Encoding: %s\r\nContent-Length: 3\r\n\r\nxyz" % word)) as server:
            assert Client().get(server.url).body == b"xyz"
    with RawServer(say(OK, b"Content-Encoding: aws-chunked, gzip\r\n\r\n", members)) as server:
        assert Client().get(server.url).body == b"one two"
    with RawServer(say(RANGED, b"Content-Length: 100\r\n\r\n", bytes(100))) as server:
        get_range(Client(), server.url, 0, 100)
    assert b"\r\naccept-encoding: identity\r\n" in server.requests[0].lower()


# --- what is proven ---------------------------------------------------------------------------------------------------

DATA = bytes(range(100))
SMALL = gzip.compress(DATA)
PROVEN = {
    "length": (say(OK, b"Content-Length: 100\r\n\r\n", DATA), True),
    "chunks": (say(OK, CHUNKED, chunk(DATA), b"0\r\n\r\n"), True),
    "gzip in chunks": (say(OK, GZIP, CHUNKED, chunk(SMALL), b"0\r\n\r\n"), True),
    "gzip without length": (say(OK, GZIP, b"\r\n", SMALL), True),
    "no length": (say(OK, b"\r\n", DATA), False),
    "HTTP/1.0": (say(b"HTTP/1.0 200 OK\r\n\r\n", DATA), False),
}


@pytest.mark.parametrize("kind", PROVEN)
def test_whether_all_of_a_body_has_come(kind):
    script, proven = PROVEN[kind]
    with RawServer(script) as server:
        found = Client().fetch(server.url)
        assert (found.body, found.proven, found.size) == (DATA, proven, 100 if proven else None)
        whole = get_range(Client(), server.url, 0, 200)
        assert (whole, whole.proven) == (RangeResponse(DATA, 100 if proven else None), proven)
        part = get_range(Client(), server.url, 20, 30)  # the bytes that were asked for are there
        assert (part.data, part.proven) == (DATA[20:50], True)


CUT = {
    "length": say(OK, b"Content-Length: 101\r\n\r\n", DATA),
    "chunks": say(OK, CHUNKED, chunk(DATA)),
    "gzip": say(OK, GZIP, b"\r\n", SMALL[:-5]),
    "gzip of full length": say(OK, GZIP, b"Content-Length: %d\r\n\r\n" % (len(SMALL) - 5), SMALL[:-5]),
}


@pytest.mark.parametrize("kind", CUT)
def test_a_body_that_is_known_to_lack_something(kind):
    with RawServer(CUT[kind]) as server, pytest.raises(RetryableError) as caught:
        Client().fetch(server.url)
    assert caught.value.cause is Cause.TRUNCATED


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n",
        b"220 ready\r\n",
    ],
)
def test_what_is_no_http_is_asked_again_and_not_quoted_at_length(answer):
    with RawServer(say(answer, DATA)) as server, pytest.raises(RetryableError) as caught:
        Client().fetch(server.url)
    assert caught.value.cause is Cause.UNREACHABLE
    assert "no HTTP" in str(caught.value.final)
    assert len(str(caught.value.final)) < 300


def test_a_range_proves_itself():
    with RawServer(say(b"HTTP/1.0 206 OK\r\nContent-Range: bytes 0-99/500\r\n\r\n", DATA)) as server:
        found = get_range(Client(), server.url, 0, 100)
    assert (found, found.proven) == (RangeResponse(DATA, 500), True)


# --- headers ----------------------------------------------------------------------------------------------------------

ODD = {
    "superscript length": (200, b"Content-Length: \xb2\r\n"),
    "negative length": (200, b"Content-Length: -5\r\n"),
    "two lengths": (200, b"Content-Length: 5\r\nContent-Length: 7\r\n"),
    "long Retry-After": (429, b"Retry-After: " + b"9" * 5000 + b"\r\n"),
    "odd date": (429, b"Retry-After: Mon, 99 Jan 0000 99:99:99 -9999\r\n"),
    "year 9999": (429, b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359\r\n"),
    "many headers": (200, b"".join(b"X-%d: 1\r\n" % n for n in range(500))),
    "a long header": (200, b"X: " + b"x" * 100_000 + b"\r\n"),
    "no header": (200, b"\x00\xff\r\n"),
    "long status": (200, b"\r\n" * 5),
    "odd encoding": (200, b"Content-Encoding: \xff\r\n"),
    "empty location": (302, b"Location: \r\n"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_headers_end_in_an_answer_or_in_an_error_of_ours(monkeypatch, kind):
    servers.hurry(monkeypatch)
    monkeypatch.setattr(retries, "RETRY_BUDGET", 0.0)
    code, headers = ODD[kind]
    failed = []
    with RawServer(say(b"HTTP/1.1 %d X\r\n" % code, headers, b"\r\n", DATA)) as server:
        for ask in (Client().get, lambda url: get_range(Client(), url, 0, 50)):
            try:
                ask(server.url)
            except TesseraError as error:
                failed.append(error.exit_code)
    assert set(failed) <= {69, 75}


@pytest.mark.parametrize("value", ["a\r\nX: s3cret", "s3cret\u20ac", "s3cret\x00\n"])
def test_a_header_that_cannot_be_sent_is_not_quoted(value):
    class Broken:
        def sign(self, href):
            return SignedRequest(href, {"Authorization": value})

        def renew(self, href):
            return False

        def stop(self): ...

    with RawServer(silent) as server, pytest.raises(SourceRefusedError, match="cannot be requested") as caught:
        Client(Broken()).get(server.url)
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
    assert not server.requests


# --- redirects --------------------------------------------------------------------------------------------------------


def test_redirects_end_after_ten(tmp_path):
    count = itertools.count()
    with FileServer(tmp_path) as server:
        server.faults = lambda request: status(302, {"Location": f"/{next(count)}"})
        with pytest.raises(SourceRefusedError, match="redirect number 11"):
            Client().get(f"{server.url}/x")
        assert len(server.log) == 11
        assert server.accepted == 1  # short bodies are read, so that the connection can be used again


def test_the_body_of_a_redirect_is_not_read(tmp_path):
    (tmp_path / "x").write_bytes(b"here")
    with FileServer(tmp_path) as files:
        moved = b"HTTP/1.1 302 Found\r\nLocation: %s/x\r\n" % files.url.encode()
        for length in (b"", b"Content-Length: 99999999999\r\n", CHUNKED.removesuffix(b"\r\n")):
            body = itertools.repeat(chunk(bytes(1 << 16))) if b"chunked" in length else ZEROS
            with RawServer(flood(moved + length + b"\r\n", body)) as server:
                assert Client().get(server.url).body == b"here"
            assert server.sent < 16 << 20


BAD_TARGETS = [
    "http://[::1",
    "http://[1:2:3:4:5:6:7:8:9]/x",
    "http://good.test\\@evil.test/x",
    "http://user:s3cret@evil.test/x",
    "http://evil.test:99999/x",
    "http:///x",
    "http://ev\u00efl.test/x",
    "http://a\tb.test/x",
    "file:///etc/passwd",
    "s3://bucket/x",
    "ftp://x.test/y",
    "javascript:alert(1)",
    "///vsicurl/http://x.test",
]


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_redirects_to_bad_addresses(target):
    moved = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target.encode()
    with RawServer(say(moved)) as server, pytest.raises(SourceRefusedError, match="redirects to") as caught:
        Client().get(server.url)
    assert len(server.requests) == 1
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "x" * 64, ".test"])
def test_hosts_that_no_name_server_could_know(host):
    """No retries, and no error of the codec."""
    client = Client()
    with pytest.raises(SourceRefusedError, match="is refused"):
        client.get(f"http://{host}/x")
    assert client.stats.to_dict()["retries"] == {}


class Secrets:
    """Puts on one secret of each kind."""

    def sign(self, href):
        return SignedRequest(f"{href}?sig=s3cret", {"Authorization": "Bearer s3cret"})

    def renew(self, href):
        return False

    def stop(self): ...


def shown(exchange):
    """What a server saw of the secrets."""
    request = exchange.request
    names = {name.lower() for name in request.headers}
    names &= {"authorization", "ocp-apim-subscription-key", "cookie", "x-any"}
    return names | ({"query"} if "s3cret" in request.query else set())


KEYS = {"Ocp-Apim-Subscription-Key": "s3cret", "Cookie": "s3cret", "X-Any": "s3cret", "Range": "bytes=0-1"}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("other", ["host", "port", "case"])
def test_secrets_go_to_their_origin_alone(tmp_path, code, other):
    (tmp_path / "y").write_bytes(b"0123456789")
    with FileServer(tmp_path) as server, FileServer(tmp_path) as stranger:
        target = {
            "host": f"http://localhost:{server.server_port}/y",
            "port": f"http://127.0.0.1:{stranger.server_port}/y",
            "case": f"HTTP://127.0.0.1:{server.server_port}/y",
        }[other]
        server.faults = lambda request: status(code, {"Location": target}) if request.path == "x" else None
        assert Client(Secrets()).fetch(f"{server.url}/x", KEYS).body == b"01"
        first, second = [*server.log, *stranger.log]
    every = {"authorization", "ocp-apim-subscription-key", "cookie", "x-any"}
    assert shown(first) == every | {"query"}
    assert shown(second) == (every if other == "case" else set())
    assert second.range == (0, 1)  # no secret


def test_secrets_that_went_to_another_origin_do_not_come_back(tmp_path):
    (tmp_path / "y").write_bytes(b"0123456789")
    with FileServer(tmp_path) as server, FileServer(tmp_path) as stranger:
        server.faults = lambda request: status(302, {"Location": f"{stranger.url}/x"}) if request.path == "x" else None
        stranger.faults = always(status(302, {"Location": f"{server.url}/y"}))
        Client(Secrets()).fetch(f"{server.url}/x")
        assert [shown(exchange) for exchange in server.log] == [{"authorization", "query"}, set()]


@pytest.mark.parametrize(("code", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_what_becomes_of_a_post(code, method):
    asked = []

    def script(server, connection):
        asked.append(server.requests[-1])
        moved = b"HTTP/1.1 %d Moved\r\nLocation: /y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code
        done = OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        connection.sendall(moved if len(asked) == 1 else done)

    with RawServer(script) as server:
        assert Client().json(server.url, posted=b'{"a": 1}').json == {}
    assert [head.split(b" ")[0].decode() for head in asked] == ["POST", method]
    assert (b"Content-Length: 8" in asked[1]) == (method == "POST")


def test_cookies_are_not_kept(tmp_path):
    (tmp_path / "x").write_bytes(b"0")
    with FileServer(tmp_path) as server:
        cookie = {"Set-Cookie": "id=1; Path=/"}
        server.faults = lambda request: status(302, {"Location": "/x", **cookie}) if request.nth == 0 else None
        client = Client()
        for _ in range(2):
            client.get(f"{server.url}/x")
        assert not any("Cookie" in exchange.request.headers for exchange in server.log)


# --- who is connected to ----------------------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch):
    """Names that stand for addresses of our choice."""
    known, real = {}, socket.getaddrinfo

    def look_up(host, port, *more, **other):
        if host in known:
            return [found for address in known[host] for found in real(address, port, *more, **other)]
        return real(host, port, *more, **other)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def test_a_name_on_the_web_that_leads_inside_is_not_connected_to(tmp_path, names):
    (tmp_path / "x").write_bytes(b"inside")
    names.update({"public.test": ["127.0.0.1"], "public6.test": ["::1"], "other.test": ["10.255.255.1"]})
    with FileServer(tmp_path) as server:
        for host in ("127.0.0.1", "public.test", "public6.test", "other.test", "127.1", "0x7f000001"):
            with pytest.raises(AddressError, match=r"loopback|private"):
                Client(reach=Reach()).get(f"http://{host}:{server.server_port}/x")
        assert server.accepted == 0
        reach = Reach()
        reach.add(f"http://public.test:{server.server_port}/catalog.json")
        assert Client(reach=reach).get(f"http://public.test:{server.server_port}/x").body == b"inside"


def test_a_redirect_that_leads_inside_is_not_followed(tmp_path, names):
    (tmp_path / "x").write_bytes(b"inside")
    names.update({"public.test": ["127.0.0.1"], "inside.test": ["10.255.255.1"]})
    with FileServer(tmp_path) as server:
        reach = Reach()
        reach.add("http://127.0.0.1/")  # of the networks, loopback alone
        for target in ("http://inside.test/x", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/x"):
            server.faults = always(status(302, {"Location": target}))
            with pytest.raises(SourceRefusedError, match=r"redirects to .*(private|link-local)"):
                Client(reach=reach).get(f"{server.url}/x")


def test_of_several_addresses_those_are_taken_that_may_be(tmp_path, names):
    (tmp_path / "x").write_bytes(b"here")
    names["both.test"] = ["10.255.255.1", "127.0.0.1"]
    with FileServer(tmp_path) as server:
        reach = Reach()
        reach.add("http://127.0.0.1/")
        assert Client(reach=reach).get(f"http://both.test:{server.server_port}/x").body == b"here"


def test_an_address_where_nobody_listens_opens_no_network(tmp_path, names):
    """A catalogue on the web that DNS places on this machine as well, and that then sends us there."""
    (tmp_path / "x").write_bytes(b"inside")
    names["public.test"] = ["::1", "127.0.0.1"]  # the server listens on the second alone
    with FileServer(tmp_path) as server:
        reach = Reach()
        reach.add(f"http://public.test:{server.server_port}/x")
        first, told = [], reach.reached
        reach.reached = lambda url, peer: first.append(str(peer)) or told(url, peer)
        assert Client(reach=reach).get(f"http://public.test:{server.server_port}/x").body == b"inside"
        assert first == ["127.0.0.1"]


def test_what_a_server_says_it_is_counts_once_it_is_trusted(names):
    """A port here that is open and speaks another language is not where a catalogue lies."""
    with RawServer(say(b"220 ready\r\n")) as server:
        names["public.test"] = ["127.0.0.1"]
        reach = Reach()
        reach.add(f"https://public.test:{server.port}/")
        with pytest.raises(RetryableError):
            Client(reach=reach).fetch(f"https://public.test:{server.port}/")
        with pytest.raises(AddressError):
            reach.check(f"http://127.0.0.1:{server.port}/")


def test_this_machine_is_asked_without_a_proxy(tmp_path, monkeypatch):
    """A token for a server here would go to the proxy, in the clear."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "x").write_bytes(b"here")
    with FileServer(tmp_path) as server, FileServer(tmp_path) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for host in ("127.0.0.1", "localhost", "127.1"):
            assert Client().get(f"http://{host}:{server.server_port}/x").body == b"here"
        assert proxy.accepted == 0


def test_behind_a_proxy_the_name_alone_counts(tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "x").write_bytes(b"by proxy")
    with FileServer(tmp_path) as server:
        monkeypatch.setenv("http_proxy", server.url)
        assert Client(reach=Reach()).get("http://nowhere.example/x").body == b"by proxy"
        with pytest.raises(AddressError, match="this machine"):
            Client(reach=Reach()).get("http://localhost/x")
