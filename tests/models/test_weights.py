"""`tessera weights`, and what `tessera info` says of weights files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tessera_cli.errors import UsageError
from tessera_cli.models import REGISTRY, EncoderConfig, ModelConfig, available
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import PARTS
from tessera_cli.models.spec import HubFile
from tessera_cli.models.weights import describe_weights, released
from tests import reference
from tests.helpers.fake_hub import CONTENT, SHA256, Hub, environment, serving

Tessera = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


def shell(home: Path, hub: Hub, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads the environment when it is imported, so `tessera` runs in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tessera_cli", "weights", *arguments],
        env=environment(home, hub.endpoint, **more),
        capture_output=True,
        text=True,
        timeout=60,
    )


def official(path: Path, family: str, **sizes: Any) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A checkpoint with random weights; its configuration and its tensors."""
    config, tensors = reference.random_weights(family, 1, **sizes)
    torch.save(reference.official_payload(family, config, tensors), path)
    return path, config, tensors


# --- weights list, weights pull ---------------------------------------------------------------------------------------


def test_weights_alone_shows_its_help(tessera: Tessera) -> None:
    code, stdout, stderr = tessera("weights")
    assert (code, stdout) == (2, "")
    assert "list" in stderr
    assert "pull" in stderr
    for verb in ((), ("list",), ("pull",)):
        code, stdout, _ = tessera("weights", *verb, "--help")
        assert code == 0
        assert "Examples:" in stdout
        assert stdout.count("tessera weights") >= 3


def test_the_list_names_every_released_model(tmp_path: Path, hub: Hub) -> None:
    assert shell(tmp_path, hub, "pull", "v1.1-aws").returncode == 0
    done = shell(tmp_path, hub, "list", "--json", HF_HUB_OFFLINE="1")
    models = {model["name"]: model for model in json.loads(done.stdout)["models"]}
    assert list(models) == available()
    assert [name for name, model in models.items() if model["cached"]] == ["v1.1-aws"]
    assert [name for name, model in models.items() if model["packaged"]] == ["demo"]
    assert models["v1.1-aws"]["bytes"] == len(CONTENT)
    assert Path(models["v1.1-aws"]["path"]).read_bytes() == CONTENT
    assert models["v2-teacher"]["bytes"] == 8_257_134_395
    assert models["v2-teacher"]["path"] is None
    assert models["v1.0"]["bytes"] is None
    assert models["v1.0-qat"]["family"] == "v1.0-qat"
    assert models["v2-nano"]["url"] == "https://huggingface.co/geotessera/TESSERA-V-2.0-2B-N"
    assert models["v2-nano"]["file"] == "ckpt/student_nano.pt"


def test_the_list_for_people(tessera: Tessera) -> None:
    code, stdout, stderr = tessera("weights", "list")
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *available()]
    family = lines[0].index("family")
    assert {line[family - 1] for line in lines} == {" "}
    assert {line[family] for line in lines[1:]} == {"v"}
    assert "demo.safetensors" in lines[-1]


def test_pull_prints_the_path_alone(tmp_path: Path, hub: Hub) -> None:
    done = shell(tmp_path, hub, "pull", "v1.1-aws")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert Path(line).read_bytes() == CONTENT
    assert Path(line).is_relative_to(tmp_path)
    assert "Downloading tessera_v1_1_aws_encoder.pt" in done.stderr
    assert "no SHA-256 is known" in done.stderr
    assert SHA256 in done.stderr
    again = shell(tmp_path, hub, "pull", "v1.1-aws", "--json", "-qq", HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == {"name": "v1.1-aws", "path": line, "bytes": len(CONTENT), "sha256": None}
    assert len(hub.gets()) == 1


def test_pull_refuses_what_is_not_the_published_file(tmp_path: Path, hub: Hub) -> None:
    done = shell(tmp_path, hub, "pull", "v2-nano")
    assert (done.returncode, done.stdout) == (2, "")
    assert "another file than ckpt/student_nano.pt as published" in done.stderr
    assert "bc9929e3643d" in done.stderr


@pytest.mark.parametrize(
    ("name", "file"), [("v1.0", "best_model_fsdp_20250427_084307.pt"), ("v1.0-qat", "tessera-v1.0-QAT-best.pt")]
)
def test_what_cannot_be_pulled_is_fetched_with_a_browser(tmp_path: Path, hub: Hub, name: str, file: str) -> None:
    done = shell(tmp_path, hub, "pull", name)
    assert (done.returncode, done.stdout) == (69, "")
    (error,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert f"Open https://huggingface.co/geotessera/TESSERA-V-1.0 in a browser, download {file}" in error
    assert "`tessera embed --weights FILE ...`" in error


def test_pull_of_packaged_weights(tessera: Tessera) -> None:
    code, stdout, stderr = tessera("weights", "pull", "demo")
    assert (code, stderr) == (0, "")
    assert Path(stdout.rstrip("\n")).name == "demo.safetensors"
    found = json.loads(tessera("weights", "pull", "demo", "--json")[1])
    assert found["bytes"] == Path(found["path"]).stat().st_size


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v2-smal", "Did you mean v2-small?"),
        ("v1.1", "Did you mean v1.1-mpc or v1.1-aws?"),
        ("V1.1-MPC", "Did you mean v1.1-mpc"),
        ("zzz", "no such model or file. Choose"),
        ("null", "null has no weights"),
    ],
)
def test_pull_of_something_else(tessera: Tessera, name: str, said: str) -> None:
    code, stdout, stderr = tessera("weights", "pull", name)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert ", ".join(available()) in stderr


def test_an_installation_without_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tessera: Tessera) -> None:
    monkeypatch.setattr("tessera_cli.models.hub.resources.files", lambda package: tmp_path)
    assert [model["path"] for model in released() if model["name"] == "demo"] == [None]
    assert "absent from this installation" in tessera("weights", "list")[1]
    code, _, stderr = tessera("weights", "pull", "demo")
    assert code == 2
    assert "Install tessera-embed again" in stderr


# --- info -------------------------------------------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, Any]] = {
    "v1_0_early": {"family": "v1.0-early", "statistics": "v1.0", "dims": [8], "quantiser": "v1"},
    "v1_0_qat": {"family": "v1.0-qat", "statistics": "v1.0", "dims": [8], "quantiser": "v1"},
    "v1_1": {"family": "v1.1", "statistics": None, "dims": [128], "quantiser": "v1"},
    "v2_student": {"family": "v2-student", "statistics": "v2 student", "dims": [16, 32, 64, 128], "quantiser": "v2"},
    "v2_teacher": {"family": "v2-teacher", "statistics": "v2 teacher", "dims": [96], "quantiser": None},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_info_of_official_files(tmp_path: Path, tessera: Tessera, family: str) -> None:
    path, config, tensors = official(tmp_path / "weights.pt", family)
    code, stdout, _ = tessera("info", path, "--json")
    assert code == 0
    found = json.loads(stdout)
    assert {key: found[key] for key in FAMILIES[family]} == FAMILIES[family]
    assert (found["path"], found["bytes"]) == (str(path), path.stat().st_size)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["name"], found["published"], found["card"], found["source"]) == (None, False, None, None)
    assert found["tensors"] == len(tensors)
    assert found["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert found["sizes"]["latent"] == config["latent_dim"]
    assert found["sizes"]["s2"]["layers"] == 2
    assert ("nhead" in found["not_recorded"]) is family.startswith("v1_0")
    assert ("sample_size_s2" in found["not_recorded"]) is family.startswith("v1_0")
    assert ("data_source" in found["not_recorded"]) is (family == "v1_1")
    assert (found["observations"].get("s2") == 40) is family.startswith("v1_0")
    assert tessera("info", path, "--model")[1].strip().startswith(FAMILIES[family]["family"])
    text = tessera("info", path)[1]
    assert f"{found['parameters']:,}" in text
    assert "published      no" in text


def test_heads_that_nobody_knows_are_null(tmp_path: Path) -> None:
    path, config, _ = official(tmp_path / "weights.pt", "v1_1", s1_heads=2)
    sizes = describe_weights(path)["sizes"]
    assert (sizes["s2"]["heads"], sizes["s1"]["heads"]) == (None, None)
    sizes = describe_weights(path, ModelConfig({"s2_num_heads": 4}))["sizes"]
    assert (sizes["s2"]["heads"], sizes["s1"]["heads"]) == (4, None)
    found = describe_weights(path, ModelConfig({**config, "data_source": "aws", "num_obs_checkpoints": [16, 8]}))
    assert (found["sizes"]["s2"]["heads"], found["sizes"]["s1"]["heads"]) == (4, 2)
    assert (found["source"], found["statistics"]) == ("aws", "v1.1 aws")
    assert found["observations"]["bins"] == [8, 16]


def test_a_published_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, _ = official(tmp_path / "renamed.pt", "v2_student", latent=36, layers=2, heads=4, feedforward=384)
    weights = HubFile("a/b", "c.pt", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(REGISTRY, "v2-nano", dataclasses.replace(REGISTRY["v2-nano"], weights=weights))
    found = describe_weights(path)
    assert (found["name"], found["published"], found["model"]) == ("v2-nano", True, "v2-nano")


def test_info_of_files_of_our_own(tmp_path: Path, tessera: Tessera) -> None:
    encoder = Encoder(EncoderConfig.of(latent=8, layers=1, heads=4, feedforward=16, **PARTS["v2-student"]))
    path = tmp_path / "encoder.safetensors"
    statistics = dataclasses.replace(REGISTRY["v2-nano"].statistics, s1_asc_std=(1.5, 2.5)).to_card()
    save_safetensors(path, encoder, {"name": "alps", "dims": [64, 128], "statistics": statistics})
    found = json.loads(tessera("info", path, "--json")[1])
    assert found["card"] == {"name": "alps", "note": None}
    assert (found["statistics"], found["dims"], found["not_recorded"]) == ("its own", [64, 128], [])
    assert found["tensors"] == len(encoder.state_dict())
    assert tessera("info", path, "--model")[1] == "alps\n"
    save_safetensors(path, encoder, {"name": "alps", "demonstration_only": True})
    assert "for demonstration only" in tessera("info", path)[1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x02}q\x00.", b"<html>not found</html>"])
def test_info_of_files_that_hold_no_weights(tmp_path: Path, tessera: Tessera, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    code, stdout, stderr = tessera("info", path)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert str(path) in stderr


def test_info_takes_what_a_file_does_not_record(tmp_path: Path, tessera: Tessera) -> None:
    path, _, _ = official(tmp_path / "weights.pt", "v1_1", latent=8, heads=2)
    (tmp_path / "config.json").write_text('{"s2_num_heads": 2, "s1_num_heads": 2, "data_source": "aws"}')
    told = [
        json.loads(tessera("info", path, "--json", *more)[1])
        for more in ([], ["--model-config", tmp_path / "config.json"])
    ]
    assert [(found["sizes"]["s2"]["heads"], found["source"]) for found in told] == [(None, None), (2, "aws")]


def test_info_of_a_file_that_lacks_a_tensor(tmp_path: Path) -> None:
    for family in ("v1_1", "v2_student"):
        config, tensors = reference.random_weights(family, 1)
        del tensors["s1_backbone.attn_pool.query.weight"]
        torch.save(reference.official_payload(family, config, tensors), tmp_path / "weights.pt")
        with pytest.raises(UsageError, match=r"lacks .*s1_backbone\.attn_pool\.query\.weight"):
            describe_weights(tmp_path / "weights.pt")
