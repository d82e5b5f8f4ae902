"""The environment of the process: variables that mislead libraries, and the CPU quota of its control groups."""

from tessera_cli.environment.libraries import SETTLED, settle

__all__ = ["SETTLED", "settle"]
