"""The legend of a map of classes: codes, names and colours."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from tessera_cli.errors import UsageError

MOST = 65535
_FIRST = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee9944", "#777777", "#44aa99", "#882255")
"""Told apart by most eyes (after Paul Tol); further ones go around the circle of hues."""
_GOLDEN = 0.618033988749895


@dataclass(frozen=True)
class Legend:
    """Classes in the order of their codes, which begin with 1; 0 is no class."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) > MOST:
            raise UsageError(f"{len(self.names):,} classes do not fit into a map. Choose a column with fewer.")

    @property
    def dtype(self) -> str:
        return "uint8" if len(self.names) <= 255 else "uint16"

    @property
    def colours(self) -> dict[int, tuple[int, int, int, int]]:
        """Return the colour of each code, red, green, blue and opacity, 0..255; 0 is transparent."""
        return {0: (0, 0, 0, 0), **{code: _colour(code - 1) for code in range(1, len(self.names) + 1)}}

    def codes(self, classes: np.ndarray) -> np.ndarray:
        """Return codes of classes, int (N,) from 0."""
        return (classes + 1).astype(self.dtype)

    def to_list(self) -> list[dict[str, int | str]]:
        """Return the classes for a record."""
        colours = self.colours
        return [
            {"code": code, "name": name, "colour": "#" + bytes(colours[code][:3]).hex()}
            for code, name in enumerate(self.names, start=1)
        ]

    def to_xml(self) -> bytes:
        """Return what GDAL reads beside a raster: the names of the values of its first band."""
        names = "".join(f"   <Category>{escape(name)}</Category>\n" for name in ("", *self.names))
        text = f'<PAMDataset>\n <PAMRasterBand band="1">\n  <CategoryNames>\n{names}  </CategoryNames>\n'
        return (text + " </PAMRasterBand>\n</PAMDataset>\n").encode()


def _colour(number: int) -> tuple[int, int, int, int]:
    if number < len(_FIRST):
        red, green, blue = bytes.fromhex(_FIRST[number][1:])
        return red, green, blue, 255
    lightness = (0.45, 0.6, 0.35)[number % 3]
    parts = colorsys.hls_to_rgb(number * _GOLDEN % 1, lightness, 0.6)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue, 255
