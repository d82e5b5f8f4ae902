"""Writers in one process whose changes of the file system are put in an order that a seed decides; some are killed."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tessera_cli import journal, parts

CHANGES = ("rename", "replace", "mkdir", "unlink", "rmdir", "link")
TOKEN = "abcdefabcdef-{:x}-1-{:08x}"


class Killed(BaseException):
    """What a killed writer raises at its next change, and at every later one: it cleans up nothing."""


class Schedule:
    """Lets one writer at a time do one change of the file system, in an order that the seed decides."""

    def __init__(self, seed: int, writers: Sequence[Callable[[], Any]], *, kill: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.writers = writers
        self.moments = {
            number: self.random.randrange(1, 40) for number in range(len(writers)) if self.random.random() < kill
        }
        self.steps = dict.fromkeys(range(len(writers)), 0)
        self.dead: set[int] = set()
        self.ended: set[int] = set()
        self.errors: list[BaseException] = []
        self.now, self.tokens = 0.0, 0
        self.me = threading.local()
        self.turns = [threading.Semaphore(0) for _ in writers]
        self.back = threading.Semaphore(0)

    def run(self, look: Callable[[], None] = lambda: None) -> None:
        """Run all writers to their end; `look` is called before each change, while none is under way."""
        threads = [
            threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(len(self.turns))
        ]
        for thread in threads:
            thread.start()
        waiting = set(range(len(threads)))
        with self._hooked():
            while waiting:
                number = self.random.choice(sorted(waiting))
                self.turns[number].release()
                assert self.back.acquire(timeout=60)
                waiting -= self.ended | self.dead
                if not self.errors:
                    look()
        for thread in threads:
            thread.join(60)
        if self.errors:
            raise self.errors[0]

    def _write(self, number: int) -> None:
        self.me.number = number
        self.turns[number].acquire()
        try:
            self.writers[number]()
            self.ended.add(number)
        except Killed:
            self.dead.add(number)
        except BaseException as error:
            self.errors.append(error)
            self.ended.add(number)
        self.back.release()

    def step(self) -> None:
        """Wait for the next turn; a writer whose moment has come dies."""
        number = getattr(self.me, "number", None)
        if number is None:
            return
        self.steps[number] += 1
        if self.steps[number] >= self.moments.get(number, 1_000_000):
            raise Killed
        self.back.release()
        self.turns[number].acquire()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    def token(self) -> str:
        self.tokens += 1
        return TOKEN.format(self.me.number, self.tokens)

    def is_alive(self, text: str) -> bool:
        return int(text.removesuffix(parts.PART).rpartition(".")[2].split("-")[1], 16) not in self.dead

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[None]:
        def stepping(call: Callable[..., Any]) -> Callable[..., Any]:
            def stepped(*arguments: Any, **more: Any) -> Any:
                self.step()
                return call(*arguments, **more)

            return stepped

        class Clock:
            monotonic = staticmethod(lambda: self.now)
            sleep = staticmethod(self.sleep)

        with pytest.MonkeyPatch.context() as patch:
            for change in CHANGES:
                patch.setattr(os, change, stepping(getattr(os, change)))
            patch.setattr(os, "fsync", lambda file: None)
            patch.setattr(journal, "digest_of", stepping(journal.digest_of))
            patch.setattr(journal, "time", Clock)
            for module in (journal, parts):
                patch.setattr(module, "new_token", self.token)
                patch.setattr(module, "is_alive", self.is_alive)
            yield
