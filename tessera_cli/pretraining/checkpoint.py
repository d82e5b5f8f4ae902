"""Save and load the state of a run as one safetensors file, without pickles.

It holds the weights, AdamW's moments and a JSON header. Batches, views, learning rate and dropout are functions of the
seed and the step, so the step is all that is stored of them.
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
from tessera_cli.json_text import parse_json
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.encoder import Encoder
from tessera_cli.reading import check_file
from tessera_cli.sampling.statistics import Statistics

KEY = "tessera-pretrain"
FORMAT = 1
WEIGHTS, ENCODER = "weights.", "weights.encoder."
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of each parameter."""


@dataclass(frozen=True)
class RunState:
    """State of a run besides the tensors: the JSON header of a checkpoint."""

    step: int
    """Finished steps."""
    processes: int
    shards: str
    """Digest of the shards."""
    statistics: Mapping[str, Any]
    """`Statistics.to_card` of the band statistics in use."""
    random: Mapping[str, float] = field(default_factory=dict)
    """Measures of the encoder with random weights."""
    best: float | None = None
    """Best evaluation so far."""
    teacher: str = ""
    """Digest of the teacher's embeddings; empty without a teacher."""
    moments: int = 0
    """Number of the optimiser's tensors; set by `save`."""
    format: int = FORMAT


def save(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, state: RunState) -> None:
    """Write weights, moments and state atomically. Errors as those of `files.write_bytes`."""
    weights = {WEIGHTS + name: tensor for name, tensor in module.state_dict().items()}
    moments = {
        f"{moment}.{name}": value
        for name, parameter in module.named_parameters()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (weights | moments).items()}
    metadata = {KEY: json.dumps(asdict(replace(state, moments=len(moments))))}
    write_bytes(path, tensors_as_bytes(tensors, metadata=metadata))


def is_checkpoint(path: Path) -> bool:
    """Return whether the file's header is that of a checkpoint."""
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_encoder(path: Path, config: EncoderConfig) -> tuple[Encoder, Statistics]:
    """Return a checkpoint's encoder and its band statistics; UsageError if the encoder is of other sizes."""
    state = read_state(path)
    encoder = Encoder(config)
    try:
        encoder.load_state_dict(_tensors(path, ENCODER), strict=True)
    except RuntimeError as error:
        raise UsageError(f"{path} holds an encoder of other sizes than model.* says. Choose its preset.") from error
    return encoder, Statistics.from_card(state.statistics)


def read_state(path: Path) -> RunState:
    """Return the state without the tensors; UsageError if the file is damaged or of another kind."""
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            state = RunState(**parse_json((file.metadata() or {})[KEY]))
        if state.format != FORMAT:
            raise ValueError("another format")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    return state


def load(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> RunState:
    """Load the state into a module and its optimiser; UsageError unless every tensor fits."""
    state = read_state(path)
    try:
        moments = {moment: _tensors(path, f"{moment}.") for moment in MOMENTS}
        if sum(map(len, moments.values())) != state.moments:
            raise KeyError("moments")
        module.load_state_dict(_tensors(path, WEIGHTS), strict=True)
        for name, parameter in module.named_parameters():
            if kept := {moment: tensors[name] for moment, tensors in moments.items() if name in tensors}:
                optimiser.state[parameter] = {
                    moment: value if moment == "step" else value.to(parameter.device) for moment, value in kept.items()
                }
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise _damaged(path) from error
    return state


def check(
    state: RunState, *, path: Path, processes: int, shards: str, statistics: Mapping[str, Any], teacher: str = ""
) -> None:
    """Raise IdentityError if the run cannot be resumed exactly."""
    for there, here, what, hint in (
        (state.processes, processes, f"saved by {state.processes} processes, not {processes}", "Start as many again"),
        (state.shards, shards, "trained on other shards than those at hand", "Give the same d-pixels (or --shards)"),
        (state.statistics, statistics, "trained with other band statistics", "Keep data.statistics"),
        (state.teacher, teacher, "trained with another teacher, or in another precision of it", "Keep --teacher"),
    ):
        if there != here:
            raise IdentityError(
                f"{path} was {what}. {hint}, or choose another --out with --init-from to start from its weights."
            )


def _tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, by the rest of their names."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def _damaged(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged or no checkpoint of this release. Restore it from a copy, or choose another --out; "
        "the run does not start anew by itself."
    )
