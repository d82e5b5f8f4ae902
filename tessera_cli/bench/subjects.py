"""What is measured: a model by name, and the folder of a simulated catalogue."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models import Model, get_spec, load_model, seeded_model
from tessera_cli.models.spec import PackagedFile
from tessera_cli.simulate import simulate

if TYPE_CHECKING:
    from tessera_cli.models.encoder import Encoder


def model_named(name: str, seed: int, *, device: str, precision: str = "auto") -> Model:
    """The packaged model of this name as it is; of others the shape, with random weights of `seed`."""
    if isinstance(get_spec(name).weights, PackagedFile):
        return load_model(name, device=device, precision=precision)
    return seeded_model(name, seed, device=device, precision=precision)


def unprepared(name: str, seed: int) -> Encoder:
    """The encoder of `model_named`, as it was before it was made ready for a device and a precision."""
    spec = get_spec(name)
    if isinstance(spec.weights, PackagedFile):
        from tessera_cli.models import hub
        from tessera_cli.models.checkpoint import read_checkpoint

        return read_checkpoint(hub.fetch(spec.weights)).encoder
    from tessera_cli.models.encoder import seeded

    assert spec.config is not None
    return seeded(spec.config, seed)


@contextmanager
def catalog_folder(given: Path | None, **simulation: Any) -> Iterator[Path]:
    """The folder of a catalogue that `tessera simulate` wrote; None: one is made, for as long as it is needed.

    UsageError if the given folder is none.
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


def items_of(folder: Path) -> tuple[list[dict[str, Any]], Window]:
    """The STAC items of the catalogue and the year of the first of them; UsageError if there is none."""
    items: list[dict[str, Any]] = json.loads((folder / "items.json").read_text())["features"]
    if not items:
        raise UsageError(f"{folder / 'items.json'} lists no scene. Simulate it anew.")
    return items, Window.of_year(int(min(item["properties"]["datetime"] for item in items)[:4]))
