"""The verb `pretrain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli import config as machine

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Windows
    from tessera_cli.api.progress import Bar
    from tessera_cli.pretraining.callbacks import Callbacks
    from tessera_cli.pretraining.run import Trained
    from tessera_cli.series.mapping import AnyColumns


def pretrain(
    dpixels: AnyPath | Sequence[AnyPath] = (),
    *,
    preset: str | None = None,
    config: AnyPath | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    columns: AnyColumns = None,
    window: Windows | None = None,
    steps: int | None = None,
    probe: AnyPath | None = None,
    init_from: AnyPath | None = None,
    teacher: AnyPath | None = None,
    seed: int | None = None,
    out: AnyPath = "run",
    shards: AnyPath | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Callbacks | Callable[[int, int], object] | None = None,
) -> Trained:
    """Train an encoder on d-pixels of your own, without labels. Run it again to go on where it stopped.

    Under torchrun every process calls it with the same arguments.

    Args:
        dpixels: What `fetch` wrote: Zarr stores, official tile folders, or folders of either; and tables of time
            series, a row per sample and date (docs/series.md). May be empty where `shards` exist.
        preset: `tiny`, `small-data`, `nano` (default), `small`, `medium`, `large`, `v1.0` or `v1.1`.
        config: TOML file that goes over the preset.
        overrides: Single keys that go over both: `{"optim.lr": 1e-3}`, or `["optim.lr=1e-3"]`.
        columns: What the columns of tables are called and mean, as in `embed_table`.
        window: Which dates to take of tables. Default: all, 366 days at the most.
        steps: The same as the key `train.steps`.
        probe: Labels to measure by: polygons or points (.geojson, .gpkg, .shp), a raster of classes (.tif), or a table
            of samples (.parquet, .csv), found by name or place.
        init_from: Start from the weights of a model or another run, with its shape where no preset says another.
        teacher: Learn to match the embeddings of a model or another run; the same as the key `teacher.model`.
        seed: The same as the key `train.seed`.
        out: Folder of the run.
        shards: Keep the training pixels here, for several runs. Default: in the run's folder.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Cores to compute with. Default: those that this process may use.
        progress: Called with (steps done, steps in all), or `Callbacks`.

    Returns:
        Whether it finished, the last step, the path of the exported weights, the rows of `metrics.jsonl`.

    Raises:
        TesseraError: UsageError for settings, d-pixels or labels that cannot be used, IdentityError where the run's
            folder belongs to other settings, DiskFullError.
    """
    import torch

    from tessera_cli.api.arguments import as_paths, as_windows
    from tessera_cli.api.embed_table import one_window
    from tessera_cli.api.progress import Bar
    from tessera_cli.models.load import get_device
    from tessera_cli.pretraining.callbacks import Callbacks
    from tessera_cli.pretraining.config_file import load_config
    from tessera_cli.pretraining.distributed import init_distributed
    from tessera_cli.pretraining.initial import Initial
    from tessera_cli.pretraining.run import pretrain as run

    rank, size, local = machine.processes()
    keys = dict(overrides) if isinstance(overrides, Mapping) else {}
    keys |= {key: value for key, value in (("train.steps", steps), ("train.seed", seed)) if value is not None}
    keys |= {"probe.labels": str(probe)} if probe else {}
    keys |= {"teacher.model": str(teacher)} if teacher else {}
    initial = None if init_from is None else Initial.of(init_from)
    sections: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    settings = load_config(
        preset_name=preset,
        path=None if config is None else Path(config),
        base={} if initial is None else initial.preset,
        more=sections,
        overrides=() if isinstance(overrides, Mapping) else overrides,
    )
    torch_device = get_device(device, local)
    torch.set_num_threads(threads or machine.threads())
    _raise_file_limit()
    callbacks = progress if isinstance(progress, Callbacks) else _callbacks(Bar(progress))
    with init_distributed(rank, size, torch_device) as world:
        return run(
            as_paths(dpixels),
            settings,
            Path(out),
            columns=columns,
            window=one_window(as_windows(None, window) if window else ()),
            shards=None if shards is None else Path(shards),
            init_from=initial,
            device=torch_device,
            world=world,
            callbacks=callbacks,
        )


def _callbacks(bar: Bar) -> Callbacks:
    """Return callbacks that show steps on a bar."""
    from tessera_cli.pretraining.callbacks import Callbacks

    return Callbacks(on_start=bar.start, on_step=lambda step: bar.advance(step - bar.done))


def _raise_file_limit() -> None:
    """Let this process open as many files as it may: shards are many memory-mapped files."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
