"""A table of samples with classes: matched to what is trained on by name or by place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.extent.grid import RESOLUTION, to_utm
from tessera_cli.labels.places import squares
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.targets import Targets, check_column, column_of
from tessera_cli.pretraining.config import ProbeConfig
from tessera_cli.pretraining.data.select import named_keys
from tessera_cli.pretraining.evaluation.classed import OPTIONS, Classed, Grouping
from tessera_cli.sampling.draws import mix, pixel_keys
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.files import TableFile
from tessera_cli.series.places import keys_of, named_places, names_of
from tessera_cli.series.told import read_samples

logger = logging.getLogger(__name__)

FAR = 1000.0
"""Metres between a pixel and the sample of its name, beyond which they are two things that are called alike."""


@dataclass(eq=False)
class TableOfClasses:
    """A table of samples: they are found by name among those trained on, and all others by the pixel under their place.

    A group is what `probe.group` says, else the square around the place, else the group that the pixels were trained
    with, else the sample by itself.
    """

    origin: str
    targets: Targets
    rows: np.ndarray
    """int64 (M,): the samples that have a class."""
    keys: np.ndarray | None
    """uint64 (M,): hashes of their names; None without names."""
    points: PointLabels
    """Of the same M samples; those without a place lie nowhere."""
    groups: np.ndarray
    """int64 (M, 3): what stands for the place of each one's group; code 0 where none is said."""
    block: int
    inputs: Sequence[str]
    grouped: bool
    alone: int = 0
    """Pixels so far that are groups by themselves."""
    seen: int = 0
    namesakes: int = 0
    """Pixels so far that bear the name of a sample far away."""

    @classmethod
    def open(cls, path: Path, config: ProbeConfig, inputs: Sequence[str]) -> TableOfClasses:
        file = TableFile.open(path)
        there = dict.fromkeys(file.names)
        label = column_of(there, config.column, str(path), OPTIONS)
        for name in (config.sample, config.group):
            if name:
                check_column(there, name, str(path))
        table = read_samples(file, [label, *filter(None, [config.group])], config.sample or None)
        targets = Targets.of(table.column(label), "classification", f"{path}: the column {label}")
        rows = np.flatnonzero(targets.given)
        groups = np.zeros((len(rows), 3), np.int64)
        if config.group:
            names = names_of(table.column(config.group)[rows])
            said = np.array([name is not None for name in names], bool)
            groups[said] = named_places(keys_of(names[said]))
        return cls(
            origin=str(path),
            targets=targets,
            rows=rows,
            keys=None if table.ids is None else keys_of(table.ids[rows]),
            points=PointLabels(table.lonlat[rows], targets.values[rows], targets.names, "classification"),
            groups=groups,
            block=config.block,
            inputs=inputs,
            grouped=bool(config.group),
        )

    @property
    def grouping(self) -> Grouping:
        if self.grouped:
            return Grouping("group", "groups", "give labels of more groups")
        many = f"groups or squares of {self.block} pixels"
        return Grouping("group or square of probe.block pixels", many, "make probe.block smaller")

    def of(self, part: RaggedPixels) -> Classed:
        owner = np.full(len(part), -1, np.int64)
        places = np.asarray(part.places, np.int64)
        if self.keys is not None:
            owner = self._by_name(part)
            others = self._far_from(owner, places)
            owner[others] = -1
            self.namesakes += len(others)
        open_ = np.flatnonzero(owner < 0)
        hits = self.points.at(places[open_])
        owner[open_[hits.numbers]] = hits.parcels
        numbers = np.flatnonzero(owner >= 0)
        of = owner[numbers]
        return Classed(numbers, self.points.values[of], self._groups(of, places[numbers]))

    def _by_name(self, part: RaggedPixels) -> np.ndarray:
        """Return the sample of each pixel by its name, int64 (N,), -1 for none."""
        assert self.keys is not None
        owner, origins = np.full(len(part), -1, np.int64), np.asarray(part.tile_index)
        for number in np.unique(origins).tolist():
            if number >= len(self.inputs):
                continue
            here = np.flatnonzero(origins == number)
            due = mix(named_keys(self.inputs[number]) ^ self.keys)
            order = np.argsort(due)
            at = np.minimum(np.searchsorted(due[order], part.keys[here]), len(due) - 1)
            found = due[order[at]] == part.keys[here]
            owner[here[found]] = order[at[found]]
        return owner

    def _far_from(self, owner: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the numbers of pixels that lie far from the sample of their name: running numbers name anything."""
        found = [np.empty(0, np.int64)]
        named = np.flatnonzero((owner >= 0) & (places[:, 0] > 0))
        for zone in np.unique(places[named, 0]).tolist():
            here = named[places[named, 0] == zone]
            points = np.stack(to_utm(zone).transform(*self.points.lonlat[owner[here]].T), axis=1)
            distances = np.hypot(*(points - places[here, 1:]).T)  # NaN to a sample without a place
            found.append(here[distances > FAR])
        return np.concatenate(found)

    def _groups(self, of: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the groups of pixels, uint64 (M,), of samples `of`."""
        known = np.isfinite(self.points.lonlat[of]).all(axis=1)
        blocks = np.where(places[:, :1] > 0, places, 0)
        blocks[known] = np.floor(self.points.places(of[known])).astype(np.int64)
        blocks = np.where(blocks[:, :1] > 0, squares(blocks, self.block * RESOLUTION), places)
        blocks = np.where(self.groups[of][:, :1] != 0, self.groups[of], blocks)
        if self.keys is not None:
            self.alone += int((blocks == named_places(self.keys[of])).all(axis=1).sum())
        self.seen += len(of)
        return pixel_keys(0, blocks)

    def name(self, value: int) -> str:
        return self.targets.names[value]

    def nothing(self, parts: Sequence[RaggedPixels]) -> str:
        placed = np.isfinite(self.points.lonlat).all(axis=1).any()
        if self.keys is None and not placed:
            return (
                f"{self.origin} tells neither names nor places of its rows. Name the samples: --set probe.sample=NAME."
            )
        by = " and ".join(["name"] * (self.keys is not None) + ["place"] * bool(placed))
        hint = "Name the column of the samples with --set probe.sample=NAME, or give labels of the same place."
        if self.namesakes:
            hint = f"{self.namesakes} pixels bear the name of a sample far away. {hint}"
        return f"{self.origin} labels nothing that is trained on: no sample of it is found there by {by}. {hint}"

    def tell(self) -> None:
        if self.namesakes:
            logger.warning(
                "%s: %d pixels bear the name of a sample that lies more than %g km away; they are not taken for it. "
                "Say which column names the samples: --set probe.sample=NAME",
                self.origin,
                self.namesakes,
                FAR / 1000,
            )
        if self.alone:
            logger.warning(
                "%s: %d of %d labelled samples have neither a place nor a group, and each may be tested by neighbours "
                "of its own field. Name what must not be split: --columns group=NAME, or --set probe.group=NAME",
                self.origin,
                self.alone,
                self.seen,
            )
