"""A certificate authority of one's own, and servers that show certificates of it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from http.server import HTTPServer
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


@dataclass(frozen=True)
class Authority:
    """A folder with the authority's certificate and those that it signed."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "ca.pem"

    @classmethod
    def made(cls, folder: Path) -> Authority:
        if OPENSSL is None:
            pytest.skip("openssl is not installed")
        authority = cls(folder)
        authority._run(f"req -x509 {KEY} -keyout ca.key -out ca.pem -days 2 -subj /CN=Authority")
        return authority

    def _run(self, command: str) -> None:
        subprocess.run([str(OPENSSL), *command.split()], cwd=self.folder, check=True, capture_output=True)

    def encrypt(self, server: HTTPServer, host: str = "localhost", days: int = 2) -> None:
        """Have a server that has not been started show a certificate for `host`; one of negative `days` is over."""
        (self.folder / "names").write_text(f"subjectAltName=DNS:{host}\n")
        self._run(f"req {KEY} -keyout {host}.key -out {host}.csr -subj /CN={host}")
        signed = f"-CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days {days}"
        self._run(f"x509 -req -in {host}.csr -out {host}.pem {signed}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{host}.pem", self.folder / f"{host}.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
