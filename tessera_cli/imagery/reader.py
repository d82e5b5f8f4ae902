"""Read scenes on a tile in parallel; every planned read ends as read, absent, broken, refused or unknown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import rasterio

from tessera_cli.catalog import Scene
from tessera_cli.errors import (
    AbsentError,
    CredentialsError,
    ReadingStoppedError,
    SourceBusyError,
    SourceRefusedError,
    SourceUnavailableError,
    reason,
)
from tessera_cli.extent.grid import Tile
from tessera_cli.imagery.evidence import check_digest, other_size
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import ODD_FILE, BrokenError
from tessera_cli.imagery.promises import Promise, UnfitError
from tessera_cli.imagery.warp import on_tile
from tessera_cli.malloc import keep_freed_blocks
from tessera_cli.net import ChangedError, Client, Version
from tessera_cli.net.address import is_url, redact
from tessera_cli.net.stats import Outcome
from tessera_cli.prefetch import in_order

GDAL_OPTIONS: Mapping[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 128 * 2**20,  # bytes; GDAL itself takes 5 % of the host's memory
}
"""Defaults; whatever the user's environment sets wins (see `config.gdal_options`)."""

THREADS = 32
"""Files read side by side: waiting for servers is what takes time."""
LOCAL_THREADS = 4
"""The same of files on this machine, where more threads wait for each other and take a third more processor time."""

KEPT = 1 << 27
"""Bytes of freed memory that are kept for the next blocks and layers."""
MOST_CHANGES = 3
"""Times a file is read from its beginning because it has changed."""

T = TypeVar("T")
U = TypeVar("U")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarpOptions:
    """Resampling and dtype with which an asset is warped to the pixels of a tile, and what its values must be."""

    resampling: Literal["nearest", "bilinear"]
    dtype: str
    promise: Promise | None = None
    """None: anything."""


@dataclass(frozen=True, eq=False)
class Read:
    """A planned read of one asset of a scene."""

    scene: Scene
    asset: str
    """Its key."""
    pixels: np.ndarray | None = None
    """bool (H, W) of the tile: those that matter, the others may come out as anything; None: all."""


@dataclass(frozen=True)
class MissingScene:
    """A scene whose data is absent, broken or unfit."""

    scene: str
    """Its id."""
    why: str
    unfit: bool = False
    """Whether the file can be read, but holds something else than its source promises."""


@dataclass(frozen=True)
class MissingFile:
    """A file that retries cannot bring: absent or broken."""

    outcome: Literal["absent", "broken"]
    error: AbsentError | BrokenError

    def __str__(self) -> str:
        return self.outcome if self.outcome == "absent" else f"{self.outcome} ({self.error})"


class Reader:
    """Reader of files and of assets of scenes; one for all tiles of a run."""

    def __init__(
        self,
        client: Client,
        *,
        threads: int = THREADS,
        gdal_options: Mapping[str, str | int] = GDAL_OPTIONS,
        files: Files | None = None,
    ) -> None:
        self.client = client
        self.threads = threads
        self._files = Files(client) if files is None else files
        self._stopped, self._sizes_differ = threading.Event(), threading.Event()
        self._options = dict(gdal_options)
        keep_freed_blocks(KEPT)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Stop: reads under way end soon, with an error."""
        self._stopped.set()
        self.client.stop()

    def read(self, href: str, use: Callable[[GeoTiffFile], T]) -> T | MissingFile:
        """Return what `use` makes of the file, or MissingFile if it is absent (404, 410) or broken (its bytes are all
        there and do not decode, twice). How it ended is counted in `client.stats`.

        Raises CredentialsError, SourceBusyError, SourceRefusedError or SourceUnavailableError where neither is certain,
        and UnfitError where `use` does.
        """
        if self._stopped.is_set():
            raise ReadingStoppedError("The run has been stopped.")
        outcome: Outcome = "unknown"
        try:
            with rasterio.Env(**self._options):
                value = self._read(href, use)
            outcome = "read"
            return value
        except UnfitError:
            outcome = "read"
            raise
        except BrokenError as error:
            outcome = "broken"
            return MissingFile(outcome, error)
        except AbsentError as error:
            outcome = "absent"
            return MissingFile(outcome, error)
        except (CredentialsError, SourceBusyError, SourceRefusedError):
            outcome = "refused"
            raise
        finally:
            self.client.stats.read(outcome)

    def layers(
        self, reads: Sequence[Read], options: WarpOptions, tile: Tile, use: Callable[[Read, np.ndarray], T]
    ) -> Iterator[T | MissingScene]:
        """Yield, in order, what `use` makes of (H, W) on the tile's grid, or a MissingScene. Raises what `read` does.

        `use` is called once per layer, in the thread that read it, several at once.
        """
        return self._each(
            reads,
            lambda file, read: on_tile(file, tile, options.resampling, options.dtype, read.pixels, options.promise),
            use,
        )

    def tags(self, reads: Sequence[Read]) -> Iterator[Mapping[str, str] | MissingScene]:
        """Yield, in order, the tags of the file or a MissingScene."""
        return self._each(reads, lambda file, read: file.header.tags, lambda _, tags: tags)

    def _each(
        self, reads: Sequence[Read], find: Callable[[GeoTiffFile, Read], U], use: Callable[[Read, U], T]
    ) -> Iterator[T | MissingScene]:
        def carry_out(read: Read) -> T | MissingScene:
            asset = read.scene.item["assets"][read.asset]

            def checked(file: GeoTiffFile) -> U:
                self._compare_sizes(read, other_size(asset, file))
                check_digest(asset, file)
                return find(file, read)

            try:
                value = self.read(_href(read), checked)
            except UnfitError as error:
                return MissingScene(read.scene.id, f"{read.asset} {error}", unfit=True)
            if isinstance(value, MissingFile):
                return MissingScene(read.scene.id, f"{read.asset} is {value}")
            return use(read, value)

        remote = any(is_url(_href(read)) for read in reads)
        threads = self.threads if remote else min(self.threads, LOCAL_THREADS)
        return in_order((partial(carry_out, read) for read in reads), threads, ahead=2 * threads)

    def _compare_sizes(self, read: Read, said: int | None) -> None:
        """Warn of the first file that has another size than its item says; it may be a copy, compressed anew."""
        if said is not None and not self._sizes_differ.is_set():
            self._sizes_differ.set()
            where = f"{read.scene.id}: {read.asset} ({redact(_href(read))})"
            logger.warning("%s has not the %d bytes that its item says (file:size); others are not told", where, said)

    @property
    def doubted(self) -> frozenset[str]:
        """Return the hosts that sent bytes which a file does not hold. What they sent before is better read again."""
        return self._files.doubts.hosts

    def _read(self, href: str, use: Callable[[GeoTiffFile], T]) -> T:
        """Return what `use` makes of the file, of one version of it, and once more where it is broken."""
        seen: list[Version] = []
        for _ in range(MOST_CHANGES):
            try:
                return self._decoded(href, use)
            except ChangedError as error:
                logger.info("%s Reading it from its beginning.", error)
                self.client.stats.retry("changed")
                self._files.forget(href)
                seen += [error.was, error.now]
                if is_url(href):
                    self._files.doubts.changed(href, seen)
        return self._decoded(href, use)

    def _decoded(self, href: str, use: Callable[[GeoTiffFile], T]) -> T:
        """Return what `use` makes of the file, of the bytes of a second reading where the first are at fault."""
        remote, doubts, file = is_url(href), self._files.doubts, None
        try:
            with _foreign_errors():
                file = self._files.open(href)
                return use(file)
        except UnfitError:
            if not remote or file is None or file.checked or file.agreed:
                raise  # else the bytes themselves are in doubt
        except BrokenError as error:
            logger.info("%s: %s; reading it once more", redact(href), error)
        self.client.stats.retry("does not decode")
        try:
            with _foreign_errors():
                return use(self._files.open(href, anew=True))
        except BrokenError as error:
            if doubts.is_whole(href):
                raise
            raise SourceUnavailableError(
                f"{redact(href)} is sent without its length, perhaps not all of it: {error}. Try again later."
            ) from error
        finally:  # not before, or what is wrong for good would be compared with itself
            if remote and doubts.is_whole(href):
                doubts.cast(href)


def as_it_is(read: Read, layer: np.ndarray) -> np.ndarray:
    """Return the layer."""
    return layer


@contextmanager
def _foreign_errors() -> Iterator[None]:
    """Raise BrokenError in place of what libraries raise over an odd file."""
    try:
        yield
    except ODD_FILE as error:
        logger.debug("an odd file", exc_info=True)
        raise BrokenError(f"its contents cannot be used: {reason(error)}") from error


def _href(read: Read) -> str:
    return str(read.scene.item["assets"][read.asset]["href"])
