"""Our reader of files for odc-stac: `odc.stac.load(items, driver="tessera_cli.odc.Driver", pool=32)`."""

from tessera_cli.odc.driver import Driver

__all__ = ["Driver"]
