"""Files on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tessera_cli.errors import AbsentError, SourceRefusedError, SourceUnavailableError, reason
from tessera_cli.imagery.blocks import block_windows
from tessera_cli.imagery.decode import check, decode
from tessera_cli.imagery.file import BrokenError, Header, Headers, numbers_of, read_parts
from tessera_cli.imagery.tiff import FIRST, Blocks, find_blocks


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: Path
    headers: Headers = field(default_factory=Headers, repr=False, compare=False)
    """What is known of files that describe themselves like this one."""

    def header(self) -> Header:
        return self.headers.of(b"" if self._blocks is None else self._blocks.description, self._opened)

    def pixels(self, window: Window, pixel_windows: np.ndarray | None = None) -> np.ndarray:
        blocks = self._blocks
        if blocks is not None and blocks.deflated:
            wanted = [window] if pixel_windows is None else list(block_windows(pixel_windows, window, blocks.block))
            streams = self._streams(blocks, numbers_of(blocks, wanted))
            if (pixels := decode(blocks, streams, window, wanted)) is not None:
                return pixels
            check(streams)
        with self._opened() as dataset:
            wanted = (
                [window]
                if pixel_windows is None
                else list(block_windows(pixel_windows, window, dataset.block_shapes[0]))
            )
            return read_parts(dataset, window, wanted)

    @cached_property
    def _blocks(self) -> Blocks | None:
        """None of another format, or where GDAL will say what is the matter."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                first = file.read(FIRST)

                def at(start: int, length: int) -> bytes:
                    if start + length > size:
                        raise EOFError(f"it ends after {size} bytes")
                    if start + length <= len(first):
                        return first[start : start + length]
                    file.seek(start)
                    return file.read(length)

                return find_blocks(at)
        except (ValueError, EOFError, OSError):
            return None

    def _streams(self, blocks: Blocks, numbers: Sequence[int]) -> dict[int, bytes]:
        """The bytes of blocks by number."""
        streams = {}
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for n in numbers:
                    start, length = int(blocks.starts[n]), int(blocks.lengths[n])
                    if start + length > size:
                        raise BrokenError(f"it ends after {size} bytes, before the end of block {n}")
                    file.seek(start)
                    streams[n] = file.read(length)
        except OSError as error:
            raise self._broken(error) from error
        return streams

    @contextmanager
    def _opened(self) -> Iterator[DatasetReader]:
        try:
            with rasterio.open(self.path, sharing=False) as dataset:
                yield dataset
        except (RasterioError, OSError, UnicodeDecodeError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> Exception:
        """BrokenError if every byte can be read: then the fault is in what they say."""
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                while file.read(2**20):
                    pass
        except FileNotFoundError:
            return AbsentError(f"{self.path} does not exist. Check the catalogue.")
        except PermissionError:
            return SourceRefusedError(f"{self.path} cannot be read: no permission. Ask its owner.")
        except OSError as fault:
            return SourceUnavailableError(f"{self.path} cannot be read: {reason(fault)}. Run the command again.")
        return BrokenError(f"{size} bytes that do not decode: {reason(error)}")
