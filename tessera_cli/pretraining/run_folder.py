"""The output folder of a `pretrain` run: its identity, its metrics, and the paths of its files."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.errors import IdentityError, UsageError, differences
from tessera_cli.files import explain, remove_stale_parts, write_bytes, write_json
from tessera_cli.pretraining.callbacks import Row
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import as_json, load_config, to_toml

FREE = {"train.workers", "train.log_every", "train.save_every", "train.eval_every"}
"""Keys that may differ when a run is resumed: they change no weight."""


class RunFolder:
    """The output folder of `pretrain`: config, metrics, shards, checkpoints, exported weights and report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.shards = path / "shards"
        """The default folder of the shards."""
        self.last = path / "checkpoints" / "last.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"

    def exported(self, config: PretrainConfig) -> Path:
        return self.path / "export" / f"{config.model.name}.safetensors"

    def claim(self, config: PretrainConfig) -> None:
        """Create the folder, or check that it is of this run. Until a run has saved something its config may change.

        IdentityError if it was made with another config, UsageError if it holds something else.
        """
        if self.config.exists():
            if self.last.exists() or self.metrics.exists():
                self._compare(config)
        elif self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise UsageError(f"{self.path} holds something else, which stays. Name a new or empty folder.")
        try:
            for folder in (self.last.parent, self.exported(config).parent):
                folder.mkdir(parents=True, exist_ok=True)
                remove_stale_parts(folder)
            remove_stale_parts(self.path)
        except OSError as error:
            raise explain(self.path, error) from error
        write_bytes(self.config, to_toml(config).encode())

    def _compare(self, config: PretrainConfig) -> None:
        before, now = (
            {
                name: value
                for section, keys in as_json(one).items()
                for key, value in keys.items()
                if (name := f"{section}.{key}") not in FREE
            }
            for one in (load_config(path=self.config), config)
        )
        if differing := differences(before, now):
            raise IdentityError(
                f"{self.path} is a run with other settings: {'; '.join(differing)}. Go on with the same ones, or "
                "choose another --out (with --init-from to start from its weights)."
            )

    def describe(self, **more: Any) -> None:
        """Write `env.json`: versions and machine."""
        import torch

        packages = {"torch": torch.__version__, "numpy": np.__version__}  # torch's own word tells CPU from CUDA builds
        machine = {"tessera": __version__, "python": platform.python_version(), **packages, "cores": os.cpu_count()}
        write_json(self.path / "env.json", machine | more)

    def rows(self) -> list[Row]:
        """Return the rows of `metrics.jsonl`, without a line that a killed run left unfinished."""
        rows: list[Row] = []
        if self.metrics.exists():
            for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    rows.append(row)
        return rows

    def truncate(self, step: int) -> None:
        """Drop the rows of later steps, which will be done again."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in self.rows() if row.get("step", 0) <= step]
            write_bytes(self.metrics, "".join(kept).encode())

    def append(self, row: Row) -> None:
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise explain(self.metrics, error) from error

    def write_report(self, page: str) -> None:
        write_bytes(self.path / "report.html", page.encode())
