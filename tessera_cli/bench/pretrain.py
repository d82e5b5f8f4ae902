"""Speed of training steps, beside their floor at the machine's matrix rate and the plain form of a step."""

from __future__ import annotations

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.bench import machine
from tessera_cli.bench.encode import median
from tessera_cli.bench.plain_step import PlainStep, check
from tessera_cli.bench.workload import synthetic
from tessera_cli.sampling import BAND_COUNTS
from tessera_cli.timing import peak_rss_mb

if TYPE_CHECKING:
    import torch

    from tessera_cli.models.precision import Precision
    from tessera_cli.pretraining.config import PretrainConfig
    from tessera_cli.pretraining.data.batch import Batch
    from tessera_cli.pretraining.data.shards import Shards
    from tessera_cli.pretraining.trainer import Trainer

logger = logging.getLogger(__name__)

ROUND_SECONDS = 3.0
"""Duration of a turn, as far as one step is no longer."""
COMPARED = 5
"""Successive steps whose losses are compared."""
BATCHES = 4
"""Different batches of a turn."""


def measure(
    preset: str,
    *,
    threads: int,
    precision: str = "auto",
    device: str = "auto",
    pixels: int | None = None,
    rounds: int = 5,
    baseline: bool = False,
    compiled: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Take training steps on made-up pixels and return medians, as plain JSON (the keys: `benchmarks/README.md`).

    The settings are those of the preset, with `pixels` per step if given, and with torch.compile if `compiled`. In each
    round take turns: matrix products, with `baseline` the plain form on batches that are drawn already, ours on the
    same ones, and ours on batches that are drawn meanwhile, as in a run; each round begins with another.
    """
    from tessera_cli.models.load import get_device
    from tessera_cli.models.precision import resolve, torch_settings

    config = settings(preset, pixels=pixels, precision=precision, seed=seed, compiled=compiled)
    if baseline:
        check(config)
    on = get_device(device, None)
    work = resolve(config.train.precision, on)
    with torch_settings(threads), ExitStack() as stack:
        trainer = stack.enter_context(_trainer(config, on))
        plain = PlainStep(trainer.model, config, on) if baseline else None
        exact = None
        if plain is None and work != "fp32":
            in_fp32 = settings(preset, pixels=pixels, precision="fp32", seed=seed)
            exact = stack.enter_context(_trainer(in_fp32, on))
        agrees = _agreement(trainer, plain, exact)
        del exact
        drawn = [trainer.loader.batch(step) for step in range(BATCHES)]
        steps = _enough(trainer, drawn)
        turns: list[Callable[[], dict[str, float]]] = [functools.partial(_rates, work, on, threads)]
        if plain is not None:
            turns.append(functools.partial(_plain, plain, drawn, steps, _rate(trainer)))
        turns += [functools.partial(_ours, trainer, drawn, steps), functools.partial(_drawing, trainer, steps)]
        recorded = []
        for number in range(rounds):
            first = number % len(turns)
            row = {key: value for turn in turns[first:] + turns[:first] for key, value in turn().items()}
            logger.info("round %d of %d: %.3g steps/s", number + 1, rounds, row["steps_per_second"])
            recorded.append(row)
        return {
            **figures(config, drawn, recorded),
            "agreement": agrees,
            "memory": {"peak_rss_mb": peak_rss_mb()},
            "workload": {
                "preset": preset,
                "pixels_per_step": config.train.batch,
                "steps_per_turn": steps,
                "seed": seed,
            },
            "conditions": {
                **machine.conditions(str(on), threads),
                "precision": work,
                "workers": config.train.workers,
            },
            "rounds": recorded,
        }


def settings(preset: str, *, pixels: int | None, precision: str, seed: int, compiled: bool = False) -> PretrainConfig:
    """Return the settings of a preset; UsageError for values that they cannot have."""
    from tessera_cli.pretraining.config_file import load_config

    train: dict[str, Any] = {"precision": precision, "seed": seed, "compile": compiled}
    train |= {} if pixels is None else {"batch": pixels}
    return load_config(preset_name=preset, more={"train": train})


@contextmanager
def _trainer(config: PretrainConfig, device: torch.device) -> Iterator[Trainer]:
    """Yield a run that has not begun, on pixels in memory; nothing is written."""
    from tessera_cli.pretraining.run_folder import RunFolder
    from tessera_cli.pretraining.trainer import Trainer

    shards = made_up(max(1024, 2 * config.train.batch), config.train.seed)
    with tempfile.TemporaryDirectory(prefix="tessera-") as scratch:
        yield Trainer(config, shards, shards.statistics, RunFolder(Path(scratch)), device)


def made_up(count: int, seed: int) -> Shards:
    """Return made-up pixels as shards that lie in memory: 9 to 45 clear Sentinel-2 and 30 + 30 radar observations."""
    from tessera_cli.pretraining.config import DataConfig
    from tessera_cli.pretraining.data.select import select_pixels
    from tessera_cli.pretraining.data.shards import Shards
    from tessera_cli.pretraining.data.statistics import BandStatistics

    pixels = select_pixels(synthetic(count, clouds=True, seed=seed).dpixels, DataConfig(min_s2=1, min_s1=1), 0)
    bands = BandStatistics()
    bands.add(pixels)
    return Shards(Path(), {}, (pixels,), pixels.take(np.arange(2)), bands.statistics(), "")


def _rate(trainer: Trainer) -> float:
    from tessera_cli.pretraining.optimiser import learning_rate

    return learning_rate(trainer.step, trainer.config.train.steps, trainer.config.optim)


def _agreement(trainer: Trainer, plain: PlainStep | None, exact: Trainer | None) -> dict[str, Any] | None:
    """Take COMPARED steps; compare their losses with those of the plain form, else with those of another run."""
    if plain is None and exact is None:
        return None
    found, wanted = [], []
    for _ in range(COMPARED):
        batch = trainer.loader.batch(trainer.step)
        if plain is not None:
            wanted.append(plain.step(batch.to(trainer.device), _rate(trainer)))
        elif exact is not None:
            wanted.append(float(exact.take_step(batch)[0].loss.detach()))
            exact.step += 1
        found.append(float(trainer.take_step(batch)[0].loss.detach()))
        trainer.step += 1
    return {
        "against": "plain" if plain is not None else "fp32",
        "steps": COMPARED,
        "max_relative_difference": float(np.abs(np.divide(found, wanted) - 1).max()),
    }


def _enough(trainer: Trainer, drawn: Sequence[Batch[np.ndarray]]) -> int:
    """Return how many steps take about ROUND_SECONDS."""
    _ours(trainer, drawn, 1)
    return max(1, round(ROUND_SECONDS * _ours(trainer, drawn, 1)["steps_per_second"]))


def _ours(trainer: Trainer, drawn: Sequence[Batch[np.ndarray]], steps: int) -> dict[str, float]:
    """Time steps on batches that are drawn already. The run's own step, and so its learning rate, stays."""
    started = time.perf_counter()
    for step in range(steps):
        trainer.take_step(drawn[step % len(drawn)])
    return {"steps_per_second": steps / (time.perf_counter() - started)}


def _drawing(trainer: Trainer, steps: int) -> dict[str, float]:
    """Time steps on batches that are drawn meanwhile, and drawing one alone."""
    started = time.perf_counter()
    for batch in trainer.loader.batches(0, steps):
        trainer.take_step(batch)
    together = steps / (time.perf_counter() - started)
    started = time.perf_counter()
    trainer.loader.batch(0)
    return {"steps_per_second_drawing": together, "draw_seconds": time.perf_counter() - started}


def _plain(plain: PlainStep, drawn: Sequence[Batch[np.ndarray]], steps: int, rate: float) -> dict[str, float]:
    """Time steps of the plain form on batches that are drawn already."""
    started = time.perf_counter()
    for step in range(steps):
        plain.step(drawn[step % len(drawn)].to(plain.device), rate)
    return {"plain_steps_per_second": steps / (time.perf_counter() - started)}


def _rates(precision: Precision, device: torch.device, threads: int) -> dict[str, float]:
    """Time one round of matrix products: torch's, and on a CPU oneDNN's with weights that are laid out before."""
    rates = {"matmul_gflops": machine.matmul_gflops(precision, str(device), threads)}
    if device.type == "cpu" and (packed := machine.packed_gflops(precision, threads)) is not None:
        rates["packed_gflops"] = packed
    return rates


def figures(
    config: PretrainConfig, drawn: Sequence[Batch[np.ndarray]], rounds: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return medians over the rounds, and ratios of medians."""
    rates = {key: median(rounds, key) for key in rounds[0]}
    steps, plain = rates["steps_per_second"], rates.get("plain_steps_per_second")
    official, needed = gflop_per_step(config, drawn)
    best = max(rates["matmul_gflops"], rates.get("packed_gflops", 0.0))
    return {
        "steps_per_second": steps,
        "pixels_per_second": steps * config.train.batch,
        "plain_steps_per_second": plain,
        "speedup_over_plain": None if plain is None else steps / plain,
        "gflop_per_step": official,
        "gflop_per_step_needed": needed,
        "matmul_gflops": rates["matmul_gflops"],
        "packed_gflops": rates.get("packed_gflops"),
        "floor_seconds": needed / best,
        "floor_share": steps * needed / best,
        "steps_per_second_drawing": rates["steps_per_second_drawing"],
        "draw_seconds": rates["draw_seconds"],
    }


def gflop_per_step(config: PretrainConfig, drawn: Sequence[Batch[np.ndarray]]) -> tuple[float, float]:
    """Return the mean 10^9 FLOP of a step: with all places of all sequences, and with each missing sensor's token once.

    A backward pass takes twice its forward pass: a product for the inputs and one for the weights.
    """
    pixels, width, depth = config.train.batch, config.projector.width, config.projector.depth
    sizes = (config.model.representation, *config.projector.prefixes)
    views, pairs = (3, 3) if config.loss.mix else (2, 1)  # mixing: two more products of all dimensions
    rest = 0.0
    if config.twins:
        rest += sum(2 * views * pixels * width * (size + (depth - 1) * width) for size in sizes)
        rest += len(sizes) * pairs * 2 * pixels * width**2
    if config.loss.predict:
        rest += _decoder_flop(config, drawn)
    lengths, seen = (_encoder_flop(config, drawn, count_missing=missing) for missing in (True, False))
    return 3 * (lengths + rest) / 1e9, 3 * (seen + rest) / 1e9


def _decoder_flop(config: PretrainConfig, drawn: Sequence[Batch[np.ndarray]]) -> float:
    """Return the mean FLOP of a batch's predictions: of each embedding per sensor, and of each observation."""
    from tessera_cli.pretraining.data.batch import MISSING

    width, total = config.loss.predict_width, 0.0
    for batch in drawn:
        for view in (batch.first, batch.second):
            for modality, bands in BAND_COUNTS.items():
                seen = sum(int((part.streams != MISSING).sum()) for part in view[modality])
                total += 2 * width * (config.train.batch * config.model.representation + seen * bands)
    return total / len(drawn)


def _encoder_flop(config: PretrainConfig, drawn: Sequence[Batch[np.ndarray]], *, count_missing: bool) -> float:
    """Return the mean FLOP of a forward pass of a batch; tokens of missing sensors count unless a GRU walks them."""
    from tessera_cli.pretraining.data.batch import MISSING

    sizes, total = config.model.encoder, 0.0
    all_places = count_missing or sizes.pooling != "attention" or config.model.dropout > 0
    for batch in drawn:
        for view in (batch.first, batch.second, *([batch.mixing.view] if batch.mixing else [])):
            lengths = np.zeros((2, config.train.batch), np.int64)
            for sensor, modality in enumerate(BAND_COUNTS):
                for part in view[modality]:
                    there = all_places | (part.streams[:, 0] != MISSING)
                    lengths[sensor, part.members] = part.doy.shape[1] * there
            pairs, often = np.unique(lengths, axis=1, return_counts=True)
            total += sum(n * sizes.flop_per_pixel(*t) for t, n in zip(pairs.T.tolist(), often.tolist(), strict=True))
    return total / len(drawn)
