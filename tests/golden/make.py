"""Writes the cases of this folder from the reference implementation: python -m tests.golden.make"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.reference import FOLDER, NAMES, digest, embed_tile, quantised, random_weights

# Valid observations per pixel: Sentinel-2, Sentinel-1 ascending, descending
EDGES = [
    (1, 0, 1),
    (1, 1, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 0),
    (2, 1, 1),
    (3, 3, 0),
    (4, 0, 5),
    (7, 5, 4),
    (8, 4, 4),
    (9, 8, 9),
    (18, 12, 9),
]
CLOUDY = [
    (30, 14, 9),
    (0, 0, 0),
    (3, 1, 1),
    (2, 20, 20),
    (55, 22, 20),
    (44, 0, 0),
    (41, 1, 2),
    (40, 20, 20),
    (39, 20, 19),
    (1, 0, 1),
    (0, 12, 0),
    (17, 0, 5),
    (55, 3, 0),
    (12, 11, 10),
]


@dataclass(frozen=True)
class Recipe:
    """`options` replace settings; of the pixels `blank`, no band holds anything but zero."""

    family: str
    weights: dict[str, Any]
    counts: list[tuple[int, int, int]]
    shape: tuple[int, int]
    frames: tuple[int, int, int]
    tile_seed: int
    options: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    legacy_seed: int | None = None
    blank: tuple[int, ...] = ()


TINY = {"latent": 5, "layers": 2, "heads": 2, "feedforward": 24}
EARLY = {"seed": 1, "latent": 4, "layers": 3, "heads": 8, "feedforward": 24}
QAT = {"seed": 2, **TINY}
V1_1 = {"seed": 3, **TINY, "representation": 24}
STUDENT = {"seed": 4, **TINY}
TEACHER = {"seed": 5, **TINY, "layers": 1, "representation": 20}
# Differences so small that the epsilon of every normalisation counts
FLAT_QK = {".q_proj": 3e-4, ".k_proj": 3e-4, "dim_reducer.0": 2e-3, "dim_reducer.4": 3e-3}
FLAT_V1_1 = {"gru_cell.W_ih": 2e-3, "gru_cell.W_hh": 2e-3, "gru_cell.b_h": 2e-3, "dim_reducer.0": 2e-3}

RECIPES = {
    # Draws whose outcome is certain: 1 or 40 candidates, also where all 40 frames stand in for none that is valid
    "v1_0_early_deterministic": Recipe(
        "v1_0_early",
        EARLY,
        [(40, 22, 18), (1, 22, 18), (40, 1, 0), (1, 0, 1), (0, 22, 18), (40, 0, 0), (1, 1, 0), (40, 22, 18)],
        (2, 4),
        (40, 22, 18),
        11,
        blank=(7,),
    ),
    "v1_0_early_seeded_sum": Recipe(
        "v1_0_early",
        {**EARLY, "fusion": "sum"},
        CLOUDY,
        (2, 7),
        (55, 22, 20),
        12,
        {"batch_size": 4, "min_valid_timesteps": 2, "sample_size_s2": 16, "sample_size_s1": 12},
        legacy_seed=123,
    ),
    "v1_0_early_only_descending": Recipe(
        "v1_0_early", EARLY, [(40, 0, 40), (1, 0, 1), (40, 0, 0)], (1, 3), (40, 0, 40), 13
    ),
    "v1_0_qat_deterministic": Recipe(
        "v1_0_qat",
        QAT,
        [(40, 18, 22), (1, 18, 22), (40, 1, 0), (1, 0, 1), (0, 18, 22), (40, 0, 0), (1, 1, 0), (40, 18, 22)],
        (4, 2),
        (40, 18, 22),
        14,
        blank=(2,),
    ),
    # 39 frames and the one that stands in for the empty orbit
    "v1_0_qat_empty_descending": Recipe(
        "v1_0_qat", {**QAT, "fusion": "sum"}, [(40, 0, 0), (1, 1, 0), (1, 0, 0)], (1, 3), (40, 39, 0), 15
    ),
    "v1_0_qat_no_sentinel1": Recipe(
        "v1_0_qat", QAT, [(40, 0, 0), (1, 0, 0), (40, 0, 0)], (3, 1), (40, 0, 0), 16, {"min_valid_timesteps": 1}
    ),
    "v1_0_qat_seeded_repeat3": Recipe(
        "v1_0_qat",
        QAT,
        CLOUDY,
        (7, 2),
        (55, 22, 20),
        17,
        {"batch_size": 7, "repeat_times": 3},
        legacy_seed=124,
        blank=(2, 3),
    ),
    "v1_1_mpc": Recipe("v1_1", V1_1, EDGES, (3, 4), (18, 12, 11), 18, {"save_embedding_dim": 16}, source="mpc"),
    "v1_1_aws_sum": Recipe(
        "v1_1", {**V1_1, "fusion": "sum", "latent": 4}, EDGES, (4, 3), (18, 12, 11), 19, source="aws"
    ),
    # 16 of 37 has a filler at a half that floats round the other way, 2 of 5 one at a half that they hit
    "v1_1_odd_bins": Recipe(
        "v1_1",
        V1_1,
        [(16, 9, 7), (12, 2, 1), (41, 22, 20), (5, 3, 3), (6, 5, 1), (0, 0, 0), (1, 0, 1), (37, 20, 18), (2, 1, 1)],
        (3, 3),
        (41, 22, 20),
        20,
        {"num_obs_checkpoints": [37, 5, 0, 12, 5, -3]},
        source="mpc",
    ),
    "v1_1_no_ascending": Recipe(
        "v1_1",
        {**V1_1, "s1_layers": 1, "s1_heads": 4, "s1_feedforward": 16},
        EDGES,
        (2, 6),
        (18, 12, 11),
        21,
        {"disable_s1_ascending": True},
        source="aws",
    ),
    "v1_1_flat": Recipe("v1_1", {**V1_1, "scaled": FLAT_V1_1}, EDGES[-3:], (1, 3), (18, 12, 11), 31, source="mpc"),
    "v1_1_over256": Recipe("v1_1", V1_1, [(295, 150, 161)], (1, 1), (300, 150, 165), 22, source="mpc"),
    "v2_student": Recipe("v2_student", STUDENT, EDGES, (3, 4), (18, 12, 11), 23),
    "v2_student_qknorm": Recipe("v2_student", {**STUDENT, "qk_norm": True}, EDGES, (3, 4), (18, 12, 11), 24),
    "v2_student_qknorm_flat": Recipe(
        "v2_student", {**STUDENT, "qk_norm": True, "scaled": FLAT_QK}, EDGES[-3:], (1, 3), (18, 12, 11), 29
    ),
    "v2_student_over256": Recipe("v2_student", STUDENT, [(295, 150, 161)], (1, 1), (300, 150, 165), 25),
    "v2_teacher": Recipe("v2_teacher", TEACHER, EDGES, (3, 4), (18, 12, 11), 26),
    "v2_teacher_no_final_norm": Recipe(
        "v2_teacher", {**TEACHER, "final_layernorm": False}, EDGES, (3, 4), (18, 12, 11), 27
    ),
    "v2_teacher_flat": Recipe("v2_teacher", {**TEACHER, "scaled": FLAT_QK}, EDGES[-3:], (1, 3), (18, 12, 11), 30),
    "v2_teacher_over256": Recipe("v2_teacher", TEACHER, [(295, 150, 161)], (1, 1), (300, 150, 165), 28),
}


def make_tile(recipe: Recipe) -> dict[str, np.ndarray]:
    """Arrays by official names; invalid Sentinel-2 frames hold values too, valid frames of either sensor also zeros.

    Days of year begin with 1 and 366: a window may start in any month.
    """
    rng = np.random.RandomState(recipe.tile_seed)
    pixels = len(recipe.counts)

    def valid(sensor: int) -> np.ndarray:
        frames = np.zeros((recipe.frames[sensor], pixels), bool)
        for pixel, counts in enumerate(recipe.counts):
            frames[rng.permutation(len(frames))[: counts[sensor]], pixel] = True
        return frames

    def days(frames: int) -> np.ndarray:
        later = np.sort(rng.randint(1, 367, max(frames - 2, 0)))
        return np.concatenate([[366, 1], np.roll(later, frames // 3)])[:frames]

    def shaped(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), *recipe.shape, *values.shape[2:])

    clear = valid(0)
    bands = rng.randint(0, 9000, (*clear.shape, 10)) * (rng.random_sample(clear.shape) > 0.05)[..., None]
    bands[:, list(recipe.blank)] = 0
    arrays = {
        "bands": shaped(bands.astype(np.uint16)),
        "masks": shaped(clear.astype(np.uint8)),
        "doys": days(len(clear)).astype(np.uint16),
    }
    for sensor, orbit in ((1, "ascending"), (2, "descending")):
        seen = valid(sensor)
        polarisations = rng.randint(0, 8, seen.shape)  # 0: VH alone, 1: VV alone
        values = rng.randint(1000, 9000, (*seen.shape, 2)) * seen[..., None]
        values[..., 0] *= polarisations != 0
        values[..., 1] *= polarisations != 1
        arrays[f"sar_{orbit}"] = shaped(values.astype(np.int16))
        arrays[f"sar_{orbit}_doy"] = days(len(seen)).astype(np.int16)
    return {name: arrays[name] for name in NAMES}


def build(name: str) -> dict[str, np.ndarray]:
    """The arrays of a case's file."""
    recipe = RECIPES[name]
    config, tensors = random_weights(recipe.family, **recipe.weights)
    config |= recipe.options
    arrays = make_tile(recipe)
    values, defined = embed_tile(
        recipe.family, config, tensors, arrays, source=recipe.source, legacy_seed=recipe.legacy_seed
    )
    expected = values.astype(np.float32)
    about = {
        "family": recipe.family,
        "config": config,
        "source": recipe.source,
        "legacy_seed": recipe.legacy_seed,
        "weights": recipe.weights,
        "weights_sha256": digest(tensors),
    }
    content = {"about": np.array(json.dumps(about)), **arrays, "expected": expected, "defined": defined}
    for dims, (codes, scales) in quantised(recipe.family, config, expected, defined).items():
        content |= {f"codes_{dims}": codes, f"scales_{dims}": scales}
    return content


if __name__ == "__main__":
    for case in RECIPES:
        np.savez_compressed(FOLDER / f"{case}.npz", **build(case))
