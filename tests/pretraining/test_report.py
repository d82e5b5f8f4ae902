"""What people see of a run of `pretrain`: the page, the progress, and what `tessera info` says."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.training import TrainingProgress
from tessera_cli.errors import UsageError
from tessera_cli.inspection.info import describe
from tessera_cli.pretraining.config import DataConfig, PretrainConfig
from tessera_cli.pretraining.config_file import as_json, load_config
from tessera_cli.pretraining.data.array_files import write_pixels
from tessera_cli.pretraining.data.shards import write_header
from tessera_cli.pretraining.report.page import report
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.sampling.ragged import no_pixels

SETTINGS = PretrainConfig.model_validate({"model": {"name": "alps"}, "train": {"steps": 200, "batch": 256}})


def train_row(step: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "loss": 40.0 + 1000 / step,
        "loss_above_floor": 12.3 + 1000 / step,
        "offdiag_rms": 0.14,
        "offdiag_rms_chance": 0.0625,
        "collapsed": False,
        "rank_me": 20.5,
        "lr": 1e-3,
        "gradient_norm": 0.7,
        "pixels_per_second": 812.4,
        "wait_share": 0.012,
        **more,
    }


def eval_row(step: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "eval",
        "step": step,
        "probe_knn": 0.8125,
        "probe_knn_random": 0.5,
        "retrieval": 0.9,
        "retrieval_random": 0.25,
        "drift_5": 0.75,
        "rank_me": 19.0,
        "rank_me_random": 28.0,
        "offdiag_rms": 0.14,
        "best": True,
        **more,
    }


ROWS = [*(train_row(step) for step in range(10, 101, 10)), eval_row(100)]


def page(rows: list[dict[str, Any]], notes: dict[str, str] | None = None) -> ET.Element:
    """Well-formed as XML, too."""
    html = report(rows, as_json(SETTINGS), notes or {})
    doctype, _, rest = html.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ET.fromstring(rest)


def text_of(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def charts(root: ET.Element) -> dict[str, ET.Element]:
    return {figure.findtext("h3") or "": figure for figure in root.iter("figure")}


def tiles(root: ET.Element) -> dict[str | None, tuple[str | None, str | None]]:
    (found,) = (div for div in root.iter("div") if div.get("class") == "tiles")
    return {name.text: (value.text, remark.text) for name, value, remark in found}


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_html_that_closes_what_it_opens_and_loads_nothing() -> None:
    html = report(ROWS, as_json(SETTINGS), {"Model": "small"})
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe", "object")
            assert not {"src", "onload", "onclick"} & {name for name, _ in attributes}
            assert all(str(value).startswith("#") for name, value in attributes if name == "href")
            open_tags.append(tag)

        def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            """Such as <meta/>."""

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(html)
    assert not open_tags
    assert "http" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_headline_says_what_was_learned() -> None:
    found = tiles(page(ROWS))
    assert found["kNN probe"] == ("0.812", "random encoder 0.5")
    assert found["Off-diagonal RMS"] == ("0.14", "chance 0.0625, collapse 0.5")
    assert found["Steps"] == ("100", "of 200")
    assert found["Pixels seen"] == ("25,600", "256 per step")
    assert found["Pixels/s"] == ("812", "1 % waiting for data")


def test_without_labels_retrieval_is_the_headline() -> None:
    found = tiles(page([train_row(10), {"kind": "eval", "step": 10, "retrieval": 0.9}]))
    assert "kNN probe" not in found
    assert found["Retrieval"] == ("0.9", None)


def test_the_table_sets_the_last_evaluation_beside_the_random_encoder() -> None:
    root = page([eval_row(50, probe_knn=0.6), train_row(100), eval_row(100)])
    table = next(table for table in root.iter("table") if table.get("class") == "measures")
    cells = {row[0].text: [cell.text for cell in row[1:4]] for row in table}
    assert cells["kNN probe"] == ["0.812", "0.500", "+0.312"]
    assert cells["RankMe"] == ["19.0", "28.0", "-9.0"]
    assert cells["5 dates"] == ["0.750", "\u2013", "\u2013"]
    assert "Linear probe" not in cells
    assert "Evaluation at step 100 (the best so far)" in text_of(root)


@pytest.mark.parametrize(("last", "told"), [(True, True), (False, False)])
def test_collapse_is_told_of_the_last_row(last: bool, told: bool) -> None:
    root = page([train_row(10, collapsed=not last), train_row(20, collapsed=last), eval_row(20)])
    assert ("Collapsed." in text_of(root)) == told


def test_text_is_escaped() -> None:
    nasty = '<script>alert("x")</script> & ]]>'
    config = {"model": {"name": nasty, nasty: [nasty, None, True]}, nasty: {"key": ""}}
    html = report(ROWS, config, {nasty: nasty})
    root = ET.fromstring(html.partition("\n")[2])
    assert not list(root.iter("script"))
    assert f"Pretraining of {nasty}" == root.findtext("body/h1")
    assert nasty == root.findtext("body/dl/div/dt") == root.findtext("body/dl/div/dd")
    assert f"{nasty}, \u2013, true" in [cell.text for cell in root.iter("td")]


def test_settings_are_shown_under_the_names_that_set_them() -> None:
    sections = {table.findtext("caption"): table for table in page([]).iter("table")}
    shown = {name: {row[0].text: row[1].text for row in table.iter("tr")} for name, table in sections.items()}
    assert set(shown) == set(as_json(SETTINGS))
    assert shown["loss"]["lambda"] == "0.005"
    assert shown["views"]["share"] == "0.3, 0.9"
    assert shown["train"]["compile"] == "false"


def test_without_rows_there_is_a_page_too() -> None:
    root = page([])
    assert not charts(root)
    assert "Nothing has been measured yet" in text_of(root)
    assert tiles(root)["Steps"] == ("0", "of 200")
    assert report([], {}, {}).endswith("</html>\n")


def test_measures_may_be_absent_odd_or_unknown() -> None:
    rows = [
        {"kind": "train", "step": 1},
        {"kind": "train", "step": 2, "loss": math.nan, "lr": "0.1", "rank_me": None},
        {"kind": "train", "step": 3, "gradient_norm": math.inf, "lr": 0.5, "new": {"a": 1}},
        {"kind": "other"},
        {},
        {"kind": "eval", "step": 3, "retrieval": True},
    ]
    root = page(rows)
    assert set(charts(root)) == {"Learning rate"}
    assert "Retrieval" not in tiles(root)


def test_charts_hold_the_curves_that_were_measured() -> None:
    found = charts(page(ROWS))
    assert set(found) == {
        "Loss above its floor",
        "Off-diagonal RMS",
        "Probes",
        "Two views of a pixel",
        "Fewer observations",
        "RankMe of 128 dimensions",
        "Learning rate",
        "Gradient norm",
    }
    legend = text_of(found["Off-diagonal RMS"][1])
    assert "chance, 1/\u221abatch 0.0625" in legend
    assert "collapse 0.5" in legend
    assert "kNN probe, random 0.5" in text_of(found["Probes"][1])
    assert all(figure.findtext("figcaption") for figure in found.values())


def shapes(figure: ET.Element) -> str:
    """The drawing of a figure, without the legend above it."""
    (svg,) = figure.findall("svg")
    return ET.tostring(svg, encoding="unicode")


def test_curves_are_drawn_where_there_are_values_to_draw() -> None:
    few, many = charts(page(ROWS)), charts(page([*ROWS, *(eval_row(step) for step in range(200, 900, 100))]))
    for name, figure in few.items():
        assert "stroke: var(--c1)" in shapes(figure), name
        assert "#2467b0" not in shapes(figure), name  # colours are those of the page, light or dark
    assert shapes(few["Learning rate"]) == shapes(many["Learning rate"])
    assert shapes(few["Probes"]) != shapes(many["Probes"])
    texts = [text.text for text in few["Off-diagonal RMS"].find("svg").iter("text")]  # type: ignore[union-attr]
    assert {"0", "0.2", "0.4", "20", "100", "step"} <= set(texts)


def test_what_is_not_above_0_is_left_out_of_a_logarithmic_chart() -> None:
    rows = [train_row(step, gradient_norm=value) for step, value in enumerate([0.0, -1.0, 5.0], 1)]
    assert "norm 5" in text_of(charts(page(rows))["Gradient norm"])
    flat = [train_row(1, gradient_norm=0.0)]
    assert "Gradient norm" not in charts(page(flat))
    assert "Learning rate" in charts(page(flat))


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (report(ROWS, as_json(SETTINGS), {}) for _ in range(2))
    assert first == second


def test_without_matplotlib_there_are_tables_and_a_line_that_says_how_to_have_curves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    root = page(ROWS)
    assert not charts(root)
    assert 'pip install "tessera-embed[evaluate]"' in text_of(root)
    assert tiles(root)["kNN probe"][0] == "0.812"
    assert any(table.get("class") == "measures" for table in root.iter("table"))
    assert "Nothing has been measured yet" in text_of(page([]))


# --- progress ---------------------------------------------------------------------------------------------------------


class FakeTerminal(Terminal):
    """Neither logging nor the real stderr is touched."""

    def __init__(self, draws: bool, width: int = 120) -> None:
        self.verbosity, self.as_json = 0, False
        self.console = Console(file=io.StringIO(), force_terminal=draws, width=width, color_system=None, soft_wrap=True)

    @property
    def draws(self) -> bool:
        return self.console.is_terminal

    @property
    def shown(self) -> list[str]:
        assert isinstance(self.console.file, io.StringIO)
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.console.file.getvalue()))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="tessera_cli.progress")
    return caplog


def test_without_a_terminal_there_is_a_line_for_each_row(log: pytest.LogCaptureFixture) -> None:
    with TrainingProgress(FakeTerminal(draws=False)) as progress:
        for done in range(1, 4):
            progress.building(done, 3)
        progress.begin(3000, 0)
        for step in range(1, 301):
            progress.step(step)
        progress.row(train_row(300, loss=41.23, loss_above_floor=12.34))
        progress.row(train_row(600, loss=1234.0, loss_above_floor=5.0, collapsed=True, offdiag_rms=0.97))
        progress.row(eval_row(600))
        progress.row({"kind": "news"})
    assert log.messages == [
        "building shards: 3 of 3",
        "step  300/3000  loss   41.2 (  12.3 above floor)  rms 0.140 (chance 0.062)      812 pixels/s  wait  1 %",
        "step  600/3000  loss  1,234 (     5 above floor)  rms 0.970 (chance 0.062)      812 pixels/s  wait  1 %  "
        "COLLAPSED",
        "step  600/3000  kNN 0.812 (random 0.500)  retrieval 0.900 (random 0.250)  best so far",
    ]


def test_rows_may_say_little(log: pytest.LogCaptureFixture) -> None:
    with TrainingProgress(FakeTerminal(draws=False)) as progress:
        progress.begin(10, 5)
        progress.row({"kind": "train", "step": 6, "loss": 3.0})
        progress.row({"kind": "eval", "step": 6, "retrieval": 0.5})
    assert log.messages == ["step  6/10  loss      3", "step  6/10  retrieval 0.500"]


def test_long_silence_is_broken(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tessera_cli.cli.training.time.monotonic", lambda: now[0])
    with TrainingProgress(FakeTerminal(draws=False)) as progress:
        progress.begin(100, 0)
        for step in range(1, 11):
            now[0] += 25
            progress.step(step)
    assert log.messages == ["step   3/100", "step   6/100", "step   9/100"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_there_is_a_bar(log: pytest.LogCaptureFixture, width: int) -> None:
    terminal = FakeTerminal(draws=True, width=width)
    with TrainingProgress(terminal) as progress:
        progress.building(1, 2)
        assert progress.bars is not None
        progress.bars.refresh()
        progress.begin(3000, 0)
        progress.step(300)
        progress.row(train_row(300, loss_above_floor=12.34))
        progress.row(eval_row(300))
        progress.bars.refresh()
    assert progress.bars is None
    assert any(line.startswith("1/2") and "building shards" in line for line in terminal.shown)
    (line,) = {line for line in terminal.shown if "kNN" in line}
    assert line.startswith("300/3000")
    assert "12.3 above floor  rms 0.14  kNN 0.812  812 pixels/s" in line
    assert re.search(r"ETA (--:--|\d\d:\d\d)$", line.rstrip())
    assert len(line.rstrip()) <= width
    assert [message.split()[2] for message in log.messages] == ["kNN"]  # of rows, evaluations alone


def test_a_resumed_run_starts_where_it_stopped() -> None:
    with TrainingProgress(FakeTerminal(draws=True)) as progress:
        progress.begin(100, 40)
        assert progress.bars is not None
        (task,) = progress.bars.tasks
        assert (task.completed, task.total) == (40, 100)


def test_progress_imports_nothing_heavy() -> None:
    code = "import sys, tessera_cli.cli.training; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "rich", "pydantic"} & {name.split(".")[0] for name in done.stdout.split()}


# --- info -------------------------------------------------------------------------------------------------------------


def run_folder(path: Path, rows: list[dict[str, Any]]) -> RunFolder:
    folder = RunFolder(path)
    with folder.at_work():
        folder.claim(SETTINGS)
    for row in rows:
        folder.append(row)
    return folder


def test_info_of_a_run(tmp_path: Path, tessera: Any) -> None:
    folder = run_folder(tmp_path / "alps", [*ROWS, train_row(110)])
    folder.exported(SETTINGS).write_bytes(b"")
    found = json.loads(tessera("info", folder.path, "--json")[1])
    assert found == {
        "run": str(folder.path),
        "model": "alps",
        "family": "v2-student",
        "steps": 200,
        "steps_done": 110,
        "collapsed": False,
        "exported": str(folder.path / "export" / "alps.safetensors"),
        "evaluation": {
            "step": 100,
            "probe_knn": 0.8125,
            "retrieval": 0.9,
            "drift_5": 0.75,
            "rank_me": 19.0,
            "offdiag_rms": 0.14,
        },
        "random_encoder": {"probe_knn": 0.5, "retrieval": 0.25, "rank_me": 28.0},
    }
    assert tessera("info", folder.path, "--model")[1] == "alps\n"
    lines = tessera("info", folder.path)[1].splitlines()
    assert "collapsed   no" in lines
    assert "  probe_knn    0.8125" in lines


def test_info_of_a_run_whose_steps_follow_from_its_pixels(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "few")
    with folder.at_work():
        folder.claim(load_config(preset_name="small-data"))
    assert describe(folder.path)["steps"] is None
    folder.describe(steps=1234)
    assert describe(folder.path)["steps"] == 1234


def test_info_of_a_run_that_has_just_begun_or_collapsed(tmp_path: Path) -> None:
    found = describe(run_folder(tmp_path / "new", []).path)
    assert (found["steps_done"], found["collapsed"], found["exported"], found["evaluation"]) == (0, None, None, {})
    rows = [train_row(10), train_row(20, collapsed=True)]
    assert describe(run_folder(tmp_path / "flat", rows).path)["collapsed"] is True


@pytest.mark.parametrize("config", ["[package]\nname = 'x'\n", "no TOML", "[train]\nsteps = -1\n"])
def test_info_of_another_program_s_config(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.toml").write_text(config)
    with pytest.raises(UsageError, match=r"is no run of `tessera pretrain`: ") as told:
        describe(tmp_path)
    assert "\n" not in str(told.value)


def shards(path: Path) -> Path:
    path.mkdir()
    for name in ("train-00000", "held"):
        write_pixels(path / name, [no_pixels()], pixels=0, observations={"s2": 0, "s1": 0})
    origin = {"tile": "31UFS", "input_digest": "0", "pixels": 9, "preprocessing": "official", "source": "mpc"}
    windows = {"a": "2022", "b": "2021", "c": None, "d": "2022"}
    write_header(
        path,
        {
            "preprocessing": "official",
            "sources": ["mpc"],
            "settings": DataConfig().model_dump(mode="json"),
            "origins": [{**origin, "name": name, "window": window} for name, window in windows.items()],
            "counts": {"trained": 1000, "held_out": 50, "left_out": 7, "observations": {"s2": 70, "s1_asc": 30}},
            "statistics": {},
        },
    )
    return path


def test_info_of_shards(tmp_path: Path, tessera: Any) -> None:
    path = shards(tmp_path / "shards")
    found = json.loads(tessera("info", path, "--json")[1])
    digest, config = found.pop("digest"), found.pop("settings")
    assert found == {
        "content": "pretraining shards",
        "sources": ["mpc"],
        "preprocessing": "official",
        "windows": ["2021", "2022"],
        "tiles": 4,
        "pixels": 1000,
        "held_out": 50,
        "left_out": 7,
        "observations": {"s2": 70, "s1_asc": 30},
        "bytes": sum(file.stat().st_size for file in path.glob("*/*.npy")),
    }
    assert config["min_s2"] == 10
    assert len(digest) == 64
    assert "windows        2021, 2022" in tessera("info", path)[1].splitlines()


def test_info_of_damaged_shards(tmp_path: Path) -> None:
    header = shards(tmp_path / "shards") / "header.json"
    kept = json.loads(header.read_text())
    header.write_text(json.dumps({**kept, "origins": None}))
    with pytest.raises(UsageError, match=r"header\.json is damaged"):
        describe(header.parent)
    header.write_text('{"content": "poems"}')
    with pytest.raises(UsageError, match="another program"):
        describe(header.parent)
