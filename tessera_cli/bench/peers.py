"""How others load the bands of scenes onto the grid of a tile: what our reading is compared with."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile

Load = Callable[[Sequence[Any], Sequence[str], Tile, str, Mapping[str, str]], dict[str, np.ndarray]]
"""pystac Items, keys of assets, tile, dtype, resampling by asset -> asset -> (items, H, W) in that dtype, 0 where there
is nothing."""
THREADS = min(32, 2 * (os.cpu_count() or 1) + 4)
"""Of those that read with threads."""


def get_peer(name: str) -> Load:
    """Return the way to load of this name; UsageError if its packages are not installed."""
    load, needs = {
        "eager": (_odc(), ["odc.stac"]),
        "odc-pool": (_odc(pool=THREADS), ["odc.stac"]),
        "odc-dask": (_odc(chunks={}), ["odc.stac", "dask"]),
        "stackstac": (_stackstac, ["stackstac"]),
    }[name]
    for module in needs:
        try:
            importlib.import_module(module)
        except ImportError:
            package = module.replace(".", "-")
            raise UsageError(
                f"--baseline {name} needs {package}, which is not installed. Run pip install {package}."
            ) from None
    return load


def _odc(**how: Any) -> Load:
    """Return `odc.stac.load`: read at once, with a pool of threads, or by Dask."""

    def load(
        items: Sequence[Any], assets: Sequence[str], tile: Tile, dtype: str, resampling: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        import odc.stac
        from odc.geo.geobox import GeoBox

        found = odc.stac.load(
            items,
            bands=list(assets),
            geobox=GeoBox(tile.shape, tile.transform, tile.crs),
            groupby=lambda item, parsed, index: index,
            dtype=dtype,
            resampling=dict(resampling),
            **how,
        )
        if "chunks" in how:
            found = found.compute(scheduler="threads", num_workers=THREADS)
        return {asset: found[asset].values for asset in assets}

    return load


def _stackstac(
    items: Sequence[Any], assets: Sequence[str], tile: Tile, dtype: str, resampling: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Stack by stackstac, assets of one resampling together, and compute with threads."""
    import stackstac
    from rasterio.enums import Resampling

    found: dict[str, np.ndarray] = {}
    for how in dict.fromkeys(resampling[asset] for asset in assets):
        some = [asset for asset in assets if resampling[asset] == how]
        stack = stackstac.stack(
            list(items),
            assets=some,
            epsg=tile.epsg,
            resolution=tile.transform.a,
            bounds=tile.bounds,
            resampling=Resampling[how],
            dtype=np.dtype(dtype),
            fill_value=np.dtype(dtype).type(0),
            rescale=False,
            sortby_date=False,
            xy_coords=False,
            properties=False,
            band_coords=False,
        )
        values = stack.compute(scheduler="threads", num_workers=THREADS).values
        found |= {asset: values[:, number] for number, asset in enumerate(some)}
    return found
