"""The second band of a raster with a colour table: a quantity, no transparency.

GDAL takes it for transparency whenever it copies such a raster (3.10), whatever ALPHA says, and viewers would fade what
has little of it. The tag is put right in place, so that the layout of the file stays.
"""

from __future__ import annotations

import struct
from pathlib import Path

_EXTRA_SAMPLES, _SHORT, _UNSPECIFIED = 338, 3, 0


def make_opaque(path: Path) -> None:
    """Say in each directory of a TIFF that its extra band has no given meaning. ValueError for what is no TIFF."""
    with path.open("r+b") as file:

        def at(place: int, form: str) -> int:
            file.seek(place)
            form = order + form
            return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])

        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        if not order:
            raise ValueError(f"{path} is no TIFF")
        large = at(2, "H") == 43
        count, offset, entry = ("Q", "Q", 20) if large else ("H", "I", 12)
        directory = at(8 if large else 4, offset)
        while directory:
            entries = directory + struct.calcsize(order + count)
            end = entries + entry * at(directory, count)
            for place in range(entries, end, entry):
                if (at(place, "H"), at(place + 2, "H")) == (_EXTRA_SAMPLES, _SHORT):
                    file.seek(place + entry - struct.calcsize(order + offset))  # its value, which is short, is here
                    file.write(struct.pack(order + "H", _UNSPECIFIED))
            directory = at(end, offset)
