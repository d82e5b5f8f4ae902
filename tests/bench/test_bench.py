"""`tessera bench`: what is measured, and that the plain form is the same model. How fast anything is, is no test."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tessera_cli.bench import assemble, end_to_end, plain
from tessera_cli.bench import encode as bench_encode
from tessera_cli.bench.encode import agreement, figures, flop_per_pixel
from tessera_cli.bench.plain import PlainForm
from tessera_cli.bench.subjects import unprepared_model
from tessera_cli.bench.workload import from_store, synthetic
from tessera_cli.dpixels import write_folder
from tessera_cli.errors import UsageError
from tessera_cli.inference.encode import encode
from tessera_cli.models import EncoderConfig, get_spec
from tessera_cli.models.families import PARTS
from tessera_cli.models.precision import torch_settings
from tessera_cli.models.registry import MEDIUM_CONFIG, V1_1_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import V2_RULE
from tests.helpers import tiles
from tests.helpers.encoders import random_model

# --- the workload -----------------------------------------------------------------------------------------------------


def test_every_made_up_pixel_is_clear_60_times() -> None:
    work = synthetic(50)
    np.testing.assert_array_equal(work.dpixels.counts[:, work.pixels], np.repeat([[60], [30], [30]], 50, axis=1))
    assert work.describe(V2_RULE) == {
        "s2": {"mean": 60, "min": 60, "max": 60},
        "s1": {"mean": 60, "min": 60, "max": 60},
        "bins": {"64/64": 50},
    }
    for frames, dates in zip((60, 30, 30), work.dpixels.dates.values(), strict=True):
        assert len(np.unique(dates)) == frames  # one frame per date
        assert (np.diff(dates) > np.timedelta64(0)).all()
        assert {date.astype(object).month for date in dates} == set(range(1, 13))


def test_clouds_leave_15_to_75_per_cent() -> None:
    work = synthetic(600, clouds=True)
    s2, s1 = work.counts.T
    assert set(s2) == set(range(9, 46))
    assert set(s1) == {60}
    hidden = work.dpixels.s2_mask == 0
    assert not work.dpixels.s2[hidden].any()
    assert work.dpixels.s2[~hidden].all()
    bins = work.describe(V2_RULE)["bins"]
    assert set(bins) == {"16/64", "24/64", "32/64", "40/64", "48/64"}
    assert bins["48/64"] == np.count_nonzero(s2 > 40)


def test_a_seed_is_a_workload() -> None:
    one, same, other = (synthetic(20, clouds=True, seed=seed).dpixels for seed in (1, 1, 2))
    for name in ("s2", "s2_mask", "s1_asc", "s1_desc"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert (getattr(one, name) != getattr(other, name)).any()


def test_a_stored_tile_is_a_workload(tmp_path: Path) -> None:
    dpixels = tiles.made_up(np.array([[3, 1, 1], [0, 4, 0], [0, 0, 0], [5, 0, 0], [7, 2, 2], [1, 0, 0]]), 0, (2, 3))
    folder = write_folder(tmp_path / "tile", dpixels)
    work = from_store(folder, V2_RULE)
    np.testing.assert_array_equal(work.counts, [[3, 2], [5, 0], [7, 4], [1, 0]])  # those without Sentinel-2 left out
    np.testing.assert_array_equal(from_store(folder, V2_RULE, 2).counts, [[3, 2], [5, 0]])


# --- the plain form ---------------------------------------------------------------------------------------------------

V2_SMALL = EncoderConfig.of(latent=8, layers=2, heads=4, feedforward=48)
V1_1_SMALL = EncoderConfig.of(latent=6, layers=1, heads=2, feedforward=40, representation=20, **PARTS["v1.1"])
COUNTS = [
    *[[9, 5, 4]] * 4,
    [1, 0, 0],
    [3, 2, 0],
    [0, 9, 1],
    [0, 0, 7],
    [64, 31, 33],
    [260, 150, 145],
    [16, 0, 1],
    [9, 4, 5],
]


@pytest.mark.parametrize(
    ("family", "config"),
    [("v2-student", V2_SMALL), ("v1.1", V1_1_SMALL), ("v1.1", dataclasses.replace(V1_1_SMALL, fusion="sum"))],
    ids=["v2", "v1.1", "v1.1-sum"],
)
def test_the_plain_form_gives_the_same_embeddings(
    family: Family, config: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pixels with any number of observations, missing sensors included, in batches that are not full."""
    monkeypatch.setattr(plain, "BATCH", 3)
    unprepared = random_model(config, family, precision=None)
    model = random_model(config, family)  # ready, which the plain form's weights must not be
    dpixels = tiles.made_up(np.array(COUNTS), 5)
    got = PlainForm(unprepared, "cpu").encode(dpixels, dpixels.requested)
    np.testing.assert_allclose(got, encode(dpixels, model, dpixels.requested).values, rtol=0, atol=5e-5)


def test_batches_are_of_equal_bins_and_full() -> None:
    form = PlainForm(unprepared_model("v2-nano", 0), "cpu")
    counts = np.concatenate([np.repeat([[60], [30], [30]], 2500, axis=1), np.repeat([[9], [1], [0]], 10, axis=1)], 1)
    batches = [*form._batches(counts[:, np.random.default_rng(0).permutation(2510)])]
    assert sorted(map(len, batches)) == [10, 452, 1024, 1024]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(2510))


@pytest.mark.parametrize("name", ["v2-teacher", "v1.0", "v1.0-qat", "null"])
def test_other_families_have_no_plain_form(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is no plain"):
        plain.check(get_spec(name))


# --- figures ----------------------------------------------------------------------------------------------------------


def test_flop_per_pixel_are_those_of_the_specification() -> None:
    """spec/encoders.md, section 10: 64 places hold 60 observations, so 4 are computed twice for nothing."""
    counts, lengths = np.full((3, 2), 60), np.full((3, 2), 64)
    official, needed = flop_per_pixel(MEDIUM_CONFIG, counts, lengths)
    assert official == pytest.approx(2.520e9, rel=5e-4)
    assert needed == pytest.approx((19.2086 * 60 + 19.2016 * 60 + 0.00704 * 2 * 60**2 + 3.548) * 1e6, rel=1e-5)
    official, needed = flop_per_pixel(V1_1_CONFIG, counts, lengths)
    assert official == pytest.approx(6.807e9, rel=5e-4)
    gru = 12 * 768**2  # of one place
    once = (52.3162 * 60 + 52.3039 * 60 + 0.012288 * 2 * 60**2 + 10.617) * 1e6
    assert needed == pytest.approx(once + 8 * gru, rel=1e-5)


def test_flop_are_a_mean_over_pixels() -> None:
    few, many = np.array([[9, 60]]), np.array([[300, 60]])
    bins = np.array([[16, 64]]), np.array([[256, 64]])
    parts = [flop_per_pixel(MEDIUM_CONFIG, few, bins[0]), flop_per_pixel(MEDIUM_CONFIG, many, bins[1])]
    both = flop_per_pixel(
        MEDIUM_CONFIG, np.repeat([few[0], many[0]], [3, 1], 0), np.repeat([bins[0][0], bins[1][0]], [3, 1], 0)
    )
    np.testing.assert_allclose(both, np.average(parts, axis=0, weights=[3, 1]))


def test_figures_are_medians_and_their_ratios() -> None:
    work = synthetic(4)
    rounds = [
        {"pixels_per_second": p, "plain_pixels_per_second": 10.0, "matmul_gflops": m, "stages": {}}
        for p, m in ((30.0, 90.0), (20.0, 100.0), (99.0, 110.0))
    ]
    found = figures(get_spec("v2-medium"), work, rounds)
    assert (found["pixels_per_second"], found["matmul_gflops"], found["speedup_over_plain"]) == (30, 100, 3)
    assert found["tokens_per_second"] == 30 * 128
    assert found["matmul_share"] == pytest.approx(30 * 2.520 / 100, rel=5e-4)
    assert found["arithmetic_share"] == pytest.approx(30 * 2.359 / 100, rel=5e-4)


def test_agreement() -> None:
    wanted = np.array([[1, 0], [0, 2], [3, 0]], np.float32)
    found = agreement(np.array([[1, 0], [0, 2], [3, 4]], np.float32), wanted)
    assert found == {"max_abs_difference": 4, "cosine_mean": pytest.approx((2 + 0.6) / 3), "cosine_min": 0.6}


def test_settings_of_torch_are_put_back() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with torch_settings(before[0] + 1):
            assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0] + 1, "highest")
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0], "high")
    finally:
        torch.set_float32_matmul_precision(before[1])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["v2-nano", "demo"])
def test_encode_tells_all(tessera: Any, model: str) -> None:
    code, stdout, stderr = tessera(
        "bench",
        "encode",
        "--model",
        model,
        "--pixels",
        64,
        "--clouds",
        "--rounds",
        2,
        "--baseline",
        "plain",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--threads",
        1,
        "--seed",
        3,
        "--json",
    )
    assert code == 0, stderr
    (line,) = stdout.splitlines()
    found = json.loads(line)
    assert (found["type"], found["schema"], found["what"]) == ("bench", 1, "encode")
    assert found["agreement"]["max_abs_difference"] < 5e-5  # the weights are the same, and so is the model
    assert found["agreement"]["against"] == "plain"
    assert found["workload"] == {"name": "mixed clouds", "pixels": 64, "seed": 3}
    conditions = found["conditions"]
    assert conditions["model"] == model
    assert conditions["threads"] == 1
    assert conditions["precision"] == "fp32"
    assert sum(conditions["observations"]["bins"].values()) == 64
    assert found["memory"]["peak_rss_mb"] > 100
    assert len(found["rounds"]) == 2
    for key in ("pixels_per_second", "plain_pixels_per_second", "matmul_gflops"):
        assert found[key] == pytest.approx(np.median([row[key] for row in found["rounds"]]))
    assert found["matmul_share"] > found["arithmetic_share"] > 0
    assert all(math.isfinite(v) and v > 0 for v in found["stages"].values())
    assert "matmul_share" in stderr
    assert "\n    bins\n" in stderr


def test_encode_compares_with_float32_where_there_is_no_plain_form(tessera: Any, tmp_path: Path) -> None:
    dpixels = tiles.made_up(np.array([[9, 2, 2], [4, 0, 3]] * 4), 0)
    folder = write_folder(tmp_path / "tile", dpixels)
    code, stdout, stderr = tessera(
        "bench",
        "encode",
        "--model",
        "v2-nano",
        "--dpixels",
        folder,
        "--precision",
        "bf16",
        "--device",
        "cpu",
        "--rounds",
        1,
        "--json",
        "-q",
    )
    assert (code, stderr) == (0, ""), stderr
    found = json.loads(stdout)
    assert found["agreement"]["against"] == "fp32"
    assert 0.99 < found["agreement"]["cosine_min"] < 1
    assert found["workload"]["pixels"] == 8
    assert found["speedup_over_plain"] is None
    assert found["matmul_gflops_fp32"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "v2-huge"], "there is no such model"),
        (["--model", "null"], "no network"),
        (["--model", "v2-teacher", "--baseline", "plain"], "v2-teacher is no plain"),
        (["--baseline", "eager"], "--baseline"),
        (["--rounds", "0"], "--rounds"),
        (["--pixels", "0"], "--pixels"),
        (["--clouds", "--dpixels", "x"], "--clouds"),
        (["--model", "v2-nano", "--dpixels", "nowhere"], "nowhere has no d-pixels"),
        (["--model", "v2-nano", "--device", "tpu"], "--device tpu"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tessera: Any, options: list[str], said: str) -> None:
    code, stdout, stderr = tessera("bench", "encode", *options)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert said in stderr


def test_a_folder_of_tiles_and_one_without_a_clear_pixel(tessera: Any, tmp_path: Path) -> None:
    clouded = tiles.made_up(np.array([[0, 1, 1]]), 0)
    one = write_folder(tmp_path, clouded)
    write_folder(tmp_path, dataclasses.replace(clouded, tile=tiles.Tile(32631, 112, 1099)))
    code, _, stderr = tessera("bench", "encode", "--model", "v2-nano", "--dpixels", tmp_path)
    assert (code, stderr.count("\n")) == (2, 1)
    assert "2 tiles" in stderr
    code, _, stderr = tessera("bench", "encode", "--model", "v2-nano", "--dpixels", one)
    assert (code, stderr.count("\n")) == (2, 1)
    assert "no pixel with a clear" in stderr


@pytest.mark.parametrize(
    ("verb", "module", "options", "asked"),
    [
        ("assemble", assemble, [], {"catalog": None, "rounds": 5, "baseline": None}),
        (
            "assemble",
            assemble,
            ["--catalog", "made", "--rounds", "7", "--baseline", "odc-pool"],
            {"catalog": Path("made"), "rounds": 7, "baseline": "odc-pool"},
        ),
        ("end-to-end", end_to_end, ["--threads", "3"], {"catalog": None, "model": "demo", "threads": 3}),
        (
            "end-to-end",
            end_to_end,
            ["--catalog", "made", "--model", "v2-nano", "--threads", "1"],
            {"catalog": Path("made"), "model": "v2-nano", "threads": 1},
        ),
    ],
)
def test_the_others_measure_what_was_asked(
    tessera: Any, monkeypatch: pytest.MonkeyPatch, verb: str, module: Any, options: list[str], asked: dict[str, Any]
) -> None:
    signature, calls = inspect.signature(module.measure), []

    def measure(*args: Any, **kwargs: Any) -> dict[str, Any]:
        calls.append(signature.bind(*args, **kwargs).arguments)
        return {"pixels_per_second": 12345.6, "nothing": None, "stages": {"read": 0.25}, "rounds": [{"seconds": 1.5}]}

    monkeypatch.setattr(module, "measure", measure)
    code, stdout, stderr = tessera("bench", verb, *options, "--json")
    assert (code, calls) == (0, [asked]), stderr
    found = json.loads(stdout)
    assert (found["type"], found["schema"], found["what"]) == ("bench", 1, verb)
    assert (found["pixels_per_second"], found["rounds"]) == (12345.6, [{"seconds": 1.5}])
    assert found["conditions"]["torch"] == torch.__version__
    told = [tuple(line.split(maxsplit=1)) for line in stderr.splitlines()]
    assert ("pixels_per_second", "12,346") in told
    assert told[told.index(("stages",)) + 1] == ("read", "0.25")
    assert not {"nothing", "rounds"} & {name for name, *_ in told}
    code, stdout, _ = tessera("bench", verb, *options)
    assert (code, stdout) == (0, "")


@pytest.mark.parametrize(
    ("rate", "baseline", "pixels"), [(1000.0, False, 4096), (1000.0, True, 4096), (3.0, False, 256), (3.0, True, 1024)]
)
def test_a_round_takes_some_seconds(monkeypatch: pytest.MonkeyPatch, rate: float, baseline: bool, pixels: int) -> None:
    monkeypatch.setattr(bench_encode, "_ours", lambda *a: {"pixels_per_second": rate})
    model = random_model(EncoderConfig.of(latent=2, layers=1, heads=1, feedforward=8))
    assert bench_encode._enough(model, False, 1, baseline) == pixels


def test_each_round_begins_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def turn(name: str, key: str) -> Callable[..., dict[str, Any]]:
        return lambda *a: order.append(name) or {key: 1.0, "stages": {}}

    monkeypatch.setattr(bench_encode, "_rates", turn("product", "matmul_gflops"))
    monkeypatch.setattr(bench_encode, "_plain", turn("plain", "plain_pixels_per_second"))
    monkeypatch.setattr(bench_encode, "_ours", turn("ours", "pixels_per_second"))
    found = bench_encode.measure("v2-nano", threads=1, device="cpu", pixels=2, rounds=4, baseline="plain")
    assert order[0] == "ours"  # the warm-up
    rounds = ["product plain ours", "plain ours product", "ours product plain", "product plain ours"]
    assert order[1:] == " ".join(rounds).split()
    assert len(found["rounds"]) == 4
