"""Official v2 student checkpoints: a zip of tensors and a pickled table of contents, read without running any code.

Payload: `args` (sizes) and `model` (tensors), see `tessera_infer_v2/student`. Sizes that `args` lacks are those of
the small model, as in the official loader; unlike there, every size is checked against the tensors first.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tessera_cli.errors import UsageError
from tessera_cli.models.layout import misfit, official_names, official_shapes, tensor_shapes
from tessera_cli.models.spec import SMALL, EncoderConfig

Payload = Mapping[Any, Any]
_ARGS = {
    "latent": "latent_dim",
    "layers": "num_layers",
    "heads": "nhead",
    "feedforward": "dim_feedforward",
    "representation": "repr_dim",
}


def read_student(path: Path) -> tuple[EncoderConfig, tuple[int, ...], dict[str, Tensor]]:
    """Sizes, prefixes (matryoshka_dims) and float32 tensors by our names; UsageError for anything else."""
    payload = _load(path)
    tensors, args = payload.get("model"), payload.get("args", {})
    if not isinstance(tensors, Mapping) or not isinstance(args, Mapping):
        raise UsageError(f"{path}: {_whatever_else(payload)}")
    _check_tensors(path, tensors)
    config = _config(path, args)
    dims = _dims(path, args, config.representation)
    deepest = max(
        (int(n) for name in tensors for n in re.findall(r"transformer_encoder\D*(\d{1,9})\.", name)), default=-1
    )
    if config.layers != deepest + 1:
        raise UsageError(
            f"{path}: 'args' speaks of {config.layers} layers, but the file holds the tensors of {deepest + 1}. "
            "It is damaged or was edited; get it again from where it came."
        )
    problem = misfit(official_shapes(config), {name: tuple(t.shape) for name, t in tensors.items()})
    if problem:
        raise UsageError(
            f"{path}: the tensors do not fit a v2 student with latent_dim {config.latent}, {config.layers} layers and "
            f"{'' if config.qk_norm else 'no '}QK-norm, which is what its 'args' say: {problem}. "
            "Give a student checkpoint as its authors saved it."
        )
    parts = {name: official_names(name, qk_norm=config.qk_norm) for name in tensor_shapes(config)}
    return config, dims, {ours: torch.cat([tensors[name] for name in names]) for ours, names in parts.items()}


def _load(path: Path) -> Payload:
    """What the file holds. Only tensors and plain Python values are ever made from it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        sound = sum(m.file_size for m in members) <= path.stat().st_size  # also: nothing is compressed
    except Exception as error:  # the directory of a damaged archive can break in many ways
        raise UsageError(f"{path}: truncated or damaged ({error}). Get the file again.") from error
    if not sound or not any(m.filename.endswith("/data.pkl") for m in members):
        raise UsageError(f"{path}: a zip archive, but not a PyTorch checkpoint. Give the .pt file of a v2 student.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the inside of damaged files
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: refused, because it is damaged or holds more than tensors and plain values. The latter can run "
            "code when opened, so it was not. Give the checkpoint as published, or its tensors saved anew."
        ) from error
    except Exception as error:  # arbitrary bytes reach torch's reader here
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UsageError(f"{path}: damaged, PyTorch cannot read it ({reason}). Get the file again.") from error
    if not isinstance(payload, Mapping):
        raise UsageError(
            f"{path}: holds a {type(payload).__name__}, not a checkpoint. Give the .pt file of a v2 student."
        )
    return payload


def _whatever_else(payload: Payload) -> str:
    if "encoder_state_dict" in payload:
        return "this looks like the v2 teacher, which this release cannot run. Give the .pt file of a v2 student."
    if "model_state" in payload or "model_state_dict" in payload:
        return "this looks like a v1.x checkpoint, which this release cannot run. Give the .pt file of a v2 student."
    return "not a TESSERA checkpoint: it lacks the parts 'args' and 'model'. Give the .pt file of a v2 student."


def _check_tensors(path: Path, tensors: Mapping[Any, Any]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{path}: 'model' holds {str(name)[:80]!r}, which is not a tensor. Get the file again.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            kind = str(tensor.dtype if tensor.dtype != torch.float32 else tensor.layout).removeprefix("torch.")
            raise UsageError(
                f"{path}: tensor {name[:80]} is {kind}; official students are float32. Save it as float32."
            )
    if sum(t.numel() * t.element_size() for t in tensors.values()) > path.stat().st_size:
        raise UsageError(f"{path}: its tensors claim to be larger than the file. It is damaged; get it again.")


def _config(path: Path, args: Payload) -> EncoderConfig:
    sizes = {ours: args.get(theirs, getattr(SMALL, ours)) for ours, theirs in _ARGS.items()}
    for ours, size in sizes.items():
        if type(size) is not int or size < 1:
            raise UsageError(
                f"{path}: args.{_ARGS[ours]} is {str(size)[:40]!r}, not a positive integer. Get the file again."
            )
    qk_norm = args.get("enable_qk_norm", False)
    if type(qk_norm) is not bool:
        raise UsageError(
            f"{path}: args.enable_qk_norm is {str(qk_norm)[:40]!r}, neither true nor false. Get the file again."
        )
    config = EncoderConfig(**sizes, qk_norm=qk_norm)
    if config.width % config.heads:
        raise UsageError(
            f"{path}: args.nhead {config.heads} does not divide the width {config.width} (4 x latent_dim). "
            "Get the file again."
        )
    return config


def _dims(path: Path, args: Payload, representation: int) -> tuple[int, ...]:
    """`matryoshka_dims` is a string such as "16,32,64,128"; without it only the whole embedding can be stored."""
    text = args.get("matryoshka_dims", str(representation))
    try:
        dims = tuple(sorted({int(part) for part in text.split(",")}))
    except (AttributeError, ValueError):
        dims = ()
    if not dims or dims[0] < 1 or dims[-1] > representation:
        raise UsageError(
            f"{path}: args.matryoshka_dims is {str(text)[:40]!r}; a list such as '16,32,64,128' up to repr_dim "
            f"({representation}) is needed. Get the file again."
        )
    return dims
