"""Sentinel-2 L2A scenes: clouds, shadow, cirrus and snow over the landscape, the scene classification, the DN."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tessera_cli.simulate.area import inside
from tessera_cli.simulate.catalog import Json, Layer, timestamp, write_item
from tessera_cli.simulate.landscape import Landscape
from tessera_cli.simulate.noise import field, stream
from tessera_cli.simulate.optics import BANDS, SPECTRA, reflectance
from tessera_cli.simulate.orbits import SENTINEL_2, Overpass, overpasses
from tessera_cli.simulate.phenology import per_class

_OFFSET_SINCE = dt.datetime(2022, 1, 26)
"""From here on products are of baseline 04.00 or later: DN = 10000 x reflectance + 1000."""
_AT_10_M = ("B02", "B03", "B04", "B08")
_COMMON_NAMES = ("blue", "green", "red", "rededge", "rededge", "rededge", "nir", "rededge", "swir16", "swir22")


class Datatake(NamedTuple):
    overpass: Overpass
    cloud: float
    """Share of the area under cloud or cirrus."""
    snow: bool
    number: int
    """In the year; decides about its granules, the swath edge and the nodata tag."""


class Granule(NamedTuple):
    """One product of a datatake: the 10 m columns of the area that lie in an MGRS tile."""

    mgrs: str
    columns: slice
    processed: dt.datetime
    gain: float = 1.0


def datatakes(seed: int, year: int, cloud: float) -> list[Datatake]:
    """The year's, clouded by `cloud` in the mean."""
    passes = overpasses(SENTINEL_2, year, days=10, orbits=143)
    rng = stream(seed, 2)
    # Most scenes are nearly clear or overcast: a U-shaped distribution, whose quantiles are dealt out.
    covers = rng.beta(0.7 * cloud, 0.7 * (1 - cloud), 20000) if 0 < cloud < 1 else np.full(20000, cloud)
    covers = rng.permutation(np.quantile(covers, (np.arange(len(passes)) + 0.5) / len(passes)))
    snowfall = dt.datetime(year, 1, 1) + dt.timedelta(days=int(rng.integers(11, 45)))
    result = []
    for number, (overpass, cover) in enumerate(zip(passes, covers.tolist(), strict=True)):
        when = overpass.when + dt.timedelta(seconds=int(rng.integers(0, 20)), milliseconds=24)
        snow = 0 <= (when - snowfall).days < 8
        # The cold days of winter are the clear ones.
        result.append(Datatake(overpass._replace(when=when), min(cover, 0.3) if snow else cover, snow, number))
    return result


def granules(datatake: Datatake, width: int, rng: np.random.Generator) -> list[Granule]:
    """Of an area `width` pixels wide: mostly one, often two that overlap, and once a year a second processing."""
    processed = datatake.overpass.when + dt.timedelta(hours=rng.uniform(4, 11))
    west, east = (2 * round(share * width / 2) for share in (0.4, 0.6))
    result = [Granule("31UES", slice(0, width), processed)]
    if datatake.number % 8 == 3:
        result = [Granule("31UES", slice(0, east), processed), Granule("31UFS", slice(west, width), processed)]
    if datatake.number == 72:  # by a later release, which finds a slightly other reflectance
        result.append(result[0]._replace(processed=processed + dt.timedelta(days=211), gain=1.02))
    return result


def sky(rng: np.random.Generator, shape: tuple[int, int], cover: float, day: int) -> list[np.ndarray]:
    """Opacity 0..1 of clouds, of cirrus, and of the clouds' shadow, float32 (H, W) each.

    Clouds of 0.25 and more and cirrus of 0.3 and more make up `cover`.
    """
    thick, thin = (field(rng, shape, max(60, shape[0] / 3)) for _ in range(2))
    veiled = cover * rng.uniform(0.1, 0.5) * (rng.random() < 0.3)
    cloud, cirrus = np.zeros((2, *shape), np.float32)
    if cover - veiled > 0.004:
        cloud = np.clip(0.25 + 1.2 * (thick - np.quantile(thick, 1 - cover + veiled)), 0, 1)
    clear = cloud < 0.25
    if veiled > 0.004 and clear.any():
        cirrus = np.clip(0.3 + 0.5 * (thin - np.quantile(thin[clear], max(0, 1 - veiled / clear.mean()))), 0, 1) * clear
    # The sun stands 20 degrees east of south. As opposite edges join, shadows enter from clouds outside.
    elevation = math.radians(38 + 23 * math.sin(2 * math.pi * (day - 81) / 365))
    length = rng.uniform(40, 150) / math.tan(elevation)  # of a shadow, in pixels, from clouds 400 to 1500 m high
    away = (-round(length * math.cos(math.radians(20))), -round(length * math.sin(math.radians(20))))
    return [cloud, cirrus, np.roll(cloud, away, axis=(0, 1))]


def observe(landscape: Landscape, datatake: Datatake, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Reflectance float32 per band, and the SCL uint8, at native resolution over the whole area."""
    day = datatake.overpass.day
    cloud, cirrus, shadow = above = sky(rng, landscape.area.shape, datatake.cloud, day)
    scene = reflectance(landscape, day)
    snow = datatake.snow * per_class("snow")[landscape.cover] * (1 + 0.1 * landscape.texture.clip(-3, 1))
    # The atmospheric correction leaves an error in each scene and band.
    gain, haze = rng.normal(1, 0.015) * rng.normal(1, 0.006, 10), np.linspace(rng.normal(0, 0.004), 0, 10)
    for i in range(len(BANDS)):
        ground = (scene[i] + snow * (SPECTRA["snow"][i] - scene[i])) * (1 - 0.6 * shadow) * gain[i]
        ground += haze[i] + cirrus * SPECTRA["cirrus"][i]
        scene[i] = ground + cloud * ((0.8 + 0.3 * cloud) * SPECTRA["cloud"][i] - ground)
        scene[i] += 0.002 * rng.standard_normal(cloud.shape, dtype=np.float32)
    coarse = dict(zip(BANDS, _halved(scene), strict=True))
    bands = {band: scene[i] if band in _AT_10_M else coarse[band] for i, band in enumerate(BANDS)}
    return {**bands, "SCL": classify(coarse, [_halved(part) for part in above], _halved(snow))}


def classify(bands: dict[str, np.ndarray], above: list[np.ndarray], snow: np.ndarray) -> np.ndarray:
    """uint8 (h, w): the scene classification in the codes of Sen2Cor; what is in the sky is known, not guessed."""
    cloud, cirrus, shadow = above
    rules = (  # the first that holds
        (cloud >= 0.6, 9),
        (cloud >= 0.25, 8),
        (cirrus >= 0.3, 10),
        (shadow >= 0.3, 3),
        (cloud >= 0.15, 7),  # the fringe of a cloud: unclassified
        (snow >= 0.4, 11),
        ((bands["B8A"] < 0.07) & (bands["B8A"] < bands["B03"]), 6),
        (bands["B08"] - bands["B04"] > 0.35 * (bands["B08"] + bands["B04"]), 4),
    )
    return np.select([holds for holds, _ in rules], [code for _, code in rules], 5).astype(np.uint8)


def write_datatake(landscape: Landscape, datatake: Datatake, seed: int, out: Path) -> list[Json]:
    """The files and the STAC items of all granules of one datatake."""
    area, overpass = landscape.area, datatake.overpass
    rng = stream(seed, 3, overpass.when.toordinal())
    swath = area.beside_swath_edge(rng) if datatake.number % 10 == 6 else area.outline()
    nodata = None if datatake.number % 7 == 0 else 0  # some files of Planetary Computer lack the tag
    offset, baseline = (1000, "05.10") if overpass.when >= _OFFSET_SINCE else (0, "03.01")
    observed = observe(landscape, datatake, rng)
    items = []
    for granule in granules(datatake, area.shape[1], rng):
        left, right = granule.columns.start, granule.columns.stop
        seen = inside(swath, (area.shape[0] // 2, (right - left) // 2), area.transform(20, left))
        layers = {}
        for key, values in observed.items():
            half = 1 if key in _AT_10_M else 2
            part, transform = values[:, left // half : right // half], area.transform(10 * half, left)
            fields: Json = {"gsd": 10.0 * half, "proj:shape": part.shape, "proj:transform": list(transform)[:6]}
            if key != "SCL":
                fields["eo:bands"] = [{"name": key, "common_name": _COMMON_NAMES[BANDS.index(key)]}]
                part = np.clip(np.rint(10000 * granule.gain * part) + offset, 1, 65535).astype(np.uint16)
            part = part * (seen if half == 2 else seen.repeat(2, axis=0).repeat(2, axis=1))
            layers[key] = Layer(part, transform, nodata, fields)
        product = f"{overpass.satellite}_MSIL2A_{overpass.when:%Y%m%dT%H%M%S}"
        tile = f"R{overpass.relative:03d}_T{granule.mgrs}_{granule.processed:%Y%m%dT%H%M%S}"
        cloudy = np.isin(observed["SCL"][:, left // 2 : right // 2][seen], (8, 9, 10)).mean()
        properties = {
            "datetime": timestamp(overpass.when),
            "platform": f"Sentinel-{overpass.satellite[1:]}",
            "instruments": ["msi"],
            "eo:cloud_cover": min(round(100 * float(cloudy), 6), 99.999),
            "s2:mgrs_tile": granule.mgrs,
            "s2:datatake_id": f"G{product.replace('_MSIL2A', '')}_{overpass.absolute:06d}_N{baseline}",
            "s2:processing_baseline": baseline,
            "s2:product_uri": f"{product}_N{baseline.replace('.', '')}_{tile}.SAFE",
            "s2:generation_time": timestamp(granule.processed),
        }
        footprint, name = swath & area.outline(granule.columns), f"{product}_{tile}"
        items.append(write_item(out, "sentinel-2-l2a", name, overpass, footprint, layers, **properties))
    return items


def _halved(values: np.ndarray) -> np.ndarray:
    """10 m -> 20 m: the mean of 2 x 2 pixels, (..., H, W) -> (..., H/2, W/2)."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    result: np.ndarray = (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
    return result
