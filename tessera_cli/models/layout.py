"""Names and shapes of an encoder's tensors: in our layout, and in the official checkpoints.

Nothing is allocated here, so that a checkpoint can be judged before anything is built from what it claims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.sampling import BAND_COUNTS

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: EncoderConfig) -> Shapes:
    """Return the shapes of all tensors of `Encoder(config)`, by our names."""
    width = config.width
    shapes: Shapes = {}

    def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = (size,)
        shapes[f"{name}.bias"] = (size,)

    def transformer(name: str, stack: TransformerConfig) -> None:
        for i in range(stack.layers):
            block = f"{name}.blocks.{i}"
            linear(f"{block}.attention.in_proj", width, 3 * width)
            linear(f"{block}.attention.out_proj", width, width)
            if config.qk_norm:
                shapes[f"{block}.attention.q_norm.weight"] = (width // stack.heads,)
                shapes[f"{block}.attention.k_norm.weight"] = (width // stack.heads,)
            norm(f"{block}.norm1", width)
            linear(f"{block}.up", width, stack.feedforward)
            linear(f"{block}.down", stack.feedforward, width)
            norm(f"{block}.norm2", width)

    for modality, bands in BAND_COUNTS.items():
        linear(f"{modality}.embed.hidden", bands, width)
        linear(f"{modality}.embed.out", width, width)
        transformer(modality, config.stack(modality))
        linear(f"{modality}.pool.query", width, 1)
        if config.pooling != "attention":
            linear(f"{modality}.pool.inputs", width, 3 * width)
        if config.pooling == "gru":
            linear(f"{modality}.pool.states", width, 3 * width)
        elif config.pooling == "custom-gru":
            linear(f"{modality}.pool.gates", width, 2 * width, bias=False)
            linear(f"{modality}.pool.candidate", width, width, bias=False)
            norm(f"{modality}.pool.norm", width)
    if config.fusion_stack:
        shapes["fusion.modality"] = (2, width)
        transformer("fusion", config.fusion_stack)
    if config.hidden is not None:
        linear("reducer.up", config.fused_width, config.hidden)
        norm("reducer.norm", config.hidden)
    linear("reducer.down", config.fused_width if config.hidden is None else config.hidden, config.representation)
    return shapes


_CELL = "temporal_context.gru_cell"
_PLAIN = (
    (r"^fusion\.modality$", "fusion_modality_embed"),
    (r"^fusion\.blocks\.", "fusion_transformer.layers."),
    (r"^(s[12])\.embed\.hidden", r"\1_backbone.embedding.0"),
    (r"^(s[12])\.embed\.out", r"\1_backbone.embedding.2"),
    (r"^(s[12])\.pool\.norm", r"\1_backbone.attn_pool.layer_norm"),
    (r"^(s[12])\.pool\.candidate", rf"\1_backbone.attn_pool.{_CELL}.W_hh"),
    (r"^(s[12])\.pool", r"\1_backbone.attn_pool"),
    (r"^reducer\.up", "dim_reducer.0"),
    (r"^reducer\.norm", "dim_reducer.1"),
    (r"\.up\.(weight|bias)$", r".linear1.\1"),
    (r"(blocks|layers)(.*)\.down\.(weight|bias)$", r"\1\2.linear2.\3"),
)
_GRU = (
    (r"attn_pool\.inputs\.(weight|bias)$", r"attn_pool.temporal_context.\1_ih_l0"),
    (r"attn_pool\.states\.(weight|bias)$", r"attn_pool.temporal_context.\1_hh_l0"),
)
_STACKED = {
    "attn_pool.inputs.weight": [f"attn_pool.{_CELL}.W_i{gate}.weight" for gate in "rzh"],
    "attn_pool.inputs.bias": [f"attn_pool.{_CELL}.b_{gate}" for gate in "rzh"],
    "attn_pool.gates.weight": [f"attn_pool.{_CELL}.W_h{gate}.weight" for gate in "rz"],
}
"""Tensors of the custom GRU that are several in official files."""


def official_names(name: str, config: EncoderConfig) -> tuple[str, ...]:
    """Return the official names of the tensors that, concatenated along axis 0, are our tensor `name`."""
    rules = [*_PLAIN, (r"^reducer\.down", "dim_reducer.0" if config.hidden is None else "dim_reducer.4")]
    if not config.qk_norm:
        rules += [
            (r"^(s[12])\.blocks\.", r"\1_backbone.transformer_encoder.layers."),
            (r"\.attention\.in_proj\.(weight|bias)$", r".self_attn.in_proj_\1"),
            (r"\.attention\.", ".self_attn."),
        ]
    else:
        layers = "layers." if config.fusion == "transformer" else ""  # the teacher's, and the student's plain list
        rules += [(r"^(s[12])\.blocks\.", rf"\1_backbone.transformer_encoder.{layers}"), (r"\.attention\.", ".")]
    if config.pooling == "gru":
        rules += _GRU
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    if config.qk_norm and ".in_proj." in name:
        return tuple(name.replace("in_proj", f"{letter}_proj") for letter in "qkv")
    backbone, _, part = name.partition(".")
    return tuple(f"{backbone}.{tensor}" for tensor in _STACKED[part]) if part in _STACKED else (name,)


def official_shapes(config: EncoderConfig) -> Shapes:
    """Return the shapes of the encoder's tensors in an official checkpoint, by official names."""
    shapes: Shapes = {}
    for ours, (rows, *rest) in tensor_shapes(config).items():
        names = official_names(ours, config)
        shapes.update(dict.fromkeys(names, (rows // len(names), *rest)))
    return shapes


def misfit(expected: Shapes, found: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what is wrong with the tensors of a file, in words; None if all are expected and none is missing."""
    if missing := sorted(expected.keys() - found.keys()):
        return f"it lacks {_some(missing)}"
    if unexpected := sorted(found.keys() - expected.keys()):
        return f"it holds {_some(unexpected)}, which such an encoder does not have"
    if wrong := [name for name, shape in expected.items() if found[name] != shape]:
        name = wrong[0]
        more = f" (and {len(wrong) - 1} more tensors do not fit)" if len(wrong) > 1 else ""
        return f"its tensor {name} is {_size(found[name])}, where {_size(expected[name])} is needed{more}"
    return None


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    noun = "the tensor" if len(names) == 1 else f"{len(names)} tensors:"
    return f"{noun} {shown}{', …' if len(names) > 3 else ''}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if shape else "a single number"
