"""Names and shapes of an encoder's tensors: in our layout, and in the official student checkpoints.

Nothing is allocated here, so that a checkpoint can be judged before anything is built from what it claims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tessera_cli.models.spec import BANDS, EncoderConfig

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: EncoderConfig) -> Shapes:
    """Every tensor of `Encoder(config)` by our name."""
    width = config.width
    shapes: Shapes = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = (size,)
        shapes[f"{name}.bias"] = (size,)

    for modality, bands in BANDS.items():
        linear(f"{modality}.embed.hidden", bands, width)
        linear(f"{modality}.embed.out", width, width)
        for i in range(config.layers):
            block = f"{modality}.blocks.{i}"
            linear(f"{block}.attention.in_proj", width, 3 * width)
            linear(f"{block}.attention.out_proj", width, width)
            if config.qk_norm:
                shapes[f"{block}.attention.q_norm.weight"] = (width // config.heads,)
                shapes[f"{block}.attention.k_norm.weight"] = (width // config.heads,)
            norm(f"{block}.norm1", width)
            linear(f"{block}.up", width, config.feedforward)
            linear(f"{block}.down", config.feedforward, width)
            norm(f"{block}.norm2", width)
        linear(f"{modality}.pool.query", width, 1)
    linear("reducer.up", 2 * width, 4 * width)
    norm("reducer.norm", 4 * width)
    linear("reducer.down", 4 * width, config.representation)
    return shapes


_OFFICIAL = (
    (r"^(s[12])\.embed\.hidden", r"\1_backbone.embedding.0"),
    (r"^(s[12])\.embed\.out", r"\1_backbone.embedding.2"),
    (r"^(s[12])\.pool", r"\1_backbone.attn_pool"),
    (r"^reducer\.up", "dim_reducer.0"),
    (r"^reducer\.norm", "dim_reducer.1"),
    (r"^reducer\.down", "dim_reducer.4"),
    (r"\.up\.(weight|bias)$", r".linear1.\1"),
    (r"\.down\.(weight|bias)$", r".linear2.\1"),
)
_OFFICIAL_PLAIN = (
    (r"^(s[12])\.blocks\.", r"\1_backbone.transformer_encoder.layers."),
    (r"\.attention\.in_proj\.(weight|bias)$", r".self_attn.in_proj_\1"),
    (r"\.attention\.", r".self_attn."),
)
_OFFICIAL_QK_NORM = (
    (r"^(s[12])\.blocks\.", r"\1_backbone.transformer_encoder."),
    (r"\.attention\.", "."),
)


def official_names(name: str, *, qk_norm: bool) -> tuple[str, ...]:
    """The official tensors that, stacked along their first axis, make up the one that we call `name`."""
    for pattern, replacement in (*_OFFICIAL, *(_OFFICIAL_QK_NORM if qk_norm else _OFFICIAL_PLAIN)):
        name = re.sub(pattern, replacement, name)
    if qk_norm and ".in_proj." in name:
        return tuple(name.replace("in_proj", f"{letter}_proj") for letter in "qkv")
    return (name,)


def official_shapes(config: EncoderConfig) -> Shapes:
    """Every tensor of an official student checkpoint of these sizes."""
    shapes: Shapes = {}
    for ours, (rows, *rest) in tensor_shapes(config).items():
        names = official_names(ours, qk_norm=config.qk_norm)
        shapes.update(dict.fromkeys(names, (rows // len(names), *rest)))
    return shapes


def misfit(expected: Shapes, found: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong with the tensors of a file, in plain words; None where every one is accounted for."""
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
