"""The Python API: the verbs as functions, the same as the commands, without a word on the terminal."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import rasterio
import rich.progress
import shapely
import tqdm
import typer

import tessera_cli as tessera_api
from tessera_cli.cli.app import app
from tests.helpers.vectors import write_layer

NOT_ON_THE_COMMAND_LINE = {"progress", "report"}
SWITCHES = {"as_json", "verbose", "quiet", "debug", "area"}
VERBS = ["embed", "fetch", "plan", "sample", "preview", "export", "pretrain", "verify", "info"]


def arguments(catalog, out: Path) -> dict:
    return {"year": 2021, "catalog": str(catalog.items), "model": "null", "out": out, "threads": 1}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("utm*")}


def test_embed_does_what_the_command_does_and_prints_nothing(catalog, tessera, tmp_path, capsys):
    summary = tessera_api.embed(catalog.aoi, **arguments(catalog, tmp_path / "api"))
    assert capsys.readouterr() == ("", "")
    assert summary.error() is None
    assert [result.status for result in summary.results] == ["done", "done"]
    assert tessera("embed", *catalog.options(tmp_path / "command"))[0] == 0
    assert digests(tmp_path / "api") == digests(tmp_path / "command") != {}
    again = tessera_api.embed(catalog.aoi, **arguments(catalog, tmp_path / "api"))
    assert [result.status for result in again.results] == ["present", "present"]


@pytest.mark.parametrize("form", ["path", "text", "mapping", "geometry", "geo interface", "Aoi", "GeoDataFrame-like"])
def test_an_area_in_any_form(catalog, tmp_path, form):
    mapping = json.loads(catalog.aoi.read_text())
    geometry = shapely.geometry.shape(mapping)

    class Holder:
        __geo_interface__: ClassVar = {"type": "Feature", "properties": {"when": object()}, "geometry": mapping}

    class Frame(Holder):
        crs = "EPSG:32631"

        def to_crs(self, code):
            assert code == 4326
            return Holder()

    aoi = {
        "path": catalog.aoi,
        "text": str(catalog.aoi),
        "mapping": mapping,
        "geometry": geometry,
        "geo interface": Holder(),
        "Aoi": tessera_api.Aoi.from_file(catalog.aoi),
        "GeoDataFrame-like": Frame(),
    }[form]
    given = arguments(catalog, tmp_path / "out")
    plan = tessera_api.plan(aoi, **{key: given[key] for key in ("year", "catalog", "model")})
    assert (plan.tiles, plan.pixels) == (2, tessera_api.plan(catalog.aoi, year=2021, catalog=given["catalog"]).pixels)


class Frame:
    """What of a GeoDataFrame is used, without geopandas."""

    def __init__(self, *shapes, crs="EPSG:4326"):
        self.crs, self.shapes = crs, shapes

    def to_crs(self, code):
        if self.crs == "nowhere":
            raise RuntimeError("Error creating Transformer from CRS.")
        return Frame(*self.shapes)

    @property
    def __geo_interface__(self):
        features = [
            {"type": "Feature", "properties": {"centre": shape and shape.centroid}, "geometry": shape}
            for shape in self.shapes
        ]
        return {"type": "FeatureCollection", "features": features}


def test_frames_with_null_geometries_and_several_columns_of_them(catalog, caplog):
    field = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    aoi = tessera_api.Aoi.of(Frame(field, None, shapely.Polygon()))
    assert aoi.features == (field,)
    assert "left out without a geometry: 2 of 3 features" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Frame(shapely.box(5, 51, 5.1, 51.1), crs="nowhere"), "a CRS that leads nowhere"),
        ([shapely.box(5, 51, 5.1, 51.1)], "cannot be made of list"),
        (shapely.Point(5, 51), r"holds a Point \(feature 1\)"),
    ],
    ids=["CRS", "list", "point"],
)
def test_areas_that_are_none(given, words):
    with pytest.raises(tessera_api.UsageError, match=words):
        tessera_api.Aoi.of(given)


@pytest.mark.filterwarnings("ignore:invalid value")  # of the older shapely, while the frame is made
def test_a_geometry_of_nowhere_is_refused_by_name():
    nowhere = shapely.Polygon([(5, 51), (5.1, np.nan), (5, 52)])
    for given in (nowhere, Frame(nowhere)):
        with pytest.raises(tessera_api.UsageError, match=r"feature 1 has the position 5\.1 nan, which is nowhere"):
            tessera_api.Aoi.of(given)


def test_a_mapping_that_holds_itself_or_arrays():
    loop: dict = {"type": "FeatureCollection"}
    loop["features"] = [loop]
    with pytest.raises(tessera_api.UsageError, match="not GeoJSON"):
        tessera_api.Aoi.of(loop)
    ring = np.array(shapely.box(5, 51, 5.1, 51.1).exterior.coords)
    assert tessera_api.Aoi.of({"type": "Polygon", "coordinates": [ring]}).bounds == (5, 51, 5.1, 51.1)


def test_layer_is_an_argument(catalog, tmp_path):
    field = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    path = write_layer(write_layer(tmp_path / "x.gpkg", "fields", [field]), "more", [shapely.box(5, 51, 5.1, 51.1)])
    made = tessera_api.plan(path, layer="fields", year=2021, catalog=str(catalog.items), model="null")
    assert made.areas == 1
    with pytest.raises(tessera_api.UsageError, match="--dpixels already say"):
        tessera_api.embed(layer="fields", dpixels=tmp_path, model="null")


def test_what_is_no_area_and_no_time_is_refused(catalog):
    with pytest.raises(tessera_api.UsageError, match="An area cannot be made of int"):
        tessera_api.plan(7, year=2021)  # type: ignore[arg-type]
    with pytest.raises(tessera_api.UsageError, match="A time is needed"):
        tessera_api.plan(catalog.aoi)
    with pytest.raises(tessera_api.UsageError, match="progress=3"):
        tessera_api.embed(catalog.aoi, year=2021, progress=3)  # type: ignore[arg-type]


def test_the_smallest_notebook_is_one_import_and_three_statements(catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(catalog.folder)
    notebook = """
import tessera_cli as tessera
tessera.embed("aoi.geojson", year=2021, catalog="items.json", model="null", out="field")
dataset = tessera.open_embeddings("field")
values = dataset.embedding.isel(time=0).values
"""
    told: dict = {}
    exec(notebook, told)
    with rasterio.open(catalog.folder / "field/utm30n_2021.vrt") as mosaic:
        west, north = mosaic.transform.c, mosaic.transform.f
        there = told["dataset"].sel(x=slice(west, west + 10 * mosaic.width), y=slice(north, north - 10 * mosaic.height))
        np.testing.assert_array_equal(there.embedding[0], mosaic.read())
    assert np.isfinite(told["values"]).any()
    assert told["dataset"].sizes["band"] == 128


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"format": "zip"}, "--format zip"),
        ({"dtype": "int16"}, "--dtype int16"),
        ({"compress": "lzw"}, "--compress lzw"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"preprocessing": "own"}, "--preprocessing own"),
        ({"threads": 0}, "--threads 0"),
        ({"allow_missing": -1}, "--allow-missing -1"),
    ],
)
def test_what_the_command_line_refuses_is_refused_before_anything_is_written(catalog, tmp_path, wrong, told):
    with pytest.raises(tessera_api.UsageError, match=told):
        tessera_api.embed(catalog.aoi, **(arguments(catalog, tmp_path / "out") | wrong))
    assert not (tmp_path / "out").exists()
    if "threads" in wrong:
        with pytest.raises(tessera_api.UsageError, match=told):
            tessera_api.plan(catalog.aoi, year=2021, catalog=str(catalog.items), **wrong)
    if set(wrong) <= {"dtype", "threads"}:
        with pytest.raises(tessera_api.UsageError, match=told):
            tessera_api.encode(tmp_path / "nothing", model="null", **wrong)
    if set(wrong) <= {"format", "preprocessing", "allow_missing"}:
        given = {"year": 2021, "catalog": str(catalog.items), "model": "null", "out": tmp_path / "stores"}
        with pytest.raises(tessera_api.UsageError, match=told):
            tessera_api.fetch(catalog.aoi, **(given | wrong))
        assert not (tmp_path / "stores").exists()


def test_numbers_of_numpy_and_boxes_of_another_length(catalog):
    from_numpy = tessera_api.plan(catalog.aoi, year=np.int64(2021), catalog=str(catalog.items))
    assert list(from_numpy.windows) == ["2021"]
    with pytest.raises(tessera_api.UsageError, match="bbox"):
        tessera_api.plan(bbox=(1, 2, 3), year=2021)


def test_keys_of_pretraining_keep_their_types(tmp_path):
    overrides = {"loss.quantise": True, "views.share": (0.3, 0.9), "train.steps": 3, "model.name": "mine"}
    with pytest.raises(tessera_api.UsageError, match="no d-pixels to train on"):
        tessera_api.pretrain((), overrides=overrides, out=tmp_path / "run")
    with pytest.raises(tessera_api.UsageError, match=r"loss\.nothing"):
        tessera_api.pretrain((), overrides={"loss.nothing": True}, out=tmp_path / "run")


def test_several_years_and_windows(catalog, tmp_path):
    plan = tessera_api.plan(
        catalog.aoi,
        year=[2021],
        window=["2021-01/2021-06", tessera_api.Window.of_year(2021)],
        catalog=str(catalog.items),
    )
    assert list(plan.windows) == ["20210101-20210630", "2021"]


def test_progress_by_function_tqdm_and_rich(catalog, tmp_path):
    calls: list[tuple[int, int]] = []
    bar = tqdm.tqdm(disable=True)
    counted: list[int] = []
    bar.update = counted.append  # type: ignore[assignment, method-assign]
    shown = rich.progress.Progress(disable=True)
    for name, progress in (("function", lambda *told: calls.append(told)), ("tqdm", bar), ("rich", shown)):
        summary = tessera_api.embed(catalog.aoi, **arguments(catalog, tmp_path / name), progress=progress)
    pixels = tessera_api.plan(catalog.aoi, year=2021, catalog=str(catalog.items)).pixels
    assert 0 < summary.pixels < pixels
    assert calls[0] == (0, pixels)
    assert calls[-1] == (pixels, pixels)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert (bar.total, sum(counted)) == (pixels, pixels)
    assert [(task.completed, task.total) for task in shown.tasks] == [(pixels, pixels)]


def test_fetch_then_encode_in_memory_is_what_embed_writes(catalog, tmp_path):
    given = {"year": 2021, "catalog": str(catalog.items), "model": "null"}
    fetched = tessera_api.fetch(catalog.aoi, **given, out=tmp_path / "stores")
    assert fetched.error() is None
    assert f"--dpixels {tmp_path / 'stores'} --model null" in fetched.embed_command
    tessera_api.embed(dpixels=tmp_path / "stores", model="null", out=tmp_path / "out", threads=1)
    for store in (tmp_path / "stores").glob("*.zarr"):
        found = tessera_api.encode(store, model="null")
        with rasterio.open(tmp_path / "out" / f"{store.stem}_emb.tif") as codes:
            np.testing.assert_array_equal(codes.read()[:, found.pixels].T, found.values)
    assert tessera_api.verify(tmp_path / "out").error() is None
    assert tessera_api.info(tmp_path / "out")["tiles"] == {"done": 2}


@pytest.mark.parametrize("verb", VERBS)
def test_options_and_arguments_are_the_same(verb):
    function = getattr(tessera_api, verb)
    parameters = inspect.signature(function).parameters
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    info, embed = {"crs", "bounds", "model", "csv", "watch"}, {"table", "columns"}  # of `embed_table`
    own = {"info": info, "embed": embed}.get(verb, set())
    assert {p.name for p in command.params} - SWITCHES - own - {"help"} == set(parameters) - NOT_ON_THE_COMMAND_LINE
    for parameter in command.params:
        if parameter.name in parameters and not parameter.required:
            default = parameters[parameter.name].default
            assert parameter.default == default or (parameter.default in (None, ()) and not default), parameter.name
    kinds = [parameter.kind for parameter in parameters.values()]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[1:])


@pytest.mark.parametrize("name", [*VERBS, "encode", "load_model", "open_embeddings", "open_dpixels"])
def test_help_reads_like_a_reference_page(name):
    function = getattr(tessera_api, name)
    text = inspect.getdoc(function) or ""
    assert "Returns:" in text or name == "load_model"
    assert "Raises:" in text
    described = set(re.findall(r"^    (\w+): ", text.partition("Args:")[2].partition("Returns:")[0], re.M))
    elsewhere = inspect.getdoc(tessera_api.embed) if "`embed` has too" in text else ""
    missing = [
        p for p in inspect.signature(function).parameters if p not in described and f"\n    {p}: " not in elsewhere
    ]
    assert not missing
    assert all(line.isascii() and len(line) <= 120 for line in text.splitlines())


def test_the_import_is_quick_and_takes_nothing_heavy():
    code = (
        "import sys, time; start = time.perf_counter(); import tessera_cli as t; t.embed, t.UsageError; "
        "print(time.perf_counter() - start, *sys.modules)"
    )
    seconds, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(seconds) < 0.2
    assert not {"torch", "numpy", "rasterio", "xarray", "odc", "pystac", "zarr"} & {m.split(".")[0] for m in modules}
    assert set(VERBS) <= set(dir(tessera_api))
    with pytest.raises(AttributeError, match="nothing"):
        tessera_api.nothing  # noqa: B018
