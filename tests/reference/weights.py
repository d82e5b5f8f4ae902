"""Random weights of every family under their official names, and checkpoints as they are published."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

FAMILIES = ("v1_0_early", "v1_0_qat", "v1_1", "v2_student", "v2_teacher")


class _Drawing:
    """Tensors in the order in which they were drawn.

    Uniform numbers and square roots alone: these come out the same on every machine.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.RandomState(seed)
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        spread = (2 * self.rng.random_sample(shape) - 1) * (std * math.sqrt(3))
        self.tensors[name] = (mean + spread).astype(np.float32)

    def linear(self, name: str, inputs: int, outputs: int, gain: float = 1.0, separator: str = ".") -> None:
        self.add(f"{name}{separator}weight", (outputs, inputs), gain / math.sqrt(inputs))
        self.add(f"{name}{separator}bias", (outputs,), 0.15)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        self.add(f"{name}.weight", (width,), 0.25, mean=1.0)
        if bias:
            self.add(f"{name}.bias", (width,), 0.15)

    def layer(self, name: str, width: int, heads: int, feedforward: int, *, qk_norm: bool) -> None:
        if qk_norm:
            for letter in ("q", "k", "v", "out"):
                self.linear(f"{name}.{letter}_proj", width, width, 1.6 if letter in "qk" else 1.0)
            self.norm(f"{name}.q_norm", width // heads, bias=False)
            self.norm(f"{name}.k_norm", width // heads, bias=False)
        else:
            self.linear(f"{name}.self_attn.in_proj", width, 3 * width, 1.6, separator="_")
            self.linear(f"{name}.self_attn.out_proj", width, width)
        self.linear(f"{name}.linear1", width, feedforward)
        self.linear(f"{name}.linear2", feedforward, width)
        self.norm(f"{name}.norm1", width)
        self.norm(f"{name}.norm2", width)

    def pooling(self, family: str, name: str, width: int) -> None:
        context = f"{name}.temporal_context"
        if family == "v1_0_early":
            for part in ("ih", "hh"):
                self.add(f"{context}.weight_{part}_l0", (3 * width, width), 1.3 / math.sqrt(width))
                self.add(f"{context}.bias_{part}_l0", (3 * width,), 0.15)
        elif family in ("v1_0_qat", "v1_1"):
            for gate in "rzh":
                self.add(f"{context}.gru_cell.b_{gate}", (width,), 0.15)
            for part in ("ir", "iz", "ih", "hr", "hz", "hh"):
                self.add(f"{context}.gru_cell.W_{part}.weight", (width, width), 1.3 / math.sqrt(width))
            self.norm(f"{name}.layer_norm", width)
        self.linear(f"{name}.query", width, 1, 2.5)


def random_weights(
    family: str,
    seed: int,
    *,
    latent: int = 8,
    layers: int = 2,
    heads: int = 4,
    feedforward: int = 48,
    representation: int | None = None,
    fusion: str = "concat",
    qk_norm: bool = False,
    final_layernorm: bool = True,
    s1_layers: int | None = None,
    s1_heads: int | None = None,
    s1_feedforward: int | None = None,
    scaled: Mapping[str, float] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration with the official keys, and float32 tensors by official name without prefix.

    For v1.0, `config` and `architecture` in one. What varies: `representation` in v1.1 and v2, `fusion` in v1.x,
    the sizes of Sentinel-1 in v1.1, `qk_norm` in students, `final_layernorm` in teachers. Tensors whose names hold
    a part of `scaled` are multiplied by its number.
    """
    v1_0, width = family in ("v1_0_early", "v1_0_qat"), 4 * latent
    size = representation or {"v1_1": 192, "v2_student": 128, "v2_teacher": 96}.get(family, latent)
    if v1_0 and size != latent:
        raise ValueError("v1.0 represents a pixel by latent numbers")
    qk_norm = qk_norm or family == "v2_teacher"
    sizes = {
        "s2": (layers, heads, feedforward),
        "s1": (s1_layers or layers, s1_heads or heads, s1_feedforward or feedforward),
    }
    if sizes["s1"] != sizes["s2"] and family != "v1_1":
        raise ValueError("only v1.1 has sizes of its own for Sentinel-1")

    drawing = _Drawing(seed)
    if family == "v2_teacher":
        drawing.add("fusion_modality_embed", (2, width), 0.5)
    for sensor, bands in (("s2", 10), ("s1", 2)):
        backbone = f"{sensor}_backbone"
        count, own_heads, own_feedforward = sizes[sensor]
        drawing.linear(f"{backbone}.embedding.0", bands, width, 1.4)
        drawing.linear(f"{backbone}.embedding.2", width, width)
        stack = f"{backbone}.transformer_encoder" + ("" if qk_norm and family == "v2_student" else ".layers")
        for i in range(count):
            drawing.layer(f"{stack}.{i}", width, own_heads, own_feedforward, qk_norm=qk_norm)
        drawing.pooling(family, f"{backbone}.attn_pool", width)
    if family == "v2_teacher":
        for i in range(2):
            drawing.layer(f"fusion_transformer.layers.{i}", width, 4, 2 * width, qk_norm=True)
    fused = width if fusion == "sum" else 2 * width
    if v1_0:
        drawing.linear("dim_reducer.0", fused, size)
    else:
        drawing.linear("dim_reducer.0", fused, 4 * width)
        drawing.norm("dim_reducer.1", 4 * width)
        drawing.linear("dim_reducer.4", 4 * width, size)
    for part, factor in (scaled or {}).items():
        for name in drawing.tensors:
            if part in name:
                drawing.tensors[name] *= np.float32(factor)
    return _config(family, latent, size, sizes, fusion, qk_norm, final_layernorm), drawing.tensors


def _config(
    family: str,
    latent: int,
    size: int,
    sizes: Mapping[str, tuple[int, int, int]],
    fusion: str,
    qk_norm: bool,
    final_layernorm: bool,
) -> dict[str, Any]:
    layers, heads, feedforward = sizes["s2"]
    plain = {"latent_dim": latent, "num_layers": layers, "nhead": heads, "dim_feedforward": feedforward}
    if family == "v2_student":
        prefixes = {"max_seq_len": 256, "matryoshka_dims": "16,32,64,128"}
        return {"repr_dim": size, **plain, **prefixes, "enable_qk_norm": qk_norm}
    if family == "v2_teacher":
        return {"repr_dim": size, **plain, "final_layernorm": final_layernorm}
    if family == "v1_1":
        config = {"fusion_method": fusion, "latent_dim": latent, "representation_dim": size}
        for sensor, (layers, heads, feedforward) in sizes.items():
            config |= {
                f"{sensor}_num_layers": layers,
                f"{sensor}_num_heads": heads,
                f"{sensor}_dim_feedforward": feedforward,
            }
        saved = min(size, 128)
        return config | {
            "save_embedding_dim": saved,
            "disable_s1_ascending": False,
            "num_obs_checkpoints": list(range(8, 257, 8)),
        }
    sampling = {"sample_size_s2": 40, "sample_size_s1": 40, "repeat_times": 1, "min_valid_timesteps": 0}
    return {**plain, "fusion_method": fusion, "batch_size": 1024, **sampling}


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names and little-endian values."""
    sha = hashlib.sha256()
    for name, value in tensors.items():
        sha.update(name.encode() + np.ascontiguousarray(value, "<f4").tobytes())
    return sha.hexdigest()


def official_payload(
    family: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    key: str | None = None,
    prefix: str = "_orig_mod.",
    extras: bool = True,
) -> dict[str, Any]:
    """What torch.save writes as an official checkpoint; `key`, `prefix` and training `extras` vary in v1.x alone."""
    import torch

    def torches(arrays: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, torch.Tensor]:
        return {prefix + name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}

    if family == "v2_student":
        training = {"lr": 3e-4, "batch_size": 4096, "out_dir": "runs/x"}
        return {"args": {**config, **training}, "model": torches(tensors), "epoch": 3, "step": 12345}
    if family == "v2_teacher":
        return {"arch": dict(config), "encoder_state_dict": torches(tensors)}
    key = key or {"v1_1": "model_state"}.get(family, "model_state_dict")
    state = torches({**tensors, **(_training_tensors(family, config) if extras else {})}, prefix)
    payload: dict[str, Any] = {"epoch": 0, "step": 777, key: state}
    # v1.1 repeats sizes here that its loader ignores.
    return payload | ({"config": {"latent_dim": config["latent_dim"]}} if family == "v1_1" else {"best_val_acc": 0.5})


def _training_tensors(family: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The heads that only training uses, at reduced sizes."""

    def full(value: float, *shape: int) -> np.ndarray:
        return np.full(shape, value, np.float32)

    extra: dict[str, np.ndarray] = {}
    inputs, hidden = int(config.get("representation_dim", config["latent_dim"])), 12
    for number in (0, 3, 6, 9, 12, 15):
        outputs = 10 if number == 15 else hidden
        extra[f"projector.net.{number}.weight"] = full(0.25, outputs, inputs)
        extra[f"projector.net.{number}.bias"] = full(0.5, outputs)
        inputs = hidden
        if number < 15:
            norm = f"projector.net.{number + 1}"
            for part, value in (("weight", 1.0), ("bias", 0.5), ("running_mean", 0.25), ("running_var", 2.0)):
                extra[f"{norm}.{part}"] = full(value, hidden)
            extra[f"{norm}.num_batches_tracked"] = np.array(99, np.int64)
    if family == "v1_1":
        extra["segmented_matryoshka_projector.heads.0.weight"] = full(0.25, 6, 4)
        extra["segmented_matryoshka_projector.heads.0.bias"] = full(0.5, 6)
    return extra
