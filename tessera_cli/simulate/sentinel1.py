"""Sentinel-1 RTC scenes: a water-cloud model of soil and canopy, speckle, gamma0 as linear power."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np

from tessera_cli.simulate.area import inside
from tessera_cli.simulate.catalog import Json, Layer, timestamp, write_item
from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.noise import stream
from tessera_cli.simulate.orbits import SENTINEL_1, Overpass, overpasses
from tessera_cli.simulate.phenology import COVERS, TOWN, WATER, per_class

NODATA = -32768
LOOKS = 4.4
"""Equivalent number of looks of an IW GRDH pixel."""
_SILENT = range(130, 206)
"""Days of the year without descending passes: the season with one orbit missing."""
_GROUND_DB = {"soil": (-12.0, -20.5), "litter": (-10.5, -16.5), "water": (-22.0, -28.0), "built": (-7.0, -13.5)}
"""Gamma0 of VV and VH."""
_MODES = {("VV", "VH"): "1SDV", ("VV",): "1SSV", ("HH", "HV"): "1SDH"}


def passes(year: int) -> list[tuple[Overpass, tuple[str, ...]]]:
    """The year's passes with their polarisations: VV and VH, but for two on a neighbouring track."""
    seen = overpasses(SENTINEL_1, year, days=12, orbits=175)
    seen = [one for one in seen if one.state == "ascending" or one.day not in _SILENT]
    descending = [one for one in seen if one.state == "descending"]
    result: list[tuple[Overpass, tuple[str, ...]]] = [(one, ("VV", "VH")) for one in seen]
    for one, polarisations in ((descending[3], ("VV",)), (descending[-3], ("HH", "HV"))):
        later, orbits = one.when + dt.timedelta(days=5), 73
        other = one._replace(when=later, relative=one.relative + orbits, absolute=one.absolute + orbits)
        result.append((other, polarisations))
    return result


def backscatter(landscape: Landscape, day: int) -> np.ndarray:
    """float32 (2, H, W): expected gamma0 of VV and VH as linear power, on the day of the year."""
    stands = landscape.stands
    ground_db = np.array([_GROUND_DB[c.ground] for c in COVERS])
    ground_db += 3.5 * landscape.moisture[day] * np.array([[c.ground == "soil"] for c in COVERS])
    ground = 10 ** ((ground_db[stands.cover] + stands.roughness_db[:, None]) / 10)
    canopy = 10 ** (per_class("canopy_db")[stands.cover] / 10)
    green, dry, flower = stands.canopy(day)
    through = np.exp(-2.5 * (green + flower + 0.5 * dry))[:, None]
    power = (through * ground + (1 - through) * canopy).T.astype(np.float32)[:, landscape.parcels]
    # Fields and water vary little; in a town, one pixel in thirty is a corner reflector.
    texture, town = landscape.texture, landscape.cover == TOWN
    texture_db = np.select([town, landscape.cover == WATER], [2 * texture, 0.1 * texture], 0.4 * texture)
    texture_db += 9 * (town & (texture > 1.85))
    result: np.ndarray = power * 10 ** (texture_db / 10).astype(np.float32)
    return result


def speckle(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """float32 (H, W): gamma distributed with mean 1 and LOOKS looks; neighbours overlap: the sensor resolves 20 m."""
    # Four independent gamma draws of a quarter of the looks add up to one of all looks.
    draws = rng.standard_gamma(LOOKS / 4, (shape[0] + 1, shape[1] + 1), dtype=np.float32) / np.float32(LOOKS)
    result: np.ndarray = draws[1:, 1:] + draws[:-1, 1:] + draws[1:, :-1] + draws[:-1, :-1]
    return result


def write_pass(landscape: Landscape, one: tuple[Overpass, tuple[str, ...]], seed: int, out: Path) -> list[Json]:
    """The files and the STAC item of one pass."""
    area, (overpass, polarisations) = landscape.area, one
    rng = stream(seed, 4, overpass.when.toordinal(), overpass.relative)
    swath = area.beside_swath_edge(rng) if overpass.absolute % 10 == 7 else area.outline()
    seen, transform = inside(swath, area.shape, area.transform()), area.transform()
    power = backscatter(landscape, overpass.day) * np.float32(10 ** rng.normal(0, 0.02))
    fields = {"raster:bands": [{"nodata": NODATA, "data_type": "float32", "spatial_resolution": 10.0}]}
    layers = {}
    for polarisation, expected in zip(polarisations, power, strict=False):
        values = np.where(seen, expected * speckle(rng, area.shape), np.float32(NODATA))
        layers[polarisation.lower()] = Layer(values, transform, NODATA, fields)
    start = overpass.when + dt.timedelta(microseconds=220006)
    end = start + dt.timedelta(seconds=24, microseconds=998460)
    take = round(7.9528 * overpass.absolute)
    name = f"{overpass.satellite}_IW_GRDH_{_MODES[polarisations]}_{start:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}"
    name += f"_{overpass.absolute:06d}_{take:06X}_rtc"
    properties = {
        "datetime": timestamp(start + (end - start) / 2),
        "start_datetime": timestamp(start),
        "end_datetime": timestamp(end),
        "platform": "SENTINEL-1A",
        "proj:shape": area.shape,
        "proj:transform": list(transform),
        "sar:polarizations": polarisations,
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:product_type": "GRD",
        "s1:datatake_id": str(take),
    }
    return [write_item(out, "sentinel-1-rtc", name, overpass, swath, layers, **properties)]
