"""What reads the d-pixels of a run's tiles in one process: scenes of a catalogue, or stores on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tessera_cli.catalog import Scenes, check_credentials
from tessera_cli.dpixels import Stored
from tessera_cli.dpixels.dpixel import DPixels, missing_scenes_text
from tessera_cli.errors import TesseraError, TileError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.owner import record_beside
from tessera_cli.imagery import OFFICIAL, OnRead, Preprocessing, Reader, read_dpixels
from tessera_cli.net import RequestStats
from tessera_cli.outputs.stores import check_unchanged
from tessera_cli.planning.origin import Origin

logger = logging.getLogger(__name__)


class Reading(Protocol):
    """Reader of the d-pixels of tiles."""

    def check(self, requests: Sequence[TileRequest]) -> None:
        """Raise CredentialsError if reading these tiles cannot work; called before the first of them."""

    def stop(self) -> None:
        """Stop: reads that are under way end soon."""

    def network(self) -> Mapping[str, Any]:
        """Return what was asked of servers so far and how every planned read ended, as `RequestStats` does."""

    def digest(self, request: TileRequest) -> str | None:
        """Return the input digest that a finished tile must match, or None to accept any."""

    def read(self, request: TileRequest, *, ascending: bool, reading: OnRead | None = None) -> DPixels:
        """Return the d-pixels of a tile, at least for the pixels asked for; False leaves out ascending passes."""


@dataclass(frozen=True, eq=False)
class SceneReading(Reading):
    """Reads scenes of a catalogue as they are needed."""

    scenes: Scenes
    origin: Origin
    reader: Reader
    preprocessing: Preprocessing = OFFICIAL
    allow_missing: int = 0
    refresh: bool = False
    """Whether tiles that were made from other scenes than those listed now are made again."""
    frozen: bool = True
    """Whether the scenes come from a list in a folder, where hrefs have lost their signatures."""

    def check(self, requests: Sequence[TileRequest]) -> None:
        self._collect_signatures(requests)
        check_credentials(self.scenes, self.reader.client)

    def stop(self) -> None:
        self.reader.stop()

    def network(self) -> Mapping[str, Any]:
        return self.reader.client.stats.to_dict()

    def digest(self, request: TileRequest) -> str | None:
        return self.scenes.on(*request.on_grid()).digest if self.refresh else None

    def read(self, request: TileRequest, *, ascending: bool, reading: OnRead | None = None) -> DPixels:
        return read_dpixels(
            self.scenes.on(*request.on_grid()),
            request,
            self.reader,
            preprocessing=self.preprocessing,
            allow_missing=self.allow_missing,
            ascending=ascending,
            reading=reading,
        )

    def _collect_signatures(self, requests: Sequence[TileRequest]) -> None:
        """Search again for the signatures that frozen hrefs came with, if any did: they are never written.

        The scenes stay those frozen. Where the catalogue cannot be read, the files' servers are left to judge.
        """
        if not self.frozen or not any(scene.signed for scene in self.scenes.scenes):
            return
        client = self.reader.client
        client.given.add(self.scenes.signatures)
        tiles, windows = zip(*(request.on_grid() for request in requests), strict=True)
        try:
            self.origin.search(tiles, sorted(set(windows)), client)
        except TesseraError as error:
            logger.warning("no signatures for the files of scenes: %s", error)


@dataclass(frozen=True, eq=False)
class StoreReading(Reading):
    """Reads stored d-pixels."""

    stores: Mapping[str, Stored]
    """By name."""
    allow_missing: int = 0
    stats: RequestStats = field(default_factory=RequestStats)

    def check(self, requests: Sequence[TileRequest]) -> None: ...

    def stop(self) -> None: ...

    def network(self) -> Mapping[str, Any]:
        return self.stats.to_dict()

    def digest(self, request: TileRequest) -> str:
        return self.stores[request.name].input_digest

    def read(self, request: TileRequest, *, ascending: bool, reading: OnRead | None = None) -> DPixels:
        stored = self.stores[request.name]
        if (record := record_beside(stored.path)) is not None:
            check_unchanged(stored.path.absolute().parent, record)
        dpixels = stored.read()
        with suppress(OSError):  # replaced meanwhile
            self.stats.local(sum(file.stat().st_size for file in stored.path.rglob("*") if file.is_file()))
        if (request.pixels & ~dpixels.requested).any():
            raise TileError(
                f"{request.name}: the output folder holds pixels that {stored.path} lacks. "
                "Choose another --out, or fetch the whole area again."
            )
        if (count := len(dpixels.missing_scenes)) > self.allow_missing:
            raise TileError(
                f"{count} scene(s) were missing when the d-pixels were fetched: "
                f"{missing_scenes_text(dpixels.missing_scenes)}. Fetch them again, or accept that "
                f"with --allow-missing {count}."
            )
        dpixels = replace(dpixels, requested=request.pixels)
        return dpixels if ascending else dpixels.without_ascending()
