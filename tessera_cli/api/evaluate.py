"""`evaluate`: what embeddings are worth, with few labels. Arguments are those of the command line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tessera_cli import config as machine
from tessera_cli.errors import UsageError

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.api.progress import Bar
    from tessera_cli.evaluation.asked import Asked
    from tessera_cli.evaluation.protocol import Wanted

logger = logging.getLogger(__name__)

TaskName = Literal["classification", "regression", "segmentation"]
UnitName = Literal["pixel", "parcel"]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What `evaluate` found, and where it lies."""

    folder: Path
    report: dict[str, Any]
    """The content of `report.json`: docs/evaluation.md lists its keys."""

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    @property
    def json(self) -> Path:
        return self.folder / "report.json"

    @property
    def verdicts(self) -> list[str]:
        """Return what was shown, in sentences."""
        return list(self.report["verdicts"])

    def to_dict(self) -> dict[str, Any]:
        """Return the paths and the report as plain JSON."""
        return {"page": str(self.page), "json": str(self.json), **self.report}


def evaluate(
    inputs: AnyPath | Sequence[AnyPath],
    *,
    labels: AnyPath | None = None,
    layer: str | None = None,
    column: str | None = None,
    task: TaskName | None = None,
    unit: UnitName | None = None,
    features: Sequence[str] | None = None,
    split: str | None = None,
    group: str | None = None,
    leave_out: str | None = None,
    test: Sequence[AnyPath] | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    dpixels: Sequence[AnyPath] | None = None,
    model: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    beside: bool = False,
    adapter: Sequence[str] | None = None,
    budgets: str | Sequence[float] = "1,5,10,30,100",
    shots: str | Sequence[int] | None = None,
    draws: int | None = None,
    block: float | None = None,
    folds: int = 5,
    samples: int = 20_000,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    out: AnyPath,
    progress: Any = None,
) -> Evaluated:
    """Measure how well labels can be predicted from embeddings, at several budgets of labels, against honest baselines.

    All features are compared on the same samples, splits and draws of labels; a sample is never tested by a fit that
    has seen its parcel, its group or its block of ground. Run it again to go on after an interruption.

    Args:
        inputs: Folders that `embed` wrote, GeoTIFFs of embeddings, geotessera downloads, side by side; or one table: of
            vectors (a row per sample), or of time series (a row per sample and date).
        labels: Polygons, points or a raster; not for tables, which hold their labels.
        layer: The layer of a file of labels that has several.
        column: The column of the labels. Default: `class`, `label`, `crop` or `name`.
        task: `classification`, `regression` or `segmentation`. Default: told by the column's type.
        unit: What is predicted: a `pixel` (default of polygons and rasters) or a `parcel` by its mean vector.
        features: Beginnings of the names of columns; each makes a set of features of a table of vectors.
        split: A column of a table that is true (or 1, or `test`) for test samples. Default: spatial blocks.
        group: A column of a table whose values are never split between training and test: a site, a parcel.
        leave_out: A column of a table whose values are left out in turn, as regions are.
        test: Other inputs to test on, one for each of `inputs`, such as those of another year.
        year: Calendar year of folders and time series. Default: every window is a set of features.
        window: Months or days, such as "2023-07/2024-06".
        dpixels: What `fetch` wrote of the same place: adds raw baselines and the measures of robustness.
        model: Models to encode time series or d-pixels with.
        columns: Of time series: `sample=field_id`, `B02=blue` and so on, or the path of a TOML file.
        beside: Score the first 16, 32 and 64 dimensions, too, and float32 of what is encoded here.
        adapter: Adapters to use: `ridge`, `logistic`, `knn`, `forest`, `mlp`. Default: all of the task.
        budgets: Percentages of the labels to learn from.
        shots: Labels per class to learn from, beside the budgets: "1,5,10,50".
        draws: Draws of labels of each budget, at least one per fold. Default: 10; of segmentation one per fold.
        block: Side of the blocks of ground in metres. Default: from the variogram of the labels.
        folds: Parts of which one at a time is tested.
        samples: At most so many samples are used, spread over classes and parcels.
        seed: Of everything that is drawn.
        device: Of the models: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Cores to compute with. Default: those that this process may use.
        out: Folder of the report.
        progress: Called with (fits done, fits in all); or a `tqdm` bar or a `rich.progress.Progress`.

    Returns:
        The report, and the paths of `report.html` and `report.json`.

    Raises:
        TesseraError: UsageError for inputs, labels or options that cannot be used, TileError for a damaged file,
            DiskFullError.
    """
    from tessera_cli.api.arguments import check_numbers, chosen_windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.evaluation.asked import Asked
    from tessera_cli.evaluation.protocol import Wanted, chosen_adapters, chosen_budgets
    from tessera_cli.evaluation.report.write import check_report, write_report
    from tessera_cli.files import explained
    from tessera_cli.learning.needed import check_packages
    from tessera_cli.models import load_model

    check_numbers(threads=threads, seed=seed)
    _check(task, unit, draws, folds, samples, block)
    threads = threads or machine.threads()
    named = tuple(adapter or ())
    wanted = Wanted(chosen_budgets(budgets, shots), named, draws, folds, block, bool(leave_out))
    if task in ("classification", "regression"):
        chosen_adapters(task, named)  # before anything is read
    if leave_out and (group or split):
        raise UsageError("--leave-out says what is never split, and what is tested. Leave out --group and --split.")
    folder, bar = Path(out), Bar(progress)
    check_report(folder)
    check_packages("An evaluation")
    asked = Asked(
        inputs=_paths(inputs),
        labels=None if labels is None else Path(labels),
        layer=layer,
        column=column,
        task=task,
        unit=unit,
        features=tuple(features or ()),
        split=split,
        group=group or leave_out,
        test=_paths(test or ()),
        windows=chosen_windows(year, window),
        dpixels=_paths(dpixels or ()),
        models=tuple(load_model(name, device=device) for name in model or ()),
        columns=tuple(columns or ()),
        beside=beside,
        samples=samples,
        seed=seed,
        threads=threads,
    )
    with explained(folder):  # cells are kept there as they are finished
        if task == "segmentation":
            report = _segmented(asked, wanted, folder, bar)
        else:
            report = _predicted(asked, wanted, folder, bar)
    write_report(folder, report)
    return Evaluated(folder, report)


def _check(
    task: TaskName | None, unit: UnitName | None, draws: int | None, folds: int, samples: int, block: float | None
) -> None:
    """Raise UsageError for what needs no file to be seen wrong."""
    from tessera_cli.api.arguments import check_choices

    if task is not None:
        check_choices(task=(task, TaskName))
    if unit is not None:
        check_choices(unit=(unit, UnitName))
    for name, value, least in (("draws", draws, 1), ("folds", folds, 2), ("samples", samples, 10)):
        if value is not None and value < least:
            raise UsageError(f"--{name} {value} is too small. Give {least} or more.")
    if block is not None and not 0 < block < float("inf"):
        raise UsageError(f"--block {block:g} is no length. Give metres, above 0.")


def _predicted(asked: Asked, wanted: Wanted, folder: Path, bar: Bar) -> dict[str, Any]:
    """Return the report of samples whose class or value is predicted."""
    from tessera_cli.evaluation.compose import compose
    from tessera_cli.evaluation.protocol import DRAWS, Settings, chosen_adapters
    from tessera_cli.evaluation.read import read
    from tessera_cli.evaluation.report.write import CELLS
    from tessera_cli.evaluation.robust import robust_rows
    from tessera_cli.evaluation.run import run_evaluation
    from tessera_cli.evaluation.splitting import interval_notes, split_of
    from tessera_cli.learning.leaks import leaks

    found = read(asked)
    samples = found.samples
    divided = split_of(samples, block=wanted.block, folds=wanted.folds, leave_out=wanted.leave_out, seed=asked.seed)
    adapters = chosen_adapters(samples.task, wanted.adapters)
    settings = Settings(adapters, wanted.budgets, wanted.draws or DRAWS, asked.seed, asked.threads)
    values = {each.name: each.values for each in samples.features if not each.parts}  # these hold both parts
    warnings = leaks(divided, features=values, lonlat=samples.lonlat, groups=samples.groups)
    for line in (*samples.left_out, *warnings):
        logger.warning("%s", line)
    made = run_evaluation(samples, divided, settings, folder / CELLS, start=bar.start, advance=bar.advance)
    rows = robust_rows(found, divided, asked)
    notes = interval_notes(samples, divided)
    return compose(made, inputs=asked.to_dict(), robustness=rows, warnings=warnings, notes=notes)


def _segmented(asked: Asked, wanted: Wanted, folder: Path, bar: Bar) -> dict[str, Any]:
    """Return the report of tiles that are segmented."""
    from tessera_cli.evaluation.cells import CellFolder
    from tessera_cli.evaluation.compose import compose
    from tessera_cli.evaluation.protocol import Settings
    from tessera_cli.evaluation.report.write import CELLS
    from tessera_cli.evaluation.segmentation.evaluate import NOTES, run_segmentation
    from tessera_cli.evaluation.segmentation.read import read_rasters

    if wanted.adapters:
        raise UsageError("--adapter chooses among adapters of samples; segmentation has its decoder. Leave it out.")
    areas, rasters = read_rasters(asked, block=wanted.block, folds=wanted.folds)
    for line in areas.left_out:
        logger.warning("%s", line)
    kinds = tuple(dict.fromkeys(each.kind for each in rasters))
    settings = Settings(kinds, wanted.budgets, wanted.draws or wanted.folds, asked.seed, asked.threads)
    cells = CellFolder.of(folder / CELLS, *areas.truth.labels, *areas.truth.parcels, *areas.truth.blocks)
    made = run_segmentation(areas, rasters, settings, cells, start=bar.start, advance=bar.advance)
    return compose(made, inputs=asked.to_dict(), notes=NOTES)


def _paths(given: AnyPath | Sequence[AnyPath]) -> tuple[Path, ...]:
    return (Path(given),) if isinstance(given, str | Path) else tuple(map(Path, given))
