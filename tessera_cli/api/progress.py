"""Progress in the forms that people have at hand: a function, a `tqdm` bar, a `rich.progress.Progress`, or our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tessera_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tessera_cli.runs.results import Progress, TileResult

    AnyProgress: TypeAlias = "Progress | TqdmLike | RichLike | Callable[[int, int], object]"


class TqdmLike(Protocol):
    """A bar with a settable `total` and `update(n)`."""

    total: Any

    def update(self, n: int) -> Any: ...


class RichLike(Protocol):
    """`rich.progress.Progress`, or anything with its two methods."""

    def add_task(self, description: str, *, total: int, completed: int) -> Any: ...
    def advance(self, task_id: Any, advance: int) -> None: ...


@dataclass
class Bar:
    """Forward `start` and `advance` to whatever the caller gave; None shows nothing."""

    given: Any
    total: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        known = self.given is None or hasattr(self.given, "add_task") or hasattr(self.given, "update")
        if not known and not callable(self.given):
            raise UsageError(f"progress={self.given!r} cannot be told anything. Give a function of (done, total).")

    def start(self, total: int, done: int = 0) -> None:
        """Begin with `done` of `total` units."""
        self.total, self.done = total, done
        if hasattr(self.given, "add_task"):
            self.task = self.given.add_task("tessera", total=total, completed=done)
        elif hasattr(self.given, "update"):
            self.given.total = total
            self.given.update(done)
        elif self.given is not None:
            self.given(done, total)

    def advance(self, count: int) -> None:
        """Add `count` finished units."""
        self.done += count
        if hasattr(self.given, "add_task"):
            self.given.advance(self.task, count)
        elif hasattr(self.given, "update"):
            self.given.update(count)
        elif self.given is not None:
            self.given(self.done, self.total)


class _RunProgress:
    """The `Progress` of a run as a bar of pixels."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self.advance = bar.advance

    def begin(self, tiles: int, pixels: int) -> None:
        self._bar.start(pixels)

    def reading(self, tile: str, files: int, planned: int, bytes: int) -> None:
        """Show nothing: the bar counts pixels."""

    def tile(self, result: TileResult) -> None:
        if result.status in ("done", "empty"):  # pixels with too few observations are finished, too
            self._bar.advance(max(0, result.request.count - result.pixels))


def as_progress(given: Any) -> Progress:
    """Return a `Progress` for `embed` and `fetch`; units are pixels."""
    return given if hasattr(given, "tile") and hasattr(given, "begin") else _RunProgress(Bar(given))
