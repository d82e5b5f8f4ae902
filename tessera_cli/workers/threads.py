"""An executor over threads of this process, for what mostly waits for servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ThreadPool(ThreadPoolExecutor):
    """`workers` threads."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, "tiles")
        self.slots = workers
