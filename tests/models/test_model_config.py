"""What the weights do not say: `--model-config`, `--model`, `--source`, and the record of the d-pixels."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.models import REGISTRY, EncoderConfig, Model, ModelConfig, describe_model, hub, load_model
from tessera_cli.models.architecture import TransformerConfig
from tessera_cli.models.checkpoint import read_checkpoint, save_safetensors
from tessera_cli.models.layout import official_shapes
from tessera_cli.models.spec import HubFile, ModelSpec
from tessera_cli.sampling import BucketedSampling, RandomSampling
from tessera_cli.sampling.statistics import V1_1_STATISTICS, V2_STUDENT_STATISTICS
from tests.helpers.checkpoints import TINY, V2, VARIANTS, Variant, saved
from tests.models.test_checkpoint import random_encoder

EARLY, QAT, NEW, STUDENT, TEACHER = (
    VARIANTS[name] for name in ("v1.0-early", "v1.0-qat", "v1.1", "v2-student", "v2-teacher")
)


def file_of(folder: Path, variant: Variant) -> Path:
    return saved(folder, variant.payload(), f"{variant.official}.pt")


def loaded(folder: Path, variant: Variant, **said: Any) -> Model:
    """The model of a file whose configuration is changed so."""
    values = {**variant.said.values, **said}
    return load_model(weights=file_of(folder, variant), model_config=ModelConfig(values), device="cpu")


def refused(folder: Path, variant: Variant, *words: str, **said: Any) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(folder, variant, **said)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"latent_dim": 4, "data_source": "mpc", "comment": "größer"}', encoding="utf-8")
    said = ModelConfig.from_file(path)
    assert said.values == {"latent_dim": 4, "data_source": "mpc", "comment": "größer"}
    assert str(path) in said.origin
    assert "latent_dim" in said
    assert "nhead" not in said


BAD_FILES = {
    "empty": b"",
    "text": b"latent_dim = 4",
    "cut": b'{"latent_dim": 4',
    "python": b"{'latent_dim': 4}",
    "comment": b'{"latent_dim": 4} // official',
    "not UTF-8": '{"note": "größer"}'.encode("latin-1"),
    "UTF-16": '{"latent_dim": 4}'.encode("utf-16"),
    "NaN": b'{"latent_dim": NaN}',
    "infinity": b'{"note": [-Infinity]}',
    "deep": b'{"a":' + b"[" * 100_000,
    "long number": b'{"latent_dim": ' + b"9" * 10_000 + b"}",
    "pickle": b"\x80\x04}\x94.",
}
OTHER_JSON = {"list": b"[1]", "number": b"4", "null": b"null", "word": b'"mpc"'}


@pytest.mark.parametrize("kind", [*BAD_FILES, *OTHER_JSON])
def test_files_that_hold_no_configuration(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes({**BAD_FILES, **OTHER_JSON}[kind])
    with pytest.raises(UsageError, match="not JSON" if kind in BAD_FILES else "no JSON object") as caught:
        ModelConfig.from_file(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(UsageError, match=r"cannot be read .* Check the path"):
            ModelConfig.from_file(path)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_heads_of_v1_0_are_the_official_ones(tmp_path: Path) -> None:
    for variant, heads in ((EARLY, 8), (QAT, 4)):
        path = file_of(tmp_path, variant)
        assert read_checkpoint(path).config.s2 == read_checkpoint(path).config.s1 == TransformerConfig(2, heads, 16)
        assert read_checkpoint(path, ModelConfig({"nhead": 2})).config == variant.config
        assert read_checkpoint(path, ModelConfig({"num_layers": 2, "dim_feedforward": 16})).config.s2.heads == heads


def test_heads_of_v1_1_must_be_said(tmp_path: Path) -> None:
    path = file_of(tmp_path, NEW)
    for values in ({}, {"s2_num_heads": 2}, {"s1_num_heads": 2}, {"nhead": 2}):
        with pytest.raises(UsageError, match=r"latent_dim 4, 2 layers .* never released") as caught:
            read_checkpoint(path, ModelConfig(values))
        assert "Give s2_num_heads and s1_num_heads in --model-config FILE.json" in str(caught.value)
        assert str(path) in str(caught.value)
    config = read_checkpoint(path, ModelConfig({"s2_num_heads": 2, "s1_num_heads": 4})).config
    assert (config.s2.heads, config.s1.heads) == (2, 4)


def test_heads_of_the_released_v1_1_need_not_be_said(tmp_path: Path, small_v1_1: EncoderConfig) -> None:
    path = file_of(tmp_path, NEW)
    assert read_checkpoint(path).config == read_checkpoint(path, ModelConfig({"s2_num_heads": 2})).config == small_v1_1
    other = read_checkpoint(path, ModelConfig({"s2_num_heads": 4, "s1_num_heads": 4})).config
    assert (other.s2.heads, other.s1.heads) == (4, 4)
    with pytest.raises(UsageError, match="never released"):
        read_checkpoint(path, ModelConfig({"s2_num_heads": 4}))
    with pytest.raises(UsageError, match="never released"):
        read_checkpoint(file_of(tmp_path, VARIANTS["v1.1-sum"]))


CONTRADICTIONS = {
    "v1.0-early": {"latent_dim": (4, 8), "num_layers": (2, 3), "dim_feedforward": (16, 32)},
    "v1.0-qat": {"latent_dim": (4, 128), "num_layers": (2, 4), "dim_feedforward": (16, 4096)},
    "v1.0-qat-sum": {"fusion_method": ("sum", "concat")},
    "v1.1": {
        "latent_dim": (4, 192),
        "s2_num_layers": (2, 4),
        "s1_num_layers": (2, 1),
        "s2_dim_feedforward": (16, 2048),
        "s1_dim_feedforward": (16, None),
        "representation_dim": (192, 128),
        "fusion_method": ("concat", "sum"),
    },
    "v1.1-unequal": {"s1_num_layers": (1, 2), "s1_dim_feedforward": (24, 16), "representation_dim": (40, 192)},
    "v2-student": {
        "latent_dim": (4, 8),
        "num_layers": (2, 4),
        "nhead": (2, 4),
        "dim_feedforward": (16, 384),
        "repr_dim": (128, 64),
        "enable_qk_norm": (False, True),
    },
    "v2-student-qknorm": {"enable_qk_norm": (True, False)},
    "v2-teacher": {
        "latent_dim": (4, 1024),
        "num_layers": (2, 4),
        "nhead": (2, 4),
        "dim_feedforward": (16, "16"),
        "repr_dim": (96, 1024),
        "final_layernorm": (True, False),
    },
    "v2-teacher-no-final-norm": {"final_layernorm": (False, True)},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_to_the_file(tmp_path: Path, name: str) -> None:
    variant = VARIANTS[name]
    for key, (found, other) in CONTRADICTIONS[name].items():
        given, holds = json.dumps(other), json.dumps(found)
        refused(tmp_path, variant, f"{key} is {given}", f"the weights say {holds}", **{key: other})
        loaded(tmp_path, variant, **{key: found})


OTHERS: dict[str, dict[str, object]] = {
    "v1.0-early": {"s2_num_heads": 0, "repr_dim": 7, "num_obs_checkpoints": "x", "data_source": 3, "use_s2": False},
    "v1.0-qat": {"s1_num_layers": -1, "representation_dim": 9, "save_embedding_dim": 10**6, "enable_qk_norm": "no"},
    "v1.1": {"nhead": 3, "num_layers": 77, "dim_feedforward": None, "sample_size_s2": "all", "repr_dim": 1},
    "v2-student": {"num_obs_checkpoints": [], "fusion_method": "sum", "sample_size_s1": -1, "data_source": "aws"},
    "v2-teacher": {"s2_num_heads": 3, "save_embedding_dim": 16, "min_valid_timesteps": -5, "use_s1": 0},
}


@pytest.mark.parametrize("name", OTHERS)
def test_keys_of_other_families_are_ignored(tmp_path: Path, name: str) -> None:
    more = {**OTHERS[name], "log_interval_steps": 20, "use_bf16": True, "projector_out_dim": None, "what": [{}]}
    assert loaded(tmp_path, VARIANTS[name], **more).spec == loaded(tmp_path, VARIANTS[name]).spec


# --- observations and what is stored ----------------------------------------------------------------------------------


def bins(folder: Path, given: object) -> tuple[int, ...]:
    rule = loaded(folder, NEW, num_obs_checkpoints=given).spec.observations
    assert isinstance(rule, BucketedSampling)
    return rule.bins


def test_bins(tmp_path: Path) -> None:
    assert bins(tmp_path, [16, 8, 32, 0, 24, 16]) == (8, 16, 24, 32)
    assert bins(tmp_path, [-8, 5, 5]) == (5,)
    path = file_of(tmp_path, NEW)
    rule = load_model(weights=path, model_config=ModelConfig({"s2_num_heads": 2, "s1_num_heads": 2})).spec.observations
    assert isinstance(rule, BucketedSampling)
    assert rule.bins == tuple(range(8, 257, 8))
    for given in ([], [0], [-8, 0], "8,16", 8, None, {"8": 1}, [8, "16"], [8.0], [True], [None], [10**10]):
        refused(tmp_path, NEW, "num_obs_checkpoints", "but it should be", num_obs_checkpoints=given)


def test_saved_values(tmp_path: Path) -> None:
    unequal = VARIANTS["v1.1-unequal"]  # gives 40 values
    heads = {"s2_num_heads": 2, "s1_num_heads": 4, "s2_num_layers": 2, "s1_num_layers": 1}
    spec = load_model(weights=file_of(tmp_path, unequal), model_config=ModelConfig(heads)).spec
    assert (spec.dims, spec.default_dims) == ((40,), 40)
    spec = load_model(
        weights=file_of(tmp_path, NEW), model_config=ModelConfig({"s2_num_heads": 2, "s1_num_heads": 2})
    ).spec
    assert (spec.dims, spec.default_dims) == ((128,), 128)
    for saved_dims in (1, 28, 192):
        assert loaded(tmp_path, NEW, save_embedding_dim=saved_dims).spec.dims == (saved_dims,)
    refused(tmp_path, NEW, "save_embedding_dim is 193", "gives 192 values", save_embedding_dim=193)
    refused(tmp_path, unequal, "save_embedding_dim is 128", "gives 40 values", save_embedding_dim=128)
    for given in (0, -1, 28.0, "28", None, [28], True):
        refused(tmp_path, NEW, f"save_embedding_dim is {json.dumps(given)}, but it should be", save_embedding_dim=given)


def test_passes_left_out(tmp_path: Path) -> None:
    assert loaded(tmp_path, NEW).spec.use_ascending
    assert not loaded(tmp_path, NEW, disable_s1_ascending=True).spec.use_ascending
    for given in (1, "true", None):
        refused(tmp_path, NEW, "disable_s1_ascending is", "a valid boolean", disable_s1_ascending=given)


@pytest.mark.parametrize(("key", "only"), [("use_s2", True), ("use_s1", True), ("split_s1_modalities", False)])
def test_switches_that_no_released_model_has(tmp_path: Path, key: str, only: bool) -> None:
    loaded(tmp_path, NEW, **{key: only})
    refused(tmp_path, NEW, f"{key} is {json.dumps(not only)}, but it must be {json.dumps(only)}", **{key: not only})
    refused(tmp_path, NEW, f"{key} is {int(only)}, but it should be a valid boolean", **{key: int(only)})


@pytest.mark.parametrize("variant", [EARLY, QAT], ids=["early", "qat"])
def test_draws(tmp_path: Path, variant: Variant) -> None:
    rule = load_model(weights=file_of(tmp_path, variant)).spec.observations
    assert isinstance(rule, RandomSampling)
    assert (rule.s2, rule.s1, rule.repeats, rule.minimum, rule.batch) == (40, 40, 1, 0, 1024)
    said = {"sample_size_s2": 12, "sample_size_s1": 7, "repeat_times": 3, "min_valid_timesteps": 2, "batch_size": 64}
    changed = loaded(tmp_path, variant, **said).spec.observations
    assert changed == dataclasses.replace(rule, s2=12, s1=7, repeats=3, minimum=2, batch=64)
    for key in said:
        least = 0 if key == "min_valid_timesteps" else 1
        for given in (least - 1, 2.5, "4", None, True, [4], 2**31):
            refused(tmp_path, variant, f"{key} is {json.dumps(given)}, but it should be", **{key: given})


def test_the_configuration_of_a_released_model(small_v1_1: EncoderConfig) -> None:
    """Its weights are not needed to describe it."""
    said = ModelConfig({"save_embedding_dim": 64, "num_obs_checkpoints": [32], "data_source": "mpc"})
    spec = describe_model("v1.1-mpc", model_config=said)
    assert (spec.dims, spec.name, spec.config) == ((64,), "v1.1-mpc", small_v1_1)
    rule = REGISTRY["v1.1-mpc"].observations
    assert isinstance(rule, BucketedSampling)
    assert spec.observations == dataclasses.replace(rule, bins=(32,))
    with pytest.raises(IdentityError, match=r"data_source is aws, but v1\.1-mpc was trained on mpc"):
        describe_model("v1.1-mpc", model_config=ModelConfig({"data_source": "aws"}))


# --- the model's name -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_v1_1(monkeypatch: pytest.MonkeyPatch) -> EncoderConfig:
    """As if both v1.1 models had been released in a tiny size, so that the tests need no large files."""
    for name in ("v1.1-mpc", "v1.1-aws"):
        monkeypatch.setitem(REGISTRY, name, dataclasses.replace(REGISTRY[name], config=NEW.config))
    monkeypatch.setattr("tessera_cli.models.official.V1_1_CONFIG", NEW.config)
    return NEW.config


@pytest.mark.parametrize("name", ["v1.0", "v1.0-qat", "v1.1-mpc", "v1.1-aws", "v2-nano", "v2-teacher"])
def test_a_model_name_checks_the_file(tmp_path: Path, name: str) -> None:
    for variant in (EARLY, QAT, NEW, STUDENT, TEACHER):
        path = file_of(tmp_path, variant)
        with pytest.raises(UsageError) as caught:
            load_model(name, weights=path, model_config=variant.said)
        assert caught.value.exit_code == 2
        message = str(caught.value)
        assert f"{path} is not a {name}: it is a {variant.family} and holds 2 layers of width 16, 2 heads" in message


def test_a_model_name_checks_the_heads(tmp_path: Path, small_v1_1: EncoderConfig) -> None:
    said = ModelConfig({"s2_num_heads": 4, "s1_num_heads": 4})
    with pytest.raises(UsageError, match=r"holds 2 layers of width 16, 4 heads.* v1\.1-mpc has .* 16, 2 heads"):
        load_model("v1.1-mpc", weights=file_of(tmp_path, NEW), model_config=said)


def test_v1_1_of_the_released_size(tmp_path: Path, small_v1_1: EncoderConfig, caplog: pytest.LogCaptureFixture) -> None:
    path = file_of(tmp_path, NEW)
    with caplog.at_level(logging.WARNING):
        unbound = load_model(weights=path).spec
        assert (unbound.name, unbound.source, unbound.statistics) == ("v1.1", None, None)
        assert not caplog.messages
        named = load_model("v1.1-mpc", weights=path).spec
        assert f"{path} is not the published v1.1-mpc, only of its size" in caplog.text
        caplog.clear()
        load_model("v1.1-aws", weights=path)  # nobody knows what the published file holds
        assert not caplog.messages
    assert (named.name, named.source, named.statistics) == ("v1.1-mpc", "mpc", V1_1_STATISTICS["mpc"])
    for source in ("mpc", "aws"):
        said = ModelConfig({"data_source": source})
        assert load_model(weights=path, model_config=said).spec == dataclasses.replace(
            named, name=f"v1.1-{source}", source=source, statistics=V1_1_STATISTICS[source]
        )
        assert load_model(f"v1.1-{source}", weights=path, model_config=said).spec.source == source
        other = {"mpc": "aws", "aws": "mpc"}[source]
        with pytest.raises(IdentityError, match="data_source is") as caught:
            load_model(f"v1.1-{other}", weights=path, model_config=said)
        assert caught.value.exit_code == 5
    with pytest.raises(UsageError, match=r"data_source is .sentinelhub.*'mpc' or 'aws'"):
        load_model(weights=path, model_config=ModelConfig({"data_source": "sentinelhub"}))


def publish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> ModelSpec:
    """As if the file were the one that the registry knows."""
    spec = REGISTRY[name]
    assert isinstance(spec.weights, HubFile)
    known = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, sha256=read_checkpoint(path).sha256))
    monkeypatch.setitem(REGISTRY, name, known)
    return known


def test_the_published_v1_1_knows_its_source(
    tmp_path: Path, small_v1_1: EncoderConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = file_of(tmp_path, NEW)
    known = publish(monkeypatch, "v1.1-mpc", path)
    for name in (None, "v1.1-mpc"):
        for said in (ModelConfig(), ModelConfig({"data_source": "mpc"})):
            model = load_model(name, weights=path, model_config=said)
            assert model.spec == known
            assert model.spec.weights == known.weights
    assert not caplog.messages
    model = load_model(weights=path, device="cpu")
    assert EmbedSettings.checked(model).source == "mpc"
    assert EmbedSettings.checked(model, "mpc", recorded="mpc").model.spec.statistics == V1_1_STATISTICS["mpc"]
    for source, recorded in (("aws", None), (None, "aws"), ("mpc", "aws")):
        with pytest.raises(IdentityError):
            EmbedSettings.checked(model, source, recorded=recorded)
    with pytest.raises(IdentityError, match=r"data_source is aws, but v1\.1-mpc was trained on mpc"):
        load_model(weights=path, model_config=ModelConfig({"data_source": "aws"}))
    with pytest.raises(IdentityError, match=r"--model v1\.1-aws: data_source is aws, but v1\.1-mpc"):
        load_model("v1.1-aws", weights=path)
    with pytest.raises(UsageError, match=r"is the published v1\.1-mpc, which holds 2 layers of width 16, 2 heads"):
        load_model(weights=path, model_config=ModelConfig({"s2_num_heads": 4, "s1_num_heads": 4}))
    monkeypatch.setattr(hub, "fetch", lambda file: path)
    assert load_model("v1.1-mpc").spec == known
    with pytest.raises(IdentityError):
        load_model("v1.1-mpc", model_config=ModelConfig({"data_source": "aws"}))


def test_the_released_v1_1_is_of_the_sizes_that_are_filled_in() -> None:
    from tessera_cli.models import official

    assert REGISTRY["v1.1-mpc"].config == REGISTRY["v1.1-aws"].config == official.V1_1_CONFIG
    assert len(official_shapes(official.V1_1_CONFIG)) == 136


# --- statistics and source --------------------------------------------------------------------------------------------


@pytest.fixture
def v1_1(tmp_path: Path) -> Model:
    """A v1.1 model of which nobody has said what it was trained on."""
    return loaded(tmp_path, NEW)


def test_nobody_knows_the_source(v1_1: Model, tmp_path: Path) -> None:
    assert v1_1.spec.statistics is None
    for recorded in (None, "stored", "MPC"):
        with pytest.raises(UsageError, match=r"Say it with --source mpc or --source aws \(or data_source") as caught:
            EmbedSettings.checked(v1_1, recorded=recorded)
        assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="Say it with --source"):
        EmbedSettings.checked(v1_1, force_source=True)


@pytest.mark.parametrize("source", ["mpc", "aws"])
def test_the_source_settles_the_statistics(tmp_path: Path, v1_1: Model, source: str) -> None:
    with_config = loaded(tmp_path, NEW, data_source=source)
    for settings in (
        EmbedSettings.checked(v1_1, source),
        EmbedSettings.checked(v1_1, recorded=source),
        EmbedSettings.checked(v1_1, source, recorded=source),
        EmbedSettings.checked(with_config),
        EmbedSettings.checked(with_config, source, recorded=source),
        EmbedSettings.checked(with_config, recorded=source),
    ):
        spec = settings.model.spec
        assert (spec.statistics, spec.source, spec.name) == (V1_1_STATISTICS[source], source, "v1.1-own")
        assert settings.source == source
        assert settings.dims == 128
        identity = settings.identity()
        assert (identity["source"], identity["model"]) == (source, "v1.1-own")
        assert identity["model_config"]["source"] == source
    assert v1_1.spec.statistics is None


@pytest.mark.parametrize("one", ["mpc", "aws"])
def test_contradicting_sources(tmp_path: Path, v1_1: Model, one: str, caplog: pytest.LogCaptureFixture) -> None:
    other = {"mpc": "aws", "aws": "mpc"}[one]
    with_config = loaded(tmp_path, NEW, data_source=one)
    for model, source, recorded, statistics in (
        (v1_1, one, other, one),  # the user against the record
        (with_config, other, None, one),  # the user against the configuration
        (with_config, None, other, one),  # the record against the configuration
        (with_config, other, other, one),
        (with_config, one, other, one),
        (with_config, other, one, one),
        (with_config, None, "stored", one),
    ):
        with pytest.raises(IdentityError) as caught:
            EmbedSettings.checked(model, source, recorded=recorded)
        assert caught.value.exit_code == 5
        assert "--force-source" in str(caught.value)
        caplog.clear()
        forced = EmbedSettings.checked(model, source, recorded=recorded, force_source=True)
        assert forced.model.spec.statistics == V1_1_STATISTICS[statistics]
        assert forced.model.spec.source == statistics
        assert forced.source == (recorded or source)
        assert "--force-source" in caplog.text


@pytest.mark.parametrize("variant", [EARLY, QAT, STUDENT, TEACHER], ids=lambda v: v.family)
def test_other_families_have_one_set_for_all_sources(tmp_path: Path, variant: Variant) -> None:
    model = loaded(tmp_path, variant, data_source="aws")
    assert model.spec.statistics is not None
    for recorded in (None, "mpc", "aws", "stored"):
        settings = EmbedSettings.checked(model, recorded=recorded, dtype="float32")
        assert settings.model.spec == model.spec
        assert settings.source == recorded
    assert EmbedSettings.checked(model, "aws", dtype="float32").source == "aws"
    with pytest.raises(IdentityError, match="--source aws, but the d-pixels say mpc"):
        EmbedSettings.checked(model, "aws", recorded="mpc", dtype="float32")
    assert EmbedSettings.checked(model, "aws", recorded="mpc", dtype="float32", force_source=True).source == "mpc"


def test_the_source_of_own_files(tmp_path: Path) -> None:
    """The card's statistics are the model's; a v1.1 encoder without any is as the official files."""
    path = tmp_path / "own.safetensors"
    save_safetensors(path, random_encoder(NEW.config), {"family": "v1.1"})
    with pytest.raises(UsageError, match="Say it with --source"):
        EmbedSettings.checked(load_model(path, device="cpu"))
    assert EmbedSettings.checked(load_model(path, device="cpu"), "aws").model.spec.statistics == V1_1_STATISTICS["aws"]
    save_safetensors(
        path, random_encoder(NEW.config), {"family": "v1.1", "statistics": V2_STUDENT_STATISTICS.to_card()}
    )
    settings = EmbedSettings.checked(load_model(path, device="cpu"), "aws")
    assert settings.model.spec.statistics == V2_STUDENT_STATISTICS
    assert settings.source == "aws"


def test_the_teacher_gives_float32_only(tmp_path: Path) -> None:
    for name in ("v2-teacher", "v2-teacher-no-final-norm"):
        model = loaded(tmp_path, VARIANTS[name])
        with pytest.raises(UsageError, match=r"--dtype int8: .* gives float32 embeddings of 96 bands only") as caught:
            EmbedSettings.checked(model, "mpc")
        assert caught.value.exit_code == 2
        assert EmbedSettings.checked(model, "mpc", dtype="float32").dims == 96
        with pytest.raises(UsageError, match="--dims 16"):
            EmbedSettings.checked(model, "mpc", dtype="float32", dims=16)


@pytest.mark.parametrize("name", ["v1.1", *V2])
def test_only_v1_0_draws(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"--legacy-draw: .* draws nothing, only v1\.0 models do") as caught:
        EmbedSettings.checked(loaded(tmp_path, VARIANTS[name]), "mpc", dtype="float32", legacy_draw=True)
    assert caught.value.exit_code == 2


def test_official_draws_are_another_identity(tmp_path: Path) -> None:
    for variant in (EARLY, QAT):
        model = loaded(tmp_path, variant, batch_size=64)
        plain, legacy = (EmbedSettings.checked(model, "mpc", legacy_draw=choice) for choice in (False, True))
        rule = legacy.model.spec.observations
        assert isinstance(rule, RandomSampling)
        assert (rule.legacy, rule.batch) == (True, 64)
        assert plain.identity() != legacy.identity()
        assert json.loads(json.dumps(legacy.identity())) == legacy.identity()


def test_what_an_embedding_depends_on_is_its_identity(tmp_path: Path) -> None:
    def identity(**said: Any) -> dict[str, Any]:
        return dict(EmbedSettings.checked(loaded(tmp_path, NEW, **said), "mpc").identity())

    plain = identity()
    for said in (
        {"num_obs_checkpoints": [8]},
        {"disable_s1_ascending": True},
        {"save_embedding_dim": 64},
        {"s1_num_heads": 4},
    ):
        assert identity(**said) != plain, said
    assert identity(batch_size=7, use_bf16=False) == plain
    assert TINY["heads"] == plain["model_config"]["s2"]["heads"]
