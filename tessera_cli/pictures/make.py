"""Make the preview of a folder: a picture per window, and one page."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import NothingToEmbedError, UsageError, counted
from tessera_cli.extent.window import Window
from tessera_cli.files import check_space, explained, sync
from tessera_cli.outputs.beside import remove_beside
from tessera_cli.outputs.tags import derived_tags, window_tags
from tessera_cli.parts import part_of
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import Colours, sample_pixels
from tessera_cli.pictures.page import Shown, page
from tessera_cli.pictures.picture import png, read_counts, read_picture, write_picture

logger = logging.getLogger(__name__)

PAGE = "preview.html"
UNDATED = "undated"
"""The name of the window of tiles that do not say theirs."""
MOST_BYTES = 15_000_000
"""Size of the page; a larger one is made once more, with pixels twice as wide."""
CACHE = 128 * 2**20
"""Bytes of GDAL's cache, where it has none yet; GDAL itself takes 5 % of the memory."""


@dataclass(frozen=True)
class Preview:
    """What `preview` has written."""

    page: Path
    """The HTML page."""
    pictures: Mapping[str, Path]
    """Name of the window -> its GeoTIFF; the PNG beside it has the same name."""
    crs: str | None
    """The coordinate system of the pictures; None for tiles that have no place on the map."""
    explained: tuple[float, ...]
    """Share of the variance that red, green and blue show."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "type": "preview",
            "schema": 1,
            "page": str(self.page),
            "pictures": {window: str(path) for window, path in self.pictures.items()},
            "pngs": {window: str(path.with_suffix(".png")) for window, path in self.pictures.items()},
            "crs": self.crs,
            "explained": [round(share, 4) for share in self.explained],
        }


def make_preview(
    folder: EmbeddingFolder, out: Path, *, start: Callable[[int], object], advance: Callable[[int], object]
) -> Preview:
    """Write pictures and page to the folder `out`, in place of those that are there.

    Memory holds the folder's records, a sample of pixels, a block of one tile and the page. Every tile is read once for
    its picture, and some once more for the sample. `start` and `advance` are told of pixels, in all and done.
    """
    tiles = _placed(folder.tiles)
    start(sum(tile.record.tile.shape[0] * tile.record.tile.shape[1] for tile in tiles))
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        sample = sample_pixels(tiles)
        if not len(sample):
            raise NothingToEmbedError(f"{folder.path}: no pixel holds an embedding, so there is nothing to show.")
        colours, windows = Colours.of(sample), _by_window(tiles)
        canvas = Canvas.of(tiles, len(windows))
        identity, note = folder.first.identity, folder.first.note
        check_space(out, _bytes(windows))  # GDAL says of a full disk what nobody can read
        with _prepared(out) as part:
            for window, of_window in windows.items():
                path = part / f"{_stem(window)}.tif"
                tags = {**derived_tags(identity, note), **window_tags(window), "TESSERA_CONTENT": "preview"}
                write_picture(path, canvas, of_window, colours, tags, advance)
                path.with_suffix(".png").write_bytes(png(read_picture(path, canvas, canvas.png)))
            for factor in (canvas.page, 2 * canvas.page):
                made = page(folder, tiles, canvas, colours, factor, _shown(part, windows, canvas, factor))
                if len(made) <= MOST_BYTES:
                    break
            (part / PAGE).write_bytes(made)
            _publish(part, out)
    return Preview(out / PAGE, {_name(w): out / f"{_stem(w)}.tif" for w in windows}, canvas.crs, colours.explained)


def _bytes(windows: Mapping[Window | None, Sequence[StoredTile]]) -> int:
    """Return what pictures and page take at most, about: three bytes a pixel, overviews, one plain copy at a time."""
    sizes = [3 * sum(tile.record.pixels for tile in tiles) for tiles in windows.values()]
    return round(sum(sizes) * 4 / 3) + max(sizes)


def _shown(
    part: Path, windows: Mapping[Window | None, Sequence[StoredTile]], canvas: Canvas, factor: int
) -> Iterator[Shown]:
    """Yield what the page shows of each window, with pixels `factor` times as wide as those of the pictures."""
    for window, tiles in windows.items():
        picture = png(read_picture(part / f"{_stem(window)}.tif", canvas, factor))
        yield Shown(_name(window), window, picture, read_counts(canvas.coarser(factor), tiles))


def _placed(tiles: Sequence[StoredTile]) -> Sequence[StoredTile]:
    """Return the tiles that have a place on the map, or all if none has."""
    placed = [tile for tile in tiles if tile.record.tile.transform is not None]
    if placed and len(placed) < len(tiles):
        logger.warning("left out without a place on the map: %s", counted(len(tiles) - len(placed), "tile"))
    return placed or tiles


def _by_window(tiles: Sequence[StoredTile]) -> dict[Window | None, list[StoredTile]]:
    """Return the tiles of each window, in order of time, those without one last."""
    found: dict[Window | None, list[StoredTile]] = {}
    for tile in tiles:
        found.setdefault(tile.record.window, []).append(tile)
    dated = sorted(window for window in found if window is not None)
    return {window: found[window] for window in [*dated, *([None] if None in found else [])]}


def _name(window: Window | None) -> str:
    return UNDATED if window is None else window.name


def _stem(window: Window | None) -> str:
    return f"preview_{_name(window)}"


@contextmanager
def _prepared(out: Path) -> Iterator[Path]:
    """Yield a folder within `out` to make the files in; it is removed in the end."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder. Choose another --out.")
    part, new = part_of(out / "preview"), not out.exists()
    with explained(out):
        part.mkdir(parents=True)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if new:
                with suppress(OSError):  # it holds the preview
                    out.rmdir()


def _publish(part: Path, out: Path) -> None:
    """Put the files in place, the page last, and remove the pictures of an earlier preview that are not among them."""
    sync(part)
    files = sorted(part.iterdir(), key=lambda path: path.name == PAGE)
    kept = {file.name for file in files}
    for old in [path for ending in ("tif", "png") for path in out.glob(f"preview_*.{ending}") if _is_ours(path)]:
        if old.suffix == ".tif":
            remove_beside(old)
        if old.name not in kept:
            old.unlink()
    for file in files:
        file.replace(out / file.name)


def _is_ours(path: Path) -> bool:
    """Return whether a file has the name of a picture of a window."""
    name = path.stem.removeprefix("preview_")
    try:
        return name == UNDATED or bool(Window.from_name(name))
    except ValueError:
        return False
