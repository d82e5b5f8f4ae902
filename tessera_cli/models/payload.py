"""PyTorch checkpoints, read without running any code: a zip of tensors and a pickled table of contents."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tessera_cli.errors import UsageError, reason

Payload = Mapping[Any, Any]
T = TypeVar("T")
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What data parallelism, `torch.compile`, FSDP and activation checkpointing put into the names of tensors."""
_ENCRYPTED, _FOLDER = 0x2041, 0x10
"""Flags and attributes of a zip's parts."""


def load_payload(path: Path) -> Payload:
    """Return the mapping that the file holds; UsageError if it holds more than tensors and plain Python values."""
    _check_archive(path)
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
        raise UsageError(f"{path}: damaged, PyTorch cannot read it ({reason(error)}). Get the file again.") from error
    if not isinstance(payload, Mapping):
        raise UsageError(
            f"{path}: holds a {type(payload).__name__}, not a checkpoint. Give the .pt file of a TESSERA model."
        )
    return payload


def _check_archive(path: Path) -> None:
    """Raise UsageError unless every part of the zip is as it was written.

    torch compares no checksums, and where the directory calls a part a folder, or empty, it returns
    uninitialised memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            problem = _misshapen(members, path.stat().st_size)
            if problem is None and any(m.CRC for m in members):  # all 0: torch.save was told to leave them out
                altered = archive.testzip()
                problem = None if altered is None else f"the checksum of its part {altered[:80]!r} is wrong"
    except Exception as error:  # the directory of a damaged archive can break in many ways
        raise UsageError(f"{path}: truncated or damaged ({reason(error)}). Get the file again.") from error
    if not any(m.filename.endswith("/data.pkl") for m in members):
        raise UsageError(f"{path}: a zip archive, but not a PyTorch checkpoint. Give the .pt file of a TESSERA model.")
    if problem is not None:
        raise UsageError(f"{path}: not a PyTorch checkpoint, or a damaged one: {problem}. Get the file again.")


def _misshapen(members: list[zipfile.ZipInfo], size: int) -> str | None:
    """Return what no archive written by torch has, in words; None for a sound one."""
    if len({m.filename.lower() for m in members}) != len(members):
        return "it holds two parts of one name"
    if sum(m.file_size for m in members) > size:
        return "its parts are larger than the file"
    for m in members:
        compressed = m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size
        if compressed or m.is_dir() or m.external_attr & _FOLDER or m.flag_bits & _ENCRYPTED:
            return f"its part {m.filename[:80]!r} is not stored as plain bytes"
    return None


def unwrapped(path: Path, tensors: Mapping[Any, T]) -> dict[Any, T]:
    """Return `tensors` by the names that they have in the model alone; UsageError where two then share a name."""
    named: dict[Any, T] = {}
    for name, tensor in tensors.items():
        plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS) if isinstance(name, str) else name
        if plain in named:
            raise UsageError(
                f"{path}: holds the tensor {str(plain)[:80]} twice, with and without a prefix such as 'module.' or "
                "'_orig_mod.'. Keep one of them."
            )
        named[plain] = tensor
    return named


def check_tensors(path: Path, part: str, tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return `tensors` if all are dense float32 tensors with names that fit into the file, else raise UsageError."""
    checked: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{path}: {part!r} holds {str(name)[:80]!r}, which is not a tensor. Get the file again.")
        if tensor.device.type != "cpu":
            raise UsageError(f"{path}: tensor {name[:80]} has a shape but no values. Get the file again.")
        if tensor.layout != torch.strided or tensor.dtype != torch.float32:
            kind = str(tensor.dtype if tensor.dtype != torch.float32 else tensor.layout).removeprefix("torch.")
            raise UsageError(
                f"{path}: tensor {name[:80]} is {kind}; official encoders are float32. Save it as float32."
            )
        checked[name] = tensor
    if sum(t.numel() * t.element_size() for t in checked.values()) > path.stat().st_size:
        raise UsageError(f"{path}: its tensors claim to be larger than the file. It is damaged; get it again.")
    return checked
