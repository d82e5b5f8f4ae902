"""Presets: sizes of the released models, with the batch and the projector that suit them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.registry import LARGE, MEDIUM, NANO, SMALL, V1_0_QAT, V1_1
from tessera_cli.models.spec import Family

Values = Mapping[str, Mapping[str, Any]]
"""Section -> key -> value."""


def _shape(family: Family, config: EncoderConfig) -> dict[str, Any]:
    sizes = {name: getattr(config.s2, name) for name in ("layers", "heads", "feedforward")}
    return {"family": family, "latent": config.latent, **sizes, "representation": config.representation}


# An encoder that never met a missing sensor in training gives noise where `embed` finds one missing.
_ROBUST = {"drop_s1": 0.1, "drop_orbit": 0.1}

DEFAULT_PRESET = "nano"
PRESETS: Mapping[str, Values] = {
    "tiny": {
        "data": {"holdout": 0.1, "holdout_block": 8},
        "views": {"n_obs": 16},
        "model": {"latent": 16, "layers": 1, "heads": 4, "feedforward": 128, "representation": 64},
        "projector": {"width": 256},
        "optim": {"lr": 2e-3},
        "train": {"batch": 256, "steps": 300, "log_every": 20, "save_every": 50, "eval_every": 300},
        "probe": {"pixels": 3000, "block": 8},
    },
    "nano": {
        "views": {"n_obs": 24, **_ROBUST},
        "model": _shape("v2-student", NANO),
    },
    "small": {
        "views": _ROBUST,
        "model": _shape("v2-student", SMALL),
        "projector": {"width": 2048},
        "train": {"batch": 4096, "steps": 12_000},
    },
    "medium": {
        "views": _ROBUST,
        "model": _shape("v2-student", MEDIUM),
        "projector": {"width": 4096},
        "train": {"batch": 8192, "steps": 12_000},
    },
    "large": {
        "views": _ROBUST,
        "model": _shape("v2-student", LARGE),
        "projector": {"width": 4096},
        "train": {"batch": 8192, "steps": 18_000},
    },
    "v1.1": {
        "views": {"lengths": "bucketed", **_ROBUST},
        "model": _shape("v1.1", V1_1) | {"dropout": 0.1},
        "projector": {"width": 4096, "depth": 4, "prefixes": [128]},
        "train": {"batch": 8192, "steps": 12_000},
    },
    # The recipe of the released v1.0, as far as its log and its code tell; here quantisation acts, and per pixel.
    "v1.0": {
        "views": {"replacement": "always", "order": "random"},
        "model": _shape("v1.0-qat", V1_0_QAT) | {"dropout": 0.1},
        "projector": {"width": 16_384, "depth": 6},
        "loss": {"scope": "local", "mix": 1.0, "quantise": True, "quantise_from": 5000},
        "optim": {"weight_decay": 1e-6},
        "train": {"batch": 16_384, "steps": 28_381},
    },
}


def get_preset(name: str) -> Values:
    """Return the values of a preset; `v2-nano` is `nano`. UsageError suggests a name if there is none such."""
    if (known := PRESETS.get(name.removeprefix("v2-"))) is None:
        raise UsageError(f"--preset {name}: there is none of this name. {suggest(name, PRESETS)}")
    return known


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the nearest of the known names as a question, or all of them if none is near."""
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}."
