"""What other libraries read from the environment, corrected before they are imported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, MutableMapping
from contextlib import closing
from pathlib import Path

NO_HOME = "/nonexistent"
"""The home folder of users without one, by Debian's custom: what is to be written there fails, and says where."""
SETTLED: list[str] = []
"""What `settle` did, for the log: nobody listens yet when the package is imported."""


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Correct what in the environment would mislead the libraries that read it; call it before they are imported."""
    SETTLED.extend([*_leave_out_foreign_data(environ), *_give_home(environ)])
    _share_authorities(environ)


def _leave_out_foreign_data(environ: MutableMapping[str, str]) -> Iterator[str]:
    """Remove variables of modules and conda environments that lead the GDAL and PROJ of our wheels to data of others.

    Builds that share the system's GDAL bring no data, and need what the variables say.
    """
    given = [name for name in ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA", "GDAL_DRIVER_PATH") if name in environ]
    found = importlib.util.find_spec("rasterio") if given else None  # imported, it would read them
    wheel = found.origin if found else None
    for name in given if wheel else ():
        own = Path(str(wheel)).with_name("proj_data" if name.startswith("PROJ") else "gdal_data")
        if own.is_dir() and not (name.startswith("PROJ") and _fits(environ[name], own)):
            yield f"{name}={environ.pop(name)} is ignored: it belongs to another installation than rasterio"


def _fits(search_path: str, own: Path) -> bool:
    """Return whether a PROJ that needs a database as that in `own` can read the one on the search path."""
    try:
        theirs = next(path for part in search_path.split(os.pathsep) if (path := Path(part, "proj.db")).is_file())
        (major, minor), (due, least) = _layout(theirs), _layout(own / "proj.db")
    except Exception:  # no file, no permission, no database; a Python without sqlite3
        return False
    return major == due and minor >= least


def _layout(database: Path) -> tuple[int, int]:
    """Return the version of a PROJ database's layout."""
    import sqlite3

    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
        rows = dict(opened.execute("SELECT key, value FROM metadata WHERE key LIKE 'DATABASE.LAYOUT.VERSION.%'"))
    return int(rows["DATABASE.LAYOUT.VERSION.MAJOR"]), int(rows["DATABASE.LAYOUT.VERSION.MINOR"])


def _give_home(environ: MutableMapping[str, str]) -> Iterator[str]:
    """Set HOME where there is none: libraries would write to a folder named `~`, or fail."""
    try:
        Path.home()
    except RuntimeError:
        environ["HOME"] = NO_HOME
        yield "There is no home folder: HOME is not set, and this system does not know the user"


def _share_authorities(environ: MutableMapping[str, str]) -> None:
    """Let every HTTP client trust the authorities that the user named for one of them."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    path = next((environ[name] for name in names if environ.get(name)), "")
    if path and not environ.get("REQUESTS_CA_BUNDLE") and not environ.get("CURL_CA_BUNDLE"):
        environ["REQUESTS_CA_BUNDLE"] = path  # for requests
    if path and not environ.get("SSL_CERT_FILE"):
        environ.setdefault("SSL_CERT_DIR" if Path(path).is_dir() else "SSL_CERT_FILE", path)  # for httpx, of the hub
