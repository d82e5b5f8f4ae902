"""Scenes + tile -> arrays: the only package that reads satellite pixels."""

from tessera_cli.imagery.assemble import OnRead, read_dpixels
from tessera_cli.imagery.preprocessing import OFFICIAL, Preprocessing, get_preprocessing
from tessera_cli.imagery.reader import GDAL_OPTIONS, Reader

__all__ = ["GDAL_OPTIONS", "OFFICIAL", "OnRead", "Preprocessing", "Reader", "get_preprocessing", "read_dpixels"]
