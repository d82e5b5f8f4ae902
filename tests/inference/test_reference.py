"""The reference implementation against outputs of the official code, and the stored cases against the reference."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import reference
from tests.golden import make
from tests.reference import network

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
OFFICIAL = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("v*/*/manifest.json"))
UNITS = GOLDEN / "units"
TOLERANCE = 5e-5

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is absent")


def encoder_tensors(payload: dict[str, Any]) -> dict[str, np.ndarray]:
    """Those of an official checkpoint, without prefix and training heads."""
    (key,) = {"model", "encoder_state_dict", "model_state", "model_state_dict"} & payload.keys()
    tensors = {name.removeprefix("_orig_mod."): value.numpy() for name, value in payload[key].items()}
    training = ("projector.", "segmented_matryoshka_projector.")
    return {name: value for name, value in tensors.items() if not name.startswith(training)}


def tile(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.load(folder / f"{name}.npy") for name in reference.NAMES}


def assert_codes(family: str, files: dict[int, tuple[Path, Path]], official: np.ndarray, ours: np.ndarray) -> None:
    """Those of the official values are met exactly, those of ours within one code."""
    rule = reference.quantise_v2 if family == "v2_student" else reference.quantise_v1
    for dims, (codes_file, scales_file) in files.items():
        codes, scales = np.load(codes_file), np.load(scales_file)
        keep = np.isfinite(official[..., 0]) & (scales > 0)
        exact = rule(official[keep][:, :dims])
        np.testing.assert_array_equal(exact[0], codes[keep])
        np.testing.assert_array_equal(exact[1], scales[keep])
        near = rule(ours[keep][:, :dims].astype(np.float32))
        difference = np.abs(near[0].astype(int) - codes[keep])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.005
        np.testing.assert_allclose(near[1], scales[keep], rtol=1e-4)


def code_files(expected: Path, seed: str, dims: list[int]) -> dict[int, tuple[Path, Path]]:
    """Every name that official codes and scales have."""
    names = {d: [(f"int8_d{d}", f"scales_d{d}"), (f"emb{d}_int8", f"emb{d}_scales")] for d in dims}
    names[dims[-1]].append((f"int8{seed}", f"scales{seed}"))
    pairs = {d: [(expected / f"{c}.npy", expected / f"{s}.npy") for c, s in names[d]] for d in dims}
    return {d: pair for d in dims for pair in pairs[d] if pair[0].exists()}


@needs_golden
@pytest.mark.parametrize("case", [case for case in OFFICIAL if "fullsize" not in case])  # the same rules, 20 s each
def test_official_case(case: str) -> None:
    folder = GOLDEN / case
    manifest = json.loads((folder / "manifest.json").read_text())
    family = manifest["family"].removesuffix("_qknorm")
    config = manifest["config"] | manifest.get("architecture", {})
    tensors = encoder_tensors(torch.load(folder / "checkpoint.pt", weights_only=True))
    arrays = tile(folder / manifest["tile"]["dir"])
    without = {tuple(p) for key in ("undefined_pixels", "zero_pixels", "skipped_pixels") for p in manifest.get(key, [])}
    expected = folder / "expected"
    files_of_values = sorted([*expected.glob("embedding_f32*.npy"), *expected.glob("representation_f32.npy")])
    assert files_of_values
    for file in files_of_values:
        seed = file.stem.removeprefix("embedding_f32") if file.stem.startswith("embedding") else ""
        official = np.load(file)
        legacy_seed = int(seed.removeprefix("_seed")) if seed else None
        ours, defined = reference.embed_tile(family, config, tensors, arrays, legacy_seed=legacy_seed)
        assert {(int(i), int(j)) for i, j in np.argwhere(~defined)} == without
        assert np.abs(ours - official)[defined].max() <= TOLERANCE
        if family != "v2_student":
            assert not official[~defined].any()
        dims = reference.saved_dims(family, config)
        files = code_files(expected, seed, dims) if dims else {}
        assert bool(files) == bool(dims)
        assert_codes(family, files, official, ours)


@needs_golden
def test_there_are_37_official_cases() -> None:
    assert len(OFFICIAL) == 37


@needs_golden
def test_official_choices() -> None:
    for unit, choose in (("v2_pad_pattern", reference.choose_v2), ("v1_1_resample", None)):
        counts, bins, indices = (np.load(UNITS / unit / f"{name}.npy") for name in ("n", "bin", "indices"))
        for n, length, row in zip(counts.tolist(), bins.tolist(), indices, strict=True):
            if choose is None:
                assert reference.bin_v1_1(n, range(8, 257, 8)) == length
            if n:
                ours = choose(n) if choose else reference.choose_v1_1(n, length)
                np.testing.assert_array_equal(ours, row[:length], err_msg=f"{unit}: n = {n}")
    pairs, indices = (np.load(UNITS / "v1_1_resample" / f"any_{name}.npy") for name in ("pairs", "indices"))
    for (n, length), row in zip(pairs.tolist(), indices, strict=True):
        np.testing.assert_array_equal(reference.choose_v1_1(n, length), row[:length], err_msg=f"{n} of {length}")


@needs_golden
def test_official_quantisers() -> None:
    values = np.load(UNITS / "quantise" / "input.npy")
    for name, rule, prefixes in (
        ("v1", reference.quantise_v1, {"": 128}),
        ("v2", reference.quantise_v2, {f"_d{d}": d for d in (16, 32, 64, 128)}),
    ):
        for suffix, dims in prefixes.items():
            codes, scales = rule(values[:, :dims])
            np.testing.assert_array_equal(codes, np.load(UNITS / "quantise" / f"{name}_code{suffix}.npy"))
            np.testing.assert_array_equal(scales, np.load(UNITS / "quantise" / f"{name}_scale{suffix}.npy"))


@needs_golden
def test_official_parts() -> None:
    days = np.load(UNITS / "positional_encoding" / "doy.npy").astype(float)
    for file in (UNITS / "positional_encoding").glob("pe_d*.npy"):
        official = np.load(file)
        np.testing.assert_allclose(network.day_encoding(days, official.shape[1]), official, rtol=0, atol=5e-5)
    data = {name: value.numpy() for name, value in torch.load(UNITS / "custom_gru_pool" / "data.pt").items()}
    weights = {f"pool.{n.removeprefix('weights.')}": v for n, v in data.items() if n.startswith("weights.")}
    lengths = [name.removeprefix("x_T") for name in data if name.startswith("x_T")]
    assert len(lengths) > 2
    for length in lengths:
        x = data[f"x_T{length}"].astype(float)
        if x.shape[1]:
            states = network.custom_gru(weights, "pool.temporal_context.gru_cell", x)
            np.testing.assert_allclose(states, data[f"gru_T{length}"], rtol=0, atol=1e-5)
        pooled = network.pool("v1_1", weights, "pool", x)
        np.testing.assert_allclose(pooled, data[f"pooled_T{length}"], rtol=0, atol=1e-5)


# --- the project's own cases ------------------------------------------------------------------------------------------


def test_every_case_is_stored() -> None:
    assert sorted(make.RECIPES) == reference.CASES
    assert sum(path.stat().st_size for path in reference.FOLDER.glob("*.npz")) < 400_000


@pytest.mark.parametrize("name", reference.CASES)
def test_stored_case(name: str) -> None:
    """The reference still gives what is stored; codes of the stored values are exact."""
    with np.load(reference.FOLDER / f"{name}.npz") as file:
        stored = dict(file)
    made = make.build(name)
    assert sorted(made) == sorted(stored)
    np.testing.assert_allclose(made.pop("expected"), stored["expected"], rtol=0, atol=1e-6)
    for key, value in made.items():
        if key.startswith("codes_"):
            assert np.abs(value.astype(int) - stored[key]).max() <= 1
        elif key.startswith("scales_"):
            np.testing.assert_allclose(value, stored[key], rtol=1e-5)
        else:
            np.testing.assert_array_equal(value, stored[key], err_msg=key)
    case = reference.load_case(name)
    exact = reference.quantised(case.family, case.config, case.expected, case.defined)
    assert sorted(exact) == sorted(case.codes)
    for dims, (codes, scales) in exact.items():
        np.testing.assert_array_equal(codes, case.codes[dims])
        np.testing.assert_array_equal(scales, case.scales[dims])
    file = io.BytesIO()
    torch.save(case.payload, file)
    file.seek(0)
    loaded = encoder_tensors(torch.load(file, weights_only=True))
    assert reference.digest(loaded) == reference.digest(case.tensors)


@needs_golden
@pytest.mark.parametrize(
    ("listed", "family", "sizes"),
    [
        ("v1_0_early", "v1_0_early", {"latent": 128, "layers": 8, "heads": 8, "feedforward": 4096}),
        ("v1_0_qat", "v1_0_qat", {"latent": 128, "layers": 4, "feedforward": 4096}),
        ("v1_1", "v1_1", {"latent": 192, "layers": 4, "feedforward": 2048}),
        ("v2_nano", "v2_student", {"latent": 36, "layers": 2, "feedforward": 384}),
        ("v2_small_qknorm_variant", "v2_student", {"latent": 64, "layers": 4, "feedforward": 1024, "qk_norm": True}),
    ],
)
def test_names_and_shapes_of_official_sizes(
    listed: str, family: str, sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shapes without numbers: nothing of the full size is drawn.
    monkeypatch.setattr(
        "tests.reference.weights._Drawing.add",
        lambda self, name, shape, std, mean=0.0: self.tensors.update({name: np.broadcast_to(np.float32(0), shape)}),
    )
    _, tensors = reference.random_weights(family, 0, **sizes)
    content = json.loads((GOLDEN / "tensors" / f"{listed}.json").read_text())
    assert {name: list(value.shape) for name, value in tensors.items()} == content["tensors"]
