"""The tags of rasters, under the names that geotessera's tools know (`spec/outputs.md` 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tessera_cli import __version__
from tessera_cli.extent.window import Window
from tessera_cli.models import REGISTRY

SOFTWARE = "tessera-embed"
_DERIVED = ("TESSERA_MODEL_NAME", "TESSERA_SOURCE", "TESSERA_PREPROCESSING", "TESSERA_BUILD_VERSION", "TESSERA_NOTE")
VERSIONS: Mapping[str, str] = {"v1.0": "1.0", "v1.1": "1.1", "v2": "2.0"}
"""How the names of released models begin -> the version that geotessera's tags and pages use."""


def model_tags(identity: Mapping[str, Any], note: str = "") -> dict[str, str]:
    """Return the tags of all rasters of a folder with this identity.

    The dataset version holds the model's size or kind and the variant our source, so that geotessera refuses to merge
    what does not belong together; it would merge rasters without a variant with anything.
    """
    source, name = identity["source"], PurePath(identity["model"]).name  # rasters hold no paths
    family, _, kind = name.partition("-")
    version = _version(name)
    dataset = name if version is None else "-".join([version] + ([kind] if kind and kind != source else []))
    return {
        "TESSERA_MODEL": model_url(name),
        "TESSERA_MODEL_NAME": name,
        **({"TESSERA_SOURCE": source} if source else {}),
        "TESSERA_BANDS": ",".join(map(str, range(identity["dims"]))),
        "TESSERA_BUILD_VERSION": __version__,
        "TESSERA_DATASET_VERSION": dataset,
        "TESSERA_DATASET_VERSION_PATH": family if version else name,
        "TESSERA_DATASET_VARIANT": f"local-{source or 'unknown'}",
        "TESSERA_PREPROCESSING": identity["preprocessing"],
        **({"TESSERA_NOTE": note} if note else {}),
    }


def derived_tags(identity: Mapping[str, Any], note: str = "") -> dict[str, str]:
    """Return those of the tags that are true of what is derived from embeddings, too: pictures, similarities, changes.

    By the others it would be taken for embeddings.
    """
    return {key: value for key, value in model_tags(identity, note).items() if key in _DERIVED}


def window_tags(window: Window | None) -> dict[str, str]:
    """Return the tags of a window; none if it is not known."""
    if window is None:
        return {}
    return {"TESSERA_YEAR": window.name, "TESSERA_WINDOW": f"{window.start}/{window.end}"}


def model_url(model: str) -> str:
    """Return the page of a published model; a URN of our own for any other."""
    version = _version(model)
    return f"https://geotessera.org/model/{version}" if version else f"urn:{SOFTWARE}:model:{model}"


def _version(model: str) -> str | None:
    """Return the version of a released model; None for any other, whatever it is called."""
    return VERSIONS.get(model.partition("-")[0]) if model in REGISTRY else None
