"""Weights files: official checkpoints and our own safetensors -> an encoder of which every tensor is accounted for.

Anything else is a UsageError of one line. Nothing in a file is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tessera_cli.errors import UsageError
from tessera_cli.files import sha256_of, write_bytes
from tessera_cli.models.architecture import FUSIONS, POOLINGS, EncoderConfig, TransformerConfig
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import misfit, tensor_shapes
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.official import Contents, read_official
from tessera_cli.models.spec import FAMILIES, Family

CARD_KEY = "tessera"
"""The entry of the safetensors header that holds the model card, as JSON."""
CARD_FORMAT = 1
ALIGNMENT = 64
"""Bytes: where torch's own allocations begin."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One weights file, read and found whole."""

    path: Path
    sha256: str
    """Of the file: part of the identity of everything made with it."""
    family: Family
    config: EncoderConfig
    dims: tuple[int, ...] | None
    """Prefixes of the embedding that may stand alone; None: those of the family."""
    encoder: Encoder
    """float32 on the CPU, in evaluation mode, without gradients."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Empty for official files."""


def read(path: Path, model_config: ModelConfig = ModelConfig()) -> Checkpoint:  # noqa: B008 - frozen
    """Read an official checkpoint of any family or a safetensors file of ours.

    `model_config` supplies what official v1.x files do not record; a contradiction to such a file is a UsageError.
    """
    try:
        with path.open("rb") as file:
            start = file.read(256)
        sha256 = sha256_of(path)
    except OSError as error:
        raise UsageError(f"{path}: the weights file cannot be read ({error.strerror}). Check the path.") from error
    if start[:2] == b"PK":
        found = read_official(path, model_config)
    elif start[8:9] == b"{":
        found = _read_safetensors(path)
    else:
        raise UsageError(f"{path}: not a weights file: {_guess(start)}. Give a .pt or .safetensors file.")
    encoder = _assemble(path, found.config, found.tensors)
    return Checkpoint(path, sha256, found.family, found.config, found.dims, encoder, found.card)


def save_safetensors(path: Path, encoder: Encoder, card: Mapping[str, Any], *, half: bool = True) -> None:
    """Write an encoder with its card; the file appears whole. `half`: float16 on disk, else float32.

    The card is free, but `name`, `dims`, `statistics` (see `Statistics.to_card`) and `demonstration_only` are heeded
    when the file is read; the sizes are added here, and the family unless it names one.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in encoder.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} is not finite as {dtype}")
    full = {"family": "v2-student", **card, "format": CARD_FORMAT, "config": dataclasses.asdict(encoder.config)}
    write_bytes(path, save(tensors, metadata={CARD_KEY: json.dumps(full, sort_keys=True)}))


def _assemble(path: Path, config: EncoderConfig, tensors: dict[str, Tensor]) -> Encoder:
    """The encoder around these tensors: built without storage, so that no weight can stay random."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UsageError(f"{path}: tensor {name} holds NaN or infinite values. The file is damaged; get it again.")
    with torch.device("meta"):
        encoder = Encoder(config)
    # Views and mapped tensors lie at any address, and a matrix product's bits depend on alignment.
    owned = {name: tensors.pop(name).detach() for name in list(tensors)}
    owned = {name: t if _owns_its_memory(t) else t.clone() for name, t in owned.items()}
    encoder.load_state_dict(owned, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


def _owns_its_memory(tensor: Tensor) -> bool:
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
    return whole and tensor.data_ptr() % ALIGNMENT == 0


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            card = _card(path, (file.metadata() or {}).get(CARD_KEY))
            config = _card_config(path, card)
            names = list(file.keys())
            if max(config.s2.layers, config.s1.layers) > len(names):
                layers = max(config.s2.layers, config.s1.layers)
                raise UsageError(f"{path}: its card speaks of {layers} layers, but it holds {len(names)} tensors.")
            slices = {name: file.get_slice(name) for name in names}
            if problem := misfit(tensor_shapes(config), {name: tuple(s.get_shape()) for name, s in slices.items()}):
                raise UsageError(f"{path}: the tensors do not fit the sizes in its card: {problem}. Export it again.")
            for name, part in slices.items():
                if part.get_dtype() not in ("F16", "F32"):
                    raise UsageError(
                        f"{path}: tensor {name} is {part.get_dtype()}; F16 or F32 is needed. Export it again."
                    )
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in names}
            return Contents(card["family"], config, _card_dims(path, card, config), tensors, card)
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{path}: truncated or damaged, not a whole safetensors file ({error}). Get it again."
        ) from error


def _card(path: Path, text: str | None) -> dict[str, Any]:
    try:
        card = json.loads(text or "null")
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise UsageError(f"{path}: a safetensors file without a TESSERA model card. Give one written by `tessera`.")
    if card.get("format") != CARD_FORMAT or card.get("family") not in FAMILIES:
        raise UsageError(
            f"{path}: its card is of format {str(card.get('format'))[:20]} and family {str(card.get('family'))[:20]}, "
            f"this release reads format {CARD_FORMAT} and families {', '.join(FAMILIES)}. Update `tessera`."
        )
    return card


def _card_config(path: Path, card: Mapping[str, Any]) -> EncoderConfig:
    try:
        given: dict[str, Any] = dict(card["config"])
        stacks = {sensor: TransformerConfig(**given.pop(sensor)) for sensor in ("s2", "s1")}
        config = EncoderConfig(s2=stacks["s2"], s1=stacks["s1"], **given)
        sizes = [size for stack in stacks.values() for size in dataclasses.astuple(stack)]
        sizes += [config.latent, config.representation, 1 if config.hidden is None else config.hidden]
        switches = (config.qk_norm, config.pre_norm, config.final_norm)
        if (
            not all(type(size) is int and size > 0 for size in sizes)
            or not all(type(switch) is bool for switch in switches)
            or config.pooling not in POOLINGS
            or config.fusion not in FUSIONS
            or any(config.width % stack.heads for stack in stacks.values())
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: the sizes in its card are not those of an encoder. Export the model again."
        ) from error
    return config


def _card_dims(path: Path, card: Mapping[str, Any], config: EncoderConfig) -> tuple[int, ...] | None:
    if "dims" not in card:
        return None
    dims = card["dims"]
    if (
        not isinstance(dims, list)
        or not dims
        or not all(type(d) is int and 1 <= d <= config.representation for d in dims)
    ):
        raise UsageError(f"{path}: 'dims' in its card is not a list of prefixes up to {config.representation}.")
    return tuple(sorted(set(dims)))


def _guess(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, so fetch the file that it stands for"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, probably saved in place of the download"
    if start[:1] == b"\x80":
        return "it is a bare pickle, which can run code and is never opened"
    return "neither a PyTorch zip nor a safetensors file"
