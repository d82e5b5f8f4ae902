"""--allow-outside and --allow-private-hosts, from the command line to what is opened."""

import json
import socket

import pytest

from tests.helpers.servers import FileServer


@pytest.fixture
def elsewhere(catalog, tmp_path):
    """A list of items beside the folder in which its files lie."""
    items = json.loads(catalog.items.read_text())
    for each in items["features"]:
        for asset in each["assets"].values():
            asset["href"] = "../catalog/" + asset["href"].removeprefix("./")
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "items.json"
    path.write_text(json.dumps(items))
    return path


@pytest.mark.parametrize("verb", ["plan", "embed", "fetch"])
def test_files_outside_take_one_option(catalog, elsewhere, tessera, tmp_path, verb):
    out = tmp_path / "out"
    where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", elsewhere, "--model", "demo", "--out", out]
    code, stdout, stderr = tessera(verb, *where)
    assert (code, stdout) == (2, "")
    (line,) = [line for line in stderr.splitlines() if "error" in line]
    assert f"outside its own folder, such as {catalog.folder}/cogs/" in line
    assert "--allow-outside" in line
    assert not out.exists()
    assert tessera("plan", *where, "--allow-outside")[0] == 0
    code, _, stderr = tessera(verb, *where)  # the list is frozen, and checked again: the same command goes on
    assert code == 2
    assert "--allow-outside" in stderr
    assert tessera("plan", *where, "--allow-outside")[0] == 0


def test_a_frozen_list_of_somebody_else_names_nothing_here(catalog, tessera, tmp_path):
    """Nor inside: the folder of a run may come from anywhere."""
    import gzip

    out = tmp_path / "out"
    with FileServer(catalog.folder) as server:
        where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", f"{server.url}/items.json", "--model", "null"]
        assert tessera("plan", *where, "--out", out)[0] == 0
        listed = [json.loads(line) for line in gzip.decompress((out / "scenes.ndjson.gz").read_bytes()).splitlines()]
        swaps = {"B02": "/etc/hostname", "B03": "http://169.254.169.254/x.tif", "B04": "file:///etc/hostname"}
        for each in listed:
            for key, href in swaps.items():
                if key in each["assets"]:
                    each["assets"][key]["href"] = href
        lines = "".join(json.dumps(each) + "\n" for each in listed)
        (out / "scenes.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
        code, _, stderr = tessera("embed", *where, "--out", out, "--threads", "1")
    assert code == 4, stderr
    assert "(file:///etc/hostname) is refused: a document from the web may name web addresses only" in stderr
    assert not list(out.glob("utm*"))


def elsewhere_on(catalog, folder, server):
    """A list of the same items, whose files lie on another server."""
    items = json.loads(catalog.items.read_text())
    for each in items["features"]:
        for asset in each["assets"].values():
            asset["href"] = f"{server}/{asset['href'].removeprefix('./')}"
    folder.mkdir()
    (folder / "items.json").write_text(json.dumps(items))
    return folder


def test_a_catalogue_whose_files_all_lie_inside_takes_one_option(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    with FileServer(elsewhere_on(catalog, tmp_path / "list", "http://10.255.255.1:8000")) as server:
        where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", f"{server.url}/items.json", "--model", "null"]
        for verb in ("plan", "embed"):
            code, _, stderr = tessera(verb, *where, "--out", out)
            assert code == 2
            assert "such as http://10.255.255.1:8000/cogs/" in stderr
            assert "it leads into a private network. If you trust it, let it with --allow-private-hosts" in stderr
            assert not out.exists()
        assert tessera("plan", *where, "--allow-private-hosts", "--out", out)[0] == 0


@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_files_whose_names_lead_inside(catalog, tessera, tmp_path, monkeypatch, verb):
    """Which is found out when they are read, as on the next run, whose scenes are frozen."""
    real = socket.getaddrinfo

    def look_up(host, *more, **other):
        return real("10.255.255.1" if host == "data.test" else host, *more, **other)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with FileServer(elsewhere_on(catalog, tmp_path / "list", "http://data.test")) as server:
        where = ["--aoi", catalog.aoi, "--year", "2021", "--catalog", f"{server.url}/items.json", "--model", "null"]
        for _ in range(2):
            code, _, stderr = tessera(verb, *where, "--out", tmp_path / "out")
            assert code == 69, stderr
            assert "leads into a private network; --allow-private-hosts" in stderr.splitlines()[-1]
