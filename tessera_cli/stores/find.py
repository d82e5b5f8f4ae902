"""Former place of `tessera_cli.dpixels.find`, for scripts that still import it from here."""

from tessera_cli.dpixels.find import find_stores

__all__ = ["find_stores"]
