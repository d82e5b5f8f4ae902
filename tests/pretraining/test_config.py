"""What a run of `pretrain` is told, its folder, and the state it goes on from."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tessera_cli.errors import DiskFullError, IdentityError, UsageError
from tessera_cli.models.registry import REGISTRY
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.config import OptimiserConfig, PretrainConfig
from tessera_cli.pretraining.config_file import as_json, load_config, to_toml
from tessera_cli.pretraining.optimiser import adamw, describe_groups, learning_rate
from tessera_cli.pretraining.presets import PRESETS
from tessera_cli.pretraining.run_folder import RunFolder

# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_toml(name, tmp_path):
    config = load_config(preset_name=name)
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert load_config(path=tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("nano", "v2-nano"),
        ("v2-nano", "v2-nano"),
        ("small", "v2-small"),
        ("medium", "v2-medium"),
        ("large", "v2-large"),
        ("v1.0", "v1.0-qat"),
        ("v1.1", "v1.1-mpc"),
    ],
)
def test_presets_have_the_shape_of_released_models(name, released):
    config = load_config(preset_name=name)
    assert config.model.encoder == REGISTRY[released].config
    assert config.model.family == REGISTRY[released].family


def test_later_layers_win(tmp_path):
    toml = tmp_path / "own.toml"
    toml.write_text('preset = "nano"\n[optim]\nlr = 1e-4\n[train]\nbatch = 64\n[views]\nshare = [0.1, 0.5]\n')
    config = load_config(path=toml, overrides=["train.batch=32", "loss.lambda=0", "model.name=alps"])
    assert config.model.encoder == REGISTRY["v2-nano"].config
    assert config.optim.lr == 1e-4
    assert config.train.batch == 32
    assert config.loss.off_diagonal == 0
    assert config.model.name == "alps"
    assert config.views.share == (0.1, 0.5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optim.learning=1", "optim.learning"),
        ("optim.lrr=1", "Did you mean lr?"),
        ("loss.lamda=1", "Did you mean lambda?"),
        ("optimm.lr=1", "Did you mean optim?"),
        ("optim.lr", "section.key=value"),
        ("lr=1", "section.key=value"),
        ("train.batch=1", "at least 2 pixels"),
        ("train.batch=1.5", "train.batch = 1.5"),
        ("optim.lr=quick", "optim.lr = 'quick'"),
        ("optim.lr=nan", "optim.lr"),
        ("loss.mix=-1", "loss.mix"),
        ("model.heads=5", "heads"),
        ("model.family=band-means", "no network"),
        ("model.name=a/b", "model.name"),
        ("model.name=v2-medium", "released model"),
        ("model.family=v1.0-qat", "drop_s1"),
        ("projector.prefixes=[128]", "not shorter"),
        ("loss.quantise=true model.family=v2-teacher", "never stored as int8"),
        ("loss.quantise=true loss.twins=0 loss.predict=1 teacher.model=", "loss.quantise: neither"),
        ("train.epochs=inf", "train.epochs"),
        ("views.replacement=sometimes", "views.replacement"),
        ("views.share=[0.9, 0.3]", "larger than its second"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_line(override, told):
    with pytest.raises(UsageError) as error:
        load_config(overrides=override.split(" ") if "teacher" in override else [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_mixing_takes_sequences_of_equal_length():
    load_config(overrides=["loss.mix=1"])
    for other in ("views.lengths=bucketed", "views.replacement=never"):
        with pytest.raises(UsageError, match="equal length"):
            load_config(overrides=["loss.mix=1", other])


def test_bad_files(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(path=tmp_path / "none.toml")
    for text, told in (("[a\n", "no TOML"), ("batch = 3\n", "no section"), ("preset = 3\n", "preset is not a name")):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(UsageError, match=told):
            load_config(path=tmp_path / "bad.toml")
    with pytest.raises(UsageError, match="Did you mean nano"):
        load_config(preset_name="nanno")


# --- optimiser --------------------------------------------------------------------------------------------------------


def test_matrices_decay_and_vectors_do_not():
    module = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2, bias=False))
    optimiser = adamw(module, OptimiserConfig(weight_decay=0.5, lr=0.1))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {decay[id(module[0].weight)], decay[id(module[2].weight)]} == {0.5}
    assert {decay[id(p)] for p in (module[0].bias, module[1].weight, module[1].bias)} == {0.0}
    assert len(decay) == len(list(module.parameters()))
    assert "2 matrices (49 numbers) decay 0.5" in describe_groups(optimiser)
    for parameter in module.parameters():  # without a gradient of its own a matrix shrinks by lr x decay
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimiser.step()
    for old, new in zip(before, module.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (0.95 if old.ndim > 1 else 1.0))


def test_the_rate_rises_along_a_line_and_falls_along_a_cosine():
    config = OptimiserConfig(lr=0.5, warmup=0.2)
    found = [learning_rate(step, 100, config) for step in range(100)]
    assert found[:20] == pytest.approx([0.5 * (i + 1) / 20 for i in range(20)])
    assert found[20] == 0.5
    assert found[60] == pytest.approx(0.25)
    assert found[99] == pytest.approx(0.25 * (1 + math.cos(math.pi * 79 / 80)))
    assert 0 < found[99] < 1e-3
    assert learning_rate(0, 1, config) == 0.5


# --- the folder -------------------------------------------------------------------------------------------------------


def claim(folder, config):
    with folder.at_work():
        folder.claim(config)


def test_a_folder_belongs_to_one_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    config = load_config(preset_name="tiny")
    claim(folder, load_config(preset_name="tiny", overrides=["optim.lr=0.5"]))  # by mistake; nothing was trained
    claim(folder, config)
    folder.append({"step": 1})
    claim(folder, config)
    claim(folder, load_config(preset_name="tiny", overrides=["train.workers=7", "train.log_every=1"]))
    with pytest.raises(IdentityError, match=r"optim\.lr is 0\.002 there and 0\.1 here"):
        claim(folder, load_config(preset_name="tiny", overrides=["optim.lr=0.1"]))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else"):
        claim(RunFolder(tmp_path / "other"), config)


def test_rows_survive_a_killed_writer(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.append({"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 4')
    folder.truncate(20)
    assert folder.rows() == [{"step": 10}, {"step": 20}]
    folder.append({"step": 21})
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [10, 20, 21]
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append({"loss": math.nan})


# --- the state --------------------------------------------------------------------------------------------------------


def trained(seed: int, steps: int, module=None, optimiser=None):
    if module is None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        optimiser = adamw(module, OptimiserConfig(lr=0.1))
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        inputs = torch.from_numpy(rng.standard_normal((8, 4)).astype(np.float32))
        module(inputs).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return module, optimiser


STATE = checkpoint.RunState(step=3, processes=2, shards="abc", statistics={"s2_mean": [1.5]}, random={"probe_knn": 0.5})


def test_training_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "last.safetensors"
    module, optimiser = trained(1, 3)
    checkpoint.save(path, module, optimiser, STATE)
    trained(2, 3, module, optimiser)
    again = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    other = adamw(again, OptimiserConfig(lr=0.1))
    assert checkpoint.load(path, again, other) == dataclasses.replace(STATE, moments=12)
    trained(2, 3, again, other)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_other_processes_or_shards_are_refused(tmp_path):
    checkpoint.check(STATE, path=tmp_path, processes=2, shards="abc", statistics={"s2_mean": [1.5]})
    for different, told in (
        ({"processes": 1}, "2 processes"),
        ({"shards": "xyz"}, "other shards"),
        ({"statistics": {}}, "statistics"),
    ):
        given = {"processes": 2, "shards": "abc", "statistics": {"s2_mean": [1.5]}, **different}
        with pytest.raises(IdentityError, match=told):
            checkpoint.check(STATE, path=tmp_path, **given)


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "of another shape", "without a header", "without moments"]
)
def test_a_damaged_state_is_an_error(tmp_path, damage):
    path = tmp_path / "last.safetensors"
    module, optimiser = trained(1, 1)
    checkpoint.save(path, module, optimiser, STATE)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("x" * 1000)
    elif damage == "of another shape":
        module = nn.Linear(4, 2)
        optimiser = adamw(module, OptimiserConfig())
    else:
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        weights = {name: tensor for name, tensor in load_file(path).items() if name.startswith("weights.")}
        save_file(weights, path, metadata=header if damage == "without moments" else None)
    with pytest.raises(UsageError, match="does not start anew"):
        checkpoint.load(path, module, optimiser)


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    module, optimiser = trained(1, 1)
    checkpoint.save(path, module, optimiser, STATE)
    before = path.read_bytes()

    def full(self, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFullError, match="disk is full"):
        checkpoint.save(path, module, optimiser, STATE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_documents_name_every_key():
    text = (Path(__file__).parents[2] / "docs" / "pretraining.md").read_text()
    for section, keys in as_json(load_config(overrides=["model.pooling=gru"])).items():
        for key in keys:
            assert f"`{section}.{key}`" in text
    for name in PRESETS:
        assert f"`{name}`" in text


def test_without_a_preset_it_is_nano():
    assert load_config() == load_config(preset_name="nano")
    assert PretrainConfig().model == load_config().model


# --- epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "pixels", "steps"),
    [
        ({"steps": 70}, 1000, 70),
        ({"epochs": 10.0, "batch": 256}, 1000, 40),  # 10,000 / 256 = 39.06
        ({"epochs": 0.01, "batch": 256}, 1000, 1),
        ({"epochs": 10.0, "batch": 256, "min_steps": 500}, 1000, 500),
        ({"epochs": 10.0, "batch": 256, "min_steps": 500}, 100_000, 3907),
    ],
)
def test_steps_follow_from_epochs(train, pixels, steps):
    section = PretrainConfig.model_validate({"train": train}).train.for_pixels(pixels)
    assert section.steps == steps
    assert section.for_pixels(7) == section  # nothing is left to follow


def test_a_number_of_steps_wins_over_epochs_of_an_earlier_layer(tmp_path):
    toml = tmp_path / "own.toml"
    toml.write_text("[train]\nepochs = 9\nbatch = 64\n")
    assert load_config(path=toml).train.for_pixels(640).steps == 90
    assert load_config(path=toml, overrides=["train.steps=12"]).train.for_pixels(640).steps == 12
    assert load_config(path=toml, more={"train": {"steps": 13}}).train.for_pixels(640).steps == 13
    toml.write_text("[train]\nsteps = 13\nepochs = 3\nbatch = 64\n")  # as a run's own file says them
    assert load_config(path=toml).train.for_pixels(640).steps == 30
    for said in ({"overrides": ["train.steps=3", "train.epochs=5"]}, {"more": {"train": {"steps": 13, "epochs": 3.0}}}):
        with pytest.raises(UsageError, match="both say how long to train"):
            load_config(**said)
    with pytest.raises(UsageError, match="both say how long to train"):
        load_config(more={"train": {"steps": 3}}, overrides=["train.epochs=5"])


def test_prefixes_without_projectors_are_refused():
    told = ["projector.prefixes=[16]", "loss.predict=1"]
    assert load_config(overrides=told).dims == (16, 128)
    with pytest.raises(UsageError, match=r"projector\.prefixes are learned by the twin loss"):
        load_config(overrides=[*told, "loss.twins=0"])
