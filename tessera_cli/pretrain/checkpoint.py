"""What a run needs to go on as if nothing had happened, in one safetensors file: no pickles.

Weights, the optimiser's moments, and a header. Order, views, learning rate and dropout are functions of the seed and
the step, so that the step is all there is to remember of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor, nn

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.files import write_bytes
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.encoder import Encoder
from tessera_cli.sampling.statistics import Statistics

KEY = "tessera-pretrain"
FORMAT = 1
WEIGHTS, ENCODER = "weights.", "weights.encoder."
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Of AdamW, by parameter."""


@dataclass(frozen=True)
class Header:
    """Everything besides tensors."""

    step: int
    """Finished steps."""
    processes: int
    shards: str
    """Digest of the shards."""
    statistics: Mapping[str, Any]
    """`Statistics.to_card`: what the pixels were standardised with."""
    random: Mapping[str, float] = field(default_factory=dict)
    """The measures of the encoder with random weights."""
    best: float | None = None
    """The best evaluation so far."""
    moments: int = 0
    """How many tensors of the optimiser there are; `save` counts them."""
    format: int = FORMAT


def save(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, header: Header) -> None:
    """Write the state; the file appears whole, and what was there before stays until then.

    DiskFullError, UsageError or TileError as those of `atomic.write_bytes`.
    """
    tensors = {WEIGHTS + name: tensor for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        tensors |= {f"{moment}.{name}": value for moment, value in optimiser.state.get(parameter, {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = replace(header, moments=len(tensors) - len(module.state_dict()))
    write_bytes(path, tensors_as_bytes(tensors, metadata={KEY: json.dumps(asdict(header))}))


def is_checkpoint(path: Path) -> bool:
    """Whether the file is one of these, as far as its header tells."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_encoder(path: Path, config: EncoderConfig) -> tuple[Encoder, Statistics]:
    """The encoder of a checkpoint, and what its pixels were standardised with; UsageError if it is of other sizes."""
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(ENCODER)}  # noqa: SIM118
    encoder = Encoder(config)
    try:
        encoder.load_state_dict(_those(tensors, ENCODER), strict=True)
    except RuntimeError as error:
        raise UsageError(f"{path} holds an encoder of other sizes than model.* says. Choose its preset.") from error
    return encoder, Statistics.from_card(header.statistics)


def read_header(path: Path) -> Header:
    """UsageError if the file is damaged or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return Header(**_header(file.metadata()))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def load(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> Header:
    """Put the state into a module and its optimiser; UsageError if it does not fit in every tensor."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if sum(name.partition(".")[0] in MOMENTS for name in tensors) != header.moments:
            raise KeyError("moments")
        module.load_state_dict(_those(tensors, WEIGHTS), strict=True)
        for name, parameter in module.named_parameters():
            state = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS if f"{moment}.{name}" in tensors}
            if state:
                moved = {key: value.to(parameter.device) for key, value in state.items() if key != "step"}
                optimiser.state[parameter] = {"step": state["step"], **moved}
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise _damaged(path) from error
    return header


def check(header: Header, *, path: Path, processes: int, shards: str, statistics: Mapping[str, Any]) -> None:
    """IdentityError if the run cannot go on exactly as it was."""
    if header.processes != processes:
        raise IdentityError(
            f"{path} was saved by {header.processes} processes, and now there are {processes}. Start as many again, or "
            "choose another --out with --init-from to start from its weights."
        )
    if header.shards != shards:
        raise IdentityError(
            f"{path} was trained on other shards than those at hand. Give the same d-pixels (or --shards), or choose "
            "another --out with --init-from to start from its weights."
        )
    if header.statistics != statistics:
        raise IdentityError(
            f"{path} was trained on d-pixels standardised with other statistics. Keep data.statistics, or choose "
            "another --out."
        )


def _header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    header = json.loads((metadata or {})[KEY])
    if header["format"] != FORMAT:
        raise ValueError("another format")
    return header


def _those(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _damaged(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged or no checkpoint of this release. Restore it from a copy, or choose another --out; "
        "the run does not start anew by itself."
    )
