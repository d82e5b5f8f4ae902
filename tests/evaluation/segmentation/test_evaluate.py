"""Segmentation as an evaluation: who learns from what, whose prediction is scored, what comes of folders."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from sklearn.metrics import accuracy_score

from tessera_cli.dpixels import find_stores, write_store
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.cells import CellFolder
from tessera_cli.evaluation.protocol import Settings
from tessera_cli.evaluation.segmentation import evaluate as module
from tessera_cli.evaluation.segmentation import training
from tessera_cli.evaluation.segmentation.evaluate import run_segmentation
from tessera_cli.evaluation.segmentation.kept import Kept
from tessera_cli.evaluation.segmentation.read import read_rasters
from tessera_cli.learning.budgets import Budget
from tests.evaluation.rasters import write_geojson
from tests.exports.folders import EAST, NEXT, WEST, lonlat, put
from tests.runs.test_embed_dpixels import fetched

ALL, HALF, TINY = Budget(fraction=1.0), Budget(fraction=0.5), Budget(fraction=0.01)
NAMES = ("beet", "oats", "rye")


def parcels(folder, tile, rows=range(104, 200, 16), columns=range(34, 130, 16), side=6):
    """Write square parcels, of the three classes in turn, and beet twice as often."""
    shapes, crops = [], []
    for row in rows:
        for column in columns:
            corners = ((0, 0), (0, side), (side, side), (side, 0))
            shapes.append(shapely.Polygon([lonlat(tile, row + r - 0.5, column + c - 0.5) for r, c in corners]))
            crops.append((*NAMES, "beet")[len(crops) % 4])
    return write_geojson(folder / "fields.geojson", shapes, crop=crops)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    put(folder / "here", WEST)
    put(folder / "here", EAST, seed=1)
    return Asked((folder / "here",), labels=parcels(folder, WEST), column="crop", task="segmentation")


@pytest.fixture(scope="module")
def read(asked):
    return read_rasters(asked, block=300, folds=3)


def settings(*budgets, draws=3):
    return Settings(("decoder",), budgets, draws)


@pytest.fixture
def networks(monkeypatch):
    """Networks whose classes follow from places alone; returns the draws and seeds that they were given."""
    given = []

    def segment(scenes, draw, kind, *, classes, seed, threads):
        given.append((draw, seed))
        wanted = [draw.hidden(scene) & (scene.labels >= 0) for scene in scenes]
        said = np.concatenate([by_place(number, mask.shape)[mask] for number, mask in enumerate(wanted)])
        return SimpleNamespace(predicted=said.astype(np.int16), parameters=7)

    monkeypatch.setattr(module, "segment", segment)
    return given


def by_place(scene, shape):
    rows, columns = np.indices(shape)
    return (7 * scene + 3 * rows + 5 * columns) % 3


def test_no_pixel_of_a_test_block_is_learned_from(read, networks):
    areas, rasters = read
    made = run_segmentation(areas, rasters, settings(HALF, ALL))
    truth = areas.truth
    assert len(networks) == 3 + 3
    for draw, _ in networks:
        for labels, numbers, blocks in zip(truth.labels, truth.parcels, truth.blocks, strict=True):
            tested = np.isin(blocks, draw.test) & (labels >= 0)
            learned = np.isin(numbers, draw.train) & (labels >= 0)
            assert not (tested & learned).any()
            assert not set(numbers[tested].tolist()) & set(numbers[learned].tolist())  # no parcel is cut
    tested = np.concatenate([draw.test for draw, _ in networks[:3]])
    assert sorted(tested.tolist()) == np.unique(truth.block_of_parcel).tolist()  # each block once
    whole = [draw.train for draw, _ in networks[3:]]
    assert [len(draw.train) for draw, _ in networks[:3]] == [round(len(each) / 2) for each in whole]
    for cell, draws in zip(made.cells, [[draw for draw, _ in networks[3:]]], strict=True):
        for test, draw in zip(cell.tests, draws, strict=True):
            assert np.isin(made.split.blocks[test], draw.test).all()


@pytest.mark.parametrize("most", [10**6, 501])
def test_predictions_are_those_of_the_pixels_that_are_scored(read, networks, monkeypatch, most):
    """Also where not all are scored: every pixel's prediction follows from its place, so a slip would show."""
    monkeypatch.setattr(module, "SCORED", most)
    areas, rasters = read
    made = run_segmentation(areas, rasters, settings(ALL))
    pairs = list(enumerate(areas.truth.labels))
    labels = np.concatenate([each[each >= 0] for _, each in pairs])
    said = np.concatenate([by_place(number, each.shape)[each >= 0] for number, each in pairs])
    scored = np.unique(np.linspace(0, len(labels) - 1, min(most, len(labels))).astype(int))
    assert np.array_equal(made.samples.targets, labels[scored])
    (cell,) = made.cells
    tested = np.concatenate(cell.tests)
    assert np.array_equal(np.sort(tested), np.arange(len(scored)))
    assert np.array_equal(np.concatenate(cell.predictions), said[scored[tested]])


def test_the_constant_is_the_commonest_class_of_the_pixels_learned_from(read, networks):
    areas, rasters = read
    made = run_segmentation(areas, rasters, settings(HALF))
    (score,) = [each for each in made.scores if (each.adapter, each.unit) == ("constant", "pixel")]
    truth, expected = areas.truth, []
    for draw, _ in networks:
        learned = [each[np.isin(at, draw.train)] for each, at in zip(truth.labels, truth.parcels, strict=True)]
        commonest = np.bincount(np.concatenate(learned)).argmax()
        tested = [
            each[np.isin(at, draw.test) & (each >= 0)] for each, at in zip(truth.labels, truth.blocks, strict=True)
        ]
        right = np.concatenate(tested)
        expected.append(accuracy_score(right, np.full(len(right), commonest)))
    assert np.allclose(score.by_draw["accuracy"], expected)


def test_a_budget_of_too_few_parcels_is_said_to_be_impossible(read, networks, caplog):
    areas, rasters = read
    made = run_segmentation(areas, rasters, settings(TINY, ALL))
    (left,) = made.impossible
    assert left.budget == TINY
    assert "1 % of the labels is not possible" in caplog.text.replace("1%", "1 %")
    assert {each.budget for each in made.scores} == {ALL}


def test_an_interruption_costs_one_network(read, networks, monkeypatch, tmp_path):
    areas, rasters = read
    working = module.segment

    def interrupted(*given, **named):
        if len(networks) == 2:
            raise KeyboardInterrupt
        return working(*given, **named)

    cells = CellFolder.of(tmp_path / "cells", *areas.truth.labels)
    monkeypatch.setattr(module, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_segmentation(areas, rasters, settings(ALL), cells)
    monkeypatch.setattr(module, "segment", working)
    told = []
    again = run_segmentation(areas, rasters, settings(ALL), cells, advance=told.append)
    assert len(networks) == 3  # two before, one after
    assert sum(told) == 3
    alone = run_segmentation(areas, rasters, settings(ALL))
    assert [each.to_dict() for each in again.scores] == [each.to_dict() for each in alone.scores]


def test_two_folders_learn_from_the_same_labels(asked, tmp_path):
    other = tmp_path / "there"
    put(other, WEST, seed=2, dims=5)
    put(other, EAST, seed=3, dims=5)
    _, rasters = read_rasters(replace(asked, inputs=(*asked.inputs, other)), block=300, folds=3)
    assert [(each.name, each.kind, each.scenes[0].dims) for each in rasters] == [
        ("here", "decoder", 4),
        ("there", "decoder", 5),
    ]
    for one, two in zip(*(each.scenes for each in rasters), strict=True):
        assert np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.parcels, two.parcels)
    assert rasters[0].identity != rasters[1].identity


def test_what_does_not_belong_together_is_refused(asked, tmp_path):
    put(tmp_path / "part", WEST)
    put(tmp_path / "years", WEST)
    put(tmp_path / "years", WEST, window=NEXT)
    for change, said in (
        ({"inputs": (*asked.inputs, tmp_path / "part")}, "has no tile"),
        ({"inputs": (*asked.inputs, tmp_path / "years")}, "several windows"),
        ({"inputs": (tmp_path / "years",)}, "several windows"),
        ({"labels": None}, "Labels are missing"),
        ({"unit": "parcel"}, "--unit"),
        ({"group": "site"}, "--group or --leave-out"),
    ):
        with pytest.raises(UsageError, match=said):
            read_rasters(replace(asked, **change), block=300, folds=3)


def test_a_unet_learns_from_medians_of_the_dpixels(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 4)
    tiles = fetched(catalog)
    (tmp_path / "dpixels").mkdir()
    for number, tile in enumerate(tiles):
        write_store(tmp_path / "dpixels", tile)
        put(tmp_path / "here", tile.tile, window=tile.window, seed=number, requested=tile.requested)
    rows, columns = np.nonzero(tiles[0].requested)
    spans = (range(each.min(), each.max(), 4) for each in (rows, columns))
    labels = parcels(tmp_path, tiles[0].tile, *spans, side=3)
    asked = Asked((tmp_path / "here",), labels=labels, column="crop", dpixels=(tmp_path / "dpixels",))
    areas, (embedded, raw) = read_rasters(asked, block=60, folds=2)
    assert (embedded.kind, raw.kind, raw.scenes[0].dims) == ("decoder", "unet", 4 * 12)
    made = run_segmentation(areas, [embedded, raw], settings(ALL))
    assert {(each.features, each.adapter) for each in made.scores} == {
        (name, adapter)
        for name, own in (("here", "decoder"), ("raw-seasonal", "unet"))
        for adapter in ("constant", own)
    }
    assert {each.kind for each in made.samples.features} == {"embedding", "raw"}
    known = np.argwhere(areas.truth.labels[0] >= 0)
    (row, column) = known[len(known) // 2].tolist()
    found = raw.scenes[0].read((slice(row, row + 1), slice(column, column + 1)))[:, 0, 0]
    tile = tiles[0]
    season_of_month = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0)  # winter begins in December
    season = np.array(season_of_month)[tile.s2_dates.astype("datetime64[M]").astype(int) % 12]
    for number in range(4):
        here = tile.s2[:, row, column][(season == number) & (tile.s2_mask[:, row, column] != 0)].astype(float)
        expected = np.floor(np.median(here, axis=0)) if len(here) else np.full(10, np.nan)
        assert np.array_equal(found[12 * number : 12 * number + 10], expected, equal_nan=True)
    stores = find_stores([tmp_path / "dpixels"])
    with pytest.raises(UsageError, match="no d-pixels of"):
        areas.composites(stores[1:], Kept())
