"""Weights files: official checkpoints and our own safetensors -> an encoder of which every tensor is accounted for.

Anything else is a UsageError of one line. Nothing in a file is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tessera_cli.errors import UsageError, complaint
from tessera_cli.files import sha256_of, write_bytes
from tessera_cli.json_text import parse_json
from tessera_cli.models.architecture import EncoderConfig, Size
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import family_spec
from tessera_cli.models.layout import misfit, tensor_shapes
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.official import Contents, read_official
from tessera_cli.models.payload import unwrapped
from tessera_cli.models.spec import FAMILIES, Family
from tessera_cli.reading import open_file
from tessera_cli.sampling import RandomSampling
from tessera_cli.sampling.statistics import Statistics

CARD_KEY = "tessera"
"""The entry of the safetensors header that holds the model card, as JSON."""
CARD_FORMAT = 1
ALIGNMENT = 64
"""Bytes: where torch's own allocations begin."""


class Card(BaseModel):
    """The model card in the header of our own files; further keys are free, and kept in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    family: Family
    config: EncoderConfig
    name: Annotated[str, Field(strict=True, min_length=1)]
    """Part of file names; where a card has none, the name of its file."""
    dims: Annotated[tuple[Size, ...], Field(min_length=1)] = ()
    """Prefixes of the embedding that may stand alone; empty for those of the family."""
    statistics: Statistics | None = None
    """What the training d-pixels were standardised with; None for the family's."""
    source: Literal["mpc", "aws"] | None = None
    """Whose d-pixels it was trained on, if of one source alone."""
    n_obs: Size | None = None
    """v1.0: how many observations of each sensor are drawn."""
    demonstration_only: bool = False

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not name.isprintable() or set(name) & set("/\\ "):
            raise ValueError("it cannot be used in file names")
        return name

    @model_validator(mode="after")
    def _check_together(self) -> Card:
        if self.config.unfit_heads:
            raise ValueError("config.s2.heads and config.s1.heads do not both divide the width 4 x config.latent")
        if max(self.dims, default=0) > self.config.representation:
            raise ValueError(f"dims is not a list of prefixes up to {self.config.representation}")
        if self.n_obs is not None and not self.family.startswith("v1.0"):
            raise ValueError("n_obs fits no model of this family")
        return self

    def spec_fields(self) -> dict[str, Any]:
        """Return what the card says as fields of `ModelSpec`."""
        fields: dict[str, Any] = {"demonstration_only": self.demonstration_only}
        if self.statistics is not None:
            fields["statistics"] = self.statistics
        if self.source is not None:
            fields |= {"source": self.source, "warn_sources": ()}
        if self.n_obs is not None:
            rule = family_spec(self.family, "", self.config).observations
            assert isinstance(rule, RandomSampling)
            fields["observations"] = dataclasses.replace(rule, s2=self.n_obs, s1=self.n_obs)
        return fields


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One weights file, read and found whole."""

    path: Path
    sha256: str
    """Of the file: part of the identity of everything made with it."""
    family: Family
    config: EncoderConfig
    dims: tuple[int, ...] | None
    """Prefixes of the embedding that may stand alone; None for those of the family."""
    encoder: Encoder
    """float32 on the CPU, in evaluation mode, without gradients."""
    card: Card | None
    """None for official files."""


def read_checkpoint(path: Path, model_config: ModelConfig = ModelConfig()) -> Checkpoint:  # noqa: B008 - frozen
    """Read an official checkpoint of any family or a safetensors file of ours.

    `model_config` supplies what official v1.x files do not record; a contradiction to such a file is a UsageError.
    """
    try:
        with open_file(path) as file:
            start = file.read(256)
        sha256 = sha256_of(path)
    except OSError as error:
        raise UsageError(f"{path}: the weights file cannot be read ({error.strerror}). Check the path.") from error
    card = None
    if start[:2] == b"PK":
        found = read_official(path, model_config)
    elif start[8:9] == b"{":
        found, card = _read_safetensors(path)
    else:
        raise UsageError(f"{path}: not a weights file: {_guess(start)}. Give a .pt or .safetensors file.")
    encoder = _assemble(path, found.config, found.tensors)
    return Checkpoint(path, sha256, found.family, found.config, found.dims, encoder, card)


def save_safetensors(path: Path, encoder: Encoder, card: Mapping[str, Any], *, half: bool = True) -> None:
    """Write an encoder with its card; the file appears whole. `half`: float16 on disk, else float32.

    Keys of `Card` are used when the file is read, others are free; the sizes are added here, and the family v2-student
    unless `card` names another.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in encoder.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} is not finite as {dtype}")
    full = {"family": "v2-student", **card, "format": CARD_FORMAT, "config": dataclasses.asdict(encoder.config)}
    write_bytes(path, save(tensors, metadata={CARD_KEY: json.dumps(full, sort_keys=True)}))


def _assemble(path: Path, config: EncoderConfig, tensors: dict[str, Tensor]) -> Encoder:
    """Return the encoder of these tensors, built without storage of its own, so that no weight can stay random."""
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


def _read_safetensors(path: Path) -> tuple[Contents, Card]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            card = _read_card(path, (file.metadata() or {}).get(CARD_KEY))
            config, names = card.config, unwrapped(path, {name: name for name in file.keys()})  # noqa: SIM118 - no mapping
            if (layers := max(config.s2.layers, config.s1.layers)) > len(names):
                raise UsageError(f"{path}: its card speaks of {layers} layers, but it holds {len(names)} tensors.")
            slices = {plain: file.get_slice(name) for plain, name in names.items()}
            if problem := misfit(tensor_shapes(config), {name: tuple(s.get_shape()) for name, s in slices.items()}):
                raise UsageError(f"{path}: the tensors do not fit the sizes in its card: {problem}. Export it again.")
            for name, part in slices.items():
                if part.get_dtype() not in ("F16", "F32"):
                    raise UsageError(
                        f"{path}: tensor {name} is {part.get_dtype()}; F16 or F32 is needed. Export it again."
                    )
            tensors = {plain: file.get_tensor(name).to(torch.float32) for plain, name in names.items()}
            return Contents(card.family, config, tuple(sorted(set(card.dims))) or None, tensors), card
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{path}: truncated or damaged, not a whole safetensors file ({error}). Get it again."
        ) from error


def _read_card(path: Path, text: str | None) -> Card:
    try:
        card = parse_json(text or "null")
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise UsageError(f"{path}: a safetensors file without a TESSERA model card. Give one written by `tessera`.")
    if card.get("format") != CARD_FORMAT or card.get("family") not in FAMILIES:
        raise UsageError(
            f"{path}: its card is of format {str(card.get('format'))[:20]} and family {str(card.get('family'))[:20]}, "
            f"this release reads format {CARD_FORMAT} and families {', '.join(FAMILIES)}. Update `tessera`."
        )
    try:
        return Card.model_validate({"name": path.stem, **card})
    except ValidationError as error:
        raise UsageError(f"{path}: in its card, {complaint(error)}. Export the model again.") from error


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
