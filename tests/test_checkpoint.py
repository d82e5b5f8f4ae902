"""Weights files: what is read, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tessera_cli.errors import UsageError
from tessera_cli.models import EncoderConfig
from tessera_cli.models.checkpoint import CARD_KEY, read, save_safetensors
from tessera_cli.models.encoder import Encoder
from tests import reference
from tests.test_models import random_encoder, save_official

TINY = {"latent": 4, "layers": 2, "heads": 2, "feedforward": 16}
Payload = dict[str, Any]


def payload(*, qk: bool = False) -> Payload:
    config, tensors = reference.random_weights("v2_student", 3, **TINY, qk_norm=qk)  # type: ignore[arg-type]
    return reference.official_payload("v2_student", config, tensors)


def saved(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("qk", [False, True])
def test_every_official_tensor_lands_in_the_encoder(tmp_path: Path, qk: bool) -> None:
    content = payload(qk=qk)
    path = saved(tmp_path, content)
    checkpoint = read(path)
    assert checkpoint.config == EncoderConfig(**TINY, qk_norm=qk)
    assert checkpoint.dims == (16, 32, 64, 128)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    ours = np.sort(np.concatenate([t.numpy().ravel() for t in checkpoint.encoder.state_dict().values()]))
    official = np.sort(np.concatenate([t.numpy().ravel() for t in content["model"].values()]))
    np.testing.assert_array_equal(ours, official)
    assert all(t.data_ptr() % 64 == 0 for t in checkpoint.encoder.state_dict().values())


def test_missing_args_are_those_of_the_small_model(tmp_path: Path) -> None:
    _, tensors = reference.random_weights("v2_student", 1, latent=64, layers=4, heads=4, feedforward=1024)
    checkpoint = read(save_official(tmp_path / "small.pt", {}, tensors))
    assert checkpoint.config == EncoderConfig(64, 4, 4, 1024)
    assert checkpoint.dims == (128,)
    content = payload()
    del content["args"]["latent_dim"]
    with pytest.raises(UsageError, match=r"latent_dim 64.*embedding\.0\.weight is 16 x 10, where 256 x 10 is needed"):
        read(saved(tmp_path, content))


def drop(name: str) -> Callable[[Payload], object]:
    return lambda p: p["model"].pop(name)


def put(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[Payload], object]:
    return lambda p: p["model"].update({name: change(p["model"][name])})


def args(**changes: object) -> Callable[[Payload], object]:
    return lambda p: p["args"].update(changes)


QUERY = "s1_backbone.attn_pool.query.weight"
MISFITS: dict[str, tuple[Callable[[Payload], object], str]] = {
    "missing tensor": (drop(QUERY), f"lacks the tensor {QUERY}"),
    "missing backbone": (
        lambda p: [p["model"].pop(n) for n in list(p["model"]) if n.startswith("s1_")],
        "lacks 30 tensors: s1_backbone",
    ),
    "unexpected tensor": (
        lambda p: p["model"].update({"projector.0.weight": torch.zeros(3)}),
        r"holds the tensor projector\.0\.weight, which such an encoder does not have",
    ),
    "shape": (put(QUERY, lambda t: t[:, :7].clone()), f"{QUERY} is 1 x 7, where 1 x 16 is needed"),
    "other QK-norm": (args(enable_qk_norm=True), "and QK-norm, which is what its 'args' say: it lacks"),
    "fewer layers": (args(num_layers=1), "speaks of 1 layers, but the file holds the tensors of 2"),
    "absurdly many layers": (args(num_layers=10**12), "speaks of 1000000000000 layers"),
    "absurd width": (args(latent_dim=10**15), "is 16 x 10, where 4000000000000000 x 10 is needed"),
    "absurd feed-forward": (args(dim_feedforward=10**18), r"linear1\.weight is 16 x 16, where"),
    "heads": (args(nhead=3), "nhead 3 does not divide the width 16"),
    "no heads": (args(nhead=0), "args.nhead is '0', not a positive integer"),
    "text for a number": (args(num_layers="2"), "args.num_layers is '2', not a positive integer"),
    "bool for a number": (args(num_layers=True), "not a positive integer"),
    "fraction": (args(latent_dim=4.0), "args.latent_dim is '4.0'"),
    "number for a switch": (args(enable_qk_norm=1), "neither true nor false"),
    "prefixes": (args(matryoshka_dims="16,x"), "matryoshka_dims is '16,x'"),
    "long prefix": (args(matryoshka_dims="16,512"), "up to repr_dim"),
    "float64": (put(QUERY, torch.Tensor.double), f"{QUERY} is float64; official students are float32"),
    "float16": (put(QUERY, torch.Tensor.half), "is float16"),
    "int": (put(QUERY, torch.Tensor.int), "is int32"),
    "sparse": (put(QUERY, torch.Tensor.to_sparse), "is sparse_coo"),
    "NaN": (put(QUERY, lambda t: t * torch.nan), r"s1\.pool\.query\.weight holds NaN or infinite values"),
    "infinite": (put(QUERY, lambda t: t / 0), "NaN or infinite"),
    "no tensor": (put(QUERY, lambda t: 3.5), "which is not a tensor"),
    "tensor larger than the file": (
        put(QUERY, lambda t: torch.zeros(1).expand(10**9, 10**6)),
        "claim to be larger than the file",
    ),
    "no model": (lambda p: p.pop("model"), "not a TESSERA checkpoint: it lacks the parts"),
    "model is a list": (lambda p: p.update(model=[1]), "not a TESSERA checkpoint"),
    "args are a list": (lambda p: p.update(args=[1]), "not a TESSERA checkpoint"),
    "teacher": (lambda p: p.update(arch={}, encoder_state_dict=p.pop("model")), "looks like the v2 teacher"),
    "v1": (lambda p: p.update(model_state=p.pop("model")), r"looks like a v1\.x checkpoint"),
}


@pytest.mark.parametrize("damage", MISFITS)
def test_checkpoints_that_do_not_fit(tmp_path: Path, damage: str) -> None:
    change, message = MISFITS[damage]
    content = payload()
    change(content)
    path = saved(tmp_path, content)
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a list, not a checkpoint"):
        read(saved(tmp_path, [1, 2]))


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(UsageError, match="cannot be read"):
        read(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)
    for content, message in (
        (b"", "it is empty"),
        (b"<!DOCTYPE html><title>Virus scan warning</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        (pickle.dumps({"model": 1}), "a bare pickle, which can run code and is never opened"),
        (b"II*\0" + bytes(500), "neither a PyTorch zip nor a safetensors file"),
        (random.Random(1).randbytes(4096), "not a weights file"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
        (struct.pack("<Q", 10**15) + b"{}", "truncated or damaged"),
        (struct.pack("<Q", 50) + b"{" + bytes(49), "truncated or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read(path)


def test_zips_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(UsageError, match="a zip archive, but not a PyTorch checkpoint"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a zip bomb
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(UsageError, match="not a PyTorch checkpoint"):
        read(path)


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["top", "args", "model", "tensor", "key"])
def test_code_in_a_checkpoint_is_never_executed(tmp_path: Path, place: str) -> None:
    trap = Trap(tmp_path / "executed")
    content: Any = payload()
    if place == "top":
        content = trap
    elif place == "args":
        content["args"]["note"] = trap
    elif place == "model":
        content["model"] = trap
    elif place == "tensor":
        content["model"][QUERY] = trap
    else:
        content["extra"] = {"deep": [trap]}
    path = saved(tmp_path, content)
    with pytest.raises(UsageError, match="refused, because it is damaged or holds more than"):
        read(path)
    assert not trap.marker.exists()
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(content if place == "top" else trap, protocol=protocol))
        with pytest.raises(UsageError):
            read(path)
    assert not trap.marker.exists()


def whole_files(tmp_path: Path) -> list[Path]:
    own = tmp_path / "own.safetensors"
    save_safetensors(own, random_encoder(EncoderConfig(**TINY)), {"name": "tiny"})
    return [saved(tmp_path, payload()), own]


def test_truncated_files(tmp_path: Path) -> None:
    for path in whole_files(tmp_path):
        content = path.read_bytes()
        for length in (0, 1, 7, 9, 40, 200, 1000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(UsageError):
                read(path)


def test_random_damage_never_does_worse_than_an_error(tmp_path: Path) -> None:
    """Flipped and shuffled bytes: either a clear error or an encoder whose every tensor came from the file."""
    rng = random.Random(4)
    marker = set(tmp_path.iterdir())
    for path in whole_files(tmp_path):
        marker.add(path)
        content = path.read_bytes()
        header = 3000  # where the names, sizes and pickle opcodes stand
        for attempt in range(150):
            damaged = bytearray(content)
            reach = header if attempt % 3 else len(content)
            for _ in range(rng.choice((1, 2, 8, 64))):
                damaged[rng.randrange(reach)] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                encoder = read(path).encoder
            except UsageError:
                continue
            assert not any(t.is_meta for t in encoder.state_dict().values())
            assert all(bool(torch.isfinite(t).all()) for t in encoder.state_dict().values())
    assert set(tmp_path.iterdir()) == marker


@pytest.mark.parametrize("half", [True, False])
def test_own_files_round_trip(tmp_path: Path, half: bool) -> None:
    encoder = random_encoder(EncoderConfig(**TINY, qk_norm=True))
    path = tmp_path / "own.safetensors"
    state = torch.get_rng_state()
    save_safetensors(path, encoder, {"name": "tiny", "dims": [16, 128], "trained_on": "nothing"}, half=half)
    checkpoint = read(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert checkpoint.config == encoder.config
    assert checkpoint.dims == (16, 128)
    assert checkpoint.card["trained_on"] == "nothing"
    assert checkpoint.card["family"] == "v2-student"
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in checkpoint.encoder.state_dict().items():
        original = encoder.state_dict()[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original.half().float() if half else original), name
    assert path.stat().st_size < (2.4 if half else 4.4) * sum(p.numel() for p in encoder.parameters()) + 12000
    assert [p.name for p in tmp_path.iterdir()] == ["own.safetensors"]


def test_weights_beyond_float16_are_not_saved_as_such(tmp_path: Path) -> None:
    encoder = random_encoder(EncoderConfig(**TINY))
    with torch.no_grad():
        encoder.s2.pool.query.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"s2\.pool\.query\.weight is not finite"):
        save_safetensors(tmp_path / "own.safetensors", encoder, {})
    save_safetensors(tmp_path / "own.safetensors", encoder, {}, half=False)


def own_file(
    path: Path, card: object, change: Callable[[dict[str, torch.Tensor]], object] = lambda tensors: None
) -> Path:
    tensors = {name: t.clone() for name, t in Encoder(EncoderConfig(**TINY)).state_dict().items()}
    change(tensors)
    save_file(tensors, path, metadata=None if card is None else {CARD_KEY: json.dumps(card)})
    return path


CARD = {"format": 1, "family": "v2-student", "config": {**TINY, "representation": 128, "qk_norm": False}}
BAD_CARDS: dict[str, tuple[object, str]] = {
    "none": (None, "without a TESSERA model card"),
    "list": ([], "without a TESSERA model card"),
    "newer": ({**CARD, "format": 2}, "format 2 and family v2-student, this release reads format 1"),
    "other family": ({**CARD, "family": "v1"}, "family v1"),
    "no config": ({"format": 1, "family": "v2-student"}, "the sizes in its card"),
    "missing size": ({**CARD, "config": TINY}, "the sizes in its card"),
    "extra size": ({**CARD, "config": {**CARD["config"], "x": 1}}, "the sizes in its card"),  # type: ignore[dict-item]
    "text": ({**CARD, "config": {**CARD["config"], "layers": "2"}}, "the sizes in its card"),  # type: ignore[dict-item]
    "heads": ({**CARD, "config": {**CARD["config"], "heads": 3}}, "the sizes in its card"),  # type: ignore[dict-item]
    "zero": ({**CARD, "config": {**CARD["config"], "heads": 0}}, "the sizes in its card"),  # type: ignore[dict-item]
    "layers": ({**CARD, "config": {**CARD["config"], "layers": 10**9}}, "speaks of 1000000000 layers"),  # type: ignore[dict-item]
    "width": ({**CARD, "config": {**CARD["config"], "latent": 10**15}}, "do not fit the sizes"),  # type: ignore[dict-item]
    "dims": ({**CARD, "dims": [16, 256]}, "'dims' in its card"),
    "no dims": ({**CARD, "dims": []}, "'dims' in its card"),
}


@pytest.mark.parametrize("kind", BAD_CARDS)
def test_own_files_with_a_bad_card(tmp_path: Path, kind: str) -> None:
    card, message = BAD_CARDS[kind]
    with pytest.raises(UsageError, match=message):
        read(own_file(tmp_path / "own.safetensors", card))


def test_own_files_with_bad_tensors(tmp_path: Path) -> None:
    name = "s1.pool.query.weight"
    for change, message in (
        (lambda tensors: tensors.pop(name), f"lacks the tensor {name}"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "holds the tensor more"),
        (lambda tensors: tensors.update({name: torch.zeros(2, 16)}), f"{name} is 2 x 16, where 1 x 16"),
        (lambda tensors: tensors.update({name: torch.zeros(1, 16).double()}), f"{name} is F64; F16 or F32"),
        (lambda tensors: tensors.update({name: torch.zeros(1, 16, dtype=torch.bfloat16)}), "is BF16"),
        (lambda tensors: tensors[name].fill_(torch.nan), "NaN or infinite"),
    ):
        with pytest.raises(UsageError, match=message):
            read(own_file(tmp_path / "own.safetensors", CARD, change))
