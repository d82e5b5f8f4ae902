"""Inputs of the benchmarks: a model by name, and the folder of a simulated catalogue."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models import Model, get_spec
from tessera_cli.models.load import is_path, prepare_model, read_model
from tessera_cli.models.spec import PackagedFile
from tessera_cli.simulate import simulate


def get_model(name: str, seed: int, *, device: str, precision: str = "auto") -> Model:
    """Return `unprepared_model` on this device, in this precision."""
    return prepare_model(unprepared_model(name, seed), device, precision)


def unprepared_model(name: str, seed: int) -> Model:
    """Return the packaged model of this name, or one of its shape with random weights: float32, on the CPU.

    The path of a weights file or of a run is read as it is.
    """
    if is_path(name):
        return read_model(name)
    spec = get_spec(name)
    if spec.config is None or isinstance(spec.weights, PackagedFile):
        return read_model(name)
    from tessera_cli.models.encoder import seeded

    return Model(spec, seeded(spec.config, seed), "")


@contextmanager
def catalog_folder(given: Path | None, **simulation: Any) -> Iterator[Path]:
    """Yield the folder of a catalogue of `tessera simulate`, a temporary one if none is given.

    UsageError if the given folder holds no catalogue.
    """
    if given is None:
        with tempfile.TemporaryDirectory(prefix="tessera-") as scratch:
            yield simulate(Path(scratch) / "catalog", **simulation).items.parent
        return
    missing = [name for name in ("items.json", "aoi.geojson") if not (given / name).is_file()]
    if missing:
        raise UsageError(
            f"{given} is no catalogue of `tessera simulate`: it lacks {' and '.join(missing)}. Name another."
        )
    yield given


def read_items(folder: Path) -> tuple[list[dict[str, Any]], Window]:
    """Return the STAC items of the catalogue and the year of the first of them; UsageError if there is none."""
    items: list[dict[str, Any]] = json.loads((folder / "items.json").read_text())["features"]
    if not items:
        raise UsageError(f"{folder / 'items.json'} lists no scene. Simulate it anew.")
    return items, Window.of_year(int(min(item["properties"]["datetime"] for item in items)[:4]))
