"""Files on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tessera_cli.errors import AbsentError, SourceRefusedError, SourceUnavailableError, reason
from tessera_cli.imagery.file import BrokenError, Header, numbers_of, read_parts
from tessera_cli.imagery.needed import parts
from tessera_cli.imagery.tiff import find_blocks, is_whole


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: Path

    def header(self) -> Header:
        with self._opened() as dataset:
            return Header.of(dataset)

    def pixels(self, window: Window, near: np.ndarray | None = None) -> np.ndarray:
        with self._opened() as dataset:
            wanted = [window] if near is None else list(parts(near, window, dataset.block_shapes[0]))
            self._check(wanted)
            return read_parts(dataset, window, wanted)

    def _check(self, wanted: Sequence[Window]) -> None:
        """BrokenError if a block that will be read is damaged, as far as it has a checksum."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:

            def at(start: int, length: int) -> bytes:
                if start + length > size:
                    raise EOFError(f"it ends after {size} bytes")
                file.seek(start)
                return file.read(length)

            try:
                blocks = find_blocks(at)
                for n in numbers_of(blocks, wanted) if blocks.deflated else []:
                    if not is_whole(at(int(blocks.starts[n]), int(blocks.lengths[n]))):
                        raise BrokenError(f"its bytes do not decode: block {n} is damaged")
            except (ValueError, EOFError):  # another format, or what GDAL will stumble over
                return

    @contextmanager
    def _opened(self) -> Iterator[DatasetReader]:
        try:
            with rasterio.open(self.path, sharing=False) as dataset:
                yield dataset
        except (RasterioError, OSError) as error:
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
