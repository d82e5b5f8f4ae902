"""The environment of the process: variables that mislead libraries, its share of a machine, and its CPU quota."""

from tessera_cli.environment.libraries import SETTLED, settle
from tessera_cli.environment.share import take_share

__all__ = ["SETTLED", "settle", "take_share"]
