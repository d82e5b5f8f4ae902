"""A STAC API as Planetary Computer runs it: stac-fastapi-pgstac on PostgreSQL with PostGIS."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.integration.processes import Server, Unavailable, free_port, run

VENV = Path(__file__).resolve().parents[2] / ".venv-servers"
"""Made by setup.sh."""


class Database:
    """One PostgreSQL with PostGIS and pgstac, in which each catalogue is a database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = _newest_postgresql()
        data, self.port = folder / "pg", free_port()
        self._psql = programs / "psql"
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        run(
            [
                programs / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale",
                "C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ],
            folder,
            demoted=True,
        )
        self.server = Server(
            [
                programs / "postgres",
                "-D",
                data,
                "-p",
                self.port,
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"unix_socket_directories={folder}",
                "-c",
                "fsync=off",
                "-c",
                "shared_buffers=64MB",
            ],
            folder,
            lambda: subprocess.run(ready, check=False).returncode == 0,
            demoted=True,
            stop_signal=signal.SIGINT,  # ends connections; SIGTERM would wait for them
        )

    def environment(self, name: str) -> dict[str, str]:
        """How programs of PostgreSQL are told where a database is."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": "none",
            "PGDATABASE": name,
        }

    def create(self, name: str, *, template: str = "empty") -> None:
        """A new database; `empty` has the tables of pgstac."""
        created = f'CREATE DATABASE "{name}" TEMPLATE "{template}"'
        run([self._psql, "-q", "-c", created], self.folder, self.environment("postgres"))

    def migrate(self, name: str) -> None:
        """Make the tables of pgstac."""
        self.create(name, template="template1")
        run([VENV / "bin/pypgstac", "migrate"], self.folder, self.environment(name))

    def load(self, name: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Add items, and the collections that they name."""
        for table, rows in (("collections", _collections(items)), ("items", items)):
            path = self.folder / f"{table}.ndjson"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            run(
                [VENV / "bin/pypgstac", "load", table, path, "--method", "upsert"],
                self.folder,
                self.environment(name),
            )


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Database]:
    """Unavailable if it cannot be had here."""
    if not (VENV / "installed").exists():
        raise Unavailable(f"{VENV} is not there; run tests/integration/setup.sh")
    made = Database(folder)
    with made.server:
        made.migrate("empty")
        yield made


@contextlib.contextmanager
def stac_api(made: Database, name: str) -> Iterator[str]:
    """The URL of an API over one database."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["--host", "127.0.0.1", "--port", port, "--timeout-graceful-shutdown", 1]
    with Server(
        [VENV / "bin/uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app", *where],
        made.folder,
        lambda: _answers(f"{url}/_mgmt/ping"),
        environment=made.environment(name),
    ):
        yield url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _newest_postgresql() -> Path:
    """The folder of the programs of the newest PostgreSQL that has PostGIS."""
    found = [p.parts[4] for p in Path("/usr/share/postgresql").glob("*/extension/postgis.control")]
    if not found or shutil.which("initdb", path=f"/usr/lib/postgresql/{max(found, key=float)}/bin") is None:
        raise Unavailable("PostgreSQL with PostGIS is not installed; run tests/integration/setup.sh")
    return Path("/usr/lib/postgresql", max(found, key=float), "bin")


def _collections(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "proprietary",
            "links": [],
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [["2014-10-10T00:28:21Z", None]]},
            },
        }
        for name in sorted({str(item["collection"]) for item in items})
    ]
