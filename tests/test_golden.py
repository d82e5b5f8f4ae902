"""Official outputs, made with random weights: ../shared/golden, through the public API."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tessera_cli.encode import encode
from tessera_cli.models import REGISTRY, load_model
from tessera_cli.models.layout import official_shapes
from tessera_cli.models.parts import day_of_year_table
from tessera_cli.quantize import dequantize, quantize
from tessera_cli.sampling import bin_of, fill_pattern
from tests.tiles import GOLDEN, official_tile

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is absent")

FAMILIES = ("v2_student", "v2_student_qknorm")
CASES = [f"{family}/{case.name}" for family in FAMILIES for case in sorted((GOLDEN / family).glob("*"))]


def golden_tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_tools", GOLDEN / "tools.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, tmp_path: Path) -> None:
    folder = GOLDEN / case
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = folder / "checkpoint.pt"
    if not weights.exists():
        weights = tmp_path / "checkpoint.pt"
        golden_tools().make_checkpoint(str(folder), str(weights))
    model = load_model(weights=weights, device="cpu")
    dpixels = official_tile(folder / manifest["tile"]["dir"])
    wanted = np.ones(dpixels.requested.shape, bool)
    for row, column in manifest["undefined_pixels"]:
        wanted[row, column] = False

    values = encode(dpixels, model, wanted, threads=2).values

    expected = folder / "expected"
    official = np.load(expected / "embedding_f32.npy")[wanted]
    assert np.abs(values - official).max() <= manifest["tolerance"]["embedding_f32"]["atol"] == 5e-5
    counts = dpixels.counts
    np.testing.assert_array_equal(counts[0], np.load(expected / "n_valid_s2.npy"))
    np.testing.assert_array_equal(counts[1] + counts[2], np.load(expected / "n_valid_s1.npy"))
    for file in expected.glob("int8_d*.npy"):
        dims = int(file.stem.removeprefix("int8_d"))
        codes, scales = np.load(file)[wanted], np.load(expected / f"scales_d{dims}.npy")[wanted]
        exact_codes, exact_scales = quantize(official[:, :dims], "v2")
        np.testing.assert_array_equal(exact_codes, codes)
        np.testing.assert_array_equal(exact_scales, scales)
        our_codes, our_scales = quantize(values[:, : model.spec.check_dims(dims)], "v2")
        difference = np.abs(our_codes.astype(int) - codes)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.005
        np.testing.assert_allclose(our_scales, scales, rtol=1e-4)
        assert (np.abs(dequantize(our_codes, our_scales) - values[:, :dims]).max(axis=1) <= our_scales * 0.501).all()


def test_fill_pattern() -> None:
    unit = GOLDEN / "units" / "v2_pad_pattern"
    counts, bins, indices = (np.load(unit / f"{name}.npy") for name in ("n", "bin", "indices"))
    np.testing.assert_array_equal(bin_of(counts), bins)
    for n, bin, row in zip(counts.tolist(), bins.tolist(), indices, strict=True):
        np.testing.assert_array_equal(fill_pattern(n, bin), row[:bin], err_msg=f"n = {n}")
        assert (row[bin:] == -1).all()


def test_quantise() -> None:
    unit = GOLDEN / "units" / "quantise"
    values = np.load(unit / "input.npy")
    for rule, dims, suffix in (("v1", 128, ""), *(("v2", dims, f"_d{dims}") for dims in (16, 32, 64, 128))):
        codes, scales = quantize(values[:, :dims], rule)  # type: ignore[arg-type]
        np.testing.assert_array_equal(codes, np.load(unit / f"{rule}_code{suffix}.npy"))
        np.testing.assert_array_equal(scales, np.load(unit / f"{rule}_scale{suffix}.npy"))


def test_positional_encoding() -> None:
    unit = GOLDEN / "units" / "positional_encoding"
    days = np.load(unit / "doy.npy").astype(int)
    for file in unit.glob("pe_d*.npy"):
        width = int(file.stem.removeprefix("pe_d"))
        np.testing.assert_allclose(day_of_year_table(width)[days], np.load(file), rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", ["v2-nano", "v2-small", "v2-medium", "v2-large", "v2-small_qknorm_variant"])
def test_tensors_of_released_sizes(name: str) -> None:
    listed = json.loads((GOLDEN / "tensors" / f"{name.replace('-', '_')}.json").read_text())
    config = REGISTRY[name.removesuffix("_qknorm_variant")].config
    assert config
    if name.endswith("_qknorm_variant"):
        config = dataclasses.replace(config, qk_norm=True)
    shapes = official_shapes(config)
    assert shapes == {tensor: tuple(shape) for tensor, shape in listed["tensors"].items()}
    assert len(shapes) == listed["n_tensors"]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == listed["n_parameters"]
