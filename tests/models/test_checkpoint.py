"""Weights files: what they are, damage, code in them, and our own format. Official layouts: test_official.py."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tessera_cli.errors import UsageError
from tessera_cli.models import EncoderConfig, load_model
from tessera_cli.models.checkpoint import CARD_KEY, Checkpoint, read_checkpoint, save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import official_names
from tests.helpers.checkpoints import QUERY, VARIANTS, Variant, saved

TINY = EncoderConfig.of(latent=4, layers=2, heads=2, feedforward=16)


def random_encoder(config: EncoderConfig = TINY) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Encoder(config)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(UsageError, match="cannot be read"):
        read_checkpoint(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_checkpoint(tmp_path)
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
            read_checkpoint(path)


def test_zips_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(UsageError, match="a zip archive, but not a PyTorch checkpoint"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a zip bomb
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(UsageError, match="not a PyTorch checkpoint"):
        read_checkpoint(path)


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["top", "sizes", "tensors", "tensor", "key"])
@pytest.mark.parametrize("name", ["v1.0-early", "v1.0-qat", "v1.1", "v2-student", "v2-teacher"])
def test_code_in_a_checkpoint_is_never_executed(tmp_path: Path, name: str, place: str) -> None:
    variant = VARIANTS[name]
    trap = Trap(tmp_path / "executed")
    content: Any = variant.payload(prefix="")
    if place == "top":
        content = trap
    elif place == "sizes":
        content.setdefault("config" if variant.is_v1 else variant.sizes, {})["note"] = trap
    elif place == "tensors":
        content[variant.container] = trap
    elif place == "tensor":
        content[variant.container][QUERY] = trap
    else:
        content["extra"] = {"deep": [trap]}
    path = saved(tmp_path, content)
    with pytest.raises(UsageError, match="refused, because it is damaged or holds more than"):
        read_checkpoint(path, variant.said)
    assert not trap.marker.exists()
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(content if place == "top" else trap, protocol=protocol))
        with pytest.raises(UsageError):
            read_checkpoint(path, variant.said)
    assert not trap.marker.exists()


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_among_the_weights_is_noticed(tmp_path: Path) -> None:
    """torch itself compares no checksums."""
    variant = VARIANTS["v1.1"]
    content = variant.payload()
    values = content[variant.container]["_orig_mod.dim_reducer.4.weight"].numpy().tobytes()
    path = saved(tmp_path, content)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.find(values) + 1] ^= 0x40
    path.write_bytes(damaged)
    torch.load(path, weights_only=True)
    with pytest.raises(UsageError, match=r"damaged one: the checksum of its part 'weights/data/[0-9]+' is wrong"):
        read_checkpoint(path, variant.said)


def without_checksums(path: Path) -> bytes:
    """As torch.save writes them on request: all are 0."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            checksum = struct.pack("<I", member.CRC)
            while (place := content.find(checksum)) >= 0:
                content[place : place + 4] = bytes(4)
    return bytes(content)


def test_files_without_checksums(tmp_path: Path) -> None:
    variant = VARIANTS["v2-student"]
    path = saved(tmp_path, variant.payload())
    path.write_bytes(without_checksums(path))
    assert read_checkpoint(path).config == variant.config


def own_card(variant: Variant) -> dict[str, Any]:
    return {"name": "own", "family": variant.family}


def whole_file(folder: Path, variant: Variant, *, own: bool) -> Path:
    if own:
        path = folder / "own.safetensors"
        save_safetensors(path, random_encoder(variant.config), own_card(variant))
        return path
    return saved(folder, variant.payload())


@pytest.mark.parametrize("own", [False, True], ids=["official", "own"])
def test_truncated_files(tmp_path: Path, own: bool) -> None:
    for variant in VARIANTS.values():
        path = whole_file(tmp_path, variant, own=own)
        content = path.read_bytes()
        for length in (0, 1, 7, 9, 40, 200, 1000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(UsageError):
                read_checkpoint(path, variant.said)


def bytes_changed(content: bytes, rng: random.Random, reach: int) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        damaged[rng.randrange(min(reach, len(damaged)))] = rng.randrange(256)
    return bytes(damaged)


def members_changed(path: Path, rng: random.Random) -> None:
    """Damage that no checksum tells of: the archive is packed anew, with one member altered."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    (contents,) = (name for name in members if name.endswith("/data.pkl"))
    values = sorted(name for name in members if "/data/" in name)
    kind = rng.choice(("contents", "contents", "type", "values", "values", "cut", "gone", "swapped", "NaN", "size"))
    one, other = rng.sample(values, 2)
    if kind == "contents":
        members[contents] = bytes_changed(members[contents], rng, 10**9)
    elif kind == "type":
        storage = rng.choice((b"HalfStorage", b"DoubleStorage", b"IntStorage", b"BFloat16Storage", b"os\nsystem"))
        members[contents] = members[contents].replace(b"FloatStorage", storage)
    elif kind == "values":
        members[one] = bytes_changed(members[one], rng, 10**9)
    elif kind == "cut":
        members[one] = members[one][: rng.randrange(len(members[one]))]
    elif kind == "gone":
        del members[one]
    elif kind == "swapped":
        members[one], members[other] = members[other], members[one]
    elif kind == "NaN":
        place = 4 * rng.randrange(len(members[one]) // 4)
        nan = struct.pack("<f", rng.choice((float("nan"), float("inf"))))
        members[one] = members[one][:place] + nan + members[one][place + 4 :]
    else:  # numbers of one byte: sizes, strides, counts of elements
        numbers = [i for i in range(len(members[contents]) - 1) if members[contents][i : i + 1] == b"K"]
        damaged = bytearray(members[contents])
        for place in rng.sample(numbers, 3):
            damaged[place + 1] = rng.randrange(256)
        members[contents] = bytes(damaged)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def in_the_file(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """What another reader finds in the same bytes, by our names."""
    names = list(checkpoint.encoder.state_dict())
    if checkpoint.card:
        return {name: tensor.float() for name, tensor in load_file(checkpoint.path).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        payload = torch.load(checkpoint.path, weights_only=True)
    key = next(k for k in ("encoder_state_dict", "model_state", "model_state_dict", "model") if k in payload)
    tensors = {str(name).replace("_orig_mod.", ""): tensor for name, tensor in payload[key].items()}
    parts = {name: official_names(name, checkpoint.config) for name in names}
    training = ("projector.", "segmented_matryoshka_projector.")
    assert {n for n in tensors if not n.startswith(training)} == {n for names in parts.values() for n in names}
    return {name: torch.cat([tensors[part] for part in names]) for name, names in parts.items()}


def survives(path: Path, variant: Variant) -> Checkpoint | None:
    """A damaged file that is read all the same."""
    try:
        checkpoint = read_checkpoint(path, variant.said)
    except UsageError:
        return None
    tensors = checkpoint.encoder.state_dict()
    assert {name for name, _ in checkpoint.encoder.named_parameters()} == tensors.keys()
    assert all(not t.is_meta and bool(torch.isfinite(t).all()) for t in tensors.values())
    return checkpoint


def same(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor]) -> bool:
    """To the last bit."""
    return all(torch.equal(tensor, expected[name]) for name, tensor in checkpoint.encoder.state_dict().items())


def test_damaged_archives_are_errors_or_do_no_harm(tmp_path: Path) -> None:
    """Bytes changed anywhere: what is read all the same is what was saved, to the last bit."""
    rng = random.Random(1)
    survivors = 0
    for variant in VARIANTS.values():
        path = whole_file(tmp_path, variant, own=False)
        content, original = path.read_bytes(), read_checkpoint(path, variant.said).encoder.state_dict()
        directory = len(content) - content.find(b"PK\x01\x02")
        for attempt in range(30):
            reach = (3000, directory, len(content))[attempt % 3]  # opcodes and sizes, names and places, everything
            damaged = bytes_changed(content[::-1] if attempt % 3 == 1 else content, rng, reach)
            path.write_bytes(damaged[::-1] if attempt % 3 == 1 else damaged)
            if checkpoint := survives(path, variant):
                survivors += 1
                assert same(checkpoint, original)
    assert survivors > 5
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("own", [False, True], ids=["official", "own"])
def test_damage_that_no_checksum_tells_of(tmp_path: Path, own: bool) -> None:
    """Either a clear error, or an encoder of which every number stands in the file."""
    rng = random.Random(2)
    survivors = 0
    for variant in VARIANTS.values():
        path = whole_file(tmp_path, variant, own=own)
        content = path.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        for attempt in range(16):
            path.write_bytes(content)
            if own:
                path.write_bytes(bytes_changed(content, rng, header if attempt % 3 else len(content)))
            else:
                members_changed(path, rng)
            if checkpoint := survives(path, variant):
                survivors += 1
                assert same(checkpoint, in_the_file(checkpoint))
        path.unlink()
    assert survivors > 20
    assert not list(tmp_path.iterdir())


def directory_changed(content: bytes, change: Callable[[bytearray, int], None]) -> bytes:
    """One entry of the archive's directory is altered: that of a tensor."""
    damaged = bytearray(content)
    change(damaged, damaged.find(b"weights/data/7", damaged.find(b"PK\x01\x02")) - 46)
    return bytes(damaged)


def as_a_folder(entry: bytearray, at: int) -> None:
    entry[at + 38] |= 0x10


def as_nothing(entry: bytearray, at: int) -> None:
    entry[at + 20 : at + 24] = bytes(4)


def as_compressed(entry: bytearray, at: int) -> None:
    entry[at + 10] = 8


def as_encrypted(entry: bytearray, at: int) -> None:
    entry[at + 8] |= 1


def as_another(entry: bytearray, at: int) -> None:
    entry[at + 59] = ord("6")


@pytest.mark.parametrize("change", [as_a_folder, as_nothing, as_compressed, as_encrypted, as_another])
@pytest.mark.parametrize("checksums", [True, False])
def test_a_directory_that_hides_a_tensor(
    tmp_path: Path, change: Callable[[bytearray, int], None], checksums: bool
) -> None:
    """torch hands out memory that nobody wrote to for parts that are folders or empty."""
    path = saved(tmp_path, VARIANTS["v2-student"].payload())
    content = path.read_bytes() if checksums else without_checksums(path)
    path.write_bytes(directory_changed(content, change))
    with pytest.raises(UsageError, match=r"not stored as plain bytes|two parts of one name|header.* differ|damaged"):
        read_checkpoint(path)


def test_random_bytes(tmp_path: Path) -> None:
    rng = random.Random(6)
    path = tmp_path / "weights.pt"
    for attempt in range(120):
        start = (
            b"",
            b"PK\x03\x04",
            b"PK\x05\x06",
            struct.pack("<Q", rng.randrange(4000)) + b"{",
            b"\x80\x02",
        )[attempt % 5]
        path.write_bytes(start + rng.randbytes(rng.randrange(4000)))
        with pytest.raises(UsageError):
            read_checkpoint(path)


# --- our own files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_own_files_round_trip_in_every_family(tmp_path: Path, name: str, half: bool) -> None:
    variant = VARIANTS[name]
    encoder = random_encoder(variant.config)
    path = tmp_path / "own.safetensors"
    save_safetensors(path, encoder, {**own_card(variant), "dims": [4]}, half=half)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.family, checkpoint.config, checkpoint.dims) == (variant.family, variant.config, (4,))
    found = checkpoint.encoder.state_dict()
    assert found.keys() == encoder.state_dict().keys()
    for key, original in encoder.state_dict().items():
        assert torch.equal(found[key], original.half().float() if half else original), key
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()[CARD_KEY])
    assert card["config"] == dataclasses.asdict(variant.config)
    assert card["config"]["s1"] == dataclasses.asdict(variant.config.s1)


@pytest.mark.parametrize("name", VARIANTS)
def test_own_files_without_more_are_as_their_family(tmp_path: Path, name: str) -> None:
    variant = VARIANTS[name]
    path = whole_file(tmp_path, variant, own=True)
    assert read_checkpoint(path).dims is None
    own = load_model(path, device="cpu").spec
    official = load_model(weights=saved(tmp_path, variant.payload()), model_config=variant.said, device="cpu").spec
    assert own.statistics == official.statistics
    assert own.quantiser == official.quantiser
    assert own.default_dims == official.default_dims
    assert type(own.observations) is type(official.observations)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_own_files_saved_anew_from_a_wrapped_model(tmp_path: Path, prefix: str) -> None:
    path = own_file(tmp_path / "own.safetensors", CARD)
    plain = read_checkpoint(path).encoder.state_dict()
    save_file({prefix + name: t for name, t in plain.items()}, path, {CARD_KEY: json.dumps(CARD)})
    found = read_checkpoint(path).encoder.state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("half", [True, False])
def test_own_files_round_trip(tmp_path: Path, half: bool) -> None:
    encoder = random_encoder(dataclasses.replace(TINY, qk_norm=True))
    path = tmp_path / "own.safetensors"
    state = torch.get_rng_state()
    save_safetensors(path, encoder, {"name": "tiny", "dims": [16, 128], "trained_on": "nothing"}, half=half)
    checkpoint = read_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert checkpoint.config == encoder.config
    assert checkpoint.dims == (16, 128)
    assert checkpoint.card is not None
    assert checkpoint.card.model_extra is not None
    assert checkpoint.card.model_extra["trained_on"] == "nothing"
    assert checkpoint.card.family == "v2-student"
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in checkpoint.encoder.state_dict().items():
        original = encoder.state_dict()[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, original.half().float() if half else original), name
    assert path.stat().st_size < (2.4 if half else 4.4) * sum(p.numel() for p in encoder.parameters()) + 12000
    assert [p.name for p in tmp_path.iterdir()] == ["own.safetensors"]


def test_weights_beyond_float16_are_not_saved_as_such(tmp_path: Path) -> None:
    encoder = random_encoder(TINY)
    with torch.no_grad():
        encoder.s2.pool.query.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"s2\.pool\.query\.weight is not finite"):
        save_safetensors(tmp_path / "own.safetensors", encoder, {})
    save_safetensors(tmp_path / "own.safetensors", encoder, {}, half=False)


def own_file(
    path: Path, card: object, change: Callable[[dict[str, torch.Tensor]], object] = lambda tensors: None
) -> Path:
    tensors = {name: t.clone() for name, t in Encoder(TINY).state_dict().items()}
    change(tensors)
    save_file(tensors, path, metadata=None if card is None else {CARD_KEY: json.dumps(card)})
    return path


CONFIG = dataclasses.asdict(TINY)
CARD = {"format": 1, "family": "v2-student", "config": CONFIG}


def with_config(**changes: object) -> dict[str, object]:
    return {**CARD, "config": {**CONFIG, **changes}}


def with_stack(**changes: object) -> dict[str, object]:
    return with_config(s1={**CONFIG["s1"], **changes})


BAD_CARDS: dict[str, tuple[object, str]] = {
    "none": (None, "without a TESSERA model card"),
    "list": ([], "without a TESSERA model card"),
    "newer": ({**CARD, "format": 2}, "format 2 and family v2-student, this release reads format 1"),
    "other family": ({**CARD, "family": "v1"}, "family v1"),
    "no family": ({"format": 1, "config": CONFIG}, "family None"),
    "no network": ({**CARD, "family": "band-means"}, "family band-means"),
    "family in a list": ({**CARD, "family": ["v1.1"]}, r"this release reads format 1 and families v1\.0-early, "),
    "no config": ({"format": 1, "family": "v2-student"}, "in its card, config is missing"),
    "config is a list": ({**CARD, "config": [1, 2]}, r"config is \[1, 2\], but"),
    "missing size": ({**CARD, "config": {"latent": 4, "hidden": 64}}, r"config\.s2 is missing"),
    "missing stack": ({**CARD, "config": {k: v for k, v in CONFIG.items() if k != "s1"}}, r"config\.s1 is missing"),
    "missing in a stack": (with_config(s1={"layers": 2, "heads": 2}), r"config\.s1\.feedforward is missing"),
    "stack is a number": (with_config(s1=2), r"config\.s1 is 2, but"),
    "flat": (with_config(layers=2), r"config\.layers is 2, but"),
    "extra in a stack": (with_stack(x=1), r"config\.s1\.x is 1, but"),
    "text": (with_stack(layers="2"), r"config\.s1\.layers is \"2\", but it should be a valid integer"),
    "fraction": (with_stack(layers=2.0), r"config\.s1\.layers is 2\.0, but"),
    "negative": (with_config(latent=-4), r"config\.latent is -4, but it should be greater than 0"),
    "heads": (with_stack(heads=3), r"config\.s1\.heads do not both divide the width"),
    "zero": (with_stack(heads=0), r"config\.s1\.heads is 0, but"),
    "switch": (with_config(qk_norm=1), r"config\.qk_norm is 1, but it should be a valid boolean"),
    "pooling": (with_config(pooling="mean"), r"config\.pooling is \"mean\", but it should be 'attention', 'gru'"),
    "fusion": (with_config(fusion=["concat"]), r"config\.fusion is \[\"concat\"\], but"),
    "hidden": (with_config(hidden=0), r"config\.hidden is 0, but"),
    "layers": (with_stack(layers=10**9), "speaks of 1000000000 layers"),
    "width": (with_config(latent=10**15), "do not fit the sizes"),
    "other pooling": (with_config(pooling="custom-gru"), r"lacks \d+ tensors"),
    "no hidden layer": (with_config(hidden=None), r"holds \d tensors: reducer\.norm\.bias"),
    "other embedding": (with_config(representation=64), r"reducer\.down\.weight is 128 x 64, where 64 x 64"),
    "fusion transformer": (with_config(fusion="transformer"), "lacks 25 tensors: fusion"),
    "dims": ({**CARD, "dims": [16, 256]}, "in its card, dims is not a list of prefixes up to 128"),
    "no dims": ({**CARD, "dims": []}, r"in its card, dims is \[\], but"),
    "dims of nothing": ({**CARD, "dims": [0, 16]}, r"in its card, dims\.0 is 0, but it should be greater than 0"),
    "no name": ({**CARD, "name": ""}, 'in its card, name is "", but'),
    "a name with a slash": ({**CARD, "name": "../x"}, "name is .* cannot be used in file names"),
    "a name that cannot be printed": ({**CARD, "name": "a\nb"}, "cannot be used in file names"),
    "name is a number": ({**CARD, "name": 7}, "in its card, name is 7, but"),
    "statistics cut": (
        {**CARD, "statistics": {"s2_mean": [1.0]}},
        r"in its card, statistics\.s2_mean is \[1\.0\], but",
    ),
    "another source": ({**CARD, "source": "landsat"}, 'in its card, source is "landsat", but'),
    "observations of v2": ({**CARD, "n_obs": 40}, "n_obs fits no model of this family"),
    "no observations": ({**CARD, "family": "v1.0-qat", "n_obs": 0}, "n_obs is 0, but it should be greater than 0"),
    "dims null": ({**CARD, "dims": None}, "in its card, dims is null, but"),
}


@pytest.mark.parametrize("kind", BAD_CARDS)
def test_own_files_with_a_bad_card(tmp_path: Path, kind: str) -> None:
    card, message = BAD_CARDS[kind]
    with pytest.raises(UsageError, match=message):
        read_checkpoint(own_file(tmp_path / "own.safetensors", card))


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
            read_checkpoint(own_file(tmp_path / "own.safetensors", CARD, change))
