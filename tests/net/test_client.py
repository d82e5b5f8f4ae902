"""How servers are asked: by the table of retries, in bounded time, with every answer proven and every secret kept."""

import email.utils
import gzip
import logging
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tessera_cli.errors import (
    AbsentError,
    CredentialsError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
)
from tessera_cli.net import Client, RangeResponse, SignedRequest, Version, get_range, retries
from tessera_cli.net.retries import RETRY_POLICIES, Cause
from tests.helpers import servers
from tests.helpers.servers import FileServer, Reply, Tokens, always, first, status

CONTENT = bytes(range(256)) * 40
NAME = "data.tif"


@pytest.fixture
def server(tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    with FileServer(tmp_path) as running:
        yield running


@pytest.fixture
def href(server):
    return f"{server.url}/{NAME}"


@pytest.fixture
def clock(monkeypatch):
    """The client's time passes only while it pauses; the list holds these pauses, in seconds."""
    pauses = []
    made = SimpleNamespace(monotonic=lambda: sum(pauses), time=time.time)
    monkeypatch.setattr("tessera_cli.net.client.time", made)
    monkeypatch.setattr(Client, "_pause", lambda client, seconds: pauses.append(seconds))
    return pauses


@pytest.fixture
def hurry(monkeypatch):
    servers.hurry(monkeypatch)


@pytest.fixture
def impatient(monkeypatch):
    """Silence is borne for half a second, an answer for two, a question for four."""
    servers.hurry(monkeypatch, silence=0.5)


# --- what each status leads to ----------------------------------------------------------------------------------------

FINAL = [
    *((code, AbsentError) for code in (404, 410)),
    *((code, CredentialsError) for code in (401, 403)),
    *((code, SourceRefusedError) for code in (400, 402, 405, 406, 409, 413, 414, 416, 418, 451)),
    *((code, SourceUnavailableError) for code in (501, 505)),
    (204, SourceUnavailableError),
    (304, SourceUnavailableError),
]
PASSING = [
    (429, Cause.BUSY, SourceBusyError),
    *((code, Cause.BUSY, SourceUnavailableError) for code in (408, 425)),
    *((code, Cause.SERVER, SourceUnavailableError) for code in (500, 502, 503, 504, 507, 520, 599)),
]


@pytest.mark.parametrize(("code", "kind"), FINAL)
def test_what_asking_again_would_not_change_is_asked_once(server, href, clock, code, kind):
    server.faults = always(status(code))
    client = Client()
    with pytest.raises(kind) as caught:
        client.get(href)
    assert type(caught.value) is kind
    assert str(code) in str(caught.value)
    assert len(server.log) == client.stats.to_dict()["requests"] == 1
    assert clock == []
    assert client.stats.to_dict()["retries"] == {}


@pytest.mark.parametrize(("code", "cause", "kind"), PASSING)
def test_what_may_pass_is_asked_again_by_the_table(server, href, clock, code, cause, kind):
    server.faults = always(status(code))
    client = Client()
    with pytest.raises(kind) as caught:
        get_range(client, href, 0, 10)
    assert type(caught.value) is kind
    rule = RETRY_POLICIES[cause]
    assert len(server.log) == client.stats.to_dict()["requests"] == 1 + rule.retries
    assert client.stats.to_dict()["retries"] == {cause: rule.retries}
    assert len(clock) == rule.retries
    for nth, seconds in enumerate(clock):
        assert seconds == pytest.approx(min(rule.first * 2**nth, rule.longest), rel=0.25)


@pytest.mark.parametrize(("code", "cause"), [(code, cause) for code, cause, _ in PASSING])
def test_a_trouble_that_passes_is_not_seen(server, href, clock, code, cause):
    server.faults = first(RETRY_POLICIES[cause].retries, status(code))
    client = Client()
    assert get_range(client, href, 100, 50) == RangeResponse(CONTENT[100:150], len(CONTENT))
    assert client.stats.to_dict()["retries"] == {cause: RETRY_POLICIES[cause].retries}


# --- what goes wrong below HTTP ---------------------------------------------------------------------------------------

BROKEN = {
    "reset": (servers.reset, Cause.UNREACHABLE),
    "reset midway": (servers.reset_midway, Cause.TRUNCATED),
    "truncated": (servers.truncated, Cause.TRUNCATED),
    "page": (servers.page, Cause.ERROR_PAGE),
    "page as data": (servers.page_as_data, Cause.ERROR_PAGE),
    "wrong range": (servers.wrong_range, Cause.TRUNCATED),
}


@pytest.mark.parametrize(("fault", "cause"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_asked_for_again_and_then_given_up(server, href, hurry, fault, cause):
    server.faults = always(fault)
    client = Client()
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError):
        get_range(client, href, 100, 5000)
    assert time.monotonic() - started < 10
    assert len(server.log) == 1 + RETRY_POLICIES[cause].retries
    assert client.stats.to_dict()["retries"] == {cause: RETRY_POLICIES[cause].retries}


@pytest.mark.parametrize(("fault", "cause"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_that_is_followed_by_a_good_one_is_not_seen(server, href, hurry, fault, cause):
    server.faults = first(2, fault)
    client = Client()
    assert get_range(client, href, 100, 5000) == RangeResponse(CONTENT[100:5100], len(CONTENT))
    counted = client.stats.to_dict()
    assert counted["retries"] == {cause: 2}
    assert counted["requests"] == 3


@pytest.mark.parametrize("fault", [servers.reset_midway, servers.truncated])
def test_whole_bodies_are_proven_too(server, href, hurry, fault):
    server.faults = first(2, fault)
    assert Client().get(href).body == CONTENT
    server.faults = always(fault)
    with pytest.raises(SourceUnavailableError):
        Client().get(href)


STALLS = {"no answer": servers.silent, "half an answer": servers.stalled}


@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS)
def test_silence_ends_in_time(server, href, impatient, fault):
    server.faults = always(fault)
    client = Client()
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="timed out"):
        get_range(client, href, 0, 100)
    assert 2 < time.monotonic() - started < 5
    assert client.stats.to_dict()["retries"] == {Cause.STALLED: 3}


@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS)
def test_silence_that_ends_is_not_seen(server, href, impatient, fault):
    server.faults = first(1, fault)
    client = Client()
    assert client.get(href).body == CONTENT
    assert get_range(client, href, 10, 100).data == CONTENT[10:110]
    assert client.stats.to_dict()["retries"] == {Cause.STALLED: 2}


def test_a_slow_server_is_waited_for(server, href, impatient):
    server.faults = always(servers.trickle(1, pieces=20))
    client = Client()
    assert client.get(href).body == CONTENT
    assert client.stats.to_dict()["retries"] == {}


@pytest.mark.parametrize("length", [200, 5000], ids=["less than a chunk", "more"])
def test_an_answer_that_comes_too_slowly_ends_in_time(server, href, impatient, length):
    """Never silent for half a second, and not there after two: the budget of four allows for one more try."""
    server.faults = always(servers.trickle(20))
    client = Client()
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="slowly"):
        get_range(client, href, 0, length)
    assert 4 < time.monotonic() - started < 8
    assert client.stats.to_dict()["retries"] == {Cause.STALLED: 1}


def test_nobody_listens(hurry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = Client()
    with pytest.raises(SourceUnavailableError, match="refused"):
        client.get(f"http://127.0.0.1:{port}/{NAME}")
    assert client.stats.to_dict()["retries"] == {Cause.UNREACHABLE: RETRY_POLICIES[Cause.UNREACHABLE].retries}


@pytest.mark.parametrize("href", ["ftp://127.0.0.1/a.tif?token=hush", "http:///a.tif?token=hush", "http://[::1"])
def test_an_address_that_is_none_is_not_asked_again(clock, href):
    with pytest.raises(SourceRefusedError, match="is refused") as caught:
        Client().get(href)
    assert "hush" not in str(caught.value)
    assert clock == []


@pytest.mark.parametrize(
    "href", ["http://evil.test\\@127.0.0.1/a.tif", "http://user:hush@127.0.0.1/a.tif", "http://127.0.0.1/\r\nX: hush"]
)
def test_an_address_that_may_be_read_in_two_ways_is_not_asked(href):
    with pytest.raises(SourceRefusedError, match="is refused") as caught:
        Client().get(href)
    assert ":hush" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_a_url_cannot_hold_is_sent_encoded(tmp_path, server):
    for name in ("a b.tif", "\xfcmlaut.tif", "100%.tif"):
        with pytest.raises(AbsentError):
            Client().get(f"{server.url}/{name}")
    assert [exchange.path for exchange in server.log] == ["a%20b.tif", "%C3%BCmlaut.tif", "100%25.tif"]
    assert Client().get(f"{server.url.replace('http', 'HTTP')}/{NAME}").body == CONTENT


def test_where_a_body_was_found(server, href):
    assert Client().get(href).url == href
    for query, found in (("again", f"{href}?again"), ("X-Amz-Signature=hush", href)):  # the latter: a way in
        moved = status(302, {"Location": f"/{NAME}?{query}"})
        server.faults = lambda request, moved=moved: None if request.query else moved
        assert Client().get(href).url == found


def test_each_cause_has_patience_of_its_own(server, href, clock):
    """Six different troubles in a row: none of them exhausts the table."""
    troubles = [status(503), status(429), servers.reset, servers.truncated, servers.page, status(503)]
    server.faults = lambda request: troubles[request.nth] if request.nth < len(troubles) else None
    client = Client()
    assert get_range(client, href, 0, 10).data == CONTENT[:10]
    assert client.stats.to_dict()["retries"] == {
        Cause.BUSY: 1,
        Cause.ERROR_PAGE: 1,
        Cause.SERVER: 2,
        Cause.TRUNCATED: 1,
        Cause.UNREACHABLE: 1,
    }


# --- how long we wait -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_in_seconds(server, href, clock, code):
    server.faults = first(1, status(code, {"Retry-After": "12"}))
    Client().get(href)
    assert 12 <= clock[0] <= 15


def test_retry_after_as_a_date(server, href, clock):
    server.faults = first(1, status(429, {"Retry-After": email.utils.formatdate(time.time() + 30, usegmt=True)}))
    Client().get(href)
    assert 28 <= clock[0] <= 37.5


@pytest.mark.parametrize("past", ["0", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_is_over_leaves_the_table_as_it_is(server, href, clock, past):
    server.faults = first(1, status(429, {"Retry-After": past}))
    Client().get(href)
    assert 2 <= clock[0] <= 2.5


@pytest.mark.parametrize("nonsense", ["soon", "", "-5", "1e3", "\u00b2", "Fri, 31 Foo 1999 23:59:59 GMT"])
def test_a_retry_after_that_says_nothing(server, href, clock, nonsense):
    server.faults = first(1, status(429, {"Retry-After": nonsense}))
    Client().get(href)
    assert 1.5 <= clock[0] <= 2.5


@pytest.mark.parametrize("long", ["86400", "9" * 400, email.utils.formatdate(4e9, usegmt=True)])
def test_no_server_makes_us_wait_for_long(server, href, clock, long):
    server.faults = always(status(429, {"Retry-After": long}))
    with pytest.raises(SourceBusyError):
        Client().get(href)
    assert max(clock) <= 1.25 * RETRY_POLICIES[Cause.BUSY].longest
    assert 120 < sum(clock) <= retries.RETRY_BUDGET


def test_a_question_has_a_budget(server, href, clock, monkeypatch):
    """Whatever the table says: after the budget nothing is asked again."""
    monkeypatch.setattr(retries, "RETRY_BUDGET", 10.0)
    server.faults = always(status(503))
    with pytest.raises(SourceUnavailableError, match="503"):
        Client().get(href)
    assert 5 < sum(clock) <= 10


def test_a_run_that_is_over_waits_for_no_retry(server, href):
    server.faults = always(status(429, {"Retry-After": "60"}))
    client = Client()
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(get_range, client, href, 0, 10)
        while not client.stats.to_dict()["retries"]:
            time.sleep(0.01)
        client.stop()
        with pytest.raises(SourceUnavailableError, match="stopped"):
            asking.result(timeout=10)


def test_pauses_double_up_to_the_longest_and_vary():
    for cause, rule in RETRY_POLICIES.items():
        for nth in range(1, 12):
            middle = min(rule.first * 2 ** (nth - 1), rule.longest)
            low, high = (retries.pause(cause, nth, chance=lambda value=value: value) for value in (0.0, 1.0))
            assert (low, high) == (pytest.approx(0.75 * middle), pytest.approx(1.25 * middle))
    drawn = {retries.pause(Cause.SERVER, 1) for _ in range(20)}
    assert len(drawn) == 20


def test_the_whole_table_stays_within_the_budget():
    """Else a rule would promise retries that never come."""
    for rule in RETRY_POLICIES.values():
        assert sum(min(rule.first * 2**n, rule.longest) for n in range(rule.retries)) * 1.25 < retries.RETRY_BUDGET


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 10240), (5000, 100), (10239, 1), (10200, 500), (0, 1 << 30), (10230, 10)]
)
@pytest.mark.parametrize("fault", [None, servers.unranged], ids=["ranged", "unranged"])
def test_ranges(server, href, start, length, fault):
    server.faults = always(fault)
    assert get_range(Client(), href, start, length) == RangeResponse(CONTENT[start : start + length], len(CONTENT))
    assert server.log[0].range == (start, start + length - 1)


@pytest.mark.parametrize(("start", "length"), [(0, 10), (5000, 100), (10239, 1), (10200, 500), (0, 1 << 30)])
def test_ranges_of_a_file_of_unknown_size(server, href, start, length):
    server.faults = always(servers.untold)
    assert get_range(Client(), href, start, length) == RangeResponse(CONTENT[start : start + length], None)
    assert get_range(Client(), href, start, length, known=Version(10240)).data == CONTENT[start : start + length]


def test_less_than_was_requested_is_not_taken_for_the_end_of_the_file(server, href, hurry):
    def less(handler, reply):
        first = handler.exchange.request.range[0]
        handler.send(Reply(206, {"Content-Range": f"bytes {first}-{first}/*"}, reply.body[:1]))

    server.faults = always(less)
    with pytest.raises(SourceUnavailableError, match="less than the range"):
        get_range(Client(), href, 0, 10)


def test_a_range_beyond_the_end(server, href):
    with pytest.raises(SourceRefusedError, match="416"):
        get_range(Client(), href, len(CONTENT), 10)


GZIPPED = {"Content-Encoding": "gzip"}


def answer(headers, body, code=206):
    return lambda handler, reply: handler.send(Reply(code, headers, body))


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-8/*",
        "bytes 0-10/*",
        "bytes 0-10239/*",
        "bytes 10-19/*",
        "bytes 10-19/10240",
        "bytes 0-8/10240",
        "bytes 0-9/5",
        "bytes 0-10/10240",
        "items 0-9/10240",
    ],
)
def test_a_part_that_is_not_what_was_asked_for(server, href, hurry, content_range):
    server.faults = always(answer({"Content-Range": content_range} if content_range else {}, CONTENT[:10]))
    with pytest.raises(SourceUnavailableError, match="range"):
        get_range(Client(), href, 0, 10)


def test_a_part_shorter_than_its_content_range(server, href, hurry):
    server.faults = always(answer({"Content-Range": "bytes 0-9/10240"}, CONTENT[:7]))
    with pytest.raises(SourceUnavailableError, match="range"):
        get_range(Client(), href, 0, 10)


def test_files_are_not_unpacked_and_transfers_are(server):
    """A .gz file comes as it lies there; a compressed transfer of something else does not."""
    packed = gzip.compress(b"hello" * 100)
    (server.folder / "lines.ndjson.gz").write_bytes(packed)
    assert Client().get(f"{server.url}/lines.ndjson.gz").body == packed
    server.faults = always(answer(GZIPPED, packed, code=200))
    assert Client().get(f"{server.url}/anything").body == b"hello" * 100


def test_a_compressed_transfer_that_ends_early(server, hurry):
    packed = gzip.compress(os.urandom(5000))
    server.faults = always(lambda handler, reply: servers.truncated(handler, Reply(200, GZIPPED, packed)))
    with pytest.raises(SourceUnavailableError):
        Client().get(f"{server.url}/anything")


def test_connections_are_used_again(server, href):
    client = Client()
    for start in range(50):
        get_range(client, href, start, 100)
        client.get(href)
    assert server.accepted == 1
    server.faults = first(1, status(503))
    with pytest.MonkeyPatch.context() as patch:
        servers.hurry(patch)
        get_range(client, href, 0, 99)
    assert server.accepted <= 2


def test_bytes_and_requests_are_counted_over_all_threads(server, href):
    client = Client()
    with ThreadPoolExecutor(32) as pool:
        parts = list(pool.map(lambda n: get_range(client, href, n, 100).data, range(300)))
    assert parts == [CONTENT[n : n + 100] for n in range(300)]
    assert client.stats.to_dict() == {
        "reads": dict.fromkeys(("read", "absent", "broken", "refused", "unknown"), 0),
        "retries": {},
        "local_bytes": 0,
        "requests": 300,
        "bytes": 30_000,
    }


# --- the right to read ------------------------------------------------------------------------------------------------


def test_an_expired_signature_is_renewed(server, href, clock):
    server.tokens = Tokens(uses=3)
    client = Client(server.tokens)
    for start in range(10):
        assert get_range(client, href, start, 4).data == CONTENT[start : start + 4]
    assert len(server.tokens.all) == 4
    assert client.stats.to_dict()["retries"] == {Cause.FORBIDDEN: 3}


def test_a_signature_that_cannot_be_renewed(server, href, clock):
    server.tokens = Tokens(uses=3, renewable=False)
    client = Client(server.tokens)
    for _ in range(3):
        client.get(href)
    with pytest.raises(CredentialsError, match="403"):
        client.get(href)
    assert len(server.log) == 4


def test_new_signatures_that_are_refused_too(server, href, clock):
    server.tokens = Tokens(uses=0)
    with pytest.raises(CredentialsError):
        Client(server.tokens).get(href)
    assert len(server.log) == 1 + RETRY_POLICIES[Cause.FORBIDDEN].retries


def test_threads_that_meet_an_expired_signature_together(server, href, hurry):
    server.tokens = Tokens(uses=300)
    client = Client(server.tokens)
    with ThreadPoolExecutor(32) as pool:
        parts = list(pool.map(lambda n: get_range(client, href, n, 10).data, range(450)))
    assert parts == [CONTENT[n : n + 10] for n in range(450)]
    assert len(server.tokens.all) == 2


@pytest.mark.parametrize(
    "fault",
    [
        *(status(code) for code in (403, 404, 416, 429, 503)),
        *(
            status(302, {"Location": target})
            for target in ("http://127.0.0.1:1/moved?token=SECRET", "ftp://x?t=SECRET")
        ),
        *(fault for fault, _ in BROKEN.values()),
    ],
)
def test_signatures_are_in_no_message_and_no_log(server, href, hurry, caplog, fault):
    caplog.set_level(logging.INFO)
    server.tokens = Tokens(uses=100)
    server.faults = always(fault)
    client = Client(server.tokens)
    with pytest.raises(Exception, match=re.escape(href)) as caught:
        get_range(client, href, 0, 10)
    shown = f"{caught.value} {caught.value!r} {server.tokens.sign(href)!r} {client!r} {caplog.text}"
    assert "secret" not in shown.lower()


def test_signatures_are_not_shown_where_nobody_listens(hurry, caplog):
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceUnavailableError) as caught:
        Client(Tokens(uses=1)).get(f"http://127.0.0.1:{port}/{NAME}")
    assert "secret" not in str(caught.value) + caplog.text


class Bearer:
    """An Access by header."""

    def sign(self, href):
        return SignedRequest(href, {"Authorization": "Bearer abc"})

    def renew(self, href):
        return False

    def stop(self):
        pass


def received(server, number=-1):
    return server.log[number].request.headers.get("Authorization")


def test_headers_of_a_ticket_follow_no_redirect_to_another_host(server, href, tmp_path):
    client = Client(Bearer())
    with FileServer(tmp_path) as other:
        moved = f"http://localhost:{other.server_port}/{NAME}"
        server.faults = first(1, status(302, {"Location": moved}))
        assert get_range(client, href, 0, 10).data == CONTENT[:10]
        assert received(server) == "Bearer abc"
        assert received(other) is None
        assert other.log[0].range == (0, 9)
    server.faults = first(1, status(307, {"Location": f"/{NAME}?again"}))
    get_range(client, href, 10, 10)
    assert received(server) == "Bearer abc"  # the same host


def test_netrc_is_not_consulted(server, href, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\ndefault login me password mine\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    Client().get(href)
    assert received(server) is None
    Client(Bearer()).get(href)
    assert received(server) == "Bearer abc"
    with FileServer(tmp_path) as other:
        server.faults = first(9, status(302, {"Location": f"http://localhost:{other.server_port}/{NAME}"}))
        get_range(Client(Bearer()), href, 0, 9)
        assert received(other) is None
    server.faults = first(9, status(302, {"Location": f"/{NAME}?again"}))
    get_range(Client(Bearer()), href, 0, 8)
    assert received(server) == "Bearer abc"


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    assert Client().get(f"http://nowhere.example/{NAME}").body == CONTENT
    assert server.log[0].request.headers["Host"] == "nowhere.example"
