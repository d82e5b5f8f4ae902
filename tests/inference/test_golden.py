"""Official outputs, made with random weights: ../shared/golden, through the public API and through the command."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tessera_cli.dpixels import read_folder
from tessera_cli.inference.encode import encode
from tessera_cli.models import REGISTRY, Model, ModelConfig, load_model
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import official_shapes
from tessera_cli.models.parts import day_of_year_table
from tessera_cli.models.pooling import CustomGruPool
from tessera_cli.models.quantise import dequantise, quantise
from tessera_cli.sampling import V1_1_RULE, V2_RULE, RandomSampling
from tessera_cli.sampling.buckets import v1_1_pattern, v2_pattern
from tests.helpers.tiles import GOLDEN

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is absent")

OUTPUTS = sorted(
    file.relative_to(GOLDEN)
    for pattern in ("embedding_f32*.npy", "representation_f32.npy")
    for file in GOLDEN.glob(f"v*/*/expected/{pattern}")
)
"""What the official encoders gave: one file per case, or per case and seed."""
RELEASED = {
    "v1_0_early": "v1.0",
    "v1_0_qat": "v1.0-qat",
    "v1_1": "v1.1-mpc",
    "v2_nano": "v2-nano",
    "v2_small": "v2-small",
    "v2_medium": "v2-medium",
    "v2_large": "v2-large",
    "v2_teacher": "v2-teacher",
}


@dataclass(frozen=True)
class Case:
    folder: Path
    output: Path
    weights: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text())

    @property
    def tile(self) -> Path:
        return self.folder / self.manifest["tile"]["dir"]

    @property
    def seed(self) -> int | None:
        """Of the draws; None where they cannot matter."""
        _, _, seed = self.output.stem.partition("seed")
        return int(seed) if seed else None

    @property
    def defined(self) -> np.ndarray:
        """The pixels that the official code encodes."""
        found = np.ones(np.load(self.output).shape[:2], bool)
        for key in ("undefined_pixels", "zero_pixels", "skipped_pixels"):
            for row, column in self.manifest.get(key, []):
                found[row, column] = False
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The checkpoint of a full-size case, made from its recipe once."""
    folder = tmp_path_factory.mktemp("fullsize")

    @functools.cache
    def make(case: Path) -> Path:
        weights = folder / f"{case.parent.name}-{case.name}.pt"
        golden_tools().make_checkpoint(str(case), str(weights))
        return weights

    return make


@pytest.fixture(params=OUTPUTS, ids=lambda path: f"{path.parent.parent}-{path.stem}")
def case(request: pytest.FixtureRequest, made: Callable[[Path], Path]) -> Case:
    output = GOLDEN / request.param
    folder = output.parent.parent
    weights = folder / "checkpoint.pt"
    return Case(folder, output, weights if weights.exists() else made(folder))


def golden_tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_tools", GOLDEN / "tools.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(case: Case) -> Model:
    config = case.manifest["config"]
    model = load_model(weights=case.weights, model_config=ModelConfig(config), device="cpu").bind_source(
        config.get("data_source")
    )
    if case.seed is None:
        return model
    assert isinstance(model.spec.observations, RandomSampling)
    rule = dataclasses.replace(model.spec.observations, legacy=True)
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=rule))


def test_through_the_library(case: Case) -> None:
    model, dpixels = model_of(case), read_folder(case.tile)
    defined = case.defined
    np.testing.assert_array_equal(model.spec.observations.valid_pixels(dpixels), defined)
    counts = dpixels.counts
    expected = case.output.parent
    np.testing.assert_array_equal(counts[0], np.load(expected / "n_valid_s2.npy"))
    np.testing.assert_array_equal(counts[1] + counts[2], np.load(expected / "n_valid_s1.npy"))

    values = encode(dpixels, model, defined, seed=case.seed or 0, threads=2).values

    official = np.load(case.output)[defined]
    assert np.abs(values - official).max() <= 5e-5
    files = [*expected.glob("int8*.npy"), *expected.glob("emb*_int8.npy")]
    assert (model.spec.quantiser is None or case.folder.parent.name == "v1_0_early") == (not files)
    for file in files:
        if case.seed is not None and file.stem != f"int8_seed{case.seed}":
            continue
        scale_file = file.name.replace("_int8", "_scales") if file.stem.startswith("emb") else "scales" + file.name[4:]
        codes, scales = np.load(file)[defined], np.load(expected / scale_file)[defined]
        dims = codes.shape[-1]
        assert model.spec.quantiser is not None
        exact_codes, exact_scales = quantise(official[:, :dims], model.spec.quantiser)
        np.testing.assert_array_equal(exact_codes, codes)
        np.testing.assert_array_equal(exact_scales, scales)
        our_codes, our_scales = quantise(values[:, : model.spec.check_dims(dims)], model.spec.quantiser)
        difference = np.abs(our_codes.astype(int) - codes)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.005
        np.testing.assert_allclose(our_scales, scales, rtol=1e-4)
        assert (np.abs(dequantise(our_codes, our_scales) - values[:, :dims]).max(axis=1) <= our_scales * 0.501).all()


def test_through_the_command(case: Case, tessera: Any, tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "out"
    config.write_text(json.dumps(case.manifest["config"]))
    seeded = [] if case.seed is None else ["--legacy-draw", "--seed", case.seed]
    code, stdout, _ = tessera(
        "embed",
        "--dpixels",
        case.tile,
        "--weights",
        case.weights,
        "--model-config",
        config,
        "--format",
        "npy",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--min-s2",
        0,
        "--out",
        out,
        *seeded,
    )
    assert code == 0
    path = out / f"{case.tile.name}.npy"
    assert stdout.splitlines() == [str(path)]
    assert {file.name for file in out.glob("tile*")} == {path.name, f"{case.tile.name}.json"}
    values = np.load(path)
    official = np.load(case.output)[..., : values.shape[-1]]
    assert values.dtype == np.float32
    assert values.shape[-1] == case.manifest["config"].get("save_embedding_dim", official.shape[-1])
    assert np.abs(values - official)[case.defined].max() <= 5e-5
    assert np.isnan(values[~case.defined]).all()


def test_choice_of_observations() -> None:
    for unit, rule, pattern in (("v2_pad_pattern", V2_RULE, v2_pattern), ("v1_1_resample", V1_1_RULE, v1_1_pattern)):
        counts, bins, indices = (np.load(GOLDEN / "units" / unit / f"{name}.npy") for name in ("n", "bin", "indices"))
        seen = counts > 0
        np.testing.assert_array_equal(rule.bin_of(counts)[seen], bins[seen])
        assert (rule.bin_of(counts)[~seen] == 0).all()  # v1.1: as good as the smallest bin full of equal tokens
        for n, bin, row in zip(counts[seen].tolist(), bins[seen].tolist(), indices[seen], strict=True):
            np.testing.assert_array_equal(pattern(n, bin), row[:bin], err_msg=f"n = {n}")


def test_choice_of_observations_for_any_bins_of_v1_1() -> None:
    unit = GOLDEN / "units" / "v1_1_resample"
    pairs, indices = np.load(unit / "any_pairs.npy"), np.load(unit / "any_indices.npy")
    tried = 0
    for (n, bin), row in zip(pairs.tolist(), indices, strict=True):
        if n:
            np.testing.assert_array_equal(v1_1_pattern(n, bin), row[:bin], err_msg=f"{n} -> {bin}")
            tried += 1
    assert tried > 1000


def test_quantise() -> None:
    unit = GOLDEN / "units" / "quantise"
    values = np.load(unit / "input.npy")
    for rule, dims, suffix in (("v1", 128, ""), *(("v2", dims, f"_d{dims}") for dims in (16, 32, 64, 128))):
        codes, scales = quantise(values[:, :dims], rule)  # type: ignore[arg-type]
        np.testing.assert_array_equal(codes, np.load(unit / f"{rule}_code{suffix}.npy"))
        np.testing.assert_array_equal(scales, np.load(unit / f"{rule}_scale{suffix}.npy"))


def test_positional_encoding() -> None:
    unit = GOLDEN / "units" / "positional_encoding"
    days = np.load(unit / "doy.npy").astype(int)
    for file in unit.glob("pe_d*.npy"):
        width = int(file.stem.removeprefix("pe_d"))
        np.testing.assert_allclose(day_of_year_table(width)[days], np.load(file), rtol=0, atol=5e-5)


def test_custom_gru_pooling() -> None:
    data = torch.load(GOLDEN / "units" / "custom_gru_pool" / "data.pt", weights_only=True)
    weights = {name.removeprefix("weights."): tensor for name, tensor in data.items() if name.startswith("weights.")}
    cell = "temporal_context.gru_cell"
    pool = CustomGruPool(weights["query.weight"].shape[1]).eval()
    ours = {
        "query.weight": weights["query.weight"],
        "query.bias": weights["query.bias"],
        "inputs.weight": torch.cat([weights[f"{cell}.W_i{gate}.weight"] for gate in "rzh"]),
        "inputs.bias": torch.cat([weights[f"{cell}.b_{gate}"] for gate in "rzh"]),
        "gates.weight": torch.cat([weights[f"{cell}.W_h{gate}.weight"] for gate in "rz"]),
        "candidate.weight": weights[f"{cell}.W_hh.weight"],
        "norm.weight": weights["layer_norm.weight"],
        "norm.bias": weights["layer_norm.bias"],
    }
    pool.load_state_dict(ours)
    lengths = sorted(int(name.removeprefix("x_T")) for name in data if name.startswith("x_T"))
    with torch.no_grad():
        for length in filter(None, lengths):  # no sequence of ours is empty
            tokens = data[f"x_T{length}"]
            torch.testing.assert_close(pool(tokens), data[f"pooled_T{length}"], rtol=0, atol=1e-5)
            if f"gru_T{length}" in data:
                torch.testing.assert_close(pool.states(tokens), data[f"gru_T{length}"], rtol=0, atol=1e-5)
    assert len(lengths) > 2


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("tensors/*.json")), ids=lambda path: path.stem)
def test_tensors_of_released_sizes(file: Path) -> None:
    listed = json.loads(file.read_text())
    config = REGISTRY[RELEASED[file.stem.removesuffix("_qknorm_variant")]].config
    assert config
    if file.stem.endswith("_qknorm_variant"):
        config = dataclasses.replace(config, qk_norm=True)
    shapes = official_shapes(config)
    assert shapes == {
        tensor: tuple(shape) for tensor, shape in listed["tensors"].items() if not tensor.startswith("projector.")
    }
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Encoder(config).parameters())
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert parameters == listed["n_parameters"]
