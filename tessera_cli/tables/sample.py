"""Read the embeddings of places from a folder."""

from __future__ import annotations

from collections.abc import Iterator

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.tables.places import Places
from tessera_cli.tables.samples import Samples


def sample(folder: EmbeddingFolder, places: Places) -> Iterator[Samples]:
    """Yield the embeddings of all places in all windows of the folder, some places at a time, in their order."""
    raise NotImplementedError
