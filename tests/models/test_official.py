"""Official checkpoints of every family: recognised, read to the last tensor, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tessera_cli.errors import UsageError
from tessera_cli.models import EncoderConfig, ModelConfig
from tessera_cli.models.checkpoint import read_checkpoint
from tests import reference
from tests.helpers.checkpoints import QUERY, V1, V2, VARIANTS, Variant, saved
from tests.reference.network import encode

Payload = dict[str, Any]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture(params=V1)
def v1(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture(params=V2)
def v2(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


def state(path: Path, variant: Variant) -> dict[str, torch.Tensor]:
    return read_checkpoint(path, variant.said).encoder.state_dict()


def refused(path: Path, said: ModelConfig, *words: str) -> str:
    """The one line that says why the file is not read."""
    with pytest.raises(UsageError) as caught:
        read_checkpoint(path, said)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# --- what is read -----------------------------------------------------------------------------------------------------


def test_family_and_sizes_come_from_the_content(tmp_path: Path, variant: Variant) -> None:
    checkpoint = read_checkpoint(saved(tmp_path, variant.payload()), variant.said)
    assert checkpoint.family == variant.family
    assert checkpoint.config == variant.config
    assert checkpoint.dims == ((16, 32, 64, 128) if variant.family == "v2-student" else None)
    assert checkpoint.card is None


def test_every_tensor_lands_in_the_encoder(tmp_path: Path, variant: Variant) -> None:
    path = saved(tmp_path, variant.payload())
    _, tensors = variant.weights()
    found = state(path, variant)
    ours = np.sort(np.concatenate([t.numpy().ravel() for t in found.values()]))
    official = np.sort(np.concatenate([t.ravel() for t in tensors.values()]))
    np.testing.assert_array_equal(ours, official)
    assert all(t.dtype == torch.float32 and not t.is_meta and t.data_ptr() % 64 == 0 for t in found.values())


def test_every_tensor_lands_at_its_place(tmp_path: Path, variant: Variant) -> None:
    """The encoder gives what the reference gives with the tensors by their official names."""
    config, tensors = variant.weights()
    encoder = read_checkpoint(saved(tmp_path, variant.payload()), variant.said).encoder
    rng = np.random.default_rng(0)
    s2, s1 = (rng.standard_normal((5, length, bands + 1)) for length, bands in ((8, 10), (16, 2)))
    for sequences in (s2, s1):
        sequences[..., -1] = rng.integers(1, 367, sequences.shape[:2])
    inputs = [
        part
        for sequences in (s2, s1)
        for part in (torch.from_numpy(sequences[..., :-1]).float(), torch.from_numpy(sequences[..., -1]).long())
    ]
    with torch.no_grad():
        ours = encoder(*inputs).numpy()
    assert np.abs(ours - encode(variant.official, config, tensors, s2, s1)).max() < 5e-5


def shuffled_prefixes(name: str, number: int) -> str:
    return ("", "_orig_mod.", "_orig_mod._orig_mod.")[number % 3] + name


def within(name: str, number: int) -> str:
    component, _, rest = name.partition(".")
    return f"{component}._orig_mod.{rest}" if rest else name  # a parameter is no module


def both(name: str, number: int) -> str:
    return "_orig_mod." + within(name, number)


def parallel(name: str, number: int) -> str:
    return "module." + name


def parallel_compiled(name: str, number: int) -> str:
    return "module._orig_mod." + within(name, number)


def compiled_parallel(name: str, number: int) -> str:
    return "_orig_mod.module." + name


def sharded(name: str, number: int) -> str:
    return "_fsdp_wrapped_module." + name.replace(".layers.0.", ".layers.0._fsdp_wrapped_module.")


WRAPPED = [shuffled_prefixes, within, both, parallel, parallel_compiled, compiled_parallel, sharded]


@pytest.mark.parametrize("rename", WRAPPED)
def test_prefixes_of_wrapped_models(tmp_path: Path, variant: Variant, rename: Callable[[str, int], str]) -> None:
    """In every family, and under both names that v1.x has for the part."""
    plain = state(saved(tmp_path, variant.payload(prefix="", extras=False), "plain.pt"), variant)
    for key in ("model_state", "model_state_dict") if variant.is_v1 else (variant.container,):
        content = variant.payload(prefix="", **({"key": key} if variant.is_v1 else {}))
        content[key] = {rename(name, i): tensor for i, (name, tensor) in enumerate(content[key].items())}
        found = state(saved(tmp_path, content), variant)
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_the_state_of_the_model_comes_first(tmp_path: Path, v1: Variant) -> None:
    content = v1.payload(key="model_state") | {"model_state_dict": {"something": torch.zeros(1)}}
    assert state(saved(tmp_path, content), v1)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_a_tensor_with_and_without_prefix_is_ambiguous(tmp_path: Path, variant: Variant, prefix: str) -> None:
    content = variant.payload(prefix="")
    content[variant.container][prefix + QUERY] = torch.zeros(1, 16)
    refused(saved(tmp_path, content), variant.said, f"holds the tensor {QUERY} twice")


def test_heads_of_training_are_dropped(tmp_path: Path, v1: Variant) -> None:
    content = v1.payload()
    heads = [name for name in content[v1.container] if "projector" in name]
    assert len(heads) > 30
    with_heads = state(saved(tmp_path, content), v1)
    without = state(saved(tmp_path, v1.payload(extras=False)), v1)
    assert all(torch.equal(with_heads[name], without[name]) for name in without)


def test_what_else_training_saves_is_left_out_and_named(
    tmp_path: Path, v1: Variant, caplog: pytest.LogCaptureFixture
) -> None:
    content = v1.payload()
    content[v1.container] |= {
        "_orig_mod.quantiser.scale": torch.tensor(0.5),
        "fake_quant.zero_point": torch.zeros(1, dtype=torch.int32),
        "ema._orig_mod.s2_backbone.embedding.0.bias": torch.zeros(9),
    }
    assert read_checkpoint(saved(tmp_path, content), v1.said).config == v1.config
    assert "3 tensors are no part of an encoder and are left out: ema.s2_backbone.embedding.0.bias, " in caplog.text


def test_another_backbone_is_another_model(tmp_path: Path, v1: Variant) -> None:
    content = v1.payload()
    content[v1.container]["landsat_backbone.embedding.0.weight"] = torch.zeros(3, 3)
    refused(saved(tmp_path, content), v1.said, "holds the tensor landsat_backbone.embedding.0.weight")


def test_a_student_of_the_small_size_need_not_say_so(tmp_path: Path) -> None:
    _, tensors = reference.random_weights("v2_student", 1, latent=64, layers=4, heads=4, feedforward=1024)
    model = {name: torch.from_numpy(value) for name, value in tensors.items()}
    checkpoint = read_checkpoint(saved(tmp_path, {"args": {}, "model": model}))
    assert checkpoint.config == EncoderConfig.of(64, 4, 4, 1024)
    assert checkpoint.dims == (128,)
    del (content := VARIANTS["v2-student"].payload())["args"]["latent_dim"]
    words = ("latent_dim 64", "embedding.0.weight is 16 x 10, where 256 x 10 is needed")
    refused(saved(tmp_path, content), ModelConfig(), *words)


def test_a_teacher_normalises_at_the_end_unless_it_says_otherwise(tmp_path: Path) -> None:
    content = VARIANTS["v2-teacher-no-final-norm"].payload()
    assert not read_checkpoint(saved(tmp_path, content)).config.final_norm
    del content["arch"]["final_layernorm"]
    assert read_checkpoint(saved(tmp_path, content)).config.final_norm


# --- what is refused --------------------------------------------------------------------------------------------------


def test_every_tensor_is_missed(tmp_path: Path, variant: Variant) -> None:
    """One tensor of each kind is left out, and the message names it."""
    payload = variant.payload(extras=False)
    tensors = payload[variant.container]
    kinds = {re.sub(r"s[12]_|(?<=layers\.)\d|(?<=encoder\.)\d", "", name): name for name in tensors}
    assert len(kinds) >= 24
    for name in kinds.values():
        content = payload | {variant.container: {n: t for n, t in tensors.items() if n != name}}
        refused(saved(tmp_path, content), variant.said, "lacks", name.removeprefix("_orig_mod."))


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_a_lost_layer_is_missed(tmp_path: Path, variant: Variant, sensor: str) -> None:
    """The last one of one sensor: nothing but the other sensor, or a configuration, can tell."""
    content = variant.payload(prefix="")
    depth = (variant.config.s2 if sensor == "s2" else variant.config.s1).layers
    last = re.compile(rf"{sensor}_backbone\.transformer_encoder\.(layers\.)?{depth - 1}\.")
    lost = [name for name in content[variant.container] if last.match(name)]
    assert len(lost) in (12, 18)
    for name in lost:
        del content[variant.container][name]
    path = saved(tmp_path, content)
    refused(path, variant.said, "layers")
    if variant.family == "v1.1":
        heads = {"s2_num_heads": 2, "s1_num_heads": 2}
        if variant.config.s2 == variant.config.s1:
            lost_layer = f"{sensor}_backbone.transformer_encoder.layers.1.*"
            refused(path, ModelConfig(heads), "it lacks the tensors", lost_layer, "s1_num_layers")
    elif variant.is_v1:
        refused(path, ModelConfig(), "it lacks the tensors", f"{sensor}_backbone.transformer_encoder.layers.1.*")


def test_a_lost_backbone_is_missed(tmp_path: Path, variant: Variant) -> None:
    content = variant.payload(prefix="")
    tensors = content[variant.container]
    content[variant.container] = {name: t for name, t in tensors.items() if not name.startswith("s1_backbone.")}
    refused(saved(tmp_path, content), variant.said, "lacks", "s1_backbone.")


@pytest.mark.parametrize(
    "name", ["s2_backbone.transformer_encoder.layers.0.gate.weight", "s1_backbone.more", "dim_reducer.7.bias"]
)
def test_unexpected_tensors(tmp_path: Path, variant: Variant, name: str) -> None:
    content = variant.payload()
    content[variant.container][name] = torch.zeros(4)
    refused(saved(tmp_path, content), variant.said, f"holds the tensor {name}, which such an encoder does not have")


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if v.family != "v1.0-qat"])
def test_tensors_of_no_known_use(tmp_path: Path, name: str) -> None:
    variant = VARIANTS[name]
    content = variant.payload()
    content[variant.container]["landsat_backbone.embedding.0.weight"] = torch.zeros(4)
    refused(saved(tmp_path, content), variant.said, "holds the tensor landsat_backbone.embedding.0.weight")


def test_shapes_in_plain_words(tmp_path: Path, variant: Variant) -> None:
    content = variant.payload(prefix="")
    tensors = content[variant.container]
    tensors[QUERY] = torch.zeros(1, 15)
    refused(saved(tmp_path, content), variant.said, f"its tensor {QUERY} is 1 x 15, where 1 x 16 is needed")
    tensors[QUERY] = torch.zeros(())
    tensors["s2_backbone.embedding.0.bias"] = torch.zeros(4, 4, 1)
    path = saved(tmp_path, content)
    refused(path, variant.said, "s2_backbone.embedding.0.bias is 4 x 4 x 1, where 16 is needed", "1 more tensor")


def flip(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[Payload], object]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


VALUES: dict[str, tuple[Callable[[Payload], object], str]] = {
    "float64": (flip(QUERY, torch.Tensor.double), f"{QUERY} is float64; official encoders are float32"),
    "float16": (flip(QUERY, torch.Tensor.half), "is float16"),
    "bfloat16": (flip(QUERY, torch.Tensor.bfloat16), "is bfloat16"),
    "integers": (flip(QUERY, torch.Tensor.int), "is int32"),
    "complex": (flip(QUERY, lambda t: t.to(torch.complex64)), "is complex64"),
    "sparse": (flip(QUERY, torch.Tensor.to_sparse), "is sparse_coo"),
    "without values": (flip(QUERY, lambda t: t.to("meta")), f"{QUERY} has a shape but no values"),
    "NaN": (flip(QUERY, lambda t: t * torch.nan), "holds NaN or infinite values"),
    "one infinity": (flip(QUERY, lambda t: t.index_fill(1, torch.tensor([3]), -torch.inf)), "NaN or infinite"),
    "a number": (flip(QUERY, lambda t: 3.5), f"'{QUERY}', which is not a tensor"),
    "a list": (flip(QUERY, lambda t: t.tolist()), "which is not a tensor"),
    "a name that is none": (lambda tensors: tensors.update({7: torch.zeros(1)}), "holds '7', which is not a tensor"),
    "larger than the file": (flip(QUERY, lambda t: torch.zeros(1).expand(10**9, 10**6)), "larger than the file"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", ["v1.0-early", "v1.1", "v2-student-qknorm", "v2-teacher"])
def test_values(tmp_path: Path, name: str, kind: str) -> None:
    variant = VARIANTS[name]
    change, message = VALUES[kind]
    content = variant.payload(prefix="", extras=False)
    change(content[variant.container])
    refused(saved(tmp_path, content), variant.said, message)


def test_sizes_that_no_memory_holds(tmp_path: Path, variant: Variant) -> None:
    """Nothing is allocated, and no list is made, for what a file merely claims."""
    layers = "s2_backbone.transformer_encoder." + ("" if variant.options.get("qk_norm") else "layers.")
    for name, tensor in (
        (f"{layers}999999999.linear1.weight", torch.zeros(1, 1)),
        (f"{layers}0.linear1.weight", torch.zeros(10**15, 0)),
        ("s2_backbone.embedding.2.weight", torch.zeros(4 * 10**15, 0)),
        ("s2_backbone.embedding.2.weight", torch.zeros(0, 0)),
        ("dim_reducer.0.weight", torch.zeros(10**15, 0)),
        ("dim_reducer.0.weight", torch.zeros(1).expand(2**40, 2**20)),
    ):
        content = variant.payload(prefix="")
        content[variant.container][name] = tensor
        refused(saved(tmp_path, content), variant.said)


def sizes(**changes: object) -> Callable[[Payload, str], object]:
    return lambda content, part: content[part].update(changes)


SIZES: dict[str, tuple[Callable[[Payload, str], object], str]] = {
    "fewer layers": (sizes(num_layers=1), "speak of 1 layers, but the file holds the tensors of 2"),
    "absurdly many layers": (sizes(num_layers=10**12), "speak of 1000000000000 layers"),
    "absurd width": (sizes(latent_dim=10**15), "where 4000000000000000 x 10 is needed"),
    "absurd feed-forward": (sizes(dim_feedforward=10**18), "linear1.weight is 16 x 16, where"),
    "absurd embedding": (sizes(repr_dim=10**18), "is needed"),
    "heads": (sizes(nhead=3), "3 attention heads (nhead) do not divide the width 16"),
    "no heads": (sizes(nhead=0), "nhead is 0, but it should be greater than 0"),
    "text for a number": (sizes(num_layers="2"), 'num_layers is "2", but it should be a valid integer'),
    "bool for a number": (sizes(num_layers=True), "num_layers is true, but it should be a valid integer"),
    "fraction": (sizes(latent_dim=4.0), "latent_dim is 4.0, but it should be a valid integer"),
    "none": (sizes(latent_dim=None), "latent_dim is null, but it should be a valid integer"),
    "a list of them": (lambda content, part: content.update({part: [1]}), "are no dictionaries"),
}


@pytest.mark.parametrize("kind", SIZES)
def test_sizes_that_do_not_belong_to_the_tensors(tmp_path: Path, v2: Variant, kind: str) -> None:
    change, message = SIZES[kind]
    content = v2.payload()
    change(content, v2.sizes)
    refused(saved(tmp_path, content), ModelConfig(), message)


def test_switches_that_do_not_belong_to_the_tensors(tmp_path: Path) -> None:
    content = VARIANTS["v2-student"].payload()
    content["args"]["enable_qk_norm"] = True
    refused(saved(tmp_path, content), ModelConfig(), "2 layers and QK-norm", "it lacks")
    content["args"]["enable_qk_norm"] = 1
    refused(saved(tmp_path, content), ModelConfig(), "args.enable_qk_norm is 1, but it should be a valid boolean")
    content = VARIANTS["v2-teacher"].payload()
    content["arch"]["final_layernorm"] = "yes"
    refused(saved(tmp_path, content), ModelConfig(), 'arch.final_layernorm is "yes", but it should be a valid boolean')
    del content["arch"]
    refused(saved(tmp_path, content), ModelConfig(), "arch.latent_dim is missing")


@pytest.mark.parametrize("text", ["16,x", "", "16,512", "0,16", ["16"], 128])
def test_prefixes_that_are_none(tmp_path: Path, text: object) -> None:
    content = VARIANTS["v2-student"].payload()
    content["args"]["matryoshka_dims"] = text
    refused(saved(tmp_path, content), ModelConfig(), "args.matryoshka_dims is")


def test_heads_that_do_not_divide_the_width(tmp_path: Path, v1: Variant) -> None:
    path = saved(tmp_path, v1.payload())
    keys = ("s2_num_heads", "s1_num_heads") if v1.family == "v1.1" else ("nhead",)
    for key in keys:
        said = ModelConfig({**v1.said.values, key: 3})
        refused(path, said, "3 attention heads", "do not divide the width 16")
        for value in (0, -1, 2.0, "2", None, True):
            refused(
                path, ModelConfig({**v1.said.values, key: value}), f"{key} is {json.dumps(value)}, but it should be"
            )


def test_a_width_that_no_family_has(tmp_path: Path, v1: Variant) -> None:
    content = v1.payload(prefix="")
    content[v1.container]["s2_backbone.embedding.2.weight"] = torch.zeros(15, 15)
    refused(saved(tmp_path, content), v1.said, "width is 15, no multiple of 4")


def test_payloads_that_are_none(tmp_path: Path, variant: Variant) -> None:
    content = variant.payload()
    tensors = content.pop(variant.container)
    refused(saved(tmp_path, content), variant.said, "not a TESSERA checkpoint", "model_state_dict")
    refused(saved(tmp_path, content | {variant.container: [1]}), variant.said, "not a TESSERA checkpoint")
    refused(saved(tmp_path, content | {variant.container: {}}), variant.said)
    refused(saved(tmp_path, tensors), variant.said, "not a TESSERA checkpoint")
    refused(saved(tmp_path, [content]), variant.said, "holds a list, not a checkpoint")


def test_an_encoder_of_one_family_in_the_file_of_another(tmp_path: Path, variant: Variant) -> None:
    tensors = variant.payload(prefix="")[variant.container]
    for name in V1 if variant.is_v1 else V2:
        other = VARIANTS[name]
        if other.container == variant.container:
            continue
        content = other.payload(prefix="") | {other.container: tensors}
        path = saved(tmp_path, content)
        if variant.is_v1:  # these differ in their tensors alone
            assert read_checkpoint(path, variant.said).family == variant.family
        else:
            refused(path, other.said)
    for name in V2 if variant.is_v1 else V1:
        other = VARIANTS[name]
        refused(saved(tmp_path, other.payload(prefix="") | {other.container: tensors}), other.said)
