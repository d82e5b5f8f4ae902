"""What `tessera evaluate` prints of a report."""

import pytest

from tessera_cli.cli.evaluation_table import print_evaluation
from tessera_cli.cli.terminal import Terminal
from tests.evaluation.example_report import SHARES, classification, macro_f1, regression, segmentation


class Quiet(Terminal):
    """Neither logging nor the real stderr is touched."""

    def __init__(self):
        self.verbosity, self.as_json = 0, False


@pytest.fixture
def printed(capsys):
    def run(report):
        print_evaluation(report, Quiet())
        return capsys.readouterr().out.splitlines()

    return run


def test_what_was_shown_comes_first_and_then_a_row_per_features(printed):
    report = classification()
    lines = printed(report)
    assert lines[:2] == report["verdicts"]
    values = [100 * macro_f1("tessera 2023", "logistic", share) for share in SHARES]
    due = " ".join(f"{v:.1f} [{v - 4:.1f}, {v + 4:.1f}]" for v in values)
    found = [" ".join(line.split()) for line in lines]
    assert f"tessera 2023 {due}" in found
    others = " ".join(f"knn {v - 2:.1f}" for v in values)
    assert f"best other adapter {others}" in found
    assert "constant " + " ".join(["10.0 [6.0, 14.0]"] * 5) in found
    assert "features 1 per class 5 per class 10 per class" in found


def test_split_gap_and_what_was_not_possible_come_last(printed):
    assert printed(classification())[-3:] == [
        "split: blocked, 5 folds, blocks of 800 m, 1,200 samples, scored by parcel",
        "split at random: tessera 2023 90.0 in place of 82.5 (Macro-F1, %)",
        "not possible: 50 per class: sugar beet has 31 parcels to learn from",
    ]


def test_of_errors_the_smaller_is_the_better(printed):
    report = regression()
    report["results"].append(report["results"][-1] | {"adapter": "mlp", "metrics": {"rmse": 2.0}})
    text = "\n".join(printed(report))
    assert "forest 0.900" in text
    assert "mlp" not in text
    assert "split: given, 400 samples, scored by point" in text


def test_a_warning_of_the_split_is_printed(printed):
    report = classification()
    report["split"]["warning"] = "parcels lie on both sides"
    assert "warning: parcels lie on both sides" in printed(report)


def test_names_of_others_are_neither_markup_nor_escapes(printed):
    report = classification()
    for each in (*report["features"], *report["results"]):
        for key in ("name", "features"):
            if each.get(key) == "tessera 2023":
                each[key] = "[bold red]x[/] :smile: \x1b[31m"
    lines = printed(report)
    assert any(r"[bold red]x[/] :smile: \x1b[31m" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_a_report_without_results_is_no_error(printed):
    assert printed({"verdicts": ["Nothing was measured."]})[0] == "Nothing was measured."


def test_each_network_has_a_row_of_numbers(printed):
    found = [" ".join(line.split()) for line in printed(segmentation())]
    assert "Mean IoU, %, by decoder and unet, with 95 % intervals" in found
    for name in ("tessera 2023", "seasonal medians"):
        values = [100 * macro_f1(name, "logistic", share) for share in SHARES]
        assert f"{name} " + " ".join(f"{v:.1f} [{v - 4:.1f}, {v + 4:.1f}]" for v in values) in found
    assert not [line for line in found if "best other" in line]
