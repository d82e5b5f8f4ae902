"""Streams that are closed, full, left by their reader or of a poor encoding: a run does its work all the same."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESSERA = f"{sys.executable} -m tessera_cli"
BOTH_TILES = 2


def sh(command, **environment):
    """Run a command line of a shell: exit code, stdout, stderr."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, **environment})
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def embed(catalog, tmp_path):
    """A command line that embeds two tiles, and the rasters that it has written."""
    out = tmp_path / "out"
    command = " ".join([TESSERA, "embed", *catalog.options(out)])
    return command, lambda: len(list(out.glob("*_emb.tif")))


@pytest.mark.parametrize(
    ("where", "why"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
    ids=["closed", "full"],
)
def test_results_that_cannot_be_written(embed, where, why):
    command, rasters = embed
    code, _, stderr = sh(f"{command} {where}")
    assert code == 74
    assert rasters() == BOTH_TILES
    assert stderr.count(f"Standard output cannot be written ({why})") == 1


def test_another_exit_code_goes_before(embed):
    assert sh(f"{TESSERA} verify /nowhere >&-")[0] == 2
    assert sh(f"{TESSERA} --version >/dev/full")[0] == 74


@pytest.mark.parametrize(("option", "reader"), [("", "true"), ("", "head -c 1"), ("--json", "head -1")])
def test_a_reader_that_leaves(embed, option, reader):
    command, rasters = embed
    _, _, stderr = sh(f"({command} {option}; echo code $? >&2) | {reader}")
    assert "code 0" in stderr
    assert "cannot be written" not in stderr
    assert rasters() == BOTH_TILES


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_errors_that_cannot_be_written(streams):
    assert sh(f"{TESSERA} plan --aoi /nowhere.geojson --year 2023 {streams}")[0] == 2
    assert sh(f"{TESSERA} embed --no-such-option {streams}")[0] == 2


def test_progress_that_cannot_be_written(embed):
    command, rasters = embed
    assert sh(f"{command} 2>/dev/full")[0] == 0
    assert rasters() == BOTH_TILES


def test_no_file_takes_the_number_of_a_closed_stream(embed, tmp_path):
    """Else what is printed, or what a library prints, would end up in the files of a run."""
    assert sh(f"{embed[0]} <&- >&- 2>&-")[0] == 74
    assert sh(f"{TESSERA} verify {tmp_path / 'out'}")[:2] == (0, "2 sound\n")


def test_a_name_that_the_encoding_lacks(catalog, tmp_path):
    out = tmp_path / "\u8349\u539f \U0001f600"
    options = " ".join(catalog.options(Path("OUT"))).replace("OUT", f"'{out}'")
    code, stdout, _ = sh(f"{TESSERA} embed {options}", PYTHONIOENCODING="ascii")
    assert code == 0
    assert r"\u8349\u539f \U0001f600" in stdout
    assert len(list(out.glob("*_emb.tif"))) == BOTH_TILES
    code, stdout, _ = sh(f"{TESSERA} embed {options} --json", PYTHONIOENCODING="latin-1")
    assert code == 0
    assert {Path(json.loads(line)["path"]).parent for line in stdout.splitlines()[:-1]} == {out}


def test_a_name_that_is_no_text(catalog, tmp_path):
    """File names are bytes, and this one is not UTF-8; the default folder is named after it."""
    aoi = os.fsencode(tmp_path / os.fsdecode(b"f\xff.geojson"))
    shutil.copy(catalog.aoi, aoi)
    options = [*catalog.options(tmp_path / "out"), "--json"]
    options[1] = aoi
    del options[options.index("--out") : options.index("--out") + 2]
    done = subprocess.run([*TESSERA.split(), "embed", *options], capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["status"] for line in done.stdout.splitlines()[:-1]} == {"done"}
    assert len(list(tmp_path.glob("*_null/*_emb.tif"))) == BOTH_TILES


def test_results_go_where_they_belong_while_a_bar_is_drawn(embed, tmp_path):
    parent, child = pty.openpty()
    with (tmp_path / "results").open("w") as results:
        run = subprocess.Popen(
            embed[0].split(), stdout=results, stderr=child, env={**os.environ, "TERM": "xterm-256color"}
        )
    os.close(child)
    while True:
        try:
            os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
    assert run.wait() == 0
    assert [Path(line).suffix for line in (tmp_path / "results").read_text().splitlines()] == [".tif", ".tif", ".vrt"]
