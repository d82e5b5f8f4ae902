"""The networks of all encoders, float64: spec/encoders.md, sections 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Config = Mapping[str, Any]
Tensors = Mapping[str, np.ndarray]

LAYER_NORM_EPS = 1e-5
RMS_NORM_EPS = 2.0**-23  # the machine epsilon of float32
FUSION_LAYERS = 2
FUSION_HEADS = 4


def encode(family: str, config: Config, tensors: Tensors, s2: np.ndarray, s1: np.ndarray) -> np.ndarray:
    """Sequences (N, T2, 11) and (N, T1, 3) -> representations (N, R)."""
    vectors = [_backbone(family, config, tensors, name, x) for name, x in (("s2", s2), ("s1", s1))]
    if family == "v2_teacher":
        x = np.stack(vectors, axis=1) + tensors["fusion_modality_embed"].astype(float)
        for i in range(FUSION_LAYERS):
            layer = f"fusion_transformer.layers.{i}"
            x = _layer(tensors, layer, x, FUSION_HEADS, qk_norm=True, pre_norm=True)
        fused = x.reshape(len(x), -1)
    elif config.get("fusion_method") == "sum":
        fused = vectors[0] + vectors[1]
    else:
        fused = np.concatenate(vectors, axis=1)
    x = _linear(tensors, "dim_reducer.0", fused)
    if family in ("v1_0_early", "v1_0_qat"):
        return x
    x = np.maximum(_layer_norm(tensors, "dim_reducer.1", x), 0)
    x = _linear(tensors, "dim_reducer.4", x)
    if family == "v2_student" or (family == "v2_teacher" and config.get("final_layernorm", True)):
        return standardise(x)
    return x


def standardise(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + LAYER_NORM_EPS)


def day_encoding(days: np.ndarray, width: int) -> np.ndarray:
    """Days of year (...,) -> (..., width): sine and cosine in turn."""
    angles = days[..., None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*days.shape, width)


def pool(family: str, tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    """(N, T, D) -> (N, D): mean over time, weighted by what the pooling head `name` makes of x."""
    if not x.shape[1]:
        return np.zeros((len(x), x.shape[2]))
    if family == "v1_0_early":
        seen = gru(tensors, f"{name}.temporal_context", x)
    elif family in ("v1_0_qat", "v1_1"):
        states = custom_gru(tensors, f"{name}.temporal_context.gru_cell", x)
        seen = _layer_norm(tensors, f"{name}.layer_norm", states)
    else:
        seen = x
    return np.einsum("nt,ntd->nd", _softmax(_linear(tensors, f"{name}.query", seen)[..., 0]), x)


def gru(tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    """States of a torch.nn.GRU with one layer, (N, T, D)."""
    w_h, b_h = tensors[f"{name}.weight_hh_l0"].astype(float), tensors[f"{name}.bias_hh_l0"].astype(float)
    inputs = x @ tensors[f"{name}.weight_ih_l0"].astype(float).T + tensors[f"{name}.bias_ih_l0"].astype(float)
    state, states = np.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        x_r, x_z, x_n = np.split(inputs[:, t], 3, axis=1)
        h_r, h_z, h_n = np.split(state @ w_h.T + b_h, 3, axis=1)
        reset, keep = _sigmoid(x_r + h_r), _sigmoid(x_z + h_z)
        state = (1 - keep) * np.tanh(x_n + reset * h_n) + keep * state
        states.append(state)
    return np.stack(states, axis=1)


def custom_gru(tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    """States of the GRU of v1.0 QAT and v1.1, (N, T, D): resets before the matrix, and z is the share of the new."""
    w = {key: tensors[f"{name}.W_{key}.weight"].astype(float) for key in ("ir", "iz", "ih", "hr", "hz", "hh")}
    b = {key: tensors[f"{name}.b_{key}"].astype(float) for key in "rzh"}
    state, states = np.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        reset = _sigmoid(x[:, t] @ w["ir"].T + state @ w["hr"].T + b["r"])
        update = _sigmoid(x[:, t] @ w["iz"].T + state @ w["hz"].T + b["z"])
        new = np.tanh(x[:, t] @ w["ih"].T + (reset * state) @ w["hh"].T + b["h"])
        state = (1 - update) * state + update * new
        states.append(state)
    return np.stack(states, axis=1)


def _backbone(family: str, config: Config, tensors: Tensors, sensor: str, x: np.ndarray) -> np.ndarray:
    """(N, T, bands + 1) -> (N, D)."""
    name = f"{sensor}_backbone"
    if family == "v1_1":
        layers, heads = int(config[f"{sensor}_num_layers"]), int(config[f"{sensor}_num_heads"])
    else:
        layers, heads = int(config["num_layers"]), int(config["nhead"])
    teacher = family == "v2_teacher"
    qk_norm = teacher or (family == "v2_student" and bool(config.get("enable_qk_norm", False)))
    prefix = f"{name}.transformer_encoder" + ("" if qk_norm and not teacher else ".layers")
    days, x = x[..., -1], x[..., :-1]
    x = _linear(tensors, f"{name}.embedding.2", np.maximum(_linear(tensors, f"{name}.embedding.0", x), 0))
    x = x + day_encoding(days, x.shape[-1])
    for i in range(layers):
        x = _layer(tensors, f"{prefix}.{i}", x, heads, qk_norm=qk_norm, pre_norm=teacher)
    return pool(family, tensors, f"{name}.attn_pool", x)


def _layer(tensors: Tensors, name: str, x: np.ndarray, heads: int, *, qk_norm: bool, pre_norm: bool) -> np.ndarray:
    def norm(number: int, x: np.ndarray) -> np.ndarray:
        return _layer_norm(tensors, f"{name}.norm{number}", x)

    def feed_forward(x: np.ndarray) -> np.ndarray:
        return _linear(tensors, f"{name}.linear2", np.maximum(_linear(tensors, f"{name}.linear1", x), 0))

    if pre_norm:
        y = x + _attention(tensors, name, norm(1, x), heads, qk_norm)
        return y + feed_forward(norm(2, y))
    y = norm(1, x + _attention(tensors, name, x, heads, qk_norm))
    return norm(2, y + feed_forward(y))


def _attention(tensors: Tensors, name: str, x: np.ndarray, heads: int, qk_norm: bool) -> np.ndarray:
    count, length, width = x.shape
    if qk_norm:
        projected = [_linear(tensors, f"{name}.{letter}_proj", x) for letter in "qkv"]
    else:
        projected = np.split(_linear(tensors, f"{name}.self_attn.in_proj", x, separator="_"), 3, axis=-1)
    # (N, heads, T, D / heads): heads are contiguous slices
    q, k, v = (p.reshape(count, length, heads, width // heads).swapaxes(1, 2) for p in projected)
    if qk_norm:
        q, k = (_rms_norm(tensors, f"{name}.{letter}_norm", p) for letter, p in (("q", q), ("k", k)))
    seen = _softmax(q @ k.swapaxes(2, 3) / np.sqrt(width / heads)) @ v
    out = f"{name}.out_proj" if qk_norm else f"{name}.self_attn.out_proj"
    return _linear(tensors, out, seen.swapaxes(1, 2).reshape(count, length, width))


def _linear(tensors: Tensors, name: str, x: np.ndarray, separator: str = ".") -> np.ndarray:
    weight, bias = (tensors[f"{name}{separator}{part}"].astype(float) for part in ("weight", "bias"))
    return x @ weight.T + bias


def _layer_norm(tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return standardise(x) * tensors[f"{name}.weight"].astype(float) + tensors[f"{name}.bias"].astype(float)


def _rms_norm(tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x * tensors[f"{name}.weight"].astype(float) / np.sqrt((x**2).mean(-1, keepdims=True) + RMS_NORM_EPS)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))
