"""The right to read: who sees which token, how many are asked for, and that nobody else ever sees one."""

import base64
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tessera_cli import config
from tessera_cli.catalog import (
    AWS,
    MPC,
    Credentials,
    Scenes,
    check_credentials,
    earthdata,
    missing_credentials,
    signer_for,
)
from tessera_cli.catalog.earthdata import EarthdataSigner, expiry
from tessera_cli.catalog.signing import PlanetaryComputerSigner
from tessera_cli.catalog.tokens import SharedToken, Token
from tessera_cli.errors import (
    AbsentError,
    CredentialsError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
)
from tessera_cli.net import Client, RequestStats, get_range
from tests.catalog.test_aws import s1, s2
from tests.helpers.fake_catalogs import PAGE, Catalogue, Reply, jwt
from tests.helpers.servers import FileServer, always, page, status

ASF = "https://cumulus.asf.earthdatacloud.nasa.gov/OPERA/B_VV.tif"
BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/U/DQ/B04.tif"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.01)
    monkeypatch.setattr("tessera_cli.net.retries.READ_TIMEOUT", 3000.0)
    monkeypatch.setattr("tessera_cli.net.retries.TOTAL_TIMEOUT", 3000.0)


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.fixture
def netrc(tmp_path):
    def write(text, name=".netrc"):
        (tmp_path / name).write_text(text)
        return {"HOME": str(tmp_path)}

    return write


LINE = "machine urs.earthdata.nasa.gov login ann password s3cret-netrc\n"
PAIR = {"EARTHDATA_USERNAME": "eve", "EARTHDATA_PASSWORD": "s3cret-pass"}


def test_credentials_are_taken_from_the_first_place_that_has_any(netrc, tmp_path):
    home = netrc(f"machine example.test login x password y\n{LINE}")
    token = {"EARTHDATA_TOKEN": " s3cret-token\n"}
    assert config.earthdata({**home, **PAIR, **token}) == Credentials("s3cret-token", origin="EARTHDATA_TOKEN")
    pair = config.earthdata({**home, **PAIR, "EARTHDATA_TOKEN": ""})
    assert (pair.token, pair.user, pair.password) == (None, "eve", "s3cret-pass")
    file = config.earthdata(home)
    assert (file.token, file.user, file.password, file.origin) == (
        None,
        "ann",
        "s3cret-netrc",
        str(tmp_path / ".netrc"),
    )
    netrc(LINE.replace("ann", "bob"), "elsewhere")
    assert config.earthdata({**home, "NETRC": str(tmp_path / "elsewhere")}).user == "bob"


def test_without_any_there_are_none(netrc, tmp_path):
    for home in (
        {"HOME": str(tmp_path)},
        netrc("default login x password y\n"),
        netrc("machine other.test login a password b"),
    ):
        assert config.earthdata(home) == Credentials()
        assert not config.earthdata(home).given


@pytest.mark.parametrize("name", PAIR)
def test_half_of_a_pair(name, tmp_path):
    with pytest.raises(CredentialsError, match=f"{name} is set without"):
        config.earthdata({"HOME": str(tmp_path), name: "s3cret"})


@pytest.mark.parametrize("text", ["machine urs.earthdata.nasa.gov login ann s3cret", "s3cret", "machine x login \xff"])
def test_a_netrc_that_is_wrong_is_not_quoted(netrc, text, tmp_path):
    home = netrc("")
    (tmp_path / ".netrc").write_bytes(text.encode("latin-1"))
    with pytest.raises(CredentialsError, match=r"\.netrc.*Correct it") as caught:
        config.earthdata(home)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_show_nothing():
    for credentials in (Credentials("s3cret", origin="X"), Credentials(user="s3cret", password="s3cret")):
        assert "s3cret" not in repr(credentials) + str(credentials)
    assert "s3cret" not in repr(signer_for(AWS, Credentials("s3cret")).sign(ASF))


@pytest.mark.parametrize("token", ["two words", "two\nlines", "t\xf6ken", "", "x\x00y"])
def test_what_is_no_token_is_refused_before_a_library_quotes_it(token):
    if token:
        with pytest.raises(CredentialsError, match="no token has") as caught:
            Credentials(token, origin="EARTHDATA_TOKEN")
        assert token not in str(caught.value)


def test_when_tokens_end():
    now = time.time()
    assert expiry(jwt(3600)) == pytest.approx(now + 3600, abs=5)
    for opaque in ("abc", "a.b.c", "a.e30.c", "a.W10.c", *(jwt(0, exp=odd) for odd in (None, math.nan, 10**400))):
        assert expiry(opaque) == float("inf")
    assert "expired on 1970" in Credentials(jwt(0, exp=-1e300)).lacking


# --- who sees the token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "sees"),
    [
        (ASF, True),
        ("https://data.lpdaac.earthdatacloud.nasa.gov/x.tif", True),
        ("https://datapool.asf.alaska.edu/x.tif", True),
        ("https://n5eil01u.earthdata.nasa.gov/x.tif", True),
        ("https://cumulus.asf.earthdatacloud.nasa.gov:443/x.tif", True),
        ("https://cumulus.asf.earthdatacloud.nasa.gov:/x.tif", True),
        ("https://mirror.test/x_VV.tif", True),
        ("https://MIRROR.test:443/x_VV.tif", True),
        ("https://mirror.test:8443/x_VV.tif", False),
        ("http://mirror.test/x_VV.tif", False),
        ("http://mirror.test:443/x_VV.tif", False),
        ("https://mirror.test./x_VV.tif", False),
        ("https://mirror.test@evil.test/x_VV.tif", False),
        ("https://mirror.test\\@evil.test/x_VV.tif", False),
        ("https://evil.test#@mirror.test/x_VV.tif", False),
        ("https://evil.test?@mirror.test/x_VV.tif", False),
        ("http://127.0.0.1:8000/x.tif", False),
        ("http://localhost/x.tif", False),
        ("http://[::1]:80/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov:8443/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov:80/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov./x.tif", False),
        ("https://earthdata.nasa.gov/x.tif", False),
        ("https://[::ffff:1.2.3.4]/x.tif", False),
        ("https://[fe80::1%25.earthdata.nasa.gov]/x.tif", False),
        ("https://\u212aumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov\u3002evil.test/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov%2eevil.test/x.tif", False),
        ("http://cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("https://cmr.earthdata.nasa.gov/search/granules.json", False),
        ("https://urs.earthdata.nasa.gov/oauth", False),
        ("https://earthdatacloud.nasa.gov.evil.test/x.tif", False),
        ("https://evilearthdatacloud.nasa.gov/x.tif", False),
        ("https://cumulus.asf.earthdatacloud.nasa.gov@evil.test/x.tif", False),
        ("https://evil.test\\@cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("https://evil.test@cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("https://evil.test/\t@cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("HTTPS://Cumulus.ASF.earthdatacloud.nasa.gov:443/x.tif", True),
        ("https://evil.test/cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
        ("https://evil.test/x.tif?host=.earthdata.nasa.gov", False),
        ("https://sub.mirror.test/x.tif", False),
        ("https://127.0.0.1.evil.test/x.tif", False),
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/x.tif", False),
        ("https://earth-search.aws.element84.com/v1", False),
        ("/data/x.tif", False),
        ("s3://cumulus.asf.earthdatacloud.nasa.gov/x.tif", False),
    ],
)
def test_who_sees_the_token(href, sees):
    signer = signer_for(AWS, Credentials("s3cret"), radar_catalog="https://mirror.test/search")
    sign = signer.sign(href)
    assert sign.url == href
    assert dict(sign.headers) == ({"Authorization": "Bearer s3cret"} if sees else {})


@pytest.mark.parametrize(
    ("catalogs", "href", "sees"),
    [
        ({"radar_catalog": "http://127.0.0.1:8000/search"}, "http://127.0.0.1:8000/x.tif", True),
        ({"radar_catalog": "http://127.0.0.1:8000/search"}, "http://127.0.0.1:8001/x.tif", False),
        ({"radar_catalog": "http://127.0.0.1:8000/search"}, "http://localhost:8000/x.tif", False),
        ({"radar_catalog": "http://127.0.0.1:8000/search"}, "https://127.0.0.1:8000/x.tif", False),
        ({"radar_catalog": "http://[::1]:8000/search"}, "http://[0:0::1]:8000/x.tif", True),
        ({"radar_catalog": "http://mirror.test/search"}, "http://mirror.test/x.tif", False),
        ({"radar_catalog": "http://mirror.test/search"}, "https://mirror.test/x.tif", False),
        ({"radar_catalog": "http://127.0.0.1.evil.test/search"}, "http://127.0.0.1.evil.test/x.tif", False),
        ({"radar_catalog": "https://user:pass@mirror.test/search"}, "https://mirror.test/x.tif", False),
        ({"radar_catalog": "/data/radar.json"}, "http://127.0.0.1:8000/x.tif", False),
        ({"catalog": "http://localhost:8000/items.json"}, "http://localhost:8000/x.tif", True),
        ({"catalog": "https://stac.test/items.json"}, "https://stac.test/x.tif", False),
        ({}, "http://127.0.0.1/x.tif", False),
    ],
)
def test_servers_that_the_user_named(catalogs, href, sees):
    """A catalogue of radar is asked for files of NASA; any other only on this machine, and none in the clear."""
    assert bool(signer_for(AWS, Credentials("s3cret"), **catalogs).sign(href).headers) == sees
    assert not signer_for(AWS, **catalogs).sign(href).headers  # where none is needed, none is asked for


def test_planetary_computer_never_sees_it():
    assert isinstance(signer_for(MPC, Credentials("s3cret")), PlanetaryComputerSigner)
    assert not signer_for(MPC, Credentials("s3cret")).sign(ASF).headers


def test_without_credentials_only_nasa_is_out_of_reach():
    signer = signer_for(AWS)
    assert not signer.sign("http://127.0.0.1/x.tif").headers
    with pytest.raises(CredentialsError, match=r"EARTHDATA_TOKEN .*EARTHDATA_USERNAME .*netrc"):
        signer.sign(ASF)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "x.tif").write_bytes(b"0123456789")
    return tmp_path


def seen(server):
    return [exchange.request.headers.get("Authorization") for exchange in server.log]


def test_other_hosts_get_no_token_not_even_by_redirect(files):
    """`localhost` is another host than `127.0.0.1`; a storage that is given two proofs of a right refuses both."""
    with FileServer(files) as storage, FileServer(files) as portal:
        client = Client(EarthdataSigner(Credentials("s3cret"), servers=[portal.url]))
        elsewhere = f"http://localhost:{storage.server_port}/x.tif"
        assert client.get(elsewhere).body == b"0123456789"
        for code in (301, 302, 303, 307):
            portal.faults = always(status(code, {"Location": f"{elsewhere}?X-Amz-Signature=1"}))
            assert get_range(client, f"{portal.url}/x.tif", 2, 3).data == b"234"
        portal.faults = always(status(302, {"Location": f"{storage.url}/x.tif"}))  # the same host, another server
        client.get(f"{portal.url}/x.tif")
    assert seen(portal) == ["Bearer s3cret"] * 5
    assert seen(storage) == [None] * 6


# --- tokens that end, tokens that are asked for -----------------------------------------------------------------------


def test_a_token_that_has_ended_is_not_sent(files):
    credentials = Credentials(jwt(-1), origin="EARTHDATA_TOKEN")
    with (
        FileServer(files) as server,
        pytest.raises(CredentialsError, match=r"token in EARTHDATA_TOKEN expired on \d{4}-"),
    ):
        Client(signer_for(AWS, credentials, radar_catalog=server.url)).get(f"{server.url}/x.tif")
    assert server.log == []
    assert signer_for(AWS, Credentials(jwt(30))).sign(ASF).headers


class Issuer(Catalogue):
    """Gives out tokens: to logins by POST, as signatures by GET."""

    def __init__(self, mischief=lambda nth, asked: None, seconds=3600):
        self.seconds = seconds
        super().__init__(mischief)

    def is_search(self, asked):
        return True

    def answer(self, asked):
        nth = len(self.asked)
        if asked.method == "POST":
            token = jwt(self.seconds, nth=nth)
            return Reply(200, json.dumps({"access_token": token, "token_type": "Bearer"}).encode())
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.seconds))
        return Reply(200, json.dumps({"msft:expiry": end, "token": f"sig=s3cret-{nth}"}).encode())


def logging_in(server, **more):
    return EarthdataSigner(
        Credentials(user="ann", password="pass:w\xf6rd", origin="here"), login=f"{server.url}/t", **more
    )


def test_a_name_and_a_password_become_one_token():
    stats = RequestStats()
    with Issuer() as server:
        signer = logging_in(server, stats=stats)
        assert not server.asked  # not before it is needed
        with ThreadPoolExecutor(32) as pool:
            tickets = list(pool.map(lambda n: signer.sign(ASF), range(64)))
        (asked,) = server.asked
    assert len({sign.headers["Authorization"] for sign in tickets}) == 1
    assert asked.method == "POST"
    assert base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode() == "ann:pass:w\xf6rd"
    assert stats.to_dict()["requests"] == 1


def test_a_login_is_renewed_before_and_after_its_end():
    with Issuer(seconds=30) as server:  # less than is kept in reserve
        signer = logging_in(server)
        assert signer.sign(ASF).headers != signer.sign(ASF).headers
    with Issuer() as server:
        signer = logging_in(server)
        old = signer.sign(ASF).headers
        assert signer.sign(ASF).headers == old
        assert signer.renew(ASF)
        assert signer.sign(ASF).headers != old
        assert not signer.renew("https://other.test/x.tif")
    assert not signer_for(AWS, Credentials("s3cret")).renew(ASF)  # the next ticket would be the same


@pytest.mark.parametrize(
    ("reply", "error", "requests"),
    [
        (Reply(401, b'{"error": "invalid_credentials"}'), CredentialsError, 1),
        (Reply(404), SourceRefusedError, 1),
        (Reply(503), SourceUnavailableError, 6),
        (Reply(200, PAGE), SourceUnavailableError, 3),
        (Reply(200, b'{"token": 1}'), SourceUnavailableError, 1),
        (Reply(200, b"[1]"), SourceUnavailableError, 1),
        (Reply(200, b'{"access_token": "w\\u00f6rd\\r\\nX: 1"}'), SourceUnavailableError, 1),
        (Reply(200, b'{"a": "%s"}' % bytes(1 << 20).replace(b"\0", b" ")), SourceRefusedError, 1),
    ],
    ids=["401", "404", "503", "html", "other", "list", "lines", "long"],
)
def test_a_login_that_fails(reply, error, requests):
    with Issuer(lambda nth, asked: reply) as server, pytest.raises(error) as caught:
        logging_in(server).sign(ASF)
    assert len(server.asked) == requests
    assert not isinstance(caught.value, AbsentError)  # that would be a hole
    assert "w\xf6rd" not in str(caught.value)


def test_the_real_place_to_log_in():
    assert earthdata.LOGIN == "https://urs.earthdata.nasa.gov/api/users/find_or_create_token"


# signatures of Planetary Computer


@pytest.fixture
def settings(monkeypatch):
    from planetary_computer.settings import Settings

    def use(server, key=None):
        made = Settings(subscription_key=key, sas_url=f"{server.url}/sas/v1/token")
        monkeypatch.setattr(Settings, "get", staticmethod(lambda: made))

    return use


def test_a_signature_per_container(settings):
    with Issuer() as server:
        settings(server)
        signer = PlanetaryComputerSigner()
        with ThreadPoolExecutor(32) as pool:
            urls = {sign.url for sign in pool.map(lambda n: signer.sign(BLOB), range(64))}
        assert urls == {f"{BLOB}?sig=s3cret-1"}
        other = BLOB.replace("sentinel2l2a01", "sentinel1euwestrtc").replace("sentinel2-l2", "sentinel1-grd-rtc")
        assert signer.sign(other).url == f"{other}?sig=s3cret-2"
        assert "s3cret" not in repr(signer.sign(other))
    paths = [asked.path for asked in server.asked]
    assert paths == ["/sas/v1/token/sentinel2l2a01/sentinel2-l2", "/sas/v1/token/sentinel1euwestrtc/sentinel1-grd-rtc"]
    assert not any("Ocp-Apim-Subscription-Key" in asked.headers for asked in server.asked)


def test_a_subscription_key_goes_with_the_question_in_the_clear_only_here(settings, monkeypatch):
    class Elsewhere:
        url = "http://sas.test"

    asked = []
    settings(Elsewhere, "k3y")
    monkeypatch.setattr(Client, "fetch", lambda *given, **more: asked.append(given) or pytest.fail("asked"))
    signer = PlanetaryComputerSigner()
    with pytest.raises(pytest.fail.Exception):
        signer.sign(BLOB)
    assert asked[0][2] == {}


def test_a_login_or_a_key_does_not_follow_a_redirect(settings, files):
    (files / "t").write_text(json.dumps({"access_token": jwt(3600)}))
    (files / "s").write_text(json.dumps({"msft:expiry": "2100-01-01T00:00:00Z", "token": "sig=1"}))
    with FileServer(files) as stranger:
        away = lambda name, code: lambda nth, asked: Reply(code, headers={"Location": f"{stranger.url}/{name}"})  # noqa: E731
        with Issuer(away("t", 302)) as server:
            assert logging_in(server).sign(ASF).headers
        with Issuer(away("s", 307)) as server:
            settings(server, "k3y")
            assert PlanetaryComputerSigner().sign(BLOB).url == f"{BLOB}?sig=1"
        names = {name.lower() for exchange in stranger.log for name in exchange.request.headers}
    assert len(stranger.log) == 2
    assert not names & {"authorization", "ocp-apim-subscription-key"}


def test_a_subscription_key_goes_with_the_question(settings):
    with Issuer() as server:
        settings(server, "k3y")
        PlanetaryComputerSigner().sign(BLOB)
    assert server.asked[0].headers["Ocp-Apim-Subscription-Key"] == "k3y"


@pytest.mark.parametrize(
    "href",
    [
        "/data/B04.tif",
        "https://example.test/B04.tif",
        f"https://x.test/{BLOB}",
        f"{BLOB}?st=a&se=b&sp=rl&sig=c",
        "https://sentinel2l2a01.blob.core.windows.net.evil.test/a/b.tif",
        "https://evil.test\\@sentinel2l2a01.blob.core.windows.net/a/b.tif",
        "https://evil.test@sentinel2l2a01.blob.core.windows.net/a/b.tif",
        "http://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/b.tif",
        "http://sentinel2l2a01.blob.core.windows.net:443/sentinel2-l2/b.tif",
        "https://sentinel2l2a01.blob.core.windows.net:8443/sentinel2-l2/b.tif",
        "https://sentinel2l2a01.blob.core.windows.net./sentinel2-l2/b.tif",
        "https://evilblob.core.windows.net/sentinel2-l2/b.tif",
        "https://blob.core.windows.net/sentinel2-l2/b.tif",
        "https://a.sentinel2l2a01.blob.core.windows.net/sentinel2-l2/b.tif",
        "https://.blob.core.windows.net/sentinel2-l2/b.tif",
        "https://sentinel2l2a01.blob.core.windows.net/../b.tif",
        "https://sentinel2l2a01.blob.core.windows.net/a%2fb/b.tif",
        "https://evil.test#.blob.core.windows.net/sentinel2-l2/b.tif",
    ],
)
def test_what_is_not_signed(href):
    signer = PlanetaryComputerSigner()
    assert signer.sign(href).url == href
    assert not signer.renew(href)


def test_a_signature_is_renewed_before_and_after_its_end(settings):
    with Issuer(seconds=59) as server:
        settings(server)
        signer = PlanetaryComputerSigner()
        assert signer.sign(BLOB).url != signer.sign(BLOB).url
    with Issuer(seconds=90) as server:
        settings(server)
        signer = PlanetaryComputerSigner()
        assert signer.sign(BLOB).url == signer.sign(BLOB).url
        assert signer.renew(BLOB)
        assert signer.sign(BLOB).url.endswith("s3cret-2")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(404), SourceRefusedError),
        (Reply(403), CredentialsError),
        (Reply(429), SourceBusyError),
        (Reply(500), SourceUnavailableError),
        (Reply(200, PAGE), SourceUnavailableError),
        (Reply(200, b'{"msft:expiry": "never", "token": "s3cret"}'), SourceUnavailableError),
        (Reply(200, b'["s3cret"]'), SourceUnavailableError),
        (Reply(200, b'{"msft:expiry": "2100-01-01T00:00:00Z", "token": "sig=s3cret\\r\\n"}'), SourceUnavailableError),
        (Reply(200, b'{"msft:expiry": "0001-01-01T00:00:00", "token": "sig=s3cret"}'), SourceUnavailableError),
        (Reply(200, b'{"a": "%s"}' % bytes(1 << 20).replace(b"\0", b" ")), SourceRefusedError),
    ],
    ids=["404", "403", "429", "500", "html", "expiry", "list", "lines", "year 1", "long"],
)
def test_a_token_service_that_fails(settings, reply, error):
    with Issuer(lambda nth, asked: reply) as server:
        settings(server)
        with pytest.raises(error) as caught:
            PlanetaryComputerSigner().sign(BLOB)
    assert not isinstance(caught.value, AbsentError)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)


def test_a_token_service_that_is_not_there(settings):
    with Issuer() as server:
        settings(server)
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        PlanetaryComputerSigner().sign(BLOB)


@pytest.mark.parametrize("kind", ["signature", "login"])
def test_a_run_that_is_over_waits_for_no_token(settings, monkeypatch, kind):
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 1.0)
    with Issuer(lambda nth, asked: Reply(429, headers={"Retry-After": "60"})) as server:
        settings(server)
        signer, href = (PlanetaryComputerSigner(), BLOB) if kind == "signature" else (logging_in(server), ASF)
        client = Client(signer)
        stopping = threading.Timer(0.3, client.stop)
        stopping.start()
        started = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="stopped"):
            get_range(client, href, 0, 10)
        stopping.join()
    assert time.monotonic() - started < 20


# many threads, one token


def test_threads_share_a_failure():
    asked = []

    def ask():
        asked.append(1)
        time.sleep(0.2)
        raise SourceUnavailableError("down")

    token, errors = SharedToken(ask), []
    ready = threading.Barrier(16)

    def use():
        ready.wait()
        try:
            token.get()
        except TesseraError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([type(error) for error in errors], len(asked)) == ([SourceUnavailableError] * 16, 1)
    with pytest.raises(SourceUnavailableError):
        token.get()
    assert len(asked) == 2  # a later question is a new one


def test_a_token_that_many_threads_find_refused_is_renewed_once():
    asked = []
    token = SharedToken(lambda: asked.append(1) or Token(f"t{len(asked)}"))
    had, go = threading.Barrier(16), []

    def use():
        token.get()
        had.wait()
        token.drop()
        go.append(token.get())

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert go == ["t2"] * 16
    assert "t2" not in repr(Token("t2"))


# --- before a run -----------------------------------------------------------------------------------------------------


def radar_at(href):
    item = s1()
    item["assets"] = {pol: {"href": href.replace("VV", pol)} for pol in ("VV", "VH")}
    return Scenes.from_items([s2(), item], AWS)


def test_missing_credentials_are_known_without_a_question():
    for credentials, told in [
        (Credentials(), "no credentials"),
        (Credentials(jwt(-1), origin="X"), "token in X expired"),
        (Credentials(jwt(99)), None),
        (Credentials("opaque"), None),
        (Credentials(user="a", password="b"), None),
    ]:
        client = Client(signer_for(AWS, credentials))
        missing = missing_credentials(radar_at(ASF), client)
        assert len(missing) == (told is not None)
        assert all(told in text for text in missing)
        if told:
            with pytest.raises(CredentialsError, match=f"{told}.*EARTHDATA_TOKEN"):
                check_credentials(radar_at(ASF), client)


def test_local_files_and_optical_scenes_want_none():
    client = Client(signer_for(AWS))
    for scenes in (radar_at("/data/B_VV.tif"), Scenes.from_items([s2()], AWS), radar_at("http://127.0.0.1:9/B_VV.tif")):
        assert missing_credentials(scenes, client) == ()
    check_credentials(radar_at("/data/B_VV.tif"), client)
    check_credentials(Scenes.from_items([s2()], AWS), client)
    check_credentials(Scenes.from_items([], MPC), Client(signer_for(MPC)))
    assert client.stats.to_dict()["requests"] == 0


def test_access_is_tried_on_one_file(files):
    (files / "B_VV.tif").write_bytes(b"II*\0" * 100)
    with FileServer(files) as server:
        client = Client(signer_for(AWS, Credentials("s3cret"), radar_catalog=server.url))
        check_credentials(radar_at(f"{server.url}/B_VV.tif"), client)
    (exchange,) = server.log
    assert (exchange.path, exchange.range, exchange.sent) == ("B_VV.tif", (0, 0), 1)
    assert seen(server) == ["Bearer s3cret"]


@pytest.mark.parametrize(
    ("fault", "refused"), [(status(401), True), (status(403), True), (page, True), (status(404), False)]
)
def test_a_refusal_is_known_before_the_run(files, fault, refused):
    with FileServer(files, faults=always(fault)) as server:
        client = Client(signer_for(AWS, Credentials("s3cret"), radar_catalog=server.url))
        scenes = radar_at(f"{server.url}/B_VV.tif")
        if refused:
            with pytest.raises(CredentialsError) as caught:
                check_credentials(scenes, client)
            assert "s3cret" not in str(caught.value)
        else:
            check_credentials(scenes, client)


def test_a_login_that_fails_before_the_run_says_so_itself(files):
    with Issuer(lambda nth, asked: Reply(401)) as issuer, FileServer(files) as server:
        client = Client(logging_in(issuer, servers=[server.url]))
        with pytest.raises(CredentialsError) as caught:
            check_credentials(radar_at(f"{server.url}/B_VV.tif"), client)
    assert str(caught.value).startswith("Earthdata Login refused the name and password in here")
    assert "Is the account allowed" not in str(caught.value)
    assert not server.log
