"""Sources and a file of labels -> labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tessera_cli.errors import UsageError, counted
from tessera_cli.evaluation.checked import checked
from tessera_cli.evaluation.chosen import Chosen, read_parcels, read_pixels
from tessera_cli.evaluation.columns import group_numbers, split_rows
from tessera_cli.evaluation.found import Advance, labelled_pixels, labelled_points, pixels_under
from tessera_cli.evaluation.samples import FeatureSet, LabelledSamples
from tessera_cli.evaluation.sources.label_file import AnyLabels, open_labels
from tessera_cli.evaluation.sources.source import Source
from tessera_cli.evaluation.whereabouts import elsewhere, unused_polygons
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.raster import RasterLabels
from tessera_cli.learning.task import Task, Unit

PREFIXES = (16, 32, 64)


def from_labels(
    sources: Sequence[Source],
    labels_path: Path,
    *,
    column: str | None = None,
    layer: str | None = None,
    task: Task | None = None,
    unit: Unit | None = None,
    split: str | None = None,
    group: str | None = None,
    samples: int = 50_000,
    seed: int = 0,
    advance: Advance | None = None,
) -> LabelledSamples:
    """Label the pixels of the first source, choose at most `samples`, and read their vectors from all sources.

    Args:
        sources: What is compared. A place that one of them lacks is left out for all.
        labels_path: Polygons, points or a raster of labels, as `open_labels` takes.
        column: That of the labels.
        layer: One of several in the file.
        task: None: told by the type of the column.
        unit: What is a sample: pixels (of polygons and rasters; where it is None, too), or parcels, by the mean vector
            of up to 256 of their pixels. Points are samples themselves.
        split: Column of the file that says test or train.
        group: Column of the file that says what must not be split; None: parcels, or points of one pixel.
        samples: Most samples. Which ones follows from the seed and their places alone: spread over classes as these
            are, and evenly over parcels.
        seed: Of that choice.
        advance: Told of pixels as they are looked up, and of samples as they are read.

    Raises:
        UsageError: The labels cannot be read or used, lie elsewhere, or leave nothing to be told apart.
    """
    keep = tuple(dict.fromkeys(name for name in (split, group) if name))
    labels = open_labels(labels_path, column=column, layer=layer, task=task, near=sources[0].bounds, keep=keep)
    unit = _unit(labels, unit, labels_path)
    if isinstance(labels, PointLabels):
        found = labelled_points(sources[0], labels, advance)
    else:
        found = labelled_pixels(sources[0], labels, advance)
    if not len(found):
        raise UsageError(elsewhere(sources[0], labels, labels_path))
    given = _Given.of(labels, split, group, labels_path)
    lines = [*labels.left_out, *unused_polygons(labels, labels_path)]
    if given.said is not None and not given.said[found.parcels].all():
        said = given.said[found.parcels]
        lines.append(f"{labels_path}: {int((~said).sum()):,} labelled places say nothing of the split in {split}")
        found = found.take(said)
    read = read_parcels if unit == "parcel" else read_pixels
    chosen = read(sources, found, samples, seed, advance)
    if len(chosen.found) < chosen.total:
        lines.append(
            f"{counted(len(chosen.found), unit)} of {chosen.total:,} that have labels are used, chosen by a hash"
        )
    whole = np.asarray(chosen.there.all(axis=1))
    if not whole.all():
        lines.append(_lacking(sources, chosen, unit))
    if not whole.any():
        names = " and ".join(source.origin for source in sources)
        raise UsageError(f"{labels_path}: no labelled place has an embedding in each of {names}. Do they overlap?")
    return checked(_samples(sources, chosen, whole, labels, given, unit, tuple(lines)), str(labels_path))


def with_prefixes(samples: LabelledSamples, dims: Sequence[int] = PREFIXES) -> LabelledSamples:
    """Return the samples with, after each set of embeddings, sets of its first dimensions: `name:16`."""
    features: list[FeatureSet] = []
    for each in samples.features:
        features.append(each)
        for size in dims:
            if each.kind == "embedding" and size < each.values.shape[1]:
                about = f"{each.origin}, first {size} dimensions"
                values = each.values[:, :size]
                features.append(FeatureSet(f"{each.name}:{size}", each.kind, values, about, variant_of=each.name))
    return replace(samples, features=tuple(features))


@dataclass(frozen=True, eq=False)
class _Given:
    """What columns of the file say of each parcel."""

    test: np.ndarray | None = None
    said: np.ndarray | None = None
    """bool (P,): whether they say test or train."""
    groups: np.ndarray | None = None

    @classmethod
    def of(cls, labels: AnyLabels, split: str | None, group: str | None, path: Path) -> _Given:
        if isinstance(labels, RasterLabels):
            return cls()
        test, said = split_rows(labels.columns[split], f"{path}: the column {split}") if split else (None, None)
        return cls(test, said, group_numbers(labels.columns[group], f"{path}: the column {group}") if group else None)


def _samples(
    sources: Sequence[Source],
    chosen: Chosen,
    whole: np.ndarray,
    labels: AnyLabels,
    given: _Given,
    unit: Unit,
    lines: tuple[str, ...],
) -> LabelledSamples:
    found, lonlat = chosen.found.take(whole), chosen.lonlat[whole]
    parcels = found.parcels.astype(np.int64)
    groups = parcels
    if given.groups is not None:
        groups = given.groups[parcels]
    elif isinstance(labels, PointLabels):
        groups = pixels_under(lonlat)
    classes: tuple[str, ...] = ()
    targets = np.asarray(found.values, np.float64)
    if labels.task != "regression":
        values, inverse = np.unique(found.values, return_inverse=True)
        targets = np.asarray(inverse)
        classes = tuple(labels.name(int(value)) for value in values)
    features = zip(sources, chosen.values, strict=True)
    return LabelledSamples(
        task=labels.task,
        unit=unit,
        features=tuple(FeatureSet(each.name, each.kind, values[whole], each.origin) for each, values in features),
        targets=targets.reshape(-1),
        classes=classes,
        lonlat=lonlat,
        parcels=parcels,
        groups=groups,
        test=None if given.test is None else given.test[parcels],
        left_out=lines,
        keys=chosen.keys[whole],
    )


def _unit(labels: AnyLabels, unit: Unit | None, path: Path) -> Unit:
    if isinstance(labels, PointLabels):
        if unit == "parcel":
            raise UsageError(f"{path} holds points, which cover no parcels. Leave out --unit, or give polygons.")
        return "point"
    if unit == "point":
        raise UsageError(f"{path} holds no points. Choose --unit pixel or parcel.")
    return unit or "pixel"


def _lacking(sources: Sequence[Source], chosen: Chosen, unit: Unit) -> str:
    whole = chosen.there.all(axis=1)
    lack = zip(sources, (~chosen.there).sum(axis=0).tolist(), strict=True)
    each = ", ".join(f"{source.name}: {count:,}" for source, count in lack if count)
    return f"{counted(int((~whole).sum()), unit)} left out that not all sources have ({each})"
