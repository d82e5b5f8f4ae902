"""Make finished tiles of a folder again, in memory, from the scenes frozen there or from stored d-pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Protocol

from tessera_cli.catalog.hrefs import REFUSED
from tessera_cli.catalog.search import refuse_unallowed
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import IdentityError, TesseraError, TileError, UsageError, differences
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.folder import SCENES, TileFolder
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.imagery import get_preprocessing
from tessera_cli.models import Model
from tessera_cli.net.address import is_url
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord
from tessera_cli.planning.origin import Origin
from tessera_cli.runs.encoding import encode_tile
from tessera_cli.runs.inputs import StoredInputs
from tessera_cli.runs.reading import SceneReading, StoreReading
from tessera_cli.sampling import RandomSampling
from tessera_cli.sampling.statistics import V1_1_STATISTICS

ANY = 1 << 30
"""Missing scenes that are accepted: how many a tile may lack was decided when it was made."""


class Origins(Protocol):
    """What finished tiles were made from."""

    def read(self, record: TileRecord, *, ascending: bool) -> DPixels:
        """Return the d-pixels of a tile for the pixels that it was asked for; TileError if they are no longer there."""


@dataclass(frozen=True, eq=False)
class FrozenScenes(Origins):
    """The scenes of a folder's list."""

    reading: SceneReading
    """Of all scenes of the folder."""

    @classmethod
    def of(cls, folder: TileFolder, origin: Origin, records: Iterable[TileRecord]) -> FrozenScenes:
        """Return those that tiles need; UsageError if the folder has none or they may not be read, CredentialsError."""
        frozen = folder.all_frozen(origin.source)
        if frozen is None:
            raise UsageError(
                f"{folder.path} has no {SCENES} to make tiles again from. If they were made from stored d-pixels, give "
                "these with --dpixels."
            )
        reader = origin.reader()
        origin.admit(reader.client)
        wanted, used, requests = set[str](), set[str](), list[TileRequest]()
        for record in records:
            wanted |= set(record.scenes)
            used |= set(record.scenes) - set(record.missing_scenes)
            requests.append(_request(record))
        scenes = frozen.without({scene.id for scene in frozen.scenes} - wanted).permitted(reader.client.reach)
        refuse_unallowed(scenes)
        for asset in (asset for scene in scenes.scenes if scene.id in used for asset in scene.item["assets"].values()):
            if REFUSED in asset and not is_url(asset["href"]):
                raise UsageError(
                    f"{folder.path} was made from files on this machine, such as {asset['href']}, which no catalogue "
                    "on the web may name. Give --catalog (of radar --radar-catalog) as `embed` had it."
                )
        reading = SceneReading(scenes, origin, reader, get_preprocessing(folder.identity["preprocessing"]), ANY)
        if requests:
            reading.check(requests)
        return cls(reading)

    def read(self, record: TileRecord, *, ascending: bool) -> DPixels:
        request = _request(record)
        scenes = self.reading.scenes.named(record.scenes)
        if scenes is None or scenes.on(*request.on_grid()).digest != record.input_digest:
            raise TileError(f"the scenes that it was made from are not those in {SCENES} any more")
        there = scenes.without(record.missing_scenes)  # what was missing then stays so, whatever has come since
        dpixels = replace(self.reading, scenes=there).read(request, ascending=ascending)
        if dpixels.missing_scenes:
            told = ", ".join(sorted(dpixels.missing_scenes)[:3])
            raise TileError(f"scenes that it was made from cannot be read any more: {told}")
        return replace(
            dpixels,
            scenes=record.scenes,
            missing_scenes=record.missing_scenes,
            input_digest=record.input_digest,
        )


@dataclass(frozen=True, eq=False)
class Stores(Origins):
    """Stored d-pixels."""

    reading: StoreReading

    @classmethod
    def of(cls, folder: TileFolder, paths: Sequence[Path]) -> Stores:
        """Return those below the paths; errors as those of `StoredInputs.find`."""
        identity = folder.identity
        found = StoredInputs.find(paths, identity["source"], identity["preprocessing"])
        return cls(StoreReading(found.stores, ANY))

    def read(self, record: TileRecord, *, ascending: bool) -> DPixels:
        stored = self.reading.stores.get(record.name)
        if stored is None:
            raise TileError("there is no store of it among those given")
        if stored.input_digest != record.input_digest:
            raise TileError(f"{stored.path} is not what it was made from: it was fetched again since, or changed")
        return self.reading.read(_request(record), ascending=ascending)


@dataclass(frozen=True, eq=False)
class Remaker:
    """Makes tiles of a folder again; nothing is written."""

    origins: Origins
    settings: EmbedSettings | None = None
    """None: the folder holds d-pixels."""
    threads: int = 1

    def dpixels(self, record: TileRecord) -> DPixels:
        """Return the d-pixels of a tile; TileError where they cannot be had any more."""
        ascending = self.settings is None or self.settings.model.spec.use_ascending
        return self.origins.read(record, ascending=ascending)

    def embeddings(self, record: TileRecord) -> EncodedTile | TileRecord:
        """Return the embeddings of a tile, or the record alone if it comes out empty. Errors as those of `dpixels`."""
        assert self.settings is not None
        return encode_tile(self.dpixels(record), self.settings, record.identity, threads=self.threads)


def settings_of(folder: TileFolder, model: Model) -> EmbedSettings:
    """Return the settings under which a folder was made, for the model that is said to have made it.

    IdentityError where it is another model. What `--source` and `--legacy-draw` were shows in what comes out.
    """
    said = folder.identity
    draws = (False, True) if isinstance(model.spec.observations, RandomSampling) else (False,)
    closest: list[str] = []
    for source, legacy in product((None, *V1_1_STATISTICS), draws):
        try:
            settings = EmbedSettings.checked(
                model,
                source,
                recorded=said["source"],
                force_source=True,
                legacy_draw=legacy,
                uncertainty=said.get("uncertainty", 0),
                **{key: said[key] for key in ("dims", "dtype", "min_s2", "min_s1", "seed", "preprocessing", "format")},
            )
        except TesseraError as error:
            closest = closest or [str(error)]
            continue
        differing = differences(said, _plain(settings))
        if not differing:
            return settings
        closest = closest or differing
    told = "; ".join(closest[:4])
    raise IdentityError(f"This is not the model that made {folder.path}: {told}. Give it with --model or --weights.")


def _plain(settings: EmbedSettings) -> dict[str, object]:
    return dict(settings.folder(Path()).plain_identity)


def _request(record: TileRecord) -> TileRequest:
    return TileRequest(record.tile, record.window, record.packed.data)
