"""The project's own cases, tests/golden, through the public API and through the command: they need no ../shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tessera_cli.dpixels import read_folder
from tessera_cli.inference.encode import encode
from tessera_cli.models import ModelConfig, load_model
from tessera_cli.models.quantise import dequantise, quantise
from tests import reference
from tests.helpers.encoders import drawing_officially


@pytest.fixture(params=reference.CASES)
def case(request: pytest.FixtureRequest) -> reference.Case:
    return reference.load_case(request.param)


@pytest.fixture
def weights(case: reference.Case, tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint.pt"
    torch.save(case.payload, file)
    return file


@pytest.fixture
def tile(case: reference.Case, tmp_path: Path) -> Path:
    """A tile folder in the official layout."""
    folder = tmp_path / "tile"
    folder.mkdir()
    for name, array in case.arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_through_the_library(case: reference.Case, weights: Path, tile: Path) -> None:
    model = load_model(weights=weights, model_config=ModelConfig(case.config), device="cpu").bind_source(case.source)
    if case.seed is not None:
        model = drawing_officially(model)
    dpixels = read_folder(tile)
    np.testing.assert_array_equal(model.spec.observations.valid_pixels(dpixels), case.defined)

    values = encode(dpixels, model, case.defined, seed=case.seed or 0, threads=2).values

    assert np.abs(values - case.expected[case.defined]).max() <= 5e-5
    assert bool(case.codes) == (model.spec.quantiser is not None and case.family != "v1_0_early")
    for dims, stored in case.codes.items():
        assert model.spec.quantiser is not None
        codes, scales = quantise(values[:, : model.spec.check_dims(dims)], model.spec.quantiser)
        difference = np.abs(codes.astype(int) - stored[case.defined])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.005
        np.testing.assert_allclose(scales, case.scales[dims][case.defined], rtol=1e-4)
        assert (np.abs(dequantise(codes, scales) - values[:, :dims]).max(axis=1) <= scales * 0.501).all()


def test_through_the_command(case: reference.Case, weights: Path, tile: Path, tessera: Any, tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "out"
    config.write_text(json.dumps(case.config))
    source = [] if case.source is None else ["--source", case.source]
    seeded = [] if case.seed is None else ["--legacy-draw", "--seed", case.seed]
    code, stdout, _ = tessera(
        "embed",
        "--dpixels",
        tile,
        "--weights",
        weights,
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
        *source,
        *seeded,
    )
    assert code == 0
    assert stdout.splitlines() == [str(out / "tile.npy")]
    assert {file.name for file in out.glob("tile*")} == {"tile.npy", "tile.json"}
    values = np.load(out / "tile.npy")
    assert values.dtype == np.float32
    assert values.shape[-1] == case.config.get("save_embedding_dim", case.expected.shape[-1])
    assert np.abs(values - case.expected[..., : values.shape[-1]])[case.defined].max() <= 5e-5
    assert np.isnan(values[~case.defined]).all()


def test_every_family_has_cases() -> None:
    assert {reference.load_case(name).family for name in reference.CASES} == set(reference.FAMILIES)
