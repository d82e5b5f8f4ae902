"""Results as records of the geo-embeddings benchmarking protocol, whose models are written out here."""

from __future__ import annotations

import json
import math
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tessera_cli.evaluation.report.record import lines, records
from tests.evaluation.example_report import classification, macro_f1, regression


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class Dataset(Strict):
    title: str
    tags: list[str]
    stac_id: str | None
    geometry: dict | None
    bbox: list[float] | None
    datetime: str | None
    start_datetime: str | None
    end_datetime: str | None
    links: list[dict]
    assets: dict


class PretrainedModel(Strict):
    pretraining_bands: str
    preferred_satellite_source: str
    input_shape: str
    output_shape: str
    pretrained_weight_source: str
    pretraining_data_provenance: str


class Result(Strict):
    dataset_id: UUID
    pretrained_model_id: UUID
    runner_id: UUID


def test_records_are_what_the_protocol_takes():
    for report in (classification(), regression(), {"results": classification()["results"]}):
        for record in records(report):
            Dataset.model_validate(record["dataset"])
            PretrainedModel.model_validate(record["pretrained_model"])
            Result.model_validate(record["result"])


def test_there_is_one_per_result_with_its_measures():
    report = classification()
    found = list(records(report))
    constants = [each for each in found if each["measurement"]["decoder"] == "constant"]
    assert len(constants) == 5  # not one per set of features
    assert len(found) == len(report["results"]) - 5 * 3
    (line,) = (
        each["measurement"]
        for each in found
        if (each["measurement"]["features"], each["measurement"]["decoder"], each["measurement"]["labels"])
        == ("tessera 2023", "knn", 0.3)
    )
    f1 = macro_f1("tessera 2023", "knn", 0.3)
    assert (line["macro_f1"], line["macro_f1_low"], line["macro_f1_high"]) == (f1, f1 - 0.04, f1 + 0.04)
    assert (line["split"], line["block_m"], line["draws"], line["kind"]) == ("blocked", 800.0, 10, "embedding")


def test_identifiers_link_the_objects_and_stay_the_same():
    first, second = list(records(classification())), list(records(classification()))
    assert first == second
    models = {each["result"]["pretrained_model_id"] for each in first}
    assert len(models) == 4
    assert len({each["result"]["dataset_id"] for each in first}) == 1


def test_bounds_are_those_of_the_samples():
    (dataset, *_) = (each["dataset"] for each in records(classification()))
    assert dataset["bbox"] == [4.4, 51.0, 4.4 + 0.39, 51.0 + 0.008 * 29]
    assert dataset["title"] == "fields.gpkg crop"
    report = classification() | {"places": None}
    assert next(records(report))["dataset"]["bbox"] is None


def test_lines_are_json():
    report = regression()
    report["results"][0]["metrics"]["r2"] = math.nan
    text = lines(report)
    read = [json.loads(line, parse_constant=lambda name: 1 / 0) for line in text.splitlines()]
    assert read[0]["measurement"]["r2"] is None
