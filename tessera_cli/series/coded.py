"""Columns of tables as distinct values and their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def decoded(values: pa.Array) -> pa.Array:
    """Return a column of plain values, also where the file holds categories."""
    import pyarrow as pa

    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def encoded(values: pa.Array) -> pa.Array:
    """Return the distinct values in order of appearance, and their numbers; categories that no row has are left out."""
    return decoded(values).dictionary_encode()
