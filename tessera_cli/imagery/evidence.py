"""What items say of the bytes of their files (STAC's file extension)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import BrokenError

_DIGESTS = {
    r"(?:d50110)?([0-9a-f]{32})": "md5",  # Planetary Computer's are bare
    r"1114([0-9a-f]{40})": "sha1",
    r"1220([0-9a-f]{64})": "sha256",
    r"1340([0-9a-f]{128})": "sha512",
}
"""Multihash in hex -> name of the hash."""


def other_size(asset: Mapping[str, Any], file: GeoTiffFile) -> int | None:
    """Return the size that the asset says, if the file has another: as copies that were compressed anew have."""
    size = asset.get("file:size")
    return size if isinstance(size, int) and file.size not in (None, size) else None


def check_digest(asset: Mapping[str, Any], file: GeoTiffFile) -> None:
    """Raise BrokenError if the file, read as a whole, has the size that the asset says and another checksum."""
    said, whole = asset.get("file:checksum"), file.whole
    if whole is None or not isinstance(said, str) or asset.get("file:size") != len(whole):
        return
    for pattern, name in _DIGESTS.items():
        found = re.fullmatch(pattern, said.strip().lower())
        if found and hashlib.new(name, whole, usedforsecurity=False).hexdigest() != found[1]:
            raise BrokenError("its bytes have not the checksum that its item tells (file:checksum)")
