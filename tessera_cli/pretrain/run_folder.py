"""The folder of a run: whose it is, what happened, and where everything lies."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli import __version__
from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.files import explain, remove_stale_parts, write_bytes, write_json
from tessera_cli.pretrain.callbacks import Row
from tessera_cli.pretrain.config import Settings
from tessera_cli.pretrain.config_file import as_json, settings_of, to_toml

FREE = {"train": {"workers", "log_every", "save_every", "eval_every"}}
"""Keys that may differ when a run goes on: they change no weight."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def shards(self) -> Path:
        """Where shards lie that have no folder of their own."""
        return self.path / "shards"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    def exported(self, settings: Settings) -> Path:
        return self.path / "export" / f"{settings.model.name}.safetensors"

    def claim(self, settings: Settings) -> None:
        """Make the folder this run's, or find that it is.

        IdentityError if it was made with other settings, UsageError if it holds something else. Until a run has saved
        something its settings may change.
        """
        if self.config.exists():
            if self.last.exists() or self.metrics.exists():
                self._compare(settings)
        elif self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise UsageError(f"{self.path} holds something else, which stays. Name a new or empty folder.")
        try:
            for folder in (self.last.parent, self.exported(settings).parent):
                folder.mkdir(parents=True, exist_ok=True)
                remove_stale_parts(folder)
            remove_stale_parts(self.path)
        except OSError as error:
            raise explain(self.path, error) from error
        write_bytes(self.config, to_toml(settings).encode())

    def _compare(self, settings: Settings) -> None:
        before, now = as_json(settings_of(config=self.config)), as_json(settings)
        differing = [
            f"{section}.{key} ({before[section].get(key)} there, {now[section].get(key)} here)"
            for section in now
            for key in sorted({*now[section], *before[section]})
            if key not in FREE.get(section, set()) and before[section].get(key) != now[section].get(key)
        ]
        if differing:
            raise IdentityError(
                f"{self.path} is a run with other settings: {', '.join(differing)}. Go on with the same ones, or "
                "choose another --out (with --init-from to start from its weights)."
            )

    def describe(self, **more: Any) -> None:
        """Write `env.json`: what the run happens on."""
        import numpy
        import torch

        versions = {"tessera": __version__, "python": platform.python_version(), "torch": torch.__version__}
        write_json(self.path / "env.json", {**versions, "numpy": numpy.__version__, "cores": os.cpu_count(), **more})

    def rows(self) -> list[Row]:
        """What `metrics.jsonl` holds; a line that a killed run left unfinished is not one of them."""
        return list(_rows(self.metrics))

    def forget_after(self, step: int) -> None:
        """Drop the rows of steps that will be done again."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in self.rows() if row.get("step", 0) <= step]
            write_bytes(self.metrics, "".join(kept).encode())

    def write_report(self, page: str) -> None:
        write_bytes(self.path / "report.html", page.encode())

    def append(self, row: Row) -> None:
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise explain(self.metrics, error) from error


def _rows(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row
