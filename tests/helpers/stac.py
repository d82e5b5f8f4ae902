"""Validate STAC against schemas that lie here and in pystac: no network."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pystac
from pystac.validation.stac_validator import JsonSchemaSTACValidator

SCHEMAS = Path(__file__).parents[1] / "schemas"


@functools.cache
def offline_validator() -> JsonSchemaSTACValidator:
    """Return a validator for STAC 1.1.0 and all extensions that we declare; it fetches nothing."""
    validator = JsonSchemaSTACValidator()
    for path in sorted(SCHEMAS.glob("*.json")):
        name, _, version = path.stem.rpartition("-")
        text = path.read_text().replace("https://schemas.stacspec.org/v1.0.0/", "https://schemas.stacspec.org/v1.1.0/")
        validator.schema_cache[f"https://stac-extensions.github.io/{name}/{version}/schema.json"] = json.loads(text)
    validator.schema_cache["https://proj.org/schemas/v0.7/projjson.schema.json"] = {
        "$id": "https://proj.org/schemas/v0.7/projjson.schema.json",
        "$schema": "http://json-schema.org/draft-07/schema#",
        "not": {},  # we write none
    }
    return validator


def validate(content: dict[str, Any]) -> None:
    """Raise pystac.STACValidationError unless an item, collection or catalogue and its extensions are valid."""
    kinds = {"Feature": "ITEM", "Collection": "COLLECTION", "Catalog": "CATALOG"}
    offline_validator().validate(
        content, pystac.STACObjectType[kinds[content["type"]]], "1.1.0", content.get("stac_extensions", [])
    )
