"""Results as records of the geo-embeddings benchmarking protocol.

The protocol (github.com/geo-embeddings/geospatial-benchmarking-protocol, still in the making) knows a `dataset`, a
`pretrained_model` and a `result` that links the two and a `runner`; its server gives them their identifiers. A result
holds no measure yet, so ours stand beside it under `measurement`. What a report does not know is empty, or says so.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from tessera_cli.evaluation.report.results import CONSTANT

NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/geo-embeddings/geospatial-benchmarking-protocol")
UNKNOWN = "not recorded"


def records(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record per result of report.json: the bodies of the three requests that publish it, and its measures.

    Identifiers are made from the content: they link the objects here, until a server gives its own.
    """
    features = {entry["name"]: entry for entry in report.get("features") or ()}
    dataset = _dataset(report)
    runner = str(report.get("software") or "tessera")
    seen = set()
    for result in report.get("results") or ():
        if result["adapter"] == CONSTANT:  # the same for all features: one record
            key = (result.get("labels"), result.get("shots"), result.get("unit"))
            if key in seen:
                continue
            seen.add(key)
        model = _model(features.get(result["features"], {"name": result["features"]}))
        yield {
            "dataset": dataset,
            "pretrained_model": model,
            "result": {
                "dataset_id": _identifier("dataset", dataset),
                "pretrained_model_id": _identifier("pretrained_model", model),
                "runner_id": _identifier("runner", runner),
            },
            "measurement": _measurement(report, result),
        }


def lines(report: Mapping[str, Any]) -> str:
    """Return the records as JSON Lines."""
    return "".join(f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n" for record in records(report))


def _dataset(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that creates a dataset: a STAC item in short, with the bounds of the samples."""
    inputs = report.get("inputs")
    named = inputs if isinstance(inputs, Mapping) else {}
    about = " ".join(str(named[key]) for key in ("labels", "column") if named.get(key))
    places = (report.get("places") or {}).get("lonlat") or ()
    known = [(lon, lat) for lon, lat in places if None not in (lon, lat) and math.isfinite(lon + lat)]
    bounds = None
    if known:
        lon, lat = zip(*known, strict=True)
        bounds = [min(lon), min(lat), max(lon), max(lat)]
    tags = [report.get("task"), report.get("unit"), f"split: {(report.get('split') or {}).get('kind')}"]
    return {
        "title": about or f"{report.get('task', 'labelled')} samples",
        "tags": [str(tag) for tag in tags if tag],
        "stac_id": None,
        "geometry": None if bounds is None else _rectangle(*bounds),
        "bbox": bounds,
        "datetime": None,
        "start_datetime": None,
        "end_datetime": None,
        "links": [],
        "assets": {},
    }


def _rectangle(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _model(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the body that creates a pretrained model, all of whose fields are text."""
    trained = entry.get("kind") in ("embedding", "both")
    return {
        "pretraining_bands": UNKNOWN if trained else "none",
        "preferred_satellite_source": UNKNOWN,
        "input_shape": UNKNOWN,
        "output_shape": str(entry.get("dims", UNKNOWN)),
        "pretrained_weight_source": f"{entry['name']}: {entry.get('origin') or UNKNOWN}",
        "pretraining_data_provenance": UNKNOWN if trained else "none",
    }


def _measurement(report: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured, flat."""
    split = report.get("split") or {}
    kind = {entry["name"]: entry.get("kind") for entry in report.get("features") or ()}.get(result["features"])
    flat: dict[str, Any] = {
        "task": report.get("task"),
        "features": None if result["adapter"] == CONSTANT else result["features"],
        "kind": None if result["adapter"] == CONSTANT else kind,
        "decoder": result["adapter"],
        "labels": result.get("labels"),
        "shots": result.get("shots"),
        "unit": result.get("unit"),
        "split": split.get("kind"),
        "block_m": split.get("size_m"),
        "samples": report.get("samples"),
        "samples_trained_on": result.get("n_train"),
        "draws": result.get("draws"),
        "seed": report.get("seed"),
        "software": report.get("software"),
    }
    for name, found in (result.get("metrics") or {}).items():
        flat[name] = found
        for end in ("low", "high"):
            flat[f"{name}_{end}"] = (result.get(end) or {}).get(name)
    return {key: None if isinstance(each, float) and not math.isfinite(each) else each for key, each in flat.items()}


def _identifier(kind: str, content: object) -> str:
    return str(uuid.uuid5(NAMES, f"{kind} {json.dumps(content, sort_keys=True)}"))
