"""What a column is for, told by its values."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.labels.targets import MOST_CLASSES, Targets


def told(values, task=None) -> Targets:
    return Targets.of(
        values if isinstance(values, np.ndarray) else np.array(values, object), task, "t.csv: the column y"
    )


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["b", "a", " a ", None, ""], ("a", "b"), [1, 0, 0]),
        (np.array(["b", "a"]), ("a", "b"), [1, 0]),
        (np.array([10, 9, 10], np.uint8), ("9", "10"), [1, 0, 1]),
        (np.array([2.0, np.nan, 1.0, np.inf]), ("1", "2"), [1, 0]),
        (np.array([True, False]), ("False", "True"), [1, 0]),
        ([True, None, True], ("True",), [0, 0]),
        ([3, None, 2], ("2", "3"), [1, 0]),
        (["1", "2"], ("1", "2"), [0, 1]),
        (["2a", "3", "x1"], ("2a", "3", "x1"), [0, 1, 2]),
    ],
)
def test_classes(values, names, numbers):
    found = told(values)
    assert (found.task, found.names) == ("classification", names)
    assert found.values[found.given].tolist() == numbers
    assert not found.values[~found.given].any()


@pytest.mark.parametrize("values", [np.array([1.5, np.nan, 2]), [1.5, None, 2], np.array([0.1, 0.2], np.float32)])
def test_values(values):
    found = told(values)
    assert (found.task, found.names, found.values.dtype) == ("regression", (), np.float64)
    assert np.isfinite(found.values).tolist() == found.given.tolist()


def test_many_whole_numbers_are_values_unless_the_task_is_given():
    few, many = np.arange(MOST_CLASSES), np.arange(MOST_CLASSES + 1)
    assert told(few).task == "classification"
    assert told(many).task == "regression"
    assert len(told(many, "classification").names) == MOST_CLASSES + 1
    assert told(few, "regression").values.tolist() == few.tolist()
    assert told(few, "segmentation").task == "segmentation"


@pytest.mark.parametrize(
    ("values", "task", "words"),
    [
        (["a", 1], None, "mixes text and numbers"),
        (["wheat", "1.5"], None, "mixes text and numbers, such as .*wheat.* and 1.5"),
        ([None, np.nan, ""], None, "has no value in any of 3 rows"),
        (np.array([np.nan, np.inf]), None, "has no value in any of 2 rows"),
        (np.array([], object), None, "has no value in any of 0 rows"),
        (np.array([0.5, 1]), "classification", "holds fractions"),
        (["a", "b"], "regression", "holds text such as"),
        (np.array(["2020-01-01"], "datetime64[D]"), None, "holds datetime64"),
        ([b"a", b"b"], None, "holds bytes"),
        ([[1], [2]], None, "holds list"),
    ],
)
def test_what_is_neither(values, task, words):
    column = values
    if not isinstance(values, np.ndarray):
        column = np.empty(len(values), object)
        column[:] = values
    with pytest.raises(UsageError, match=f"^t.csv: the column y {words}") as caught:
        told(column, task)
    assert "\n" not in str(caught.value)
