"""The packages of the extra `evaluate`, which a plain installation lacks."""

from __future__ import annotations

from tessera_cli.errors import UsageError


def check_packages(what: str) -> None:
    """Raise UsageError, with the extra to install, if scikit-learn or SciPy is missing; `what` needs them."""
    try:
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        text = f'{what} needs another package. Run: pip install "tessera-embed[evaluate]".'
        raise UsageError(text) from error
