"""Cells of an evaluation: one set of features, one adapter and one budget of labels -> predictions, kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.evaluation.protocol import Draws
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.files import write_bytes
from tessera_cli.learning.adapters import fit
from tessera_cli.learning.threads import side_by_side

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Cell:
    """What came of it, draw by draw."""

    features: str
    adapter: str
    draws: Draws
    predictions: tuple[np.ndarray, ...]
    """Per draw those of its test samples: int64 class numbers or float64."""
    chosen: tuple[dict[str, float], ...]
    """Per draw the settings that inner validation chose."""

    @property
    def tests(self) -> tuple[np.ndarray, ...]:
        return tuple(draw.test for draw in self.draws.draws)

    @property
    def trained(self) -> float:
        """Return how many samples it learned from, on average."""
        return float(np.mean([len(draw.train) for draw in self.draws.draws]))


def make_cell(
    samples: LabelledSamples,
    features: FeatureSet,
    adapter: str,
    draws: Draws,
    *,
    seed: int,
    threads: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Cell:
    """Fit the adapter on each draw's labels and predict its test samples."""

    def one(number: int, cores: int) -> tuple[np.ndarray, dict[str, float]]:
        draw = draws.draws[number]
        fitted = fit(
            adapter,
            samples.task,
            features.values[draw.train],
            samples.targets[draw.train],
            samples.groups[draw.train],
            classes=len(samples.classes),
            seed=seed + number,
            threads=cores,
        )
        return fitted.predict(features.tested[draw.test]), {name: float(value) for name, value in fitted.chosen.items()}

    predictions, chosen = [], []
    for predicted, settings in side_by_side(one, range(len(draws.draws)), threads):
        predictions.append(predicted)
        chosen.append(settings)
        advance(1)
    return Cell(features.name, adapter, draws, tuple(predictions), tuple(chosen))


class CellFolder:
    """Finished cells on disk, so that a run goes on where an earlier one was interrupted."""

    def __init__(self, path: Path, content: str) -> None:
        """`path`: the folder, made when the first cell is kept; cells of another content in it are not seen."""
        self._path, self._content = path, content

    @classmethod
    def of(cls, path: Path, *truth: np.ndarray) -> CellFolder:
        """Return the folder of cells that were learned from these labels, parcels and groups."""
        return cls(path, _digest(*truth))

    def find(self, features: FeatureSet, adapter: str, draws: Draws, seed: int) -> Cell | None:
        """Return a kept cell; None where there is none, or it cannot be read."""
        try:
            memory = io.BytesIO(self._file(features, adapter, draws, seed).read_bytes())
            with np.load(memory, allow_pickle=False) as arrays:
                joined, chosen = arrays["predictions"], json.loads(str(arrays["chosen"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        ends = np.cumsum([len(draw.test) for draw in draws.draws])
        if len(joined) != ends[-1] or len(chosen) != len(ends):
            return None
        return Cell(features.name, adapter, draws, tuple(np.split(joined, ends[:-1])), tuple(chosen))

    def keep(self, cell: Cell, features: FeatureSet, seed: int) -> None:
        """Write a cell."""
        memory = io.BytesIO()
        np.savez_compressed(memory, predictions=np.concatenate(cell.predictions), chosen=json.dumps(cell.chosen))
        self._path.mkdir(parents=True, exist_ok=True)
        write_bytes(self._file(features, cell.adapter, cell.draws, seed), memory.getvalue())

    def _file(self, features: FeatureSet, adapter: str, draws: Draws, seed: int) -> Path:
        settings: dict[str, Any] = {"format": FORMAT, "software": __version__, "adapter": adapter, "seed": seed}
        numbers = [array for draw in draws.draws for array in (draw.train, draw.test)]
        text = json.dumps(settings, sort_keys=True).encode()
        whole = _digest(*numbers, text, self._content.encode(), features.digest.encode())
        return self._path / f"{whole[:32]}.npz"


def _digest(*parts: np.ndarray | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(part)
    return found.hexdigest()
