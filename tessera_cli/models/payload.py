"""PyTorch checkpoints, read without running any code: a zip of tensors and a pickled table of contents."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tessera_cli.errors import UsageError

Payload = Mapping[Any, Any]


def load_payload(path: Path) -> Payload:
    """What the file holds, a mapping. Only tensors and plain Python values are ever made from it; else a UsageError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        sound = sum(m.file_size for m in members) <= path.stat().st_size  # also: nothing is compressed
    except Exception as error:  # the directory of a damaged archive can break in many ways
        raise UsageError(f"{path}: truncated or damaged ({error}). Get the file again.") from error
    if not sound or not any(m.filename.endswith("/data.pkl") for m in members):
        raise UsageError(f"{path}: a zip archive, but not a PyTorch checkpoint. Give the .pt file of a TESSERA model.")
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
            f"{path}: holds a {type(payload).__name__}, not a checkpoint. Give the .pt file of a TESSERA model."
        )
    return payload


def check_tensors(path: Path, part: str, tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """`tensors` if every one is a dense float32 tensor with a name and they fit into the file, else a UsageError."""
    checked: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{path}: {part!r} holds {str(name)[:80]!r}, which is not a tensor. Get the file again.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            kind = str(tensor.dtype if tensor.dtype != torch.float32 else tensor.layout).removeprefix("torch.")
            raise UsageError(
                f"{path}: tensor {name[:80]} is {kind}; official encoders are float32. Save it as float32."
            )
        checked[name] = tensor
    if sum(t.numel() * t.element_size() for t in checked.values()) > path.stat().st_size:
        raise UsageError(f"{path}: its tensors claim to be larger than the file. It is damaged; get it again.")
    return checked
