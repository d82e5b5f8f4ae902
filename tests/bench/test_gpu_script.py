"""The script for the day a GPU is at hand: a part that fails stops no other, and the arithmetic of its parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu


def test_a_part_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(gpu, "parts", lambda out: {"one": fails, "two": lambda: 3, "three": lambda: 4})
    monkeypatch.setattr(sys, "argv", ["gpu", str(tmp_path), "--only", "one", "two"])
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["one"]["error"] == "RuntimeError: no such device"
    assert found["two"]["result"] == 3
    assert "three" not in found


def test_what_no_time_is_left_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "parts", lambda out: {"one": lambda: 3})
    monkeypatch.setattr(sys, "argv", ["gpu", str(tmp_path), "--seconds", "-1"])
    gpu.main()
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"one": {"error": "no time was left"}}


def test_agreement_of_a_device_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "CUDA", "cpu")
    monkeypatch.setattr(gpu, "PIXELS", 32)
    found = gpu.agreement("v2-nano")
    assert found["fp32"]["max_abs_difference"] == 0
    assert 0.999 < found["bf16"]["cosine_min"] < 1
