"""Weights files: official checkpoints and our own safetensors -> an encoder of which every tensor is accounted for.

Anything else is a UsageError of one line. Nothing in a file is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tessera_cli.atomic import write_bytes
from tessera_cli.errors import UsageError
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.layout import misfit, tensor_shapes
from tessera_cli.models.official import read_student
from tessera_cli.models.spec import EncoderConfig

CARD_KEY = "tessera"
"""The entry of the safetensors header that holds the model card, as JSON."""
CARD_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One weights file, read and found whole."""

    path: Path
    sha256: str
    """Of the file: part of the identity of everything made with it."""
    config: EncoderConfig
    dims: tuple[int, ...]
    """Prefixes of the embedding that may stand alone."""
    encoder: Encoder
    """float32 on the CPU, in evaluation mode, without gradients."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Empty for official files."""


def read(path: Path) -> Checkpoint:
    """Read an official v2 student checkpoint or a safetensors file of ours."""
    try:
        with path.open("rb") as file:
            start = file.read(256)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: the weights file cannot be read ({error.strerror}). Check the path.") from error
    card: dict[str, Any] = {}
    if start[:2] == b"PK":
        config, dims, tensors = read_student(path)
    elif start[8:9] == b"{":
        config, dims, card, tensors = _read_safetensors(path)
    else:
        raise UsageError(f"{path}: not a weights file: {_guess(start)}. Give a .pt or .safetensors file.")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UsageError(f"{path}: tensor {name} holds NaN or infinite values. The file is damaged; get it again.")
    return Checkpoint(path, sha256, config, dims, _assemble(config, tensors), card)


def save_safetensors(path: Path, encoder: Encoder, card: Mapping[str, Any], *, half: bool = True) -> None:
    """Write an encoder with its card; the file appears whole. `half`: float16 on disk, else float32.

    The card is free, but `name`, `dims`, `statistics` (see `Statistics.to_card`) and `demonstration_only` are heeded
    when the file is read; the family and the sizes are added here.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in encoder.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} is not finite as {dtype}")
    full = {**card, "format": CARD_FORMAT, "family": "v2-student", "config": dataclasses.asdict(encoder.config)}
    write_bytes(path, save(tensors, metadata={CARD_KEY: json.dumps(full, sort_keys=True)}))


def _assemble(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """The encoder around these tensors: built without storage, so that no weight can stay random."""
    with torch.device("meta"):
        encoder = Encoder(config)
    # Copies, because tensors inside a mapped file lie at any address, and a matrix product's bits depend on alignment.
    encoder.load_state_dict({name: t.detach().clone() for name, t in tensors.items()}, strict=True, assign=True)
    return encoder.eval().requires_grad_(False)


def _read_safetensors(path: Path) -> tuple[EncoderConfig, tuple[int, ...], dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            card = _card(path, (file.metadata() or {}).get(CARD_KEY))
            config, dims = _card_config(path, card)
            names = list(file.keys())
            if config.layers > len(names):
                raise UsageError(
                    f"{path}: its card speaks of {config.layers} layers, but it holds {len(names)} tensors."
                )
            slices = {name: file.get_slice(name) for name in names}
            if problem := misfit(tensor_shapes(config), {name: tuple(s.get_shape()) for name, s in slices.items()}):
                raise UsageError(f"{path}: the tensors do not fit the sizes in its card: {problem}. Export it again.")
            for name, part in slices.items():
                if part.get_dtype() not in ("F16", "F32"):
                    raise UsageError(
                        f"{path}: tensor {name} is {part.get_dtype()}; F16 or F32 is needed. Export it again."
                    )
            return config, dims, card, {name: file.get_tensor(name).to(torch.float32) for name in names}
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
    if card.get("format") != CARD_FORMAT or card.get("family") != "v2-student":
        raise UsageError(
            f"{path}: its card is of format {str(card.get('format'))[:20]} and family {str(card.get('family'))[:20]}, "
            f"this release reads format {CARD_FORMAT} and family v2-student. Update `tessera`."
        )
    return card


def _card_config(path: Path, card: Mapping[str, Any]) -> tuple[EncoderConfig, tuple[int, ...]]:
    kinds = {f.name: bool if f.name == "qk_norm" else int for f in dataclasses.fields(EncoderConfig)}
    sizes = card.get("config")
    if (
        not isinstance(sizes, dict)
        or {name: type(size) for name, size in sizes.items()} != kinds
        or min(size for name, size in sizes.items() if name != "qk_norm") < 1
        or 4 * sizes["latent"] % sizes["heads"]
    ):
        raise UsageError(f"{path}: the sizes in its card are not those of an encoder. Export the model again.")
    config = EncoderConfig(**sizes)
    dims = card.get("dims", [config.representation])
    if (
        not isinstance(dims, list)
        or not dims
        or not all(type(d) is int and 1 <= d <= config.representation for d in dims)
    ):
        raise UsageError(f"{path}: 'dims' in its card is not a list of prefixes up to {config.representation}.")
    return config, tuple(sorted(set(dims)))


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
