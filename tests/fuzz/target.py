"""What is fuzzed: sound files, how one of them is changed, and what is done with it afterwards."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tessera_cli.errors import TesseraError
from tests.fuzz.mutate import damaged, mutated

Change = Callable[[Path, bytes, Random], bytes]


def json_or_bytes(path: Path, data: bytes, rng: Random) -> bytes:
    """Change JSON as JSON, and one time in five as bytes; of lines, one."""
    if path.suffix == ".gz":
        inner = json_or_bytes(path.with_suffix(""), gzip.decompress(data), rng)
        return gzip.compress(inner, 1) if rng.random() < 0.9 else damaged(gzip.compress(inner, 1), rng)
    if path.suffix not in (".json", ".geojson", ".ndjson") or rng.random() < 0.2:
        return damaged(data, rng)
    if path.suffix != ".ndjson":
        return mutated(json.loads(data), rng)
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = mutated(json.loads(lines[number]), rng)
    return b"\n".join(lines)


@dataclass(frozen=True)
class Mutant:
    """A changed file, by its path in the target's folder."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Target:
    """One border that strangers' bytes cross.

    `build` writes sound files to a folder; `use` does with the folder what commands do, where the file at the second
    path is a changed one.
    """

    name: str
    build: Callable[[Path], object]
    use: Callable[[Path, Path], object]
    change: Change = json_or_bytes
    allowed: tuple[type[Exception], ...] = ()
    """What `use` may raise besides the errors that commands tell in a line."""
    varied: Callable[[Path], bool] = lambda path: True
    """Which of the files are changed."""

    def prepare(self, folder: Path) -> Ready:
        folder.mkdir(parents=True)
        self.build(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return Ready(self, folder, {str(path.relative_to(folder)): path.read_bytes() for path in files})


@dataclass(frozen=True)
class Ready:
    """A target whose sound files are written."""

    target: Target
    folder: Path
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def varied(self) -> list[str]:
        """Return the files that are changed, by their paths."""
        return [name for name in self.files if self.target.varied(Path(name))]

    def mutant(self, rng: Random) -> Mutant:
        name = rng.choice(self.varied)
        return Mutant(name, self.target.change(Path(name), self.files[name], rng))

    def use(self, mutant: Mutant) -> None:
        """Use the folder with one file changed; raises what is not allowed. The folder is as before afterwards."""
        path = self.folder / mutant.name
        path.write_bytes(mutant.data)
        try:
            self.target.use(self.folder, path)
        except (TesseraError, *self.target.allowed) as error:
            if getattr(error, "exit_code", 2) == 1:
                raise
        finally:
            self.restore(mutant.name)

    def use_sound(self) -> None:
        """Use the files as they are, which raises nothing; libraries load what they need."""
        for name in self.varied:
            self.target.use(self.folder, self.folder / name)

    def restore(self, *names: str) -> None:
        """Write the files of these names, or all of them, as they were, and remove what was made beside them."""
        for name in names or self.files:
            file = self.folder / name
            if not file.is_file() or names or file.read_bytes() != self.files[name]:
                file.write_bytes(self.files[name])
        own = {Path(name).parts[0] for name in self.files}
        for path in [each for each in self.folder.iterdir() if each.name not in own]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
