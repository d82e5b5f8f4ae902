"""The output folder of a `pretrain` run: its identity, its metrics, and the paths of its files."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.errors import IdentityError, UsageError, differences
from tessera_cli.files import claim_bytes, explained, write_bytes, write_json
from tessera_cli.journal import finish_begun, replacement
from tessera_cli.json_text import parse_json
from tessera_cli.parts import PART, is_alive, part_of, remove_stale_parts
from tessera_cli.pretraining.callbacks import Row
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import MAX_TOML, as_json, load_config, to_toml
from tessera_cli.reading import MB, open_file, read_file

AT_WORK = "at-work"
MAX_METRICS = 500 * MB
FREE = {"teacher.model", "train.workers", "train.log_every", "train.save_every", "train.eval_every"}
"""Keys that may differ when a run is resumed: they change no weight. `teacher.sha256` says which teacher it is."""


class RunFolder:
    """The output folder of `pretrain`: config, metrics, shards, checkpoints, exported weights and report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.metrics = path / "metrics.jsonl"
        self.environment = path / "env.json"
        self.shards = path / "shards"
        """The default folder of the shards."""
        self.last = path / "checkpoints" / "last.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"
        self._sign = part_of(path / AT_WORK)

    def exported(self, config: PretrainConfig) -> Path:
        return self.path / "export" / f"{config.model.name}.safetensors"

    def claim(self, config: PretrainConfig) -> None:
        """Make the folder that of this run, or check that it is; to be called within `at_work`.

        Its config may change until a run has saved something, unless another process is at work in it. IdentityError
        if it was made with another config, UsageError if it holds something else.
        """
        ours = to_toml(config).encode()
        something = any(path.suffix != PART for path in self.path.iterdir())
        if something and not self.config.exists():  # in this order: another run may claim it in between
            raise UsageError(f"{self.path} holds something else, which stays. Name a new or empty folder.")
        for folder in (self.path, self.last.parent, self.exported(config).parent):
            finish_begun(folder)
            remove_stale_parts(folder)
        while not claim_bytes(self.config, ours):
            before = read_file(self.config, MAX_TOML)
            if self.last.exists() or self.metrics.exists() or self._others():
                self._compare(config)
            if before == ours or self._replace_config(before, ours):
                if before != ours and self._others():  # begun in this moment, perhaps with what was there before
                    self._replace_config(ours, before)
                    self._compare(config)
                break
        for folder in (self.last.parent, self.exported(config).parent):
            folder.mkdir(exist_ok=True)

    def _replace_config(self, before: bytes, after: bytes) -> bool:
        with replacement(self.path, self.config.name, self.config.name) as new:
            write_bytes(new.files / self.config.name, after)
            return new.commit(replaces=before)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Make the folder, and let other processes see that one is at work in it.

        Errors of the file system in it are raised as UsageError, DiskFullError or TileError.
        """
        if self.path.is_file():
            raise UsageError(f"{self.path} holds something else, which stays. Name a new or empty folder.")
        with explained(self.path):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._sign.touch()
                yield
            finally:
                with suppress(OSError):
                    self._sign.unlink()

    def _others(self) -> bool:
        """Return whether other processes are, or may be, at work in the folder."""
        signs = self.path.glob(f"{AT_WORK}.*{PART}")
        return any(sign != self._sign and is_alive(sign.name) is not False for sign in signs)

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
        write_json(self.environment, machine | more)

    def rows(self) -> list[Row]:
        """Return the rows of `metrics.jsonl`, without a line that a killed run left unfinished."""
        rows: list[Row] = []
        if self.metrics.exists():
            try:
                with open_file(self.metrics) as file:
                    lines = file.read(MAX_METRICS).splitlines()
            except OSError as error:
                raise UsageError(f"{self.metrics} cannot be read: {error.strerror}. Check its permissions.") from error
            for line in lines:
                with suppress(ValueError):
                    row = parse_json(line)
                    if isinstance(row, dict):
                        rows.append(row)
        return rows

    def truncate(self, step: int) -> None:
        """Drop the rows of later steps, which will be done again."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in self.rows() if row.get("step", 0) <= step]
            write_bytes(self.metrics, "".join(kept).encode())

    def append(self, row: Row) -> None:
        with explained(self.path), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def write_report(self, page: str) -> None:
        write_bytes(self.path / "report.html", page.encode())
