"""The cases of tests/golden: tiles with the outputs of the reference, written by tests/golden/make.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.tile import NAMES
from tests.reference.weights import digest, official_payload, random_weights

FOLDER = Path(__file__).parents[1] / "golden"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@dataclass(frozen=True)
class Case:
    """A tile, an encoder with random weights, and what the encoder makes of the tile.

    Codes and scales are given per number of saved values; values, codes and scales are 0 where `defined` is False.
    """

    name: str
    family: str
    config: dict[str, Any]
    source: str | None  # v1.1 alone
    seed: int | None  # of the legacy generator, v1.0 alone; None: no seed is needed
    arrays: dict[str, np.ndarray]  # official names
    tensors: dict[str, np.ndarray]  # official names, no prefix
    expected: np.ndarray  # float32 (H, W, R)
    defined: np.ndarray  # bool (H, W)
    codes: dict[int, np.ndarray]  # int8 (H, W, saved)
    scales: dict[int, np.ndarray]  # float32 (H, W)

    @property
    def payload(self) -> dict[str, Any]:
        """Ready for torch.save."""
        return official_payload(self.family, self.config, self.tensors)


def load_case(path: Path | str) -> Case:
    """A case by name or by file."""
    path = FOLDER / f"{path}.npz" if isinstance(path, str) else path
    with np.load(path) as stored:
        content = {name: stored[name] for name in stored.files}
    about = json.loads(str(content["about"]))
    _, tensors = random_weights(about["family"], **about["weights"])
    if digest(tensors) != about["weights_sha256"]:
        raise ValueError(f"{path.name} was made with other weights than random_weights draws now")
    saved = sorted(int(name.removeprefix("codes_")) for name in content if name.startswith("codes_"))
    return Case(
        name=path.stem,
        family=about["family"],
        config=about["config"],
        source=about["source"],
        seed=about["legacy_seed"],
        arrays={name: content[name] for name in NAMES},
        tensors=tensors,
        expected=content["expected"],
        defined=content["defined"],
        codes={dims: content[f"codes_{dims}"] for dims in saved},
        scales={dims: content[f"scales_{dims}"] for dims in saved},
    )
