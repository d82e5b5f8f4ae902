"""The verbs that read what is there: `info`, `verify`, and encoding of d-pixels in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli import config

if TYPE_CHECKING:
    import numpy as np

    from tessera_cli.api.arguments import AnyPath
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.folders.checks import Check
    from tessera_cli.inference.encode import Embeddings
    from tessera_cli.inspection.census import TileState
    from tessera_cli.inspection.verify import Verification
    from tessera_cli.inspection.watch import Round
    from tessera_cli.models.load import Model
    from tessera_cli.models.model_config import AnyModelConfig
    from tessera_cli.outputs.layers import Dtype


def info(path: AnyPath, *, model_config: AnyModelConfig | None = None) -> Mapping[str, Any]:
    """Describe a folder of embeddings or d-pixels, a tile, a raster, a weights file, a run or shards of `pretrain`.

    Args:
        path: The folder or file.
        model_config: What a v1.x weights file does not record: path of a JSON file, or a mapping in its words.

    Returns:
        Plain JSON; the keys depend on what it is (docs/json.md).

    Raises:
        UsageError: For anything that is not ours, or damaged.
    """
    from tessera_cli.inspection.info import describe
    from tessera_cli.models import ModelConfig

    return describe(Path(path), ModelConfig.of(model_config))


def tiles(path: AnyPath) -> Iterator[TileState]:
    """Yield what became of each tile that runs on a folder were asked for, by name, as its record is read.

    Args:
        path: The output folder of `embed` or `fetch`.

    Raises:
        UsageError: For anything else, at the first tile.
    """
    from tessera_cli.inspection.census import census_taker

    yield from census_taker(Path(path)).states()


def watch(path: AnyPath, seconds: float = 10) -> Iterator[Round]:
    """Follow the runs on a folder: yield what it shows, every `seconds`, until each tile is finished or failed.

    Only the folder is read, and no record twice, so that any number of processes on any machines can be followed.

    Args:
        path: The output folder of `embed` or `fetch`.
        seconds: Time between two looks.

    Raises:
        UsageError: For anything else, at the first look.
    """
    from tessera_cli.inspection.watch import watch as run

    return run(Path(path), seconds)


def verify(
    path: AnyPath,
    *,
    records_only: bool = False,
    recompute: str | int | None = None,
    seed: int = 0,
    dpixels: AnyPath | Sequence[AnyPath] | None = None,
    catalog: str | None = None,
    radar_catalog: str | None = None,
    allow_outside: bool = False,
    allow_private_hosts: bool = False,
    model: AnyPath | None = None,
    weights: AnyPath | None = None,
    model_config: AnyModelConfig | None = None,
    device: str = "auto",
    threads: int | None = None,
    seams: AnyPath | None = None,
    report: Callable[[Check], object] | None = None,
) -> Verification:
    """Read a folder of embeddings or d-pixels, a tile or a weights file in full and hold it against its record.

    Args:
        path: The folder or file.
        records_only: Of a folder only records, lists and the sizes of files, which takes seconds: no raster is read.
        recompute: Make a random part of the tiles of a folder again, in memory, and compare: `1%`, or a number of
            tiles. A tile that differs is `damaged`, one that cannot be made again any more `failed`.
        seed: Which tiles are drawn.
        dpixels: The stored d-pixels that the tiles were made from; without them, the scenes frozen in the folder.
        catalog: As the run was given it: what the folder's scenes may lead to is up to you, not to the folder.
        radar_catalog: The same of OPERA RTC-S1.
        allow_outside: As in `embed`.
        allow_private_hosts: As in `embed`.
        model: The model that made the folder. Default: the released one of the recorded name.
        weights: Its official checkpoint.
        model_config: What a v1.x checkpoint does not record.
        device: `auto`: of the class that made the tiles, within which bytes are equal.
        threads: Cores to compute with. Default: those that this process may use.
        seams: Another folder of the same settings: where both have pixels, they must be equal.
        report: Called with each check as it is done.

    Returns:
        All checks; `Verification.error()` is None if everything is whole.

    Raises:
        TesseraError: UsageError for anything that is not ours; IdentityError if `model` did not make the folder, or
            `seams` has other settings; SourceUnavailableError, SourceRefusedError, CredentialsError as `embed`.
    """
    from tessera_cli.inspection.verify import verify as run

    again = None
    if recompute is not None:
        from tessera_cli.api.arguments import as_paths, check_numbers
        from tessera_cli.api.recompute import recomputation

        check_numbers(threads=threads, seed=seed)
        again = recomputation(
            Path(path),
            recompute,
            seed=seed,
            dpixels=as_paths(dpixels or ()),
            origin={
                "catalog": catalog,
                "radar_catalog": radar_catalog,
                "allow_private_hosts": allow_private_hosts,
                "allow_outside": allow_outside,
            },
            model={"model": model, "weights": weights, "model_config": model_config},
            device=device,
            threads=threads,
        )
    other = None if seams is None else Path(seams)
    told = report or (lambda check: None)
    return run(Path(path), report=told, records_only=records_only, recomputation=again, seams=other)


def encode(
    dpixels: DPixels | AnyPath,
    *,
    model: Model | AnyPath | None = None,
    pixels: np.ndarray | None = None,
    source: str | None = None,
    dims: int | None = None,
    dtype: Dtype = "int8",
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    threads: int | None = None,
) -> Embeddings:
    """Encode d-pixels in memory; nothing is written.

    Args:
        dpixels: d-pixels of one tile, or the path of a stored tile.
        model: What `load_model` returns, or a name or path for it.
        pixels: bool (H, W): which pixels to encode. Default: those requested with enough observations.
        source: `mpc` or `aws`, where the d-pixels do not record it.
        dims: The first N values of the embedding. Default: all that the model stores.
        dtype: `int8` codes and a float32 scale per pixel, or `float32` values.
        min_s2: Pixels with fewer clear Sentinel-2 observations are left out.
        min_s1: Pixels with fewer Sentinel-1 observations are left out.
        seed: Random seed (v1.0 models only).
        threads: Cores to compute with. Default: those that this process may use.

    Returns:
        Embeddings of N pixels in row-major order: `values` (N, dims), `scales` (N,) or None, `pixels` bool (H, W).

    Raises:
        TesseraError: UsageError or IdentityError if model, source, dims and dtype do not belong together, TileError if
            the d-pixels are damaged.
    """
    from tessera_cli.api.arguments import check_choices, check_numbers
    from tessera_cli.dpixels import describe
    from tessera_cli.folders.identity import EmbedSettings
    from tessera_cli.inference.encode import encode as run
    from tessera_cli.models import Model, load_model
    from tessera_cli.outputs.layers import Dtype

    check_choices(dtype=(dtype, Dtype))
    check_numbers(threads=threads)
    if isinstance(dpixels, str | Path):
        dpixels = describe(Path(dpixels)).read()
    loaded = model if isinstance(model, Model) else load_model(model)
    settings = EmbedSettings.checked(
        loaded, source, recorded=dpixels.source, dims=dims, dtype=dtype, min_s2=min_s2, min_s1=min_s1, seed=seed
    )
    valid = dpixels.embeddable(min_s2=min_s2, min_s1=min_s1) & settings.model.spec.observations.valid_pixels(dpixels)
    return run(
        dpixels,
        settings.model,
        valid if pixels is None else pixels & valid,
        dims=settings.dims,
        quantiser=settings.quantiser,
        seed=seed,
        threads=threads or config.threads(),
    )
