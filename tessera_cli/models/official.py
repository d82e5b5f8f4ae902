"""Official checkpoints of every family: recognise the family, read the sizes, rename all tensors.

| family | payload | tensors |
|---|---|---|
| v1.0, v1.0-qat, v1.1 | `model_state` or `model_state_dict` | of the training |
| v2 student | `args`, `model` | the encoder |
| v2 teacher | `arch`, `encoder_state_dict` | the encoder |

Prefixes of wrapped models (`_orig_mod.`, `module.`) are taken off all names first.
Sizes are taken from the shapes of the tensors where possible, and checked against what the file or the user says.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import Tensor

from tessera_cli.errors import UsageError, complaint
from tessera_cli.models.architecture import EncoderConfig, Size, TransformerConfig
from tessera_cli.models.families import PARTS
from tessera_cli.models.layout import misfit, official_names, official_shapes, tensor_shapes
from tessera_cli.models.model_config import ModelConfig, V1_0Keys, V1_1Keys
from tessera_cli.models.payload import Payload, check_tensors, load_payload, unwrapped
from tessera_cli.models.registry import SMALL_CONFIG, V1_1_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import BAND_COUNTS

logger = logging.getLogger(__name__)

_PROJECTORS = ("projector.", "segmented_matryoshka_projector.")
"""Projectors of the training: no part of the encoder."""
_ENCODER = re.compile(r"\w*_backbone\.|dim_reducer\.|fusion_")
"""Start of the names of an encoder's tensors; official loaders, too, ignore others in a training checkpoint."""
_LONG_REDUCER = ("dim_reducer.1.", "dim_reducer.4.")
"""Tensors that only v1.1's reducer has; in v1.0 it is one linear map."""
_V1_0_HEADS: Mapping[str, int] = {"v1.0-early": 8, "v1.0-qat": 4}


class UnknownHeadsError(UsageError):
    """A v1.1 checkpoint of a size that was never released, with an unknown number of attention heads."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A checkpoint of which every tensor is accounted for."""

    family: Family
    config: EncoderConfig
    dims: tuple[int, ...] | None
    """Prefixes of the embedding that the file names (matryoshka_dims); None for those of its family."""
    tensors: dict[str, Tensor]
    """float32, by our names."""


def read_official(path: Path, model_config: ModelConfig) -> Contents:
    """Read a checkpoint. `model_config` supplies what v1.x files lack. UsageError for anything that is not whole."""
    payload = load_payload(path)
    dims: tuple[int, ...] | None = None
    if "encoder_state_dict" in payload:
        family: Family = "v2-teacher"
        tensors, arch = _read_v2(path, payload, "encoder_state_dict", "arch", _TeacherArch, model_config)
        config = _check_heads(path, arch.encoder(final_norm=arch.final_layernorm, **PARTS[family]))
    elif "model_state" in payload or "model_state_dict" in payload:
        family, tensors = _v1_tensors(path, payload)
        config = _v1_config(path, family, tensors, model_config)
    elif "model" in payload:
        family = "v2-student"
        tensors, args = _read_v2(path, payload, "model", "args", _StudentArgs, model_config)
        config, dims = _check_heads(path, args.encoder(qk_norm=args.enable_qk_norm)), args.dims
    else:
        raise UsageError(
            f"{path}: not a TESSERA checkpoint: it has none of the parts that official ones have (model, model_state, "
            "model_state_dict, encoder_state_dict). Give the .pt file of a TESSERA model."
        )
    for modality in BAND_COUNTS:
        _check_depth(path, modality, config.stack(modality).layers, tensors, recorded=family.startswith("v2"))
    if problem := misfit(official_shapes(config), {name: tuple(t.shape) for name, t in tensors.items()}):
        raise UsageError(
            f"{path}: the tensors do not fit a {family} encoder with {describe(config)}, which is what it says it is: "
            f"{problem}. Give a checkpoint as its authors saved it."
        )
    parts = {name: official_names(name, config) for name in tensor_shapes(config)}
    return Contents(family, config, dims, {ours: _concatenate(tensors, names) for ours, names in parts.items()})


def describe(config: EncoderConfig) -> str:
    """Return the sizes in words, for messages."""
    qk = "QK-norm" if config.qk_norm else "no QK-norm"
    s2, s1 = config.s2.layers, config.s1.layers
    layers = f"{s2}" if s2 == s1 else f"{s2} and {s1}"
    return f"latent_dim {config.latent}, {layers} layers and {qk}"


def _concatenate(tensors: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    """Return our tensor from its official parts, which are removed: the largest files fill the memory."""
    found = [tensors.pop(name) for name in names]
    return found[0] if len(found) == 1 else torch.cat(found)


class _Sizes(BaseModel):
    model_config = ConfigDict(strict=True)

    latent_dim: Size
    num_layers: Size
    nhead: Size
    dim_feedforward: Size
    repr_dim: Size

    def encoder(self, **parts: Any) -> EncoderConfig:
        sizes = self.latent_dim, self.num_layers, self.nhead, self.dim_feedforward
        return EncoderConfig.of(*sizes, representation=self.repr_dim, **parts)


class _StudentArgs(_Sizes):
    """`args`; sizes that it lacks are those of the small model, as in the official loader."""

    latent_dim: Size = SMALL_CONFIG.latent
    num_layers: Size = SMALL_CONFIG.s2.layers
    nhead: Size = SMALL_CONFIG.s2.heads
    dim_feedforward: Size = SMALL_CONFIG.s2.feedforward
    repr_dim: Size = SMALL_CONFIG.representation
    enable_qk_norm: bool = False
    matryoshka_dims: str | None = None
    """Such as "16,32,64,128"; None if only the whole embedding can be stored."""

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(sorted({int(part) for part in (self.matryoshka_dims or str(self.repr_dim)).split(",")}))

    @model_validator(mode="after")
    def _check_dims(self) -> _StudentArgs:
        try:
            fits = self.dims[0] >= 1 and self.dims[-1] <= self.repr_dim and self.matryoshka_dims != ""
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"matryoshka_dims is no list such as '16,32,64,128' up to repr_dim ({self.repr_dim})")
        return self


class _TeacherArch(_Sizes):
    """`arch`"""

    final_layernorm: bool = True


SizesT = TypeVar("SizesT", bound=_Sizes)


def _read_v2(
    path: Path, payload: Payload, state: str, part: str, schema: type[SizesT], model_config: ModelConfig
) -> tuple[dict[str, Tensor], SizesT]:
    """Return tensors and sizes of a v2 file; UsageError if they are wrong or the user says otherwise."""
    tensors, given = payload[state], payload.get(part, {})
    if not isinstance(tensors, Mapping) or not isinstance(given, Mapping):
        raise UsageError(f"{path}: not a TESSERA checkpoint: its parts {state!r} and {part!r} are no dictionaries.")
    try:
        sizes = schema.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"{path}: {part}.{complaint(error)}. Get the file again.") from error
    for key, value in sizes:
        if key != "matryoshka_dims":
            model_config.agree(key, value)
    return check_tensors(path, state, unwrapped(path, tensors)), sizes


def _v1_tensors(path: Path, payload: Payload) -> tuple[Family, dict[str, Tensor]]:
    """Return the family, recognised by pooling and reducer, and the encoder's tensors by their official names."""
    part = "model_state" if "model_state" in payload else "model_state_dict"
    state = payload[part]
    if not isinstance(state, Mapping):
        raise UsageError(f"{path}: not a TESSERA checkpoint: its part {part!r} is no dictionary.")
    named = _select_encoder(path, unwrapped(path, state))
    if any(".gru_cell." in str(name) for name in named):
        family: Family = "v1.1" if any(str(name).startswith(_LONG_REDUCER) for name in named) else "v1.0-qat"
    elif any(".temporal_context." in str(name) for name in named):
        family = "v1.0-early"
    else:
        raise UsageError(
            f"{path}: its part {part!r} holds no pooling of a v1.x encoder (attn_pool.temporal_context). "
            "Give the checkpoint of a TESSERA model."
        )
    return family, check_tensors(path, part, named)


def _select_encoder(path: Path, named: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the tensors without projectors and the like; warn about any that no official file is known to hold."""
    encoder = {name: t for name, t in named.items() if not isinstance(name, str) or _ENCODER.match(name)}
    unknown = sorted(name for name in named.keys() - encoder.keys() if not name.startswith(_PROJECTORS))
    if unknown:
        shown = ", ".join(name[:80] for name in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        logger.warning("%s: %d tensors are no part of an encoder and are left out: %s", path, len(unknown), shown)
    return encoder


def _v1_config(path: Path, family: Family, tensors: Mapping[str, Tensor], model_config: ModelConfig) -> EncoderConfig:
    def rows(name: str) -> int:
        return _size(path, tensors, name, 0)

    width = rows("s2_backbone.embedding.2.weight")
    if width % 4 or not width:
        raise UsageError(f"{path}: the encoder's width is {width}, no multiple of 4. Get the file again.")
    last = "dim_reducer.4.weight" if family == "v1.1" else "dim_reducer.0.weight"
    summed = _size(path, tensors, "dim_reducer.0.weight", 1) == width
    first = "_backbone.transformer_encoder.layers.0.linear1.weight"
    sizes = {modality: (_depth(modality, tensors), rows(modality + first)) for modality in BAND_COUNTS}
    if sizes["s2"][0] != sizes["s1"][0]:
        _check_unequal_depths(path, family, sizes["s2"][0], sizes["s1"][0], model_config)
    if family != "v1.1":  # both transformers are of one size
        sizes["s1"] = sizes["s2"]
    known: dict[str, Any] = {
        **PARTS[family],
        "fusion": "sum" if summed else "concat",
        "representation": rows(last),
        "hidden": rows("dim_reducer.0.weight") if family == "v1.1" else None,
    }
    model_config.agree("latent_dim", width // 4)
    model_config.agree("fusion_method", known["fusion"])
    if family == "v1.1":
        model_config.agree("representation_dim", known["representation"])
        given = model_config.parse(V1_1Keys)
        heads = {"s2": given.s2_num_heads, "s1": given.s1_num_heads}
    else:
        heads = dict.fromkeys(BAND_COUNTS, model_config.parse(V1_0Keys).nhead or _V1_0_HEADS[family])
    stacks = {}
    for modality, (layers, feedforward) in sizes.items():
        prefix = f"{modality}_" if family == "v1.1" else ""
        model_config.agree(f"{prefix}num_layers", layers)
        model_config.agree(f"{prefix}dim_feedforward", feedforward)
        stacks[modality] = TransformerConfig(layers, heads[modality], feedforward)
    config = EncoderConfig(width // 4, stacks["s2"], stacks["s1"], **known)
    return _check_heads(path, _with_released_heads(path, config) if family == "v1.1" else config)


def _check_unequal_depths(path: Path, family: Family, s2: int, s1: int, model_config: ModelConfig) -> None:
    """Raise UsageError for unequal depths: layers may be lost, unless a v1.1 file's configuration confirms them."""
    if family == "v1.1" and "s2_num_layers" in model_config and "s1_num_layers" in model_config:
        return
    shorter = "s1" if s1 < s2 else "s2"
    lost = f"{shorter}_backbone.transformer_encoder.layers.{min(s2, s1)}"
    meant = " If it is meant so, say it with s2_num_layers and s1_num_layers in --model-config FILE.json."
    raise UsageError(
        f"{path}: it holds {s2} layers for Sentinel-2 and {s1} for Sentinel-1, so it lacks the tensors {lost}.*. "
        f"Give a checkpoint as its authors saved it.{meant if family == 'v1.1' else ''}"
    )


def _with_released_heads(path: Path, config: EncoderConfig) -> EncoderConfig:
    """v1.1: fill in heads that were not given with those of the released model, if the encoder has its sizes."""
    released = V1_1_CONFIG.s2.heads
    s2, s1 = (
        TransformerConfig(stack.layers, stack.heads or released, stack.feedforward) for stack in (config.s2, config.s1)
    )
    completed = dataclasses.replace(config, s2=s2, s1=s1)
    if completed != config and completed != V1_1_CONFIG:
        raise UnknownHeadsError(
            f"{path}: a v1.1 encoder of {describe(config)}, a size that was never released, and such files do not "
            "record the number of attention heads. Give s2_num_heads and s1_num_heads in --model-config FILE.json."
        )
    return completed


def _check_heads(path: Path, config: EncoderConfig) -> EncoderConfig:
    if config.unfit_heads:
        raise UsageError(
            f"{path}: {config.unfit_heads} attention heads (nhead) do not divide the width {config.width} "
            "(4 x latent_dim). Give the sizes that belong to the file."
        )
    return config


def _size(path: Path, tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in tensors:
        raise UsageError(f"{path}: it lacks the tensor {name}. Give a checkpoint as its authors saved it.")
    shape = tensors[name].shape
    if len(shape) != 2:
        raise UsageError(f"{path}: its tensor {name} is no matrix. Get the file again.")
    return int(shape[axis])


def _depth(modality: str, tensors: Mapping[str, Any]) -> int:
    """Return the number of layers of one backbone: one more than the highest index in its tensors' names."""
    layer = re.compile(rf"{modality}_backbone\.transformer_encoder\.(?:layers\.)?(\d{{1,9}})\.")
    return 1 + max((int(found[1]) for name in tensors if (found := layer.match(name))), default=-1)


def _check_depth(path: Path, modality: str, layers: int, tensors: Mapping[str, Any], *, recorded: bool) -> None:
    """Raise UsageError for a wrong number of layers, before a list of that length is made.

    `recorded`: whether the file states it, beside what the tensors' names show.
    """
    found = _depth(modality, tensors)
    if recorded and any(name.startswith(f"{modality}_backbone.") for name in tensors) and layers != found:
        raise UsageError(
            f"{path}: its sizes speak of {layers} layers, but the file holds the tensors of {found}. "
            "It is damaged or was edited; get it again from where it came."
        )
    if layers > len(tensors):
        raise UsageError(
            f"{path}: its {'sizes' if recorded else 'tensors'} speak of {layers} layers, but it holds {len(tensors)} "
            "tensors. Get the file again."
        )
