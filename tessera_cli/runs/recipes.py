"""How another process opens what a run needs: plain values that travel, and the heavy parts opened once there."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from tessera_cli.dpixels import Stored
from tessera_cli.errors import IdentityError, UsageError, differences
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.imagery import Reader, get_preprocessing
from tessera_cli.models.load import is_path, prepare_model, read_model
from tessera_cli.models.model_config import AnyModelConfig, ModelConfig
from tessera_cli.planning.origin import Origin
from tessera_cli.planning.scene_search import thaw
from tessera_cli.runs.reading import Reading, SceneReading, StoreReading

Opened = TypeVar("Opened")
KEPT = 2
"""Of what was opened last, how much a process keeps: a worker of a cluster may serve several runs."""
_opened: dict[bytes, Any] = {}
_opening = threading.Lock()
_of_thread = threading.local()
"""`readings`: recipe, pickled -> what reads for it in this thread."""
_readers: WeakKeyDictionary[Reader, bytes] = WeakKeyDictionary()
"""Those of all threads, also while what reads with them is still being opened."""
_listing = threading.Lock()


def once(key: object, open: Callable[[], Opened]) -> Opened:
    """Return what `open` returned for an equal key before in this process, else what it returns now."""
    packed = pickle.dumps(key)
    with _opening:
        found = _opened.pop(packed) if packed in _opened else open()
        _opened[packed] = found
        for oldest in list(_opened)[:-KEPT]:
            del _opened[oldest]
        return found


class ReadingRecipe(Protocol):
    """How to open what reads the tiles of a run."""

    def open(self, requests: Sequence[TileRequest]) -> Reading: ...

    def stop(self) -> None:
        """Stop what was opened by such a recipe in this process."""


@dataclass(frozen=True)
class SceneRecipe(ReadingRecipe):
    """Opens the scenes that a run has frozen in its folder."""

    origin: Origin
    folder: Path
    run: str
    scenes_digest: str
    preprocessing: str
    allow_missing: int
    refresh: bool

    def open(self, requests: Sequence[TileRequest]) -> Reading:
        """Return what reads the tiles, one for each thread: tasks side by side count and stop what is their own."""
        packed = pickle.dumps(self)
        if not hasattr(_of_thread, "readings"):
            _of_thread.readings = {}
        mine: dict[bytes, SceneReading] = _of_thread.readings
        if packed in mine and not mine[packed].reader.stopped:
            mine[packed] = mine.pop(packed)
        else:
            mine[packed] = self._open(packed)
        for oldest in list(mine)[:-KEPT]:
            del mine[oldest]
        return mine[packed]

    def stop(self) -> None:
        packed = pickle.dumps(self)
        with _listing:
            readers = [reader for reader, key in _readers.items() if key == packed]
        for reader in readers:
            reader.stop()

    def _open(self, packed: bytes) -> SceneReading:
        reader = self.origin.reader()
        with _listing:
            _readers[reader] = packed
        self.origin.admit(reader.client)
        scenes = thaw(TileFolder(self.folder), self.run, self.origin, reader.client)
        if scenes is None or scenes.digest != self.scenes_digest:
            raise UsageError(
                f"{self.folder}: the scene list that is seen here is not that of the run. Are all processes on one "
                "file system, and was the run started again with --refresh? Run again."
            )
        policy = get_preprocessing(self.preprocessing)
        return SceneReading(scenes, self.origin, reader, policy, self.allow_missing, self.refresh)


@dataclass(frozen=True)
class StoreRecipe(ReadingRecipe):
    """Opens stored d-pixels: the requests say where they lie."""

    here: Path
    """The folder that relative paths begin in."""
    allow_missing: int

    def open(self, requests: Sequence[TileRequest]) -> Reading:
        stores = (replace(each, path=self.here / each.path) for each in requests if isinstance(each, Stored))
        return StoreReading({each.name: each for each in stores}, self.allow_missing)

    def stop(self) -> None: ...


@dataclass(frozen=True)
class SettingsRecipe:
    """Loads a model and makes the settings that go with it; a worker must come to the identity of the run."""

    name: str | Path | None
    weights: Path | None
    model_config: ModelConfig
    device: str
    precision: str
    settings: Mapping[str, Any]
    """Those of `EmbedSettings.checked` besides the model."""
    identity: Mapping[str, Any]
    """What it must come to."""

    @classmethod
    def of(
        cls,
        settings: EmbedSettings,
        given: Mapping[str, Any],
        *,
        model: str | Path | None = None,
        weights: str | Path | None = None,
        model_config: AnyModelConfig | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> SettingsRecipe:
        """Return how a process in another working directory comes to settings that were made here as `given`.

        The others are arguments of `load_model`.
        """
        name = Path(model).absolute() if model is not None and is_path(model) else model
        path = None if weights is None else Path(weights).absolute()
        return cls(name, path, ModelConfig.of(model_config), device, precision, given, settings.identity())

    def open(self) -> EmbedSettings:
        return once(self, self._open)

    def _open(self) -> EmbedSettings:
        loaded = read_model(self.name, weights=self.weights, model_config=self.model_config)  # it has been warned of
        settings = EmbedSettings.checked(prepare_model(loaded, self.device, self.precision), **self.settings)
        if differing := differences(self.identity, settings.identity()):
            raise IdentityError(f"This worker comes to other settings than the run: {'; '.join(differing[:6])}.")
        return settings
