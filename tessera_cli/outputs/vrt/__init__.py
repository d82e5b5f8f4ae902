"""Virtual rasters that show the tiles of a zone and window as one: codes, scales, and their product as float32.

`files.py` says which files there are, `mosaic.py` puts rasters side by side, `product.py` multiplies, `describe.py`
reads what was written.
"""

from __future__ import annotations

from tessera_cli.outputs.vrt.describe import Described, describe_vrt
from tessera_cli.outputs.vrt.files import vrt_files
from tessera_cli.outputs.vrt.frame import Bounds
from tessera_cli.outputs.vrt.names import of_mosaic, product_name, products, vrts, whole

__all__ = ["Bounds", "Described", "describe_vrt", "of_mosaic", "product_name", "products", "vrt_files", "vrts", "whole"]
