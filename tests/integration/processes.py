"""Programs that the tests start in a folder of their own, on ports of their own, and end by process id."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

USER = "postgres"
"""Who runs PostgreSQL, which refuses to be root, and nginx, where the tests run as root."""


class Unavailable(Exception):  # noqa: N818 - the tests are skipped
    """Why the servers cannot be started here."""


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """Not pytest's, which only the user of the tests may enter."""
    folder = Path(tempfile.mkdtemp(prefix="tessera-integration-"))
    try:
        folder.chmod(0o755)
        own(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def own(path: Path) -> None:
    """Give a file or folder to the user that runs the servers."""
    if os.geteuid() == 0:
        shutil.chown(path, USER, USER)


def free_port() -> int:
    """Below those that the system hands out, so that nothing takes it while a server is restarted."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable("no port is free")


def run(
    command: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None, *, demoted: bool = False
) -> None:
    """Run a program to its end; `demoted`: never as root. Unavailable if it fails."""
    log = folder / f"{Path(str(command[0])).name}.log"
    done = _start(command, folder, log, environment or {}, demoted).wait(120)
    if done != 0:
        raise Unavailable(f"{command[0]} ended with {done}: {_tail(log)}")


class Server:
    """A program that runs until it is stopped; it can be started again."""

    def __init__(
        self,
        command: Sequence[object],
        folder: Path,
        answers: Callable[[], bool],
        *,
        environment: Mapping[str, str] | None = None,
        demoted: bool = False,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command, self._folder, self._answers = command, folder, answers
        self._environment, self._demoted, self._signal = environment or {}, demoted, stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{Path(str(command[0])).name}.log"

    def start(self) -> None:
        """Returns when the server answers. Unavailable if it does not."""
        self._process = _start(self._command, self._folder, self.log, self._environment, self._demoted)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"{self._command[0]} does not answer: {_tail(self.log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(self._signal)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def _start(
    command: Sequence[object], folder: Path, log: Path, environment: Mapping[str, str], demoted: bool
) -> subprocess.Popen[bytes]:
    demote = demoted and os.geteuid() == 0
    whose: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if demote else {}
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.defpath, "HOME": str(folder), **environment},
            **whose,
        )


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) if lines else "it said nothing"
