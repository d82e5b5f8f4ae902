"""The command line as shells see it: streams, JSON, exit codes, signals, the examples."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio
import shapely
import typer

from tessera_cli.cli.app import app
from tessera_cli.cli.signals import Stopped
from tests.helpers.vectors import write_layer

ROOT = Path(__file__).parents[2]
TESSERA = [sys.executable, "-m", "tessera_cli"]


def shell(*arguments, **options):
    return subprocess.run([*TESSERA, *map(str, arguments)], capture_output=True, text=True, **options)


def verbs(command, path=()):
    """`embed`, ..., `weights`, `weights list`, ... of the command and its groups."""
    for name, verb in getattr(command, "commands", {}).items():
        yield " ".join([*path, name])
        yield from verbs(verb, (*path, name))


@pytest.mark.parametrize("verb", [*verbs(typer.main.get_command(app))])
def test_every_verb_has_help_with_examples(tessera, verb):
    code, stdout, _ = tessera(*verb.split(), "--help")
    assert code == 0
    examples = " ".join(stdout.partition("Examples:")[2].split())
    assert examples.count(f"tessera {verb}") >= 3


@pytest.mark.parametrize(
    ("name", "wrong"), [("format", "GEOTIFF"), ("dtype", "x"), ("precision", "x"), ("compress", "x")]
)
def test_a_wrong_choice_is_one_line_that_names_the_right_ones(tessera, name, wrong):
    code, stdout, stderr = tessera("embed", f"--{name}", wrong)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert f"'--{name}'" in stderr
    assert f"'{wrong}' is not one of '" in stderr


def test_a_missing_choice_is_told_in_plain_words(tessera):
    code, stdout, stderr = tessera("export", "folder", "-o", "out")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert "'--to'" in stderr
    assert "cog, zarr, npy" in stderr
    assert "\\" not in stderr


def test_a_command_in_this_process_leaves_its_signals_alone(tessera):
    before = signal.getsignal(signal.SIGTERM)
    tessera("--version")
    assert signal.getsignal(signal.SIGTERM) is before


def test_help_without_arguments_and_version(tessera):
    assert "embed" in tessera("--help")[1]
    assert tessera("--version")[1].startswith("tessera 0.")


def test_results_on_stdout_everything_else_on_stderr(catalog, tmp_path):
    done = shell("embed", *catalog.options(tmp_path / "out"))
    assert done.returncode == 0
    assert [Path(line).suffix for line in done.stdout.splitlines()] == [".tif", ".tif", ".vrt"]
    assert all(Path(line).exists() for line in done.stdout.splitlines())
    assert "2 tiles to do" in done.stderr
    assert "\x1b" not in done.stderr  # no colours, no bar: not a terminal
    assert "━" not in done.stderr


def test_quiet_says_warnings_only(catalog, tmp_path):
    done = shell("embed", *catalog.options(tmp_path / "out"), "-q")
    assert all("warning" in line for line in done.stderr.splitlines())


def test_json_lines(catalog, tmp_path):
    done = shell("embed", *catalog.options(tmp_path / "out"), "--json")
    tiles, summary = (lines := [json.loads(line) for line in done.stdout.splitlines()])[:-1], lines[-1]
    assert [set(tile) for tile in tiles] == [
        {"type", "schema", "tile", "window", "status", "path", "pixels", "tokens", "seconds", "bytes"}
    ] * 2
    assert summary["type"] == "summary"
    assert summary["pixels"] == sum(tile["pixels"] for tile in tiles) > 0


def test_a_bar_on_a_terminal(catalog, tmp_path):
    parent, child = pty.openpty()
    done = subprocess.Popen(
        [*TESSERA, "embed", *catalog.options(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=child,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(child)
    seen = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        seen += chunk
    assert done.wait() == 0
    assert "━".encode() in seen
    assert b"tile " in seen
    assert b"ETA" in seen


@pytest.mark.parametrize("form", ["argument", "option"])
def test_an_area_from_standard_input(catalog, tmp_path, form):
    options = catalog.options(tmp_path / "out")
    del options[:2]
    where = ["-"] if form == "argument" else ["--aoi", "-"]
    done = shell("embed", *where, *options, input=catalog.aoi.read_text())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_standard_input_in_other_encodings(catalog, tessera, monkeypatch, encoding):
    data = catalog.aoi.read_text().encode(encoding)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "ascii"))  # as of LC_ALL=C
    code, stdout, stderr = tessera("plan", "-", "--year", "2021", "--catalog", catalog.items, "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["tiles"] == 2


def test_a_layer_of_a_file(catalog, tessera, tmp_path):
    geometry = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    west, _, east, north = geometry.bounds
    halves = [shapely.box(west, geometry.bounds[1], (west + east) / 2, north)]
    halves.append(shapely.box((west + east) / 2, geometry.bounds[1], east, north))
    path = write_layer(write_layer(tmp_path / "x.gpkg", "west", halves[:1]), "east", halves[1:])

    def pixels(*words):
        code, stdout, stderr = tessera("plan", "--year", "2021", "--catalog", catalog.items, "--json", *words)
        assert code == 0, stderr
        return json.loads(stdout)["pixels"]

    whole, parts = pixels("--aoi", path), [pixels("--aoi", path, "--layer", name) for name in ("west", "east")]
    assert sum(parts) == whole
    assert min(parts) > 0


def test_the_text_of_a_plan_begins_with_place_and_zones(catalog, tessera):
    code, stdout, _ = tessera("plan", catalog.aoi, "--year", "2021", "--catalog", catalog.items)
    assert code == 0
    assert "1 area around 1.5463 W 52.3397 N, 0.113 km2" in stdout
    assert "EPSG:32630   1 area, 2 tiles, 1,1" in stdout


@pytest.mark.parametrize("form", ["four", "commas", "equals"])
def test_boxes(catalog, tessera, form):
    west, south, east, north = -1.561, 52.320, -1.559, 52.322
    words = {
        "four": ["--bbox", west, south, east, north],
        "commas": ["--bbox", f"{west},{south},{east},{north}"],
        "equals": [f"--bbox={west},{south},{east},{north}"],
    }[form]
    code, _stdout, stderr = tessera("plan", *words, "--year", "2021", "--catalog", catalog.items, "--json")
    assert code in (0, 3), stderr
    assert "scene" in stderr


def test_options_from_the_environment(catalog, tessera, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = list(catalog.options(out))
    del options[options.index("--model") : options.index("--model") + 2]
    monkeypatch.setenv("TESSERA_MODEL", "null")
    monkeypatch.setenv("TESSERA_MIN_S2", "2")
    assert tessera("embed", *options)[0] == 0
    assert json.loads((out / "run.json").read_text())["identity"]["min_s2"] == 2


def test_default_output_folder(catalog, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = catalog.options(tmp_path)
    del options[options.index("--out") : options.index("--out") + 2]
    assert tessera("embed", *options)[0] == 0
    assert (tmp_path / "aoi_2021_null" / "run.json").exists()


def test_info_bare_values(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    raster = next(out.glob("*_emb.tif"))
    assert tessera("info", "--crs", raster)[1] == "EPSG:32630\n"
    assert tessera("info", "--model", out)[1] == "null\n"
    west, south, east, north = map(float, tessera("info", "--bounds", raster)[1].split())
    assert (east - west, north - south) == (5120, 5120)
    described = json.loads(tessera("info", "--json", out)[1])
    assert described["tiles"] == {"done": 2}
    assert described["windows"] == ["2021"]
    assert "done" in tessera("info", out)[1]


def test_the_demo_model_says_what_it_is(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    options = ["demo" if o == "null" else o for o in catalog.options(out)]
    code, _, stderr = tessera("embed", *options)
    assert code == 0
    assert "demonstration only" in stderr
    raster = next(out.glob("*_emb.tif"))
    for path in (out, raster, next(out.glob("*_2021.json"))):
        assert "for demonstration only" in tessera("info", path)[1]
    with rasterio.open(raster) as src:
        assert src.tags()["TESSERA_NOTE"] == "for demonstration only"


@pytest.mark.parametrize(
    ("verb", "number", "code"),
    [
        ("embed", signal.SIGINT, 130),
        ("embed", signal.SIGTERM, 143),
        ("fetch", signal.SIGTERM, 143),
        ("fetch", signal.SIGUSR1, 75),
    ],
)
def test_signals_stop_cleanly(catalog, tmp_path, verb, number, code):
    out = tmp_path / "out"
    arguments = [*TESSERA, verb, *catalog.options(out)]
    if verb == "fetch":
        arguments = [word for word in arguments if word not in ("--threads", "1")]
    job = f"tessera_cli.runs.{verb} import {verb.title()}Job as job"
    # only the main thread sleeps, in the middle of the run
    patch = (
        f"import signal, time; from {job}; f = job.process; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # background jobs inherit that it is ignored
        "job.process = lambda *a: (print('BEGUN', flush=True), time.sleep(60), f(*a))[2]; "
        "from tessera_cli.cli.app import main; main()"
    )
    command = [sys.executable, "-c", patch, *arguments[3:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "BEGUN\n"
        time.sleep(0.2)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == code
    assert "run the same command" in stderr
    assert ("of the tile in hand too" in stderr) == (verb == "embed")
    assert "Traceback" not in stderr
    assert not list(out.glob("*.part"))
    assert shell(*arguments[3:]).returncode == 0


def test_a_closed_pipe_ends_quietly(catalog, tmp_path):
    command = " ".join([*TESSERA, "embed", *catalog.options(tmp_path / "out"), "--json"])
    done = subprocess.run(f"{command} | head -c 1", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_pipeline_example(catalog, tmp_path):
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "tessera").write_text(f'#!/bin/sh\nexec {sys.executable} -m tessera_cli "$@"\n')
    (bin_folder / "tessera").chmod(0o755)
    options = ["--catalog", str(catalog.items), "--model", "null"]
    done = subprocess.run(
        [ROOT / "examples" / "pipeline.sh", catalog.aoi, "2021", tmp_path / "out", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done\tutm30n") == 2
    assert "finished" in done.stdout


def test_the_reading_example(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    tessera("embed", *catalog.options(out))
    script = ROOT / "examples" / "read_embedding.py"
    done = subprocess.run([sys.executable, script, next(out.glob("*_emb.tif"))], capture_output=True, text=True)
    assert done.stdout.startswith("(128, 512, 512) ")
    assert len([line for line in script.read_text().splitlines() if line and not line.startswith('"""')]) <= 6


def test_the_example_area_is_valid():
    from tessera_cli.extent.aoi import Aoi
    from tessera_cli.extent.tiling import tile_requests
    from tessera_cli.extent.window import Window

    requests = tile_requests(Aoi.from_file(ROOT / "examples" / "field.geojson"), [Window.of_year(2023)])
    assert 10_000 < sum(request.count for request in requests) < 30_000


# --- errors as objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "kind", "told"),
    [
        (["embed", "--aoi", "/none.geojson", "--year", "2021"], 2, "UsageError", "no such file"),
        (["plan"], 2, "UsageError", "A time is needed"),
        (["embed", "--nothing"], 2, "UsageError", "No such option"),
        (["embed", "--format", "x"], 2, "UsageError", "is not one of"),
        (["nothing"], 2, "UsageError", "No such command"),
        (["info"], 2, "UsageError", "Missing argument"),
        (["info", "/none"], 2, "UsageError", "no such file"),
        (["verify", "/none"], 2, "UsageError", "no such file"),
        (["weights", "pull", "v9"], 2, "UsageError", "no such model"),
        (["bench", "encode", "--dpixels", "x", "--clouds"], 2, "UsageError", "--clouds"),
        (["pretrain"], 2, "UsageError", "d-pixels"),
        (["fetch", "--bbox", "5,51,4,52", "--year", "2021"], 2, "UsageError", "west"),
    ],
)
def test_an_error_is_one_object_with_json(tessera, words, code, kind, told):
    found, stdout, stderr = tessera(*words, "--json")
    (line,) = stdout.splitlines()
    error = json.loads(line).pop("error")
    assert json.loads(line) == {"type": "error", "schema": 1, "error": error}
    assert (found, error["exit_code"], error["kind"]) == (code, code, kind)
    assert told in error["message"]
    assert stderr == f"tessera: error: {error['message']}\n"
    assert tessera(*words)[1] == ""


def test_nothing_to_embed_and_another_folder_are_objects_too(catalog, tessera, tmp_path):
    options = catalog.options(tmp_path / "out")
    assert tessera("embed", *options)[0] == 0
    for words, code, kind in ((["--dims", "64"], 5, "IdentityError"), (["--year", "2019"], 3, "NothingToEmbedError")):
        found, stdout, _ = tessera("embed", *options, *words, "--json")
        assert found == code
        assert json.loads(stdout)["error"]["kind"] == kind


@pytest.mark.parametrize("verb", ["embed", "verify"])
def test_a_result_that_was_printed_holds_the_error_itself(catalog, tessera, tmp_path, verb):
    """The last line of all, and no other object beside it."""
    out = tmp_path / "out"
    next((catalog.folder / "cogs").rglob("*B02*")).unlink()
    options = catalog.options(out)
    code, stdout, stderr = tessera("embed", *options, "--json")
    if verb == "verify":
        code, stdout, stderr = tessera("verify", out, "--json")
    *tiles, last = map(json.loads, stdout.splitlines())
    assert code == 4
    assert [tile["type"] for tile in tiles] == ["tile"] * (2 if verb == "embed" else 0)
    assert last["error"]["exit_code"] == 4
    assert last["error"]["kind"] == "PartialFailureError"
    assert stderr.endswith(f"tessera: error: {last['error']['message']}\n")


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (Stopped(signal.SIGTERM), 143, "Stopped"),
        (Stopped(signal.SIGUSR1), 75, "Stopped"),
        (ZeroDivisionError("x"), 1, "ZeroDivisionError"),
    ],
)
def test_an_interruption_is_an_object_too(tessera, monkeypatch, error, code, kind):
    def interrupted(**given):
        raise error

    monkeypatch.setattr("tessera_cli.api.reading.info", interrupted)
    found, stdout, _ = tessera("info", "x", "--json")
    assert found == code
    told = json.loads(stdout)["error"]
    assert (told["exit_code"], told["kind"]) == (code, kind)


def test_a_training_that_was_stopped_is_an_object_too(capsys):
    from tessera_cli.cli.pretrain import _stop
    from tessera_cli.cli.terminal import Terminal
    from tessera_cli.pretraining.run import Trained

    with pytest.raises(typer.Exit) as stopped:
        _stop(Terminal(0, True), Trained(False, 7, Path("x"), ()), signal.SIGUSR1)
    told = json.loads(capsys.readouterr().out)["error"]
    assert stopped.value.exit_code == told["exit_code"] == 75
    assert "after step 7" in told["message"]


def test_no_error_is_no_key(catalog, tessera, tmp_path):
    _, stdout, _ = tessera("embed", *catalog.options(tmp_path / "out"), "--json")
    assert "error" not in json.loads(stdout.splitlines()[-1])


# --- what to do next --------------------------------------------------------------------------------------------------


def steps(stderr):
    return [line.partition("next: ")[2] for line in stderr.splitlines() if "next: " in line]


def test_a_run_ends_with_the_next_step(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    options = catalog.options(out)
    code, stdout, stderr = tessera("embed", *options)
    assert code == 0
    assert steps(stderr) == [f"open {out / 'utm30n_2021.vrt'} in QGIS, or look at them with tessera preview {out}"]
    assert "next: " not in stdout
    assert steps(tessera("embed", *options, "-q")[2]) == []
    fetched = catalog.options(tmp_path / "stores")
    code, stdout, stderr = tessera("fetch", *fetched[: fetched.index("--threads")])
    (step,) = steps(stderr)
    assert step.startswith(stdout.splitlines()[-1])
    (step,) = steps(tessera("simulate", tmp_path / "c", "--size", "16")[2])
    assert step.startswith("tessera embed --aoi ")
    assert f"--catalog {tmp_path / 'c' / 'items.json'}" in step


def test_a_run_that_fails_names_no_next_step(catalog, tessera, tmp_path):
    next((catalog.folder / "cogs").rglob("*B02*")).unlink()
    assert steps(tessera("embed", *catalog.options(tmp_path / "out"))[2]) == []


def test_the_demo_ends_with_where_the_command_lies(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tessera").write_text("#!/bin/sh\n")
    (tools / "tessera").chmod(0o755)
    command = ["make", "--silent", "--old-file=.venv/installed", "demo", f"BIN={tools}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tools}/tessera" in done.stdout
    assert f"source {tools}/activate" in done.stdout
    assert (ROOT / "examples" / "field.geojson").exists()
    assert f"{tools}/tessera embed --aoi examples/field.geojson --year 2023" in done.stdout
