"""Files on disk and on servers, read alike: what they are, and the pixels of a window.

GDAL decodes, but never asks a server: it would hide why a question failed, remember failures and count no retries. Of a
remote file the header and the blocks under the window are fetched here and laid before GDAL as a sparse file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from tessera_cli.errors import AbsentError, SourceRefusedError, SourceUnavailableError, reason
from tessera_cli.imagery.cache import Cache
from tessera_cli.imagery.needed import parts
from tessera_cli.imagery.tiff import Blocks, find_blocks, is_whole
from tessera_cli.net import Client

HEADER_BYTES, BLOCK_BYTES = 128 * 2**20, 256 * 2**20
"""Kept of remote files, for all tiles of a run."""
FIRST = 1 << 14
"""Bytes of a header that are fetched at first: nearly always all of it."""
GAP = 1 << 15
"""Bytes between two blocks that are fetched rather than asked around."""
GUARD = 4
"""Bytes around a block where GDAL's COGs repeat its length."""


class BrokenError(Exception):
    """The bytes are all there and do not decode; the text says what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of its first band."""

    shape: tuple[int, int]
    transform: Affine
    crs: CRS
    dtype: str
    nodata: float | None
    tags: Mapping[str, str]

    @classmethod
    def of(cls, dataset: DatasetReader) -> Header:
        if dataset.crs is None or dataset.transform.is_identity:
            raise BrokenError("it has no georeference")
        shape, nodata = (dataset.height, dataset.width), dataset.nodatavals[0]
        return cls(shape, dataset.transform, dataset.crs, dataset.dtypes[0], nodata, dataset.tags())


class File(Protocol):
    """A raster file."""

    def header(self) -> Header: ...

    def pixels(self, window: Window, near: np.ndarray | None = None) -> np.ndarray:
        """(H, W) of the first band, of a window within the image.

        `near`: int (N, 4), the only pixels that matter, as rectangles: first row, end row, first column, end column.
        Blocks that hold none of them are not read, and 0 in the answer; None: all matter.
        """


class Files:
    """Opens files by href; one for all threads of a run."""

    def __init__(self, client: Client, *, header_bytes: int = HEADER_BYTES, block_bytes: int = BLOCK_BYTES) -> None:
        self.client = client
        self._remote: Cache[RemoteFile] = Cache(header_bytes)
        self._blocks: Cache[bytes] = Cache(block_bytes)

    def open(self, href: str, *, anew: bool = False) -> File:
        """`anew`: nothing that was fetched before is used. Errors are those of `Client`, and BrokenError."""
        scheme = urlsplit(href).scheme
        if scheme in ("http", "https"):
            file = None if anew else self._remote.get(href)
            if file is None:
                file = RemoteFile.fetch(href, self.client, None if anew else self._blocks)
                self._remote.put(href, file, file.nbytes)
            return file
        if scheme not in ("", "file") or href.startswith("/vsi"):
            raise SourceRefusedError(f"{href} cannot be read: only http, https and local files are supported.")
        return LocalFile(Path(unquote(urlsplit(href).path) if scheme else href))


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
            return _read(dataset, window, wanted)

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
                for n in _numbers(blocks, wanted) if blocks.deflated else []:
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


@dataclass(frozen=True, eq=False)
class RemoteFile:
    """A GeoTIFF on a server, of which the header has been fetched."""

    href: str
    client: Client
    size: int
    pieces: Sequence[tuple[int, bytes]]
    """Start and bytes of what has been fetched: the header."""
    blocks: Blocks
    described: Header
    cache: Cache[bytes] | None = field(repr=False, default=None)
    """Of blocks, by href and number."""

    @classmethod
    def fetch(cls, href: str, client: Client, cache: Cache[bytes] | None) -> RemoteFile:
        """One question, or a few where the header is long or lies at the end of the file."""
        first = client.get_range(href, 0, FIRST)
        pieces = [(0, first.data)]

        def at(start: int, length: int) -> bytes:
            if start + length > first.total:
                raise EOFError(f"it ends after {first.total} bytes")
            for begin, piece in pieces:
                if begin <= start and start + length <= begin + len(piece):
                    return piece[start - begin : start - begin + length]
            more = max(length, min(FIRST, first.total - start))
            pieces.append((start, client.get_range(href, start, more, total=first.total).data))
            return pieces[-1][1][:length]

        try:
            blocks = find_blocks(at)
        except (ValueError, EOFError) as error:
            raise BrokenError(reason(error)) from error
        with _sparse(first.total, pieces) as dataset:
            described = Header.of(dataset)
        if described.shape != (blocks.height, blocks.width):
            raise BrokenError(f"it has {blocks.height} x {blocks.width} pixels, or {described.shape}")
        return cls(href, client, first.total, pieces, blocks, described, cache)

    @property
    def nbytes(self) -> int:
        return sum(len(piece) for _, piece in self.pieces) + 4096

    def header(self) -> Header:
        return self.described

    def pixels(self, window: Window, near: np.ndarray | None = None) -> np.ndarray:
        block = (self.blocks.block_height, self.blocks.block_width)
        wanted = [window] if near is None else list(parts(near, window, block))
        numbers = _numbers(self.blocks, wanted)
        held = {n: None if self.cache is None else self.cache.get((self.href, n)) for n in numbers}
        held |= self._fetched([n for n in numbers if held[n] is None])
        known = [(self._start(n), data) for n, data in held.items() if data is not None]
        with _sparse(self.size, [*self.pieces, *known]) as dataset:
            return _read(dataset, window, wanted)

    def _fetched(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Blocks by number; neighbours in the file come in one answer."""
        spans: list[list[int]] = []
        for n in sorted(numbers, key=self._start):
            if self._end(n) > self.size:
                raise BrokenError(f"it ends after {self.size} bytes, before the end of block {n}")
            if spans and self._start(n) - self._end(spans[-1][-1]) <= GAP:
                spans[-1].append(n)
            else:
                spans.append([n])
        blocks = {}
        for span in spans:
            start = self._start(span[0])
            data = self._bytes(start, max(map(self._end, span)))
            for n in span:
                blocks[n] = data[self._start(n) - start : self._end(n) - start]
                begin = int(self.blocks.starts[n]) - start
                if self.blocks.deflated and not is_whole(data[begin : begin + int(self.blocks.lengths[n])]):
                    raise BrokenError(f"its bytes do not decode: block {n} is damaged")
                if self.cache is not None:
                    self.cache.put((self.href, n), blocks[n], len(blocks[n]))
        return blocks

    def _bytes(self, start: int, end: int) -> bytes:
        """Those of the file, without asking again for what came with the header."""
        known = self.pieces[0][1][start:end]
        if len(known) == end - start:
            return known
        first = start + len(known)
        return known + self.client.get_range(self.href, first, end - first, total=self.size).data

    def _start(self, number: int) -> int:
        return max(0, int(self.blocks.starts[number]) - GUARD)

    def _end(self, number: int) -> int:
        end = int(self.blocks.starts[number]) + int(self.blocks.lengths[number])
        return end if end > self.size else min(end + GUARD, self.size)


def _numbers(blocks: Blocks, wanted: Sequence[Window]) -> list[int]:
    """Of the blocks under the wanted parts of an image that were ever written."""
    return [n for part in wanted for n in blocks.under(*part.toranges()) if blocks.lengths[n]]


def _read(dataset: DatasetReader, window: Window, wanted: Sequence[Window]) -> np.ndarray:
    """The window's pixels in the wanted parts of it, 0 elsewhere."""
    (top, bottom), (left, right) = window.toranges()
    pixels = np.zeros((bottom - top, right - left), dataset.dtypes[0])
    for part in wanted:
        (first, last), (begin, end) = part.toranges()
        dataset.read(1, window=part, out=pixels[first - top : last - top, begin - left : end - left])
    return pixels


@contextmanager
def _sparse(size: int, pieces: Sequence[tuple[int, bytes]]) -> Iterator[DatasetReader]:
    """A dataset over a file of which only these pieces are known. Only what they hold may be read."""
    with ExitStack() as stack:
        regions = []
        for start, piece in pieces:
            memory = stack.enter_context(MemoryFile(piece))
            regions.append(
                f"<SubfileRegion><Filename>{memory.name}</Filename><DestinationOffset>{start}</DestinationOffset>"
                f"<SourceOffset>0</SourceOffset><RegionLength>{len(piece)}</RegionLength></SubfileRegion>"
            )
        text = f"<VSISparseFile><Length>{size}</Length>{''.join(regions)}</VSISparseFile>"
        index = stack.enter_context(MemoryFile(text.encode()))
        try:
            yield stack.enter_context(rasterio.open(f"/vsisparse/{index.name}", driver="GTiff", sharing=False))
        except RasterioError as error:
            raise BrokenError(f"its bytes do not decode: {reason(error)}") from error
