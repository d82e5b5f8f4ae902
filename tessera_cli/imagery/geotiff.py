"""GeoTIFFs on disk and on servers, of which no more is read than the header and the blocks under wanted pixels.

GDAL opens nothing by its name but is given bytes: of servers it would hide why a request failed, remember failures and
count no retries, and it would follow what a file names. Blocks that `decode.py` does not know are laid before it as a
sparse file in memory, local files that are no TIFFs whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window as PixelWindow

from tessera_cli.errors import SourceUnavailableError, reason
from tessera_cli.extent.raster import open_raster
from tessera_cli.imagery.blocks import block_windows
from tessera_cli.imagery.byte_sources import ByteCache, ByteSource, LocalBytes
from tessera_cli.imagery.decode import check, decode
from tessera_cli.imagery.header import BrokenError, Header
from tessera_cli.imagery.tiff import Blocks, NotTiffError, find_blocks
from tessera_cli.net import Version
from tessera_cli.net.address import redact

FIRST_READ = 1 << 14
"""Bytes of a file that are read at first: nearly always all of its header."""
GAP = 1 << 15
"""Bytes between two blocks that are read along rather than left out."""
PAGE = 4096
"""libtiff reads lists of blocks from such a multiple on, and would find zeros before a piece that begins later."""
UNBOUNDED = 1 << 48
"""In place of the size of a file of which the server tells none."""
WHOLE = 1 << 18
"""Bytes of files that are read as a whole where their server tells a checksum and their blocks have none."""
MOST_PIECES = 256
"""Ranges in which a header may lie."""
MOST_PIXEL_BYTES, MOST_BLOCKS = 1 << 29, 1 << 18
"""What a single read may take: a whole granule of floats at 10 m, and blocks of 45 x 45 pixels of it."""
GUARD = 4
"""Bytes around a block where GDAL's COGs repeat its length."""


@dataclass(frozen=True, eq=False)
class GeoTiffFile:
    """A raster file whose header has been read."""

    source: ByteSource
    version: Version
    """To which all bytes belong. Without a size only reading shows where the file ends."""
    pieces: Sequence[tuple[int, bytes]] = field(repr=False)
    """Start and bytes of what has been read: the header."""
    blocks: Blocks | None
    """None of a local file of another format, which GDAL is given whole."""
    header: Header
    cache: ByteCache[bytes] = field(repr=False)
    """Blocks by name and version of the file, first byte, and whether it is sure that the file holds them."""
    agreed: bool
    """Whether what has no checksum was asked for twice."""

    @classmethod
    def open(cls, source: ByteSource, headers: ByteCache[tuple[bytes, Header]], cache: ByteCache[bytes]) -> GeoTiffFile:
        """Read the header: in one request, or a few where it is long or lies at the end of the file.

        `headers`: what GDAL made of descriptions. Most files of a granule's year describe themselves in the same bytes,
        and opening a file with GDAL takes as long as reading half a million pixels. Errors are those of the source, and
        BrokenError.
        """
        agreed, said = source.doubted, source.first(FIRST_READ)
        first, version = said.data, said.version
        size = version.size
        end = UNBOUNDED if size is None else size
        pieces = [(0, first)]

        def fetch(start: int, length: int) -> bytes:
            if start + length > end:
                raise EOFError(f"it ends after {end} bytes")
            for begin, piece in pieces:
                if begin <= start and start + length <= begin + len(piece):
                    return piece[start - begin : start - begin + length]
            if len(pieces) >= MOST_PIECES:
                raise ValueError(f"its header lies in more than {MOST_PIECES} places")
            page = start - start % PAGE
            wanted = page, min(end, max(start + length, page + FIRST_READ)) - page
            (more,) = source.read([wanted], version, checked=True)  # the whole header is compared below
            if len(more) < start + length - page:
                raise EOFError(f"it ends after {page + len(more)} bytes")
            pieces.append((page, more))
            return more[start - page : start - page + length]

        blocks = None
        try:
            blocks = find_blocks(fetch)
        except NotTiffError as error:
            if not isinstance(source, LocalBytes):
                raise BrokenError(reason(error)) from error
        except (ValueError, EOFError) as error:
            raise BrokenError(reason(error)) from error
        if blocks is not None and not blocks.deflated:
            if (said.md5 or said.etag_md5) and len(first) < end <= WHOLE:
                pieces = [(0, first + source.read([(len(first), end - len(first))], version)[0])]
            if agreed and source.read([(at, len(piece)) for at, piece in pieces], version) != [p for _, p in pieces]:
                raise SourceUnavailableError(
                    f"{redact(source.name)} is answered with other bytes each time. Try again later."
                )
        if len(pieces[0][1]) == end and (wrong := source.contradiction(pieces[0][1], said)):
            raise BrokenError(f"its bytes have not the checksum that its server tells ({wrong})")
        description = b"" if blocks is None else blocks.description
        known = headers.get(description) if description else None
        if known is None:
            with _opened(source.name, size, None if blocks is None else pieces) as dataset:
                known = description, Header.of(dataset)
            if description:
                headers.put(description, known)
        header = known[1]
        if blocks is not None and header.shape != (blocks.height, blocks.width):
            raise BrokenError(f"it has {blocks.height} x {blocks.width} pixels, or {header.shape}")
        return cls(source, version, pieces, blocks, header, cache, agreed)

    @property
    def size(self) -> int | None:
        """Return the size of the file in bytes; None if the server does not tell it."""
        return self.version.size

    @property
    def whole(self) -> bytes | None:
        """Return all bytes of the file, if it is so small that they were read with the header; else None."""
        return self.pieces[0][1] if len(self.pieces[0][1]) == self.size else None

    @property
    def checked(self) -> bool:
        """Return whether its blocks have checksums."""
        return self.blocks is not None and self.blocks.deflated

    @property
    def mask_beside(self) -> str | None:
        """Return the name of the file beside a local one that holds its mask and is not read; None: none does."""
        name = f"{self.source.name}.msk"
        return name if isinstance(self.source, LocalBytes) and Path(name).exists() else None

    @property
    def nbytes(self) -> int:
        """Return the memory that the header takes in bytes."""
        return sum(len(piece) for _, piece in self.pieces) + 4096

    def pixels(self, window: PixelWindow, pixel_windows: np.ndarray | None = None) -> np.ndarray:
        """Return (H, W) of the first band in a window within the image.

        `pixel_windows`: int (N, 4), the only pixels that matter, as rectangles: first row, end row, first column, end
        column. Blocks that hold none of them are not read, and 0 in the result; None: all matter.
        """
        return self._pixels(self.blocks, window, pixel_windows)

    def mask(self, window: PixelWindow, pixel_windows: np.ndarray | None = None) -> np.ndarray | None:
        """Return bool (H, W), false where the mask in the file says that there are no data; None if it has none."""
        if self.blocks is not None:
            mask = self.blocks.mask
            return None if mask is None else self._pixels(mask, window, pixel_windows) != 0
        with _opened(self.source.name, self.size, None) as dataset:
            flags = dataset.mask_flag_enums[0]
            return dataset.read_masks(1, window=window) != 0 if MaskFlags.per_dataset in flags else None

    def _pixels(self, blocks: Blocks | None, window: PixelWindow, pixel_windows: np.ndarray | None) -> np.ndarray:
        """Return (H, W) of the image or the mask that has these blocks."""
        needed = window.height * window.width * np.dtype(self.header.dtype).itemsize
        if needed > MOST_PIXEL_BYTES:
            raise BrokenError(f"its pixels are too small: {needed / 1e9:.1f} GB of them lie there")
        if blocks is None:
            with _opened(self.source.name, self.size, None) as dataset:
                return _read(dataset, window, block_windows(pixel_windows, window, dataset.block_shapes[0]))
        wanted = list(block_windows(pixel_windows, window, blocks.block))
        covered = sum(-(-part.height // blocks.block_height) * -(-part.width // blocks.block_width) for part in wanted)
        if covered > MOST_BLOCKS:
            raise BrokenError(f"its blocks are too small: {covered} of them lie there")
        spans = {n: self._span(blocks, n) for n in blocks.written(wanted)}
        sure = blocks.deflated or self.agreed
        keys = {n: (self.source.name, self.version, int(blocks.starts[n]), sure) for n in spans}
        known = {n: data for n in spans if (data := self.cache.get(keys[n])) is not None}
        fetched = self._fetch({n: span for n, span in spans.items() if n not in known}, blocks.deflated)
        known |= fetched
        pixels = None
        if blocks.deflated:
            begins = {n: int(blocks.starts[n]) - spans[n][0] for n in known}
            streams = {n: data[begins[n] : begins[n] + int(blocks.lengths[n])] for n, data in known.items()}
            pixels = decode(blocks, streams, window, wanted)
            if pixels is None:
                check(blocks, {n: streams[n] for n in fetched})
        for n, data in fetched.items():
            self.cache.put(keys[n], data)
        if pixels is not None:
            return pixels
        (at, pointer), (_, head) = blocks.pointer, self.pieces[0]
        head = head[:at] + pointer + head[at + len(pointer) :]
        pieces = [(0, head), *self.pieces[1:], *((spans[n][0], data) for n, data in known.items())]
        with _opened(self.source.name, self.size, pieces) as dataset:
            return _read(dataset, window, wanted)

    def _span(self, blocks: Blocks, number: int) -> tuple[int, int]:
        """Return first and end byte of a block with its guards."""
        length, due = int(blocks.lengths[number]), blocks.nbytes(number)
        start, end = int(blocks.starts[number]), int(blocks.starts[number]) + length
        size = UNBOUNDED if self.size is None else self.size
        if end > size:
            raise BrokenError(f"it ends after {size} bytes, before the end of block {number}")
        if length > 2 * blocks.most_bytes + PAGE or (blocks.plain and length < due):
            raise BrokenError(f"block {number} claims {length} bytes where {due} are needed")
        return max(0, start - GUARD), min(end + GUARD, size)

    def _fetch(self, spans: Mapping[int, tuple[int, int]], checked: bool) -> dict[int, bytes]:
        """Return the bytes of spans by number. Neighbours share a range; bytes of the header are not read again.

        `checked`: whether the blocks have checksums.
        """
        groups: list[list[int]] = []
        for n in sorted(spans, key=lambda n: spans[n]):
            if groups and spans[n][0] - spans[groups[-1][-1]][1] <= GAP:
                groups[-1].append(n)
            else:
                groups.append([n])
        bounds = [(spans[group[0]][0], max(spans[n][1] for n in group)) for group in groups]
        head = self.pieces[0][1]
        missing = [(start, end - start) for first, end in bounds if (start := max(first, len(head))) < end]
        rest = iter(self.source.read(missing, self.version, checked=checked) if missing else [])
        found: dict[int, bytes] = {}
        for group, (start, end) in zip(groups, bounds, strict=True):
            data = head[start:end] + (next(rest) if end > len(head) else b"")
            found |= {n: data[spans[n][0] - start : spans[n][1] - start] for n in group}
            if self.size is None and start + len(data) < end - GUARD:  # behind the last block may lie nothing
                raise BrokenError(f"it ends after {start + len(data)} bytes, before the end of block {group[-1]}")
        return found


@contextmanager
def _opened(name: str, size: int | None, pieces: Sequence[tuple[int, bytes]] | None) -> Iterator[DatasetReader]:
    """Open a file of which only these pieces are known with GDAL. Only what they hold may be read.

    `pieces`: None of a file on this machine that is no TIFF, and known as a whole.
    """
    with ExitStack() as stack:
        try:
            if pieces is None:
                yield stack.enter_context(open_raster(Path(name)))
            else:
                path = _sparse(UNBOUNDED if size is None else size, pieces, stack)
                yield stack.enter_context(rasterio.open(path, driver="GTiff", sharing=False))
        except (RasterioError, OSError, UnicodeDecodeError) as error:
            if pieces is None and size is not None:  # the disk's error, if it was that
                LocalBytes(name).probe(size)
            raise BrokenError(f"{'its' if size is None else size} bytes that do not decode: {reason(error)}") from error


def _sparse(size: int, pieces: Sequence[tuple[int, bytes]], stack: ExitStack) -> str:
    """Return the name of a file in GDAL's memory that holds the pieces while the stack is open."""
    regions = []
    for start, piece in pieces:
        memory = stack.enter_context(MemoryFile(piece))
        regions.append(
            f"<SubfileRegion><Filename>{memory.name}</Filename><DestinationOffset>{start}</DestinationOffset>"
            f"<SourceOffset>0</SourceOffset><RegionLength>{len(piece)}</RegionLength></SubfileRegion>"
        )
    text = f"<VSISparseFile><Length>{size}</Length>{''.join(regions)}</VSISparseFile>"
    return f"/vsisparse/{stack.enter_context(MemoryFile(text.encode())).name}"


def _read(dataset: DatasetReader, window: PixelWindow, wanted: Iterable[PixelWindow]) -> np.ndarray:
    """Return (H, W) of the window in the file's dtype, 0 outside the wanted parts."""
    (top, bottom), (left, right) = window.toranges()
    pixels = np.zeros((bottom - top, right - left), dataset.dtypes[0])
    for part in wanted:
        (first, last), (begin, end) = part.toranges()
        dataset.read(1, window=part, out=pixels[first - top : last - top, begin - left : end - left])
    return pixels
