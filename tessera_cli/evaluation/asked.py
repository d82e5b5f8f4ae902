"""What an evaluation is asked to read: inputs, labels, and what is to be made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.learning.task import Task, Unit

if TYPE_CHECKING:
    from tessera_cli.models.load import Model


@dataclass(frozen=True)
class Asked:
    """What the user gave, checked as far as no file is needed for it."""

    inputs: tuple[Path, ...]
    labels: Path | None = None
    layer: str | None = None
    column: str | None = None
    task: Task | None = None
    unit: Unit | None = None
    features: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    test: tuple[Path, ...] = ()
    windows: Sequence[Any] | None = None
    dpixels: tuple[Path, ...] = ()
    models: tuple[Model, ...] = ()
    columns: Sequence[str] = ()
    beside: bool = False
    """Whether shorter prefixes and float32 are scored, too."""
    samples: int = 20_000
    seed: int = 0
    threads: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what was asked as plain JSON, without what was left out."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value in (None, False, (), []) or field.name in ("samples", "seed", "threads"):
                continue
            if field.name == "models":
                value = [model.name for model in value]
            many = not isinstance(value, str | Path) and isinstance(value, Sequence)
            plain[field.name] = [str(each) for each in value] if many else str(value)
        return plain | {"samples": self.samples}
