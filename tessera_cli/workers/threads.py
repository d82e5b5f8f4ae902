"""An executor over threads of this process, for what mostly waits for servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


class ThreadPool(ThreadPoolExecutor):
    """`workers` threads. To leave `with` by an exception leaves what is not begun."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, "tiles")
        self.slots = workers

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=error is not None)
