"""Names, specs, parts, and how a model is found."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models import DEFAULT_MODEL, REGISTRY, EncoderConfig, available, hub, load, load_model, spec_named
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import official_names, official_shapes, tensor_shapes
from tessera_cli.models.parts import day_of_year_table
from tessera_cli.models.spec import LARGE, MEDIUM, NANO, SMALL, HubFile, ModelSpec
from tessera_cli.models.statistics import V2_STUDENT
from tests import reference_encoder


def save_official(path: Path, args: dict[str, object], tensors: dict[str, np.ndarray]) -> Path:
    torch.save({"args": args, "model": {name: torch.from_numpy(value) for name, value in tensors.items()}}, path)
    return path


def student_file(path: Path, config: EncoderConfig) -> Path:
    sizes = reference_encoder.random_student(
        1,
        latent=config.latent,
        layers=config.layers,
        heads=config.heads,
        feedforward=config.feedforward,
        qk=config.qk_norm,
    )
    return save_official(path, *sizes)


def random_encoder(config: EncoderConfig = NANO) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Encoder(config)


def test_names() -> None:
    assert available() == ["v2-nano", "v2-small", "v2-medium", "v2-large", "demo"]
    assert DEFAULT_MODEL == "v2-medium"
    assert REGISTRY["null"].hidden
    assert {name for name, spec in REGISTRY.items() if spec.demonstration_only} == {"demo", "null"}
    with pytest.raises(UsageError, match=r"v2-smal: .* Did you mean v2-small\? Choose one of v2-nano, v2-small, "):
        spec_named("v2-smal")
    with pytest.raises(UsageError, match=r"V2-Medium.*Did you mean v2-medium"):
        load_model("V2-Medium")
    with pytest.raises(UsageError, match="Choose one of"):
        load_model("v1.1-mpc")


@pytest.mark.parametrize(
    ("config", "tensors", "parameters"),
    [(NANO, 66, 1_066_402), (SMALL, 114, 7_112_322), (MEDIUM, 114, 21_031_506), (LARGE, 114, 43_831_170),
     (dataclasses.replace(SMALL, qk_norm=True), 162, 7_113_346)],
)  # fmt: skip
def test_sizes(config: EncoderConfig, tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        encoder = Encoder(config)
    assert {name: tuple(t.shape) for name, t in encoder.state_dict().items()} == tensor_shapes(config)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert len(official_shapes(config)) == tensors
    assert sum(int(np.prod(shape)) for shape in official_shapes(config).values()) == parameters


def test_official_names() -> None:
    assert official_names("s1.blocks.3.attention.in_proj.bias", qk_norm=False) == (
        "s1_backbone.transformer_encoder.layers.3.self_attn.in_proj_bias",
    )
    assert official_names("s2.blocks.0.attention.in_proj.weight", qk_norm=True) == tuple(
        f"s2_backbone.transformer_encoder.0.{letter}_proj.weight" for letter in "qkv"
    )
    assert official_names("reducer.down.weight", qk_norm=True) == ("dim_reducer.4.weight",)


def test_day_of_year_table_is_the_formula_bit_for_bit() -> None:
    for width in (32, 144, 440):
        table = day_of_year_table(width)
        assert (table.shape, table.dtype) == ((367, width), np.float32)
        for day in (0, 1, 59, 256, 257, 365, 366):
            for k in range(width // 2):
                omega = np.float32(np.exp(float(np.float32(2 * k) * np.float32(-np.log(10000.0) / width))))
                angle = float(np.float32(day) * omega)
                assert table[day, 2 * k] == np.float32(np.sin(angle))
                assert table[day, 2 * k + 1] == np.float32(np.cos(angle))
        days, k = np.arange(367)[:, None], np.arange(width // 2)
        angles = days * 10000.0 ** (-2 * k / width)
        np.testing.assert_allclose(table[:, ::2], np.sin(angles), rtol=0, atol=5e-5)
        np.testing.assert_allclose(table[:, 1::2], np.cos(angles), rtol=0, atol=5e-5)


def test_forward_joins_the_halves_and_can_be_trained() -> None:
    encoder = random_encoder(EncoderConfig(latent=4, layers=1, heads=2, feedforward=16, qk_norm=True))
    s2, s1 = torch.randn(3, 8, 10), torch.randn(3, 16, 2)
    days2, days1 = torch.randint(1, 367, (3, 8)), torch.randint(1, 367, (3, 16))
    out = encoder(s2, days2, s1, days1)
    halves = encoder.fuse(encoder.encode_sensor("s2", s2, days2), encoder.encode_sensor("s1", s1, days1))
    assert torch.equal(out, halves)
    assert float(out.detach().mean(dim=1).abs().max()) < 1e-6
    (out**3).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_dims() -> None:
    spec = REGISTRY["v2-medium"]
    assert [spec.check_dims(d) for d in (16, 32, 64, 128)] == [16, 32, 64, 128]
    with pytest.raises(UsageError, match="--dims 96: v2-medium offers 16, 32, 64, 128"):
        spec.check_dims(96)


def test_weights_alone_name_the_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(weights=student_file(tmp_path / "a.pt", NANO))
    assert (model.name, model.config, model.representation, model.device) == ("v2-nano", NANO, 128, "cpu")
    assert "not the published v2-nano" in caplog.text
    assert model.spec.model_url is None
    assert model.encoder is not None
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    other = load_model(weights=student_file(tmp_path / "b.pt", EncoderConfig(8, 2, 4, 48, qk_norm=True)))
    assert other.name == "v2-student"


def test_a_model_name_only_checks_the_weights(tmp_path: Path) -> None:
    file = student_file(tmp_path / "a.pt", NANO)
    assert load_model("v2-nano", weights=file).name == "v2-nano"
    with pytest.raises(IdentityError, match="is not a v2-small: it holds 2 layers of width 144"):
        load_model("v2-small", weights=file)
    with pytest.raises(UsageError, match="--model demo takes no --weights"):
        load_model("demo", weights=file)
    with pytest.raises(UsageError, match="no such model"):
        load_model("v9", weights=file)


def test_published_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = student_file(tmp_path / "student_nano.pt", NANO)
    asked: list[HubFile] = []

    def fetch(wanted: HubFile) -> Path:
        asked.append(wanted)
        return file

    monkeypatch.setattr(hub, "fetch", fetch)
    model = load_model("v2-nano")
    assert asked == [REGISTRY["v2-nano"].weights]
    assert model.spec.model_url == "https://huggingface.co/geotessera/TESSERA-V-2.0-2B-N"
    assert len(model.sha256) == 64
    with pytest.raises(UsageError, match=r"official checkpoint\. Give it with --weights"):
        load_model(file)


def test_a_file_of_the_published_sha_is_the_published_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = student_file(tmp_path / "a.pt", NANO)
    sha256 = load_model(weights=file).sha256
    weights = REGISTRY["v2-nano"].weights
    assert isinstance(weights, HubFile)
    spec = dataclasses.replace(REGISTRY["v2-nano"], weights=dataclasses.replace(weights, sha256=sha256))
    monkeypatch.setitem(REGISTRY, "v2-nano", spec)
    assert load_model(weights=file).spec is spec


def test_own_files_and_folders(tmp_path: Path) -> None:
    run = tmp_path / "alps"
    (run / "export").mkdir(parents=True)
    file = run / "export" / "encoder.safetensors"
    statistics = dataclasses.replace(V2_STUDENT, s1_asc_std=(1.5, 2.5))
    card = {"name": "alps", "dims": [64, 128], "statistics": statistics.to_card(), "demonstration_only": False}
    save_safetensors(file, random_encoder(), card)
    for path in (run, run / "export", file, str(file)):
        model = load_model(path)
        assert (model.name, model.config, model.spec.dims) == ("alps", NANO, (64, 128))
        assert model.spec.statistics == statistics
    assert load_model(weights=file).name == "alps"
    save_safetensors(run / "export" / "second.safetensors", random_encoder(), {})
    with pytest.raises(UsageError, match=r"holds 2 \.safetensors files"):
        load_model(run)
    assert load_model(run / "export" / "second.safetensors").name == "second"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.safetensors file in this folder"):
        load_model(tmp_path / "empty")
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(tmp_path / "absent.safetensors")


def test_the_packaged_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Any nano written by `save_safetensors` into the package's data folder is the demo model."""
    monkeypatch.setattr(load.resources, "files", lambda package: tmp_path)
    with pytest.raises(UsageError, match="this installation lacks its weights"):
        load_model("demo")
    (tmp_path / "data").mkdir()
    encoder = random_encoder()
    save_safetensors(tmp_path / "data" / "demo.safetensors", encoder, {"name": "demo", "dims": [16, 32, 64, 128]})
    with caplog.at_level(logging.WARNING):
        model = load_model("demo")
    assert "demonstration only" in caplog.text
    assert model.spec.demonstration_only
    assert model.spec.dims == (16, 32, 64, 128)
    assert model.encoder is not None
    for name, tensor in model.encoder.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, encoder.state_dict()[name].half().float()), name


def test_null_and_devices() -> None:
    model = load_model("null")
    assert (model.encoder, model.config, model.sha256, model.representation) == (None, None, "", 128)
    spec = REGISTRY["v2-nano"]
    assert isinstance(spec, ModelSpec)
    for device in ("cuda:99", "toaster"):
        with pytest.raises(UsageError, match=f"--device {device} cannot be used"):
            load._device(device)
