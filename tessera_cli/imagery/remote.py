"""GeoTIFFs on servers, of which no more than is needed is fetched.

GDAL never asks a server: it would hide why a question failed, remember failures and count no retries. The header and
the blocks under the wanted pixels are fetched here; what `decode.py` does not know is laid before GDAL as a sparse file
in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from tessera_cli.errors import reason
from tessera_cli.imagery.blocks import block_windows
from tessera_cli.imagery.cache import Cache
from tessera_cli.imagery.decode import check, decode
from tessera_cli.imagery.file import BrokenError, Header, Headers, numbers_of, read_parts
from tessera_cli.imagery.tiff import FIRST, Blocks, find_blocks
from tessera_cli.net import Client

GAP = 1 << 15
"""Bytes between two blocks that are fetched rather than asked around."""
GUARD = 4
"""Bytes around a block where GDAL's COGs repeat its length."""


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
    def fetch(cls, href: str, client: Client, headers: Headers, cache: Cache[bytes] | None) -> RemoteFile:
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
        described = headers.of(blocks.description, partial(_sparse, first.total, pieces))
        if described.shape != (blocks.height, blocks.width):
            raise BrokenError(f"it has {blocks.height} x {blocks.width} pixels, or {described.shape}")
        return cls(href, client, first.total, pieces, blocks, described, cache)

    @property
    def nbytes(self) -> int:
        return sum(len(piece) for _, piece in self.pieces) + 4096

    def header(self) -> Header:
        return self.described

    def pixels(self, window: Window, pixel_windows: np.ndarray | None = None) -> np.ndarray:
        blocks = self.blocks
        wanted = [window] if pixel_windows is None else list(block_windows(pixel_windows, window, blocks.block))
        numbers = numbers_of(blocks, wanted)
        held = {n: None if self.cache is None else self.cache.get((self.href, n)) for n in numbers}
        fetched = self._fetched([n for n in numbers if held[n] is None])
        known = {n: data for n, data in (held | fetched).items() if data is not None}
        pixels = None
        if blocks.deflated:
            streams = {n: self._stream(n, data) for n, data in known.items()}
            pixels = decode(blocks, streams, window, wanted)
            if pixels is None:
                check({n: streams[n] for n in fetched})
        if self.cache is not None:
            for n, data in fetched.items():
                self.cache.put((self.href, n), data, len(data))
        if pixels is not None:
            return pixels
        with _sparse(self.size, [*self.pieces, *((self._start(n), data) for n, data in known.items())]) as dataset:
            return read_parts(dataset, window, wanted)

    def _fetched(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Blocks by number, with what stands around them; neighbours in the file come in one answer."""
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
        return blocks

    def _stream(self, number: int, data: bytes) -> bytes:
        """A block without what stands around it."""
        begin = int(self.blocks.starts[number]) - self._start(number)
        return data[begin : begin + int(self.blocks.lengths[number])]

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
        except (RasterioError, UnicodeDecodeError) as error:
            raise BrokenError(f"its bytes do not decode: {reason(error)}") from error
