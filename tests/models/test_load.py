"""Names, specs, parts, and how a model is found."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models import (
    DEFAULT_MODEL,
    REGISTRY,
    EncoderConfig,
    available,
    describe_model,
    get_spec,
    hub,
    load,
    load_model,
)
from tessera_cli.models.checkpoint import read_checkpoint, save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import official_names, official_shapes, tensor_shapes
from tessera_cli.models.parts import day_of_year_table
from tessera_cli.models.registry import NANO_CONFIG, SMALL_CONFIG
from tessera_cli.models.spec import FAMILIES, HubFile
from tessera_cli.sampling import BucketedSampling, RandomSampling
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS
from tests import reference
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.tiles import GOLDEN


def student_file(path: Path, config: EncoderConfig) -> Path:
    given, tensors = reference.random_weights(
        "v2_student",
        1,
        latent=config.latent,
        layers=config.s2.layers,
        heads=config.s2.heads,
        feedforward=config.s2.feedforward,
        qk_norm=config.qk_norm,
    )
    torch.save(reference.official_payload("v2_student", given, tensors), path)
    return path


def random_encoder(config: EncoderConfig = NANO_CONFIG) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Encoder(config)


# --- the released models ----------------------------------------------------------------------------------------------


def config_of(name: str) -> EncoderConfig:
    config = REGISTRY[name].config
    assert config is not None
    return config


def test_names() -> None:
    released = ["v1.0", "v1.0-qat", "v1.1-mpc", "v1.1-aws", "v2-nano", "v2-small", "v2-medium", "v2-large"]
    assert available() == [*released, "v2-teacher", "demo"]
    assert DEFAULT_MODEL == "v2-medium"
    assert REGISTRY["null"].hidden
    assert {name for name, spec in REGISTRY.items() if spec.demonstration_only} == {"demo"}
    assert all(name == spec.name for name, spec in REGISTRY.items())
    with pytest.raises(UsageError, match=r"v2-smal: .* Did you mean v2-small\? Choose one of v1\.0, v1\.0-qat, "):
        get_spec("v2-smal")
    with pytest.raises(UsageError, match=r"V2-Medium.*Did you mean v2-medium"):
        load_model("V2-Medium")
    with pytest.raises(UsageError, match=r"Did you mean v1\.1-mpc\? Choose one of"):
        load_model("v1.1-mcp")


@pytest.mark.parametrize(
    ("name", "official", "source"),
    [
        ("v1.0", "v1_0_early", None),
        ("v1.0-qat", "v1_0_qat", None),
        ("v1.1-mpc", "v1_1", "mpc"),
        ("v1.1-aws", "v1_1", "aws"),
        ("v2-nano", "v2_student", None),
        ("v2-small", "v2_student", None),
        ("v2-medium", "v2_student", None),
        ("v2-large", "v2_student", None),
        ("v2-teacher", "v2_teacher", None),
        ("demo", "v2_student", None),
    ],
)
def test_what_follows_from_a_name(name: str, official: str, source: str | None) -> None:
    """spec/encoders.md, sections 1, 5, 7 and 8."""
    spec = REGISTRY[name]
    families = dict(zip(("v1_0_early", "v1_0_qat", "v1_1", "v2_student", "v2_teacher"), FAMILIES, strict=True))
    assert (spec.family, spec.source) == (families[official], source)
    known, ours = reference.statistics(official, source), spec.statistics
    assert ours is not None
    assert (ours.s2_mean, ours.s2_std) == (known.s2_mean, known.s2_std)
    assert ((ours.s1_asc_mean, ours.s1_asc_std), (ours.s1_desc_mean, ours.s1_desc_std)) == (known.asc, known.desc)
    assert spec.quantiser == {"v1": "v1", "v2": "v2"}[official[:2]] if official != "v2_teacher" else not spec.quantiser
    assert spec.default_dims == (1024 if official == "v2_teacher" else 128)
    rule = spec.observations
    if official.startswith("v1_0"):
        assert isinstance(rule, RandomSampling)
        assert (rule.s2, rule.s1, rule.repeats, rule.minimum, rule.batch, rule.legacy) == (40, 40, 1, 0, 1024, False)
        assert rule.dummies is (official == "v1_0_qat")
    else:
        assert isinstance(rule, BucketedSampling)
        assert rule.bins == tuple(range(8, 257, 8))
        assert rule == REGISTRY["v1.1-mpc" if official == "v1_1" else "v2-nano"].observations
    assert len(spec.dims) == (4 if official == "v2_student" else 1)
    if spec.quantiser is None:
        with pytest.raises(UsageError, match=r"--dtype int8: v2-teacher gives float32 .* 1024 bands only"):
            spec.check_dtype("int8")
    else:
        spec.check_dtype("int8")
    spec.check_dtype("float32")


SIZES = {
    "v2-nano": (66, 1_066_402),
    "v2-small": (114, 7_112_322),
    "v2-medium": (114, 21_031_506),
    "v2-large": (114, 43_831_170),
    "v2-teacher": (199, 2_064_266_242),
    "v1.1-mpc": (136, 57_708_738),
    "v1.1-aws": (136, 57_708_738),
    "v1.0-qat": (132, 45_828_226),
    "v1.0": (214, 87_841_922),
    "demo": (66, 1_066_402),
}
"""Tensors and parameters: spec/encoders.md, section 2."""


@pytest.mark.parametrize("name", [*SIZES, "small with QK-norm"])
def test_sizes(name: str) -> None:
    config = config_of(name) if name in SIZES else dataclasses.replace(SMALL_CONFIG, qk_norm=True)
    tensors, parameters = SIZES.get(name, (162, 7_113_346))
    with torch.device("meta"):
        encoder = Encoder(config)
    assert {name: tuple(t.shape) for name, t in encoder.state_dict().items()} == tensor_shapes(config)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert len(official_shapes(config)) == tensors
    assert sum(int(np.prod(shape)) for shape in official_shapes(config).values()) == parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_official_shapes(name: str) -> None:
    variant = VARIANTS[name]
    assert official_shapes(variant.config) == {name: t.shape for name, t in variant.weights()[1].items()}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is absent")
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("v1_0_early", "v1.0"),
        ("v1_0_qat", "v1.0-qat"),
        ("v1_1", "v1.1-mpc"),
        ("v2_nano", "v2-nano"),
        ("v2_small", "v2-small"),
        ("v2_medium", "v2-medium"),
        ("v2_large", "v2-large"),
        ("v2_teacher", "v2-teacher"),
    ],
)
def test_official_names_and_shapes_of_the_released_models(file: str, name: str) -> None:
    found = json.loads((GOLDEN / "tensors" / f"{file}.json").read_text())
    assert {n: tuple(shape) for n, shape in found["tensors"].items()} == official_shapes(config_of(name))


@pytest.mark.parametrize(
    ("name", "at_64", "at_40", "a2", "a1", "q", "k"),
    [
        ("v2-nano", 0.115, 0.070, 0.8191, 0.8168, 0.001152, 0.479),
        ("v2-small", 0.857, 0.528, 6.4287, 6.4246, 0.004096, 1.311),
        ("v2-medium", 2.520, 1.563, 19.2086, 19.2016, 0.007040, 3.548),
        ("v2-large", 5.230, 3.252, 40.1562, 40.1459, 0.010240, 7.209),
        ("v2-teacher", 212.4, 133.1, 1644.27, 1644.20, 0.065536, 1375.9),
        ("v1.1-mpc", 6.807, 4.235, 52.3162, 52.3039, 0.012288, 10.617),
        ("v1.0-qat", 5.907, 3.676, 45.6253, 45.6172, 0.008192, 0.262),
        ("v1.0", 11.343, 7.058, 87.5684, 87.5602, 0.016384, 0.262),
    ],
)
def test_arithmetic_per_pixel(name: str, at_64: float, at_40: float, a2: float, a1: float, q: float, k: float) -> None:
    """Both tables of spec/encoders.md, section 10: GFLOP, whose last digit is not always rounded, and MFLOP."""
    flop = config_of(name).flop_per_pixel
    last_digit = 0.1 if at_64 > 100 else 0.001
    assert flop(64, 64) / 1e9 == pytest.approx(at_64, abs=last_digit)
    assert flop(40, 40) / 1e9 == pytest.approx(at_40, abs=last_digit)
    for t2, t1 in ((8, 256), (256, 8), (40, 0)):
        mflop = a2 * t2 + a1 * t1 + q * (t2 * t2 + t1 * t1) + k
        assert flop(t2, t1) / 1e6 == pytest.approx(mflop, rel=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_arithmetic_is_what_torch_counts(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = dataclasses.replace(VARIANTS[name].config, latent=8)
    with torch.device("meta"):
        encoder, (s2, s1) = Encoder(config), (torch.empty(1, 9, 10), torch.empty(1, 17, 2))
        doy = [torch.empty(1, length, dtype=torch.int64) for length in (9, 17)]
        days = torch.empty(367, config.width)
    with FlopCounterMode(display=False) as counted:
        encoder.fuse(encoder.s2(s2, doy[0], days), encoder.s1(s1, doy[1], days))
    assert counted.get_total_flops() == config.flop_per_pixel(9, 17)


def test_official_names() -> None:
    student, early = config_of("v2-nano"), config_of("v1.0")
    qk_norm = dataclasses.replace(student, qk_norm=True)
    assert official_names("s1.blocks.3.attention.in_proj.bias", student) == (
        "s1_backbone.transformer_encoder.layers.3.self_attn.in_proj_bias",
    )
    assert official_names("s2.blocks.0.attention.in_proj.weight", qk_norm) == tuple(
        f"s2_backbone.transformer_encoder.0.{letter}_proj.weight" for letter in "qkv"
    )
    assert official_names("s2.blocks.0.attention.in_proj.weight", config_of("v2-teacher")) == tuple(
        f"s2_backbone.transformer_encoder.layers.0.{letter}_proj.weight" for letter in "qkv"
    )
    assert official_names("fusion.blocks.1.down.bias", config_of("v2-teacher")) == (
        "fusion_transformer.layers.1.linear2.bias",
    )
    assert official_names("reducer.down.weight", student) == ("dim_reducer.4.weight",)
    assert official_names("reducer.down.weight", early) == ("dim_reducer.0.weight",)
    assert official_names("s1.pool.states.bias", early) == ("s1_backbone.attn_pool.temporal_context.bias_hh_l0",)
    assert official_names("s2.pool.gates.weight", config_of("v1.1-mpc")) == tuple(
        f"s2_backbone.attn_pool.temporal_context.gru_cell.W_h{gate}.weight" for gate in "rz"
    )


# --- parts ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_joins_the_halves_and_can_be_trained(name: str) -> None:
    config = VARIANTS[name].config
    encoder = random_encoder(config)
    s2, s1 = torch.randn(3, 8, 10), torch.randn(3, 16, 2)
    days2, days1 = torch.randint(1, 367, (3, 8)), torch.randint(1, 367, (3, 16))
    out = encoder(s2, days2, s1, days1)
    halves = encoder.fuse(encoder.encode_modality("s2", s2, days2), encoder.encode_modality("s1", s1, days1))
    assert torch.equal(out, halves)
    assert out.shape == (3, config.representation)
    assert (float(out.detach().mean(dim=1).abs().max()) < 1e-6) is config.final_norm
    (out**3).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_dims() -> None:
    spec = REGISTRY["v2-medium"]
    assert [spec.check_dims(d) for d in (16, 32, 64, 128)] == [16, 32, 64, 128]
    with pytest.raises(UsageError, match="--dims 96: v2-medium offers 16, 32, 64, 128"):
        spec.check_dims(96)


def test_sources(caplog: pytest.LogCaptureFixture) -> None:
    spec = REGISTRY["v2-medium"]
    for known in ("mpc", None, "stored"):
        spec.check_source(known)
    REGISTRY["null"].check_source("aws")
    REGISTRY["v1.1-aws"].check_source("aws")
    REGISTRY["v1.1-aws"].check_source(None)
    assert not caplog.messages
    spec.check_source("aws")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Model v2-medium has one set of statistics for all sources")
    caplog.clear()
    for known in ("mpc", "aws"):
        REGISTRY["v1.0"].check_source(known)
        assert "older pipeline" in caplog.messages[-1]
    caplog.clear()
    for known in ("mpc", "stored"):
        with pytest.raises(IdentityError, match=rf"v1\.1-aws was trained on d-pixels of source aws, .* {known}\."):
            REGISTRY["v1.1-aws"].check_source(known)
        REGISTRY["v1.1-aws"].check_source(known, force=True)
    assert len(caplog.messages) == 2
    assert all("--force-source" in message for message in caplog.messages)


# --- files ------------------------------------------------------------------------------------------------------------


def test_weights_alone_name_the_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(weights=student_file(tmp_path / "a.pt", NANO_CONFIG))
    assert (model.name, model.config, model.representation, model.device) == ("v2-nano", NANO_CONFIG, 128, "cpu")
    assert "not the published v2-nano" in caplog.text
    assert model.spec.weights is None
    assert model.encoder is not None
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    other = load_model(weights=student_file(tmp_path / "b.pt", EncoderConfig.of(8, 2, 4, 48, qk_norm=True)))
    assert other.name == "v2-student-own"


def test_a_model_name_only_checks_the_weights(tmp_path: Path) -> None:
    file = student_file(tmp_path / "a.pt", NANO_CONFIG)
    assert load_model("v2-nano", weights=file).name == "v2-nano"
    with pytest.raises(UsageError, match="is not a v2-small: it is a v2-student and holds 2 layers of width 144"):
        load_model("v2-small", weights=file)
    with pytest.raises(UsageError, match="--model demo takes no --weights"):
        load_model("demo", weights=file)
    with pytest.raises(UsageError, match="no such model"):
        load_model("v9", weights=file)


def test_published_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = student_file(tmp_path / "student_nano.pt", NANO_CONFIG)
    asked: list[HubFile] = []

    def fetch(wanted: HubFile) -> Path:
        asked.append(wanted)
        return file

    monkeypatch.setattr(hub, "fetch", fetch)
    model = load_model("v2-nano")
    assert asked == [REGISTRY["v2-nano"].weights]
    assert model.spec is REGISTRY["v2-nano"]
    assert len(model.sha256) == 64
    with pytest.raises(UsageError, match=r"official checkpoint\. Give it with --weights"):
        load_model(file)
    with pytest.raises(UsageError, match="is not a v2-small: it is a v2-student and holds 2 layers of width 144"):
        load_model("v2-small")


def test_a_file_of_the_published_sha_is_the_published_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = student_file(tmp_path / "a.pt", NANO_CONFIG)
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
    statistics = dataclasses.replace(V2_STUDENT_STATISTICS, s1_asc_std=(1.5, 2.5))
    card = {"name": "alps", "dims": [64, 128], "statistics": statistics.to_card(), "demonstration_only": False}
    save_safetensors(file, random_encoder(), card)
    for path in (run, run / "export", file, str(file)):
        model = load_model(path)
        assert (model.name, model.config, model.spec.dims) == ("alps", NANO_CONFIG, (64, 128))
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
    monkeypatch.setattr(hub.resources, "files", lambda package: tmp_path)
    with pytest.raises(UsageError, match="This installation lacks its weights"):
        load_model("demo")
    (tmp_path / "data").mkdir()
    encoder = random_encoder()
    save_safetensors(tmp_path / "data" / "demo.safetensors", encoder, {"name": "demo", "dims": [16, 32, 64, 128]})
    with caplog.at_level(logging.WARNING):
        model = load_model("demo")
    assert caplog.messages == [
        "Model demo is for demonstration only: of real fields it tells less than their plain time series."
    ]
    assert model.spec is REGISTRY["demo"]
    assert model.encoder is not None
    for name, tensor in model.encoder.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, encoder.state_dict()[name].half().float()), name


def test_the_registry_says_of_the_demo_what_its_card_says() -> None:
    file = Path(load.__file__).parent / "data" / "demo.safetensors"
    assert load.identify(read_checkpoint(file)) == dataclasses.replace(REGISTRY["demo"], weights=None)


def test_own_files_for_demonstration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "toy.safetensors"
    save_safetensors(file, random_encoder(), {"demonstration_only": True})
    load_model(file)
    assert caplog.messages == [
        "Model toy is for demonstration only: its card says so, and its embeddings are not meant to be used."
    ]


def test_describing_a_released_model_leaves_its_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hub, "fetch")
    monkeypatch.delattr("tessera_cli.models.checkpoint.read_checkpoint")
    assert describe_model() is REGISTRY[DEFAULT_MODEL]
    for name in REGISTRY:
        assert describe_model(name) == REGISTRY[name]
    with pytest.raises(UsageError, match="no such model or file"):
        describe_model("v9")


def test_describing_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "toy.safetensors"
    save_safetensors(own, random_encoder(), {"dims": [32, 64], "demonstration_only": True})
    assert describe_model(tmp_path) == describe_model(None, own) == load_model(own).spec
    assert (describe_model(own).name, describe_model(own).default_dims) == ("toy", 64)
    official = student_file(tmp_path / "a.pt", NANO_CONFIG)
    assert describe_model("v2-nano", official) == describe_model(weights=official)
    assert describe_model(weights=official).name == "v2-nano"
    with pytest.raises(UsageError, match="is not a v2-large"):
        describe_model("v2-large", official)
    with pytest.raises(UsageError, match="cannot be read"):
        describe_model(tmp_path / "absent.safetensors")


def test_null(caplog: pytest.LogCaptureFixture) -> None:
    model = load_model("null")
    assert (model.encoder, model.config, model.sha256, model.representation) == (None, None, "", 128)
    assert model.device == "cpu"
    assert not caplog.messages


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        monkeypatch.setattr(torch, "empty", lambda size, device: None)
        assert load.get_device("auto") == torch.device(device)
        assert load.get_device("cpu") == torch.device("cpu")
    monkeypatch.undo()
    for device in ("cuda:99", "toaster"):
        with pytest.raises(UsageError, match=f"--device {device} cannot be used"):
            load.get_device(device)
