"""A batch of a long table -> its valid observations, in the units of the encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import UsageError, shown
from tessera_cli.imagery.sentinel2 import clear
from tessera_cli.series.assemble import Rows
from tessera_cli.series.coded import decoded, encoded
from tessera_cli.series.mapping import Columns
from tessera_cli.series.names import check_bands
from tessera_cli.series.units import check_optical, check_radar, dn_of, scaled_of

if TYPE_CHECKING:
    import pyarrow as pa

_TRUE, _FALSE = ("true", "t", "yes", "y", "1", "clear"), ("false", "f", "no", "n", "0", "cloudy")


@dataclass(eq=False)
class Observer:
    """Reads the observations of batches, and remembers which bands and values it has met."""

    columns: Columns
    """All columns named (`names.resolve`)."""
    origin: str
    met: dict[str, bool] = field(default_factory=dict)
    """Band of Sentinel-2 -> whether it has a value anywhere."""
    partly: int = 0
    """Rows of Sentinel-2 left out because they lack some of the bands."""
    largest: float = -np.inf
    """Of all bands of Sentinel-2, in the table's units."""
    radar_range: tuple[float, float] = (np.inf, -np.inf)

    def optical(self, batch: Mapping[str, pa.Array], samples: np.ndarray, days: np.ndarray) -> Rows | None:
        """Return the usable observations of Sentinel-2; samples and days int32 (R,).

        All bands have values, not all of them 0 (which is no data) unless the table says that it is clear.
        """
        names = self.columns.names
        bands = {band: self._numbers(batch, names[band]) for band in S2_BANDS if band in names}
        if not bands:
            return None
        for band, values in bands.items():
            self.met[band] = self.met.get(band, False) or bool(np.isfinite(values).any())
        for band, other in self.columns.substitute.items():
            if other in bands:
                own = bands.get(band)
                bands[band] = bands[other] if own is None else np.where(np.isnan(own), bands[other], own)
        values = np.stack([bands[band] for band in S2_BANDS], axis=1)
        there = np.isfinite(values)
        usable = there.all(axis=1)
        told = self._clear(batch)
        if told is None:
            usable &= values.any(axis=1)
        else:
            usable &= told
        incomplete = there.any(axis=1) & ~there.all(axis=1)
        self.partly += int((incomplete if told is None else incomplete & told).sum())
        values = values[usable]
        self.largest = max(self.largest, float(values.max(initial=-np.inf)))
        streams = np.zeros(len(values), np.uint8)
        return Rows(samples[usable], days[usable], streams, dn_of(values, self.columns))

    def radar(self, batch: Mapping[str, pa.Array], samples: np.ndarray, days: np.ndarray) -> Rows | None:
        """Return the usable observations of Sentinel-1: VV or VH has a value that is not below the scale."""
        names = self.columns.names
        if not any(name in names for name in S1_BANDS):
            return None
        absent = np.full(len(samples), np.nan)
        raw = np.stack([self._numbers(batch, names[n]) if n in names else absent for n in S1_BANDS], axis=1)
        finite = raw[np.isfinite(raw)]
        low, high = self.radar_range
        self.radar_range = (min(low, float(finite.min(initial=np.inf))), max(high, float(finite.max(initial=-np.inf))))
        scaled = scaled_of(raw, self.columns)
        usable: np.ndarray = np.asarray(scaled.any(axis=1))
        streams = self._streams(batch, usable)
        return Rows(samples[usable], days[usable], streams, scaled[usable])

    def check(self) -> None:
        """Raise UsageError, when all batches were read, where units or bands cannot be what is said."""
        if np.isfinite(self.largest):
            check_optical(self.largest, self.columns, self.origin)
        check_radar(*self.radar_range, self.columns, self.origin)
        there = [band for band, met in self.met.items() if met]
        if there:
            check_bands(there, self.columns, self.origin)

    def notes(self) -> tuple[str, ...]:
        """Return what was assumed or left out, a line each."""
        made = [
            f"{band} has no values: {other} stands for it"
            for band, other in self.columns.substitute.items()
            if not self.met.get(band) and self.met.get(other)
        ]
        if self.partly:
            made.append(f"{self.partly} rows lack some of the bands of Sentinel-2, and were left out as optical ones")
        named = any(name in self.columns.names for name in S1_BANDS)
        if named and "orbit" not in self.columns.names and self.radar_range[0] <= self.radar_range[1]:
            made.append(f"no column tells the orbit of the radar: all of it is taken for {self.columns.default_orbit}")
        return tuple(made)

    def _numbers(self, batch: Mapping[str, pa.Array], name: str) -> np.ndarray:
        values = numbers_of(batch[name], name, self.origin)
        for missing in self.columns.missing:
            values[values == missing] = np.nan
        return values

    def _clear(self, batch: Mapping[str, pa.Array]) -> np.ndarray | None:
        """Return whether each row is clear by the table's word, bool (R,); None if it has none."""
        names = self.columns.names
        if "clear" in names:
            return truths_of(batch[names["clear"]], names["clear"], self.origin)
        if "SCL" not in names:
            return None
        classes = np.nan_to_num(numbers_of(batch[names["SCL"]], names["SCL"], self.origin), nan=0)
        return clear(classes.clip(0, 255).astype(np.uint8))

    def _streams(self, batch: Mapping[str, pa.Array], usable: np.ndarray) -> np.ndarray:
        """Return the orbit stream of the usable rows, uint8: 0 ascending, 1 descending."""
        default = np.uint8(self.columns.default_orbit == "descending")
        if "orbit" not in self.columns.names:
            return np.full(int(usable.sum()), default)
        name = self.columns.names["orbit"]
        coded, made = encoded(batch[name]), []
        for value in coded.dictionary.to_pylist():
            letter = str(value).strip().lower()[:1]
            if letter not in ("a", "d"):
                raise UsageError(
                    f"{self.origin}: column {name} holds {shown(value)}. Write ascending or descending as the orbit."
                )
            made.append(letter == "d")
        numbers = coded.indices.fill_null(len(made)).to_numpy(zero_copy_only=False)
        return np.array([*made, default], np.uint8)[numbers][usable]


def numbers_of(values: pa.Array, name: str, origin: str) -> np.ndarray:
    """Return a column as float64 (R,), writable, NaN where a cell has no number."""
    import pyarrow as pa

    plain = decoded(values)
    try:
        found = plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{origin}: column {name} holds what is no number ({str(error)[:80]}). Correct it.") from error
    return np.array(found, np.float64)


def truths_of(values: pa.Array, name: str, origin: str) -> np.ndarray:
    """Return a column as bool (R,): numbers other than 0 are true, so are words such as true; empty cells are not."""
    import pyarrow as pa

    plain = decoded(values)
    if pa.types.is_boolean(plain.type):
        return np.asarray(plain.fill_null(False).to_numpy(zero_copy_only=False))
    if not (pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type)):
        return np.asarray(np.nan_to_num(numbers_of(plain, name, origin)) != 0)
    coded = plain.dictionary_encode()
    table = []
    for text in coded.dictionary.to_pylist():
        word = text.strip().lower()
        if word not in _TRUE + _FALSE:
            raise UsageError(f"{origin}: column {name} holds {shown(text)}. Write true or false.")
        table.append(word in _TRUE)
    numbers = coded.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
    return np.array([*table, False])[numbers]
