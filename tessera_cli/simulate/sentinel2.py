"""Simulate Sentinel-2 L2A scenes: clouds, shadow and cirrus over the landscape, scene classification, DN."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tessera_cli.simulate.air import FAIR, Air
from tessera_cli.simulate.area import inside, swath
from tessera_cli.simulate.catalog import TIME, Json, stac_item, write_cog
from tessera_cli.simulate.landscape import Landscape, field
from tessera_cli.simulate.orbits import SENTINEL_2, Overpass, overpasses
from tessera_cli.simulate.scene import Scene
from tessera_cli.simulate.site import BRUSSELS
from tessera_cli.simulate.surface import SURFACE_BANDS, reflectance

_AT_10_M = ("B02", "B03", "B04", "B08")
_CLOUD = np.array((0.60, 0.59, 0.59, 0.60, 0.61, 0.62, 0.63, 0.63, 0.45, 0.35), np.float32)
_CIRRUS = np.linspace(0.062, 0.020, 10, dtype=np.float32)
"""Reflectance per band of a thick cloud, and that added by a thin veil."""


def passes(seed: int, year: int, cloud: float) -> list[tuple[Overpass, float]]:
    """Return the year's passes with the share of the area under cloud or cirrus, whose mean is `cloud`."""
    flown, rng = overpasses(SENTINEL_2, year, days=10), np.random.default_rng((seed, 2))
    covers = np.full(len(flown), cloud)
    if 0 < cloud < 1:  # most scenes are nearly clear or overcast: deal out the quantiles of a U-shaped distribution
        draws = rng.beta(0.7 * cloud, 0.7 * (1 - cloud), 20000)
        covers = rng.permutation(np.quantile(draws, (np.arange(len(flown)) + 0.5) / len(flown)))
    return list(zip(flown, covers.tolist(), strict=True))


def granules(number: int, width: int, tiles: tuple[str, str] = BRUSSELS.granules) -> list[tuple[str, slice, int]]:
    """Return MGRS tile, 10 m columns and release of a pass's granules: one, at times two that overlap, once a rerun."""
    west, east = (2 * round(share * width / 2) for share in (0.4, 0.6))
    if number % 8 == 3:
        return [(tiles[0], slice(0, east), 0), (tiles[1], slice(west, width), 0)]
    return [(tiles[0], slice(0, width), release) for release in ((0, 1) if number == 72 else (0,))]


def sky(rng: np.random.Generator, shape: tuple[int, ...], cover: float) -> list[np.ndarray]:
    """Return opacities 0..1, float32 (H, W): clouds and cirrus on `cover` of the pixels, and the clouds' shadow."""
    thick, thin = (field(rng, shape, max(60, shape[0] / 3)) for _ in range(2))
    veiled = cover * rng.uniform(0.1, 0.5) * (rng.random() < 0.3)
    cloud, cirrus = np.zeros((2, *shape), np.float32)
    if cover - veiled > 0.004:
        cloud = np.clip(0.25 + 1.2 * (thick - np.quantile(thick, 1 - cover + veiled)), 0, 1)  # cloudy from 0.25 on
    if veiled > 0.004:
        thin[cloud >= 0.25] = -9  # cirrus is seen between the clouds
        cirrus = np.clip(0.3 + 0.5 * (thin - np.quantile(thin, 1 - veiled)), 0, 1)  # from 0.3 on
    length = rng.integers(40, 160)  # of a shadow, in pixels: northwards, as the morning sun stands south-south-east
    return [cloud, cirrus, np.roll(cloud, (-length, -length // 3), axis=(0, 1))]  # also from clouds outside


def observe(
    ground: Landscape, day: int, cover: float, rng: np.random.Generator, air: Air = FAIR, track: int = 0
) -> dict[str, np.ndarray]:
    """Return float32 reflectance per band and the uint8 SCL, at native resolution over the whole area."""
    cloud, cirrus, shadow = above = sky(rng, ground.parcels.shape, cover)
    scene = air.veil(reflectance(ground, day, track), rng)
    for i, gain in enumerate(
        rng.normal(1, air.calibration, 10).tolist()
    ):  # residual errors of the atmospheric correction
        below = scene[i] * (gain - gain * 0.6 * shadow) + cirrus * _CIRRUS[i]
        scene[i] = below + cloud * (_CLOUD[i] - below) + 0.002 * rng.standard_normal(cloud.shape, dtype=np.float32)
    coarse = dict(zip(SURFACE_BANDS, _halved(scene), strict=True))
    bands = {band: scene[i] if band in _AT_10_M else coarse[band] for i, band in enumerate(SURFACE_BANDS)}
    return {**bands, "SCL": classify(coarse, *map(_halved, air.noticed(above, rng)))}


def classify(bands: dict[str, np.ndarray], cloud: np.ndarray, cirrus: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """Return the scene classification, uint8 (h, w), in the codes of Sen2Cor, from the true opacities."""
    rules = (  # the first one that holds decides
        (cloud >= 0.6, 9),
        (cloud >= 0.25, 8),
        (cirrus >= 0.3, 10),
        (shadow >= 0.3, 3),
        (cloud >= 0.15, 7),  # the fringe of a cloud: unclassified
        ((bands["B8A"] < 0.07) & (bands["B8A"] < bands["B03"]), 6),
        (bands["B08"] - bands["B04"] > 0.35 * (bands["B08"] + bands["B04"]), 4),
    )
    return np.select([holds for holds, _ in rules], [code for _, code in rules], 5).astype(np.uint8)


def write_pass(scene: Scene, overpass: Overpass, cover: float, out: Path) -> list[Json]:
    """Write the files of all granules of one pass; return their STAC items."""
    ground, rng = scene.ground, np.random.default_rng((*scene.key, 3, overpass.when.toordinal()))
    covered = swath(ground.grid, rng) if overpass.number % 10 == 6 else ground.grid.extent.geom
    nodata = None if overpass.number % 7 == 0 else 0  # some files of Planetary Computer lack the tag
    # From baseline 04.00 on, DN = 10000 x reflectance + 1000.
    offset, baseline = (1000, "05.10") if overpass.when >= datetime(2022, 1, 26) else (0, "03.01")
    observed = observe(ground, overpass.day, cover, rng, scene.air, scene.site.track(overpass))
    items = []
    for mgrs, columns, release in granules(overpass.number, ground.grid.width, scene.site.granules):
        fine = ground.grid[:, columns]
        coarse = fine.zoom_out(2)
        seen, processed = inside(covered, coarse), overpass.when + timedelta(days=211 * release, hours=6)
        start, orbit = f"{overpass.when:%Y%m%dT%H%M%S}", f"R{overpass.relative:03d}_T{mgrs}_{processed:%Y%m%dT%H%M%S}"
        name, assets = f"{overpass.satellite}_MSIL2A_{start}_{orbit}", {}
        for key, values in observed.items():
            grid, step = (fine, 1) if key in _AT_10_M else (coarse, 2)
            part = values[:, columns.start // step : columns.stop // step]
            fields: Json = {"gsd": 10 * step, "proj:shape": part.shape, "proj:transform": [*grid.affine][:6]}
            if key != "SCL":
                fields["eo:bands"] = [{"name": key}]
                # A later release finds a slightly other reflectance.
                part = np.rint(10000 * (1 + 0.02 * release) * part + offset).clip(1, 65535).astype(np.uint16)
            part = part * seen.repeat(2 // step, axis=0).repeat(2 // step, axis=1)
            assets[key] = write_cog(out / "cogs" / name / f"{key}.tif", part, grid, nodata, **fields)
        cloudy = np.isin(observed["SCL"][:, columns.start // 2 : columns.stop // 2][seen], (8, 9, 10)).mean()
        properties = {
            "platform": f"Sentinel-{overpass.satellite[1:]}",
            "eo:cloud_cover": min(round(100 * float(cloudy), 6), 99.999),
            "s2:mgrs_tile": mgrs,
            "s2:datatake_id": f"G{overpass.satellite}_{start}_{overpass.number:06d}_N{baseline}",
            "s2:processing_baseline": baseline,
            "s2:generation_time": f"{processed:{TIME}}",
        }
        items.append(
            stac_item(
                "sentinel-2-l2a", name, overpass, covered & fine.extent.geom, scene.site.epsg, assets, **properties
            )
        )
    return items


def _halved(values: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels, 10 m -> 20 m: (..., H, W) -> (..., H/2, W/2)."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
