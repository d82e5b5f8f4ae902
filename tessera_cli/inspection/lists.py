"""Compare a folder's collection, catalogue and index of items with what a run on it would write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tessera_cli.folders.checks import Check
from tessera_cli.folders.folder import TileFolder
from tessera_cli.json_text import parse_json
from tessera_cli.outputs import item_table
from tessera_cli.outputs.collection import digest_of
from tessera_cli.outputs.stac import COLLECTION, INDEX
from tessera_cli.runs.collection import Items, listing, lists_of, names_index

AGAIN = "Run again: no tile is made anew."


def check_lists(folder: TileFolder) -> Iterator[Check]:
    """Yield what is amiss with the lists of a folder whose tiles are sound; nothing if they are as they should be.

    A folder without any has none to be wrong: no run on it has come to its end, or an earlier version wrote it. Lists
    that do not name a picture that was added or removed since are stale, not damaged. The index is compared by its ids,
    where pyarrow is installed.
    """
    found = lists_of(folder)
    if not folder.identity or not found:
        return
    members = Items(folder).refresh()
    collection = found.get(folder.path / COLLECTION)
    if None in found.values():
        yield from (Check(path.name, "beside", "it is not ours") for path in found if found[path] is None)
        return  # then a run writes neither
    for path, due in listing(folder, members, index=names_index(collection)).items():
        if path not in found:
            yield Check(path.name, "missing", f"the list of the tiles is gone. {AGAIN}")
            continue
        there, wanted = found[path] or {}, parse_json(due)
        if there != wanted and _without_assets(there) == _without_assets(wanted):
            yield Check(path.name, "stale", f"it does not name the mosaics and pictures that are there now. {AGAIN}")
        elif there != wanted:
            yield Check(path.name, "damaged", f"it does not show the tiles as they are. {AGAIN}")
    if not members and any(found.values()):
        yield Check(COLLECTION, "damaged", f"it lists tiles that are not there. {AGAIN}")
    if not names_index(collection) or not item_table.can_write():
        return
    path = folder.path / INDEX
    if not path.exists():
        yield Check(INDEX, "missing", f"the index of the tiles is gone. {AGAIN}")
    elif item_table.digest_in(path) != digest_of(members) or item_table.ids_in(path) != [m.name for m in members]:
        yield Check(INDEX, "damaged", f"it does not hold the tiles as they are. {AGAIN}")


def _without_assets(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "assets"}
