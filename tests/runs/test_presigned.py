"""Hrefs that are signed: they are read, resumed with other signatures, and nothing of these is written or shown."""

import dataclasses
import gzip
import hashlib
import json
from urllib.parse import parse_qs

import pytest

from tessera_cli.catalog import AWS
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.window import Window
from tessera_cli.planning.scene_search import Request
from tests.helpers.servers import FileServer, hurry, status
from tests.runs.test_embed import hashes

FORMS = {
    "S3": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA{0}&X-Amz-Date=1&X-Amz-Signature={0}",
    "CloudFront": "file=7&Policy=p{0}&Signature={0}&Key-Pair-Id=K{0}",
}
OLD, NEW = "hush-old-signature", "hush-new-signature"


class World:
    """A catalogue whose files want one of the signatures in `valid`."""

    def __init__(self, catalog):
        self.catalog, self.options, self.valid = catalog, catalog.options, {NEW}
        self.relative = json.loads(catalog.items.read_text())["features"]
        self.server = FileServer(catalog.folder, faults=self.judge)

    def judge(self, request):
        fields = {name.lower(): values[0] for name, values in parse_qs(request.query).items()}
        given = {value for name, value in fields.items() if name.rpartition("-")[2] in ("signature", "sig")}
        return None if given & self.valid or not request.path.endswith("tif") else status(403)

    def sign(self, text, form="S3"):
        """Write a signature into the hrefs of the catalogue."""
        query = FORMS[form].format(text)

        def href(asset):
            return {**asset, "href": f"{self.server.url}/{asset['href'][2:]}?{query}"}

        signed = [{**i, "assets": {key: href(a) for key, a in i["assets"].items()}} for i in self.relative]
        self.catalog.edit(lambda items: signed)


@pytest.fixture
def world(catalog, monkeypatch):
    hurry(monkeypatch)
    made = World(catalog)
    with made.server:
        yield made


def written(folder):
    data = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return b"".join([*data, *(gzip.decompress(each) for each in data if each[:2] == b"\x1f\x8b")])


def digests(folder):
    return {
        path.name: json.loads(path.read_text())["properties"].get("tessera:input_digest")
        for path in folder.glob("*_2021.json")
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_run_is_resumed_with_other_signatures(world, tessera, tmp_path, form):
    out, direct = tmp_path / "out", tmp_path / "direct"
    world.catalog.edit(lambda items: world.relative)
    assert tessera("embed", *world.options(direct))[0] == 0
    world.sign(OLD, form)
    code, stdout, first = tessera("embed", *world.options(out), "-vv")
    assert (code, hashes(out)) == (77, {})
    assert "expired" in first
    assert "new signatures" in first
    frozen = (out / "scenes.ndjson.gz").read_bytes()
    world.sign(NEW, form)
    code, shown, second = tessera("embed", *world.options(out), "-vv")
    assert code == 0, second
    assert hashes(out) == hashes(direct)
    assert (out / "scenes.ndjson.gz").read_bytes() == frozen
    asked = len(world.server.log)
    assert tessera("embed", *world.options(out))[0] == 0
    assert len(world.server.log) == asked  # what is finished wants no signature
    world.sign(NEW + "x", form)
    world.valid.add(NEW + "x")
    code, more, third = tessera("embed", *world.options(tmp_path / "again"), "-vv")
    assert (code, hashes(tmp_path / "again")) == (0, hashes(direct))
    assert digests(tmp_path / "again") == digests(out)
    everything = written(out) + written(tmp_path / "again") + (stdout + first + shown + second + more + third).encode()
    for secret in (b"hush", b"X-Amz", b"X-Goog", b"Key-Pair", b"sig="):
        assert secret not in everything
    assert (b"?file=7" in everything) == (form == "CloudFront")


def test_refresh_redoes_nothing_because_of_signatures(world, tessera, tmp_path):
    world.sign(NEW)
    assert tessera("embed", *world.options(tmp_path / "out"))[0] == 0
    world.valid.add(OLD)
    world.sign(OLD)
    asked = len(world.server.log)
    code, _, _ = tessera("embed", *world.options(tmp_path / "out"), "--refresh")
    assert (code, len(world.server.log)) == (0, asked)


def test_a_catalogue_whose_own_address_is_signed(world, tessera, tmp_path, caplog):
    """Presigned anew, it is the same catalogue: the run goes on with the frozen scenes."""
    options = world.options(tmp_path / "out")
    world.sign(OLD)
    for text, expected in ((OLD, 77), (NEW, 0)):
        world.sign(text)
        address = f"{world.server.url}/items.json?X-Amz-Date={text}&X-Amz-Signature={text}"
        options[options.index("--catalog") + 1] = address
        code, _, stderr = tessera("embed", *options, "-v")
        assert code == expected, stderr
    assert "frozen" in stderr
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1
    assert b"hush" not in written(tmp_path / "out") + stderr.encode()


def test_a_catalogue_that_is_gone_is_no_obstacle_where_signatures_are_not_needed(world, tessera, tmp_path):
    world.sign(OLD)
    world.valid.clear()
    out = tmp_path / "out"
    assert tessera("embed", *world.options(out))[0] == 77
    world.catalog.items.unlink()
    world.server.faults = lambda request: None  # the files are open now
    code, _, stderr = tessera("embed", *world.options(out))
    assert code == 0, stderr
    assert "no signatures" in stderr


def test_lists_that_earlier_versions_froze_with_signatures(world, tessera, tmp_path):
    """They are used as long as they are valid, and go by the next writing."""
    out = tmp_path / "out"
    world.sign(OLD)
    assert tessera("embed", *world.options(out))[0] == 77
    world.valid.add(OLD)
    path = out / "scenes.ndjson.gz"
    items = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for asset in (asset for each in items for asset in each["assets"].values()):
        del asset["tessera:signed"]
        asset["href"] += "?" + FORMS["S3"].format(OLD)
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, items)).encode()))
    world.catalog.items.unlink()
    code, _, stderr = tessera("embed", *world.options(out))
    assert code == 0, stderr
    assert "hush" not in stderr


def test_the_key_of_a_run_is_that_of_earlier_versions_unless_its_catalogue_was_signed():
    aoi = Aoi.from_bbox(0, 50, 0.1, 50.1)
    request = Request(aoi, (Window.of_year(2021),), AWS, "https://x.test/items.json?file=7", "/data/a?sig=1.json")
    parts = [aoi.digest, ["2021"], "aws", request.catalog, request.radar_catalog, None, None, False]
    assert request.digest == hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    signed = dataclasses.replace(request, catalog="https://x.test/items.json?file=7&sv=1&sig=s3cret")
    assert signed.digest == request.digest
