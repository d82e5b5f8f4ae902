"""Simulate Sentinel-1 RTC scenes: gamma0 as linear power, with speckle."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np

from tessera_cli.simulate.area import inside, swath
from tessera_cli.simulate.catalog import TIME, Json, stac_item, write_cog
from tessera_cli.simulate.orbits import Overpass, overpasses
from tessera_cli.simulate.scene import Scene
from tessera_cli.simulate.site import BRUSSELS, Site
from tessera_cli.simulate.surface import backscatter

NODATA = -32768
LOOKS = 4.4  # equivalent number, of an IW GRDH pixel
_MODES = {"1SDV": ("VV", "VH"), "1SSV": ("VV",), "1SDH": ("HH", "HV")}


def passes(year: int, site: Site = BRUSSELS) -> list[tuple[Overpass, str]]:
    """Return the year's passes with their modes: VV and VH, but for two of them."""
    flown = overpasses(site.radar, year, days=12)
    ascending = [one for one in flown if one.state == "ascending"]
    odd = {ascending[9]: "1SSV", ascending[-9]: "1SDH"}
    return [(one, odd.get(one, "1SDV")) for one in flown if one in ascending or one.day not in site.silent]


def speckle(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return gamma noise, float32 (H, W), with mean 1 and LOOKS looks, correlated over 2 pixels (20 m resolution)."""
    quarter = rng.standard_gamma(LOOKS / 4, (shape[0] + 1, shape[1] + 1), dtype=np.float32) / np.float32(LOOKS)
    return quarter[1:, 1:] + quarter[:-1, 1:] + quarter[1:, :-1] + quarter[:-1, :-1]


def write_pass(scene: Scene, overpass: Overpass, mode: str, out: Path) -> list[Json]:
    """Write the files of one pass; return its STAC item."""
    grid, start, end = scene.ground.grid, overpass.when, overpass.when + timedelta(seconds=25)
    rng = np.random.default_rng((*scene.key, 4, start.toordinal()))
    footprint = swath(grid, rng) if overpass.number % 10 == 7 else grid.extent.geom
    seen = inside(footprint, grid)
    power = backscatter(scene.ground, overpass.day, scene.site.track(overpass)) * np.float32(
        10 ** rng.normal(0, 0.03)
    )  # wet and dry days
    times, orbit = f"{start:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}", f"{overpass.number:06d}_{overpass.number:06X}"
    name = f"{overpass.satellite}_IW_GRDH_{mode}_{times}_{orbit}_rtc"
    raster = {"raster:bands": [{"nodata": NODATA, "data_type": "float32", "spatial_resolution": 10.0}]}
    assets = {}
    for polarisation, expected in zip(_MODES[mode], power, strict=False):
        values = np.where(seen, expected * speckle(rng, expected.shape), np.float32(NODATA))
        path = out / "cogs" / name / f"{polarisation.lower()}.tif"
        assets[path.stem] = write_cog(path, values, grid, NODATA, **raster)
    properties = {
        "start_datetime": f"{start:{TIME}}",
        "end_datetime": f"{end:{TIME}}",
        "platform": "SENTINEL-1A",
        "proj:shape": [*grid.shape],
        "proj:transform": [*grid.affine],
        "sar:polarizations": _MODES[mode],
        "sar:instrument_mode": "IW",
    }
    return [stac_item("sentinel-1-rtc", name, overpass, footprint, scene.site.epsg, assets, **properties)]
