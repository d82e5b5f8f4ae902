"""Text of others on the terminal: ids, hrefs, names, cards and messages do nothing there but stand on their line."""

import json
import logging
import unicodedata
import warnings

import pytest

from tessera_cli.cli.terminal import Terminal
from tessera_cli.errors import LONGEST, printable, printable_json

HOSTILE = "\x1b]0;title\x07\x1b[2J\r\n12:00:00 tessera: done\n\x9b31m\x7f\u202egnp\u2066\u2028\u061c[bold]../../x\x00"
ALLOWED = "\n"


def unsafe(text):
    """The characters that steer a terminal, or turn or break lines, by the Unicode database and by name."""
    steering = {"Cc", "Zl", "Zp", "Cs"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        c
        for c in text
        if c != ALLOWED and (unicodedata.category(c) in steering or unicodedata.bidirectional(c) in turning)
    ]


def test_every_character_that_steers_is_escaped():
    every = "".join(map(chr, range(0x110000)))
    shown = printable(every, longest=None)
    assert not unsafe(shown)
    assert "\n" not in shown
    assert printable("Füße 北京 مزرعه 🌾 a\u200db") == "Füße 北京 مزرعه 🌾 a\u200db"
    assert printable("a\x1b[2Jb\n\x9b\u202e") == r"a\x1b[2Jb\n\x9b\u202e"
    assert printable_json(json.dumps("ü \x9b\U000e0041", ensure_ascii=False)) == r'"ü \u009b\udb40\udc41"'


def test_json_means_the_same_when_it_is_printable():
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    shown = printable_json(json.dumps({every: every}, ensure_ascii=False))
    assert not unsafe(shown)
    assert json.loads(shown) == {every: every}


def test_long_text_is_cut_but_results_are_not(capsys):
    assert len(printable("x" * 10**7)) < LONGEST + 50
    Terminal().result("x" * 10_000)
    assert capsys.readouterr().out == "x" * 10_000 + "\n"


@pytest.fixture
def hostile(catalog):
    """The small catalogue with the text in every field that may hold it, and more items that are of no use."""

    def poison(items):
        for each in items:
            each["id"] += HOSTILE
            each["properties"] |= {"title": HOSTILE, "s2:processing_baseline": HOSTILE, HOSTILE: HOSTILE}
            each["links"] = [{"rel": "self", "href": HOSTILE, "title": HOSTILE}, {"rel": HOSTILE, "href": HOSTILE}]
            for asset in each["assets"].values():
                asset |= {"title": HOSTILE, "type": HOSTILE, "roles": [HOSTILE]}
            each["assets"][HOSTILE] = {"href": HOSTILE}
        odd = [{**items[0], "id": f"odd{n}{HOSTILE}"} for n in range(3)]
        odd[0]["collection"] = HOSTILE
        odd[1]["properties"] = {**odd[1]["properties"], "datetime": HOSTILE}
        radar = next(each for each in items if each["collection"] == "sentinel-1-rtc")
        odd[2] = {**radar, "id": HOSTILE, "assets": {HOSTILE: {"href": HOSTILE}}}
        broken = next(each for each in items if "B04" in each["assets"])
        broken["assets"]["B04"]["href"] = f"./{HOSTILE}"
        return [*items, *odd]

    catalog.edit(poison)
    return catalog


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("verb", ["plan", "embed"])
def test_a_hostile_catalogue(hostile, tessera, tmp_path, verb, json_too):
    options = hostile.options(tmp_path / "out")
    options = options if verb == "embed" else [option for option in options if option != "--threads"][:-1]
    code, stdout, stderr = tessera(verb, *options, "-vv", *(["--json"] if json_too else []))
    assert code == (0 if verb == "plan" else 4), stderr
    assert r"\x1b]0;title\x07" in stderr
    assert not unsafe(stdout + stderr)
    assert all(" tessera: " in line or line.startswith("tessera: ") for line in stderr.splitlines()), stderr
    if json_too:
        assert all(isinstance(json.loads(line), dict) for line in stdout.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--catalog", "here/items.json", "--bbox", "5", "51", "5.01", "51.01", "--year", "2021"),
        ("plan", "--catalog", HOSTILE, "--bbox", "5", "51", "5.01", "51.01", "--year", "2021"),
        ("plan", "--source", HOSTILE, "--bbox", "5", "51", "5.01", "51.01", "--year", "2021"),
        ("plan", "--aoi", "areas.geojson", "--year", "2021"),
        ("plan", "--aoi", "areas.kml", "--year", "2021"),
        ("info", "folder"),
        ("info", HOSTILE.replace("\0", "")),
        ("embed", "--dpixels", HOSTILE.replace("\0", "")),
        ("pretrain", "--config", "settings.toml"),
        (HOSTILE,),
    ],
)
def test_hostile_names_in_errors(tessera, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for folder in ("here", "folder", "folder/runs"):
        (tmp_path / folder).mkdir()
    root = {"type": "Catalog", "id": HOSTILE, "links": [{"rel": "child", "href": f"http://x\\{HOSTILE}"}]}
    (tmp_path / "here" / "items.json").write_text(json.dumps(root))
    (tmp_path / "areas.geojson").write_text(json.dumps({"type": HOSTILE, "name": HOSTILE}))
    (tmp_path / "areas.kml").write_text(f"<kml><{HOSTILE}></kml>")
    (tmp_path / "folder" / "runs" / "x.json").write_text(json.dumps({"aoi": HOSTILE, "source": HOSTILE}))
    (tmp_path / "settings.toml").write_text(f"[{json.dumps(HOSTILE)}]\nx = 1\n", encoding="utf-8")
    code, stdout, stderr = tessera(*arguments)
    assert code not in (1, 4), stderr
    assert not unsafe(stdout + stderr)
    assert len(stderr.splitlines()) <= 2, stderr


def test_names_with_colons_stay_what_they_are(capsys):
    Terminal()
    logging.getLogger("tessera_cli").warning("urn:key:1 [bold]:warning:")
    assert "urn:key:1 [bold]:warning:" in capsys.readouterr().err


def test_tracebacks_of_debug_and_of_logs_are_harmless(tessera, capsys):
    code, stdout, stderr = tessera(
        "plan", "--catalog", HOSTILE, "--bbox", "5", "51", "5.1", "51.1", "--year", "2021", "--debug"
    )
    assert (code, stdout) == (2, "")
    assert "Traceback" in stderr
    assert not unsafe(stderr)
    Terminal()
    warnings.showwarning(UserWarning(HOSTILE), UserWarning, "x.py", 7)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("tessera_cli").exception("%s", HOSTILE)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert r"warning: UserWarning: \x1b]0;title" in shown
    assert not unsafe(shown)


@pytest.mark.parametrize("field", ["name", "note", "license", "family", "dims", HOSTILE])
def test_a_hostile_card(tessera, tmp_path, catalog, field):
    from tessera_cli.models.checkpoint import save_safetensors
    from tests.models.test_load import random_encoder

    file = tmp_path / "model.safetensors"
    save_safetensors(file, random_encoder(), {"name": "x", field: HOSTILE})
    for arguments in (["info", file], ["plan", *catalog.options(tmp_path / "out")[:6], "--model", file]):
        code, stdout, stderr = tessera(*arguments)
        assert code in (0, 2), stderr
        assert not unsafe(stdout + stderr)
    assert {path.name for path in tmp_path.iterdir()} <= {"catalog", "model.safetensors"}
