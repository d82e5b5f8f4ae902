"""What tests have workers do: importable there."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_first(marker: Path) -> str:
    """Die the first time."""
    if not marker.exists():
        marker.touch()
        die()
    return "done"


def wait_for(path: Path, *, begun: Path | None = None) -> bool:
    """Wait until a file is there."""
    if begun is not None:
        begun.touch()
    while not path.exists():
        time.sleep(0.01)
    return True


def keep(begun: Path, kept: Path) -> None:
    """Work without end, and keep what there is when something interrupts it."""
    try:
        begun.touch()
        while True:
            time.sleep(0.01)
    except BaseException as error:
        time.sleep(0.2)
        kept.write_text(f"{kept.read_text() if kept.exists() else ''}{type(error).__name__} ")
        raise


def ignore_everything(begun: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    begun.touch()
    time.sleep(600)


def pid() -> int:
    return os.getpid()


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def say(text: str) -> None:
    logging.getLogger("tessera_cli.somewhere").info("%s, for those who listen", text)
    logging.getLogger("tessera_cli.somewhere").warning("%s", text)
    logging.getLogger("tessera_cli.somewhere").debug("not asked for")
    warnings.warn("odd", UserWarning, stacklevel=1)
    print("printed", flush=True)  # noqa: T201


def main_module() -> list[str]:
    return [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")]


class OddError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)
        self.other = lambda: other


def fail(kind: str) -> Any:
    if kind == "odd":
        raise OddError("odd", "ly")
    if kind == "unsendable":
        return lambda: None
    return int(kind)


def span(seconds: float) -> tuple[float, float]:
    """Take some time, and return from when to when."""
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time()
