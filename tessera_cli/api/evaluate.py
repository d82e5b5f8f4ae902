"""`evaluate`: what embeddings are worth, with few labels. Arguments are those of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows, Years

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
    per: UnitName | None = None,
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
    prefixes: str | Sequence[int] | None = None,
    adapter: Sequence[str] | None = None,
    budgets: str | Sequence[float] = "1,5,10,30,100",
    shots: str | Sequence[int] | None = None,
    draws: int = 10,
    block: float | None = None,
    folds: int = 5,
    samples: int = 20_000,
    seed: int = 0,
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
        per: What is predicted: a `pixel` (default of polygons and rasters) or a `parcel` by its mean vector.
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
        prefixes: Leading dimensions to score beside all of them: "16,32,64".
        adapter: Adapters to use: `ridge`, `logistic`, `knn`, `forest`, `mlp`. Default: all of the task.
        budgets: Percentages of the labels to learn from.
        shots: Labels per class to learn from, beside the budgets: "1,5,10,50".
        draws: Draws of labels of each budget.
        block: Side of the blocks of ground in metres. Default: from the variogram of the labels.
        folds: Parts of which one at a time is tested.
        samples: At most so many samples are used, spread over classes and parcels.
        seed: Of everything that is drawn.
        threads: Cores to compute with. Default: those that this process may use.
        out: Folder of the report.
        progress: Called with (fits done, fits in all); or a `tqdm` bar or a `rich.progress.Progress`.

    Returns:
        The report, and the paths of `report.html` and `report.json`.

    Raises:
        TesseraError: UsageError for inputs, labels or options that cannot be used, TileError for a damaged file,
            DiskFullError.
    """
    from tessera_cli.api.arguments import check_choices

    check_choices(task=(task, TaskName | None), per=(per, UnitName | None))
    raise NotImplementedError
