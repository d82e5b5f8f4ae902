"""The page of an evaluation: what it shows is what the report says, whatever the report lacks."""

from __future__ import annotations

import copy
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tessera_cli.evaluation.report.page import compose
from tests.evaluation.example_report import ADAPTERS, SHARES, SKILL, classification, macro_f1, regression, segmentation

VOID = {"meta"}


@pytest.fixture(scope="module")
def made():
    return compose(json.loads(json.dumps(classification())))


def tree(page):
    return ET.fromstring(page.html.partition("\n")[2])


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def rows(root, *head):
    """The rows of the first table whose head begins so, by their text."""
    for table in root.iter("table"):
        lines = [[text_of(cell) for cell in row] for row in table.iter("tr")]
        if lines[0][: len(head)] == list(head):
            return lines
    raise AssertionError(f"no table {head}")


def figures(root):
    return {figure.findtext("h3"): figure for figure in root.iter("figure")}


def test_the_page_stands_for_itself(made):
    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "link", "img", "iframe", "object")
            for name, value in attributes:
                assert name not in ("src", "onload", "onclick")
                assert name != "href" or value.startswith(("#", "data:image/png;base64,"))

    Parser().feed(made.html)
    assert "http" not in made.html
    assert not re.search(r"url\((?!#)", made.html)
    assert "@import" not in made.html
    ids = re.findall(r' id="([^"]*)"', made.html)
    assert len(set(ids)) == len(ids)
    tree(made)  # well-formed as XML, too


def test_what_was_shown_comes_first(made):
    root = tree(made)
    assert [text_of(line) for line in root.find("body/ul[@class='verdicts']")] == classification()["verdicts"]
    kinds = [child.tag for child in root.find("body")]
    assert kinds[:3] == ["h1", "dl", "ul"]
    titles = [text_of(title) for title in root.iter("h2")]
    assert titles == [
        "Macro-F1 against labels",
        "Results",
        "Paired comparisons",
        "What is taken for what",
        "Where",
        "With fewer observations",
        "What was left out",
        "How it was measured",
        "To do it again",
    ]


def test_a_figure_for_each_adapter_and_each_question(made):
    found = figures(tree(made))
    assert list(found)[:5] == [
        *(f"{adapter}: Macro-F1 against labels" for adapter in ("logistic", "knn", "forest", "mlp")),
        "logistic: Macro-F1 against labels per class",
    ]
    said = [text.text for text in found["knn: Macro-F1 against labels"].iter("text")]
    assert {"1 %", "5 %", "10 %", "30 %", "100 %", "Macro-F1, %", "constant", *SKILL} <= set(said)
    assert "Confusion by tessera 2023 (logistic, 100 % of the labels)" in found
    assert "The split" in found
    assert "Where tessera 2023 errs (logistic, 100 % of the labels)" in found
    names = {text.text for text in found["The split"].iter("text")}
    assert {f"fold {n} (240)" for n in range(1, 6)} <= names
    wrong = {text.text for text in found["Where tessera 2023 errs (logistic, 100 % of the labels)"].iter("text")}
    assert {"right (960)", "wrong (240)"} <= wrong


def test_the_table_of_results_holds_every_value_with_its_interval(made):
    found = rows(tree(made), "Features", "Adapter", "1 %")
    cells = {(row[0], row[1]): row[2:] for row in found[1:]}
    assert len(cells) == 4 * 4 + 1
    for features in SKILL:
        for adapter in ADAPTERS[1:]:
            values = [100 * macro_f1(features, adapter, share) for share in SHARES]
            assert cells[features, adapter] == [f"{v:.1f} [{v - 4:.1f}, {v + 4:.1f}]" for v in values]
    assert cells["\u2013", "constant"] == ["10.0 [6.0, 14.0]"] * 5


def test_all_measures_are_there_to_unfold(made):
    found = rows(tree(made), "Features", "Adapter", "Unit")
    assert len(found) - 1 == len(classification()["results"])
    assert found[0][6:] == ["Accuracy, %", "Balanced accuracy, %", "Macro-F1, %", "Chosen"]
    line = next(row for row in found if row[:4] == ["tessera 2023", "logistic", "parcel", "10 %"])
    f1 = 100 * macro_f1("tessera 2023", "logistic", 0.1)
    assert line[4:7] == ["10", "96", f"{f1 + 5:.1f} [{f1 + 1:.1f}, {f1 + 9:.1f}]"]
    assert line[-1] == "C 0.1"


def test_comparisons_have_a_row_per_pair_and_a_column_per_budget(made):
    found = rows(tree(made), "Features", "Against", "1 %")
    assert [row[:2] for row in found[1:]] == [
        ["tessera 2023", "gap-filled series"],
        ["tessera 2023", "seasonal medians"],
        ["tessera 2023", "random encoder"],
        ["gap-filled series", "seasonal medians"],
        ["gap-filled series", "random encoder"],
        ["seasonal medians", "random encoder"],
        *([name, "constant"] for name in SKILL),
    ]
    gap = 100 * 0.15 * (0.55 + 0.1)
    assert found[1][3 + 1] == f"+{gap:.1f} [{gap - 4:.1f}, {gap + 4:.1f}]"
    every = rows(tree(made), "Features", "Against", "Adapter")
    assert len(every) - 1 == len(classification()["comparisons"])
    assert every[1][:4] == ["tessera 2023", "constant", "logistic", "1 %"]
    assert every[1][5:] == ["10 of 10 draws", "better"]


def test_recall_and_precision_of_classes(made):
    found = rows(tree(made), "Class", "Samples")
    assert found[1] == ["maize", "240", "240", "83.3 / 83.3", "83.3 / 83.3"]  # 200 of 240
    assert found[3][0] == "grass_land <b>"


def test_the_random_split_stands_beside_with_its_gap(made):
    found = rows(tree(made), "Features", "Measure", "Split at random")
    assert found[1] == ["tessera 2023", "Macro-F1", "90.0", "82.5", "7.5"]


def test_what_was_not_done_is_said(made):
    told = text_of(tree(made))
    assert "12 parcels that lie outside the embeddings" in told
    assert "50 per class: sugar beet has 31 parcels to learn from" in told


def test_a_warning_of_the_split_stands_above_everything():
    report = regression()
    report["split"]["warning"] = "3 parcels <b> lie on both sides"
    root = tree(compose(report))
    first = root.find("body/p")
    assert first.get("class") == "warning"
    assert "3 parcels <b> lie on both sides" in text_of(first)


def test_robustness_in_figures_and_table(made):
    found = rows(tree(made), "Features", "Observations")
    assert found[1] == ["tessera 2023", "5 dates", "Macro-F1", "60.0", "82.0", "0.800", "240", "12"]
    assert found[-1] == ["tessera 2023", "without radar", "Macro-F1", "70.0", "\u2013", "0.910", "\u2013", "\u2013"]
    assert {"Macro-F1, % with fewer dates", "Cosine with fewer dates"} <= set(figures(tree(made)))


def test_files_are_written_beside(made, tmp_path):
    paths = made.write(tmp_path)
    assert paths[0] == tmp_path / "report.html"
    assert paths[0].read_text() == made.html
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"labels-logistic.png", "confusion-1.png", "split.png", "errors.png"} <= names
    assert len(paths) == 1 + len(names) == 1 + len(figures(tree(made)))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])


def test_the_same_report_gives_the_same_bytes():
    one, other = compose(regression()), compose(copy.deepcopy(regression()))
    assert one.html == other.html
    assert dict(one.pictures) == dict(other.pictures)


def test_a_regression_shows_errors_by_sign_and_size_and_says_what_is_better():
    root = tree(compose(regression()))
    found = figures(root)
    assert "Where embedding errs (ridge, 100 % of the labels)" in found
    assert "How much embedding errs (ridge, 100 % of the labels)" in found
    assert not [title for title in found if "Confusion" in title]
    assert {"tested (100)", "learned from only (300)"} <= {text.text for text in found["The split"].iter("text")}
    assert rows(root, "Features", "Adapter")[1] == ["raw bands", "ridge", "1.25 [1.15, 1.35]", "0.850 [0.750, 0.950]"]
    assert rows(root, "Features", "Against", "Adapter")[1][-1] == "nothing"
    assert "smaller is better" in text_of(root)
    assert "stratified" not in text_of(root)


def test_networks_of_a_segmentation_share_a_figure():
    found = figures(tree(compose(segmentation())))
    said = [text.text for text in found["decoder and unet: Mean IoU against labels"].iter("text")]
    assert {"tessera 2023", "seasonal medians", "constant"} <= set(said)
    assert not [title for title in found if title.startswith(("decoder:", "unet:"))]
    assert "Confusion by tessera 2023 (decoder, 100 % of the labels)" in found


def test_names_of_others_stand_there_as_they_are():
    nasty = '<script>alert("$x$")</script> & _^\\frac'
    report = json.loads(json.dumps(classification()).replace("tessera 2023", json.dumps(nasty)[1:-1]))
    report["verdicts"], report["left_out"], report["notes"] = [nasty], [nasty], [nasty]
    report["classes"][0]["name"] = report["confusion"][nasty]["labels"][0] = nasty
    report["inputs"] = {nasty: [nasty]}
    root = tree(compose(report))
    assert not list(root.iter("script"))
    assert text_of(root.find("body/ul[@class='verdicts']")) == nasty
    assert nasty in [row[0] for row in rows(root, "Features", "Adapter")]
    assert nasty in {text.text for text in root.iter("text")}


def test_a_report_may_lack_almost_everything():
    assert "Nothing was measured." in compose({}).html
    bare = {"task": "classification", "results": classification()["results"][:1], "headline": None}
    assert tree(compose(bare)) is not None
    for lacking in ("split", "places", "budgets", "comparisons", "classes", "features", "headline", "left_out", "seed"):
        report = regression() | {lacking: None, "results": regression()["results"][2:4]}
        tree(compose(report))


def test_values_may_be_absent_or_not_finite():
    report = regression()
    for n, result in enumerate(report["results"]):
        result["metrics"]["rmse"] = (None, math.nan, 0.8)[n % 3]
        result["low"], result["high"] = ({}, {"rmse": None})[n % 2], {}
    report["places"]["error"] = [None] * 400
    report["places"]["lonlat"][3] = [None, None]
    report["comparisons"][0]["low"] = None
    root = tree(compose(report))
    assert "nan" not in text_of(root).lower()
    assert rows(root, "Features", "Adapter")[1:] == [
        ["raw bands", "ridge", "0.800", "0.800"],
        ["embedding", "forest", "0.800", "0.800"],
    ]


def test_votes_of_parcels_have_a_table_of_their_own():
    report = regression()
    most = [each for each in report["results"] if each["labels"] == 1]
    report["results"] += [each | {"unit": "parcel vote", "metrics": {"rmse": 0.5}} for each in most]
    root = tree(compose(report))
    assert "scored by parcel vote" in text_of(root)
    cells = rows(root, "Features", "Adapter", "10 %")
    assert not [cell for row in cells for cell in row if cell.startswith("0.500")]


def test_without_matplotlib_there_are_tables(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = compose(classification())
    assert not made.pictures
    assert 'pip install "tessera-embed[evaluate]"' in text_of(tree(made))
    assert rows(tree(made), "Features", "Adapter")


def test_the_documentation_names_every_key():
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    report = classification() | regression()
    named = set(re.findall(r"`([a-z0-9_.]+)`", text))
    assert set(report) <= named
    for key in ("results", "comparisons", "robustness", "features", "budgets"):
        assert set(classification()[key][0]) <= named, key
    for key in ("split", "places"):
        assert set(report[key]) <= named, key
    assert {"accuracy", "balanced_accuracy", "macro_f1", *report["results"][0]["metrics"]} <= named
