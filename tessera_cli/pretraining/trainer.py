"""The training loop: from shards to an encoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tessera_cli.errors import TesseraError, UsageError
from tessera_cli.models.encoder import Encoder, seeded
from tessera_cli.models.precision import resolve
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.callbacks import COLLAPSED, Callbacks, Row
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import as_json
from tessera_cli.pretraining.data.batch import Batch
from tessera_cli.pretraining.data.loader import Loader
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.pretraining.data.taught import Taught
from tessera_cli.pretraining.distributed import WITHOUT_BUFFER_SYNC, World
from tessera_cli.pretraining.embedder import Embedder
from tessera_cli.pretraining.evaluation.evaluate import Evaluation, selection
from tessera_cli.pretraining.evaluation.metrics import rank_me, spread
from tessera_cli.pretraining.export import export
from tessera_cli.pretraining.lanes import one_core
from tessera_cli.pretraining.loss import rank_floor
from tessera_cli.pretraining.meter import Meter
from tessera_cli.pretraining.optimiser import adamw, describe_groups, learning_rate, set_learning_rate
from tessera_cli.pretraining.report.page import report
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.pretraining.trainee import StepOutput, Trainee
from tessera_cli.sampling.statistics import Statistics

logger = logging.getLogger(__name__)


class NotFiniteError(TesseraError):
    """The loss or its gradient is NaN or infinite."""


@dataclass
class Trainer:
    """One process of a run. Construction sets it up and restores the last checkpoint; `run` trains."""

    config: PretrainConfig
    shards: Shards
    statistics: Statistics
    folder: RunFolder
    device: torch.device
    world: World = field(default_factory=World)
    initial: Encoder | None = None
    """Weights to start from; None: random ones."""
    callbacks: Callbacks = field(default_factory=Callbacks)
    taught: Taught | None = None
    """The teacher's embeddings, if there is a teacher."""
    step: int = field(default=0, init=False)
    """Finished steps."""
    _random: Mapping[str, float] = field(default_factory=dict, init=False)
    """Measures of the encoder with random weights."""
    _best: float | None = field(default=None, init=False)
    _collapsed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        config, world = self.config, self.world
        encoder = self._random_encoder() if self.initial is None else self.initial
        encoder.set_dropout(config.model.dropout)
        encoder.train().requires_grad_(True)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.train.seed + 1)  # of what is trained beside the encoder; equal in all processes
            mean = None if self.taught is None else self.taught.mean
            self.model = Trainee(encoder, self.statistics, config, world, mean).to(self.device)
        if resolve(config.train.precision, self.device) == "bf16":
            self.model.set_matmul_dtype(torch.bfloat16)
            if self.device.type == "cuda":
                torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32: the correlations
        if self.device.type == "cpu" and not config.train.compile:  # the compiler has its own products
            self.model.fit_to_cpu(torch.get_num_threads())
        self.optimiser = adamw(self.model, config.optim)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.loader = Loader(self.shards, config, world.rank, world.size, self.taught)
        self.evaluation = Evaluation.of(self.shards, config, self.taught) if world.main else None
        self.correlated = config.train.batch // (1 if config.loss.scope == "global" else world.size)
        """The number of pixels over which correlations are taken."""
        self.floor = rank_floor(config.projector.width, self.correlated) if config.twins else None
        self._restore()
        self.wrapped = self._wrap()
        if world.main:
            self._log_setup()

    def run(self) -> bool:
        """Train to the last step; return False if `should_stop` ended it before. Either way the state is saved."""
        train = self.config.train
        if self.step == 0:
            self._start()
        self.callbacks.on_start(train.steps, self.step)
        meter = Meter(self.world, self.device)
        for batch in meter.waiting(self.loader.batches(self.step, train.steps)):
            output, norm, rate = self.take_step(batch)
            self.step += 1
            meter.add(batch, output)
            last = self.step == train.steps
            if last or self.step % train.log_every == 0:
                self._log(output, meter, {"gradient_norm": norm, "lr": rate})
            stop = self._agree_to_stop()
            with meter.paused():
                if evaluated := last or self.step % train.eval_every == 0:
                    self._evaluate(output)
                if last or stop or self.step % train.save_every == 0:
                    self._save()
                if evaluated or stop:  # drawing takes about a second
                    self._report()
            self.callbacks.on_step(self.step)
            if stop and not last:
                return False
        if self.world.main and not self.folder.exported(self.config).exists():
            self._export_again()
        return True

    def take_step(self, batch: Batch[np.ndarray]) -> tuple[StepOutput, float, float]:
        """Change the weights, but not `step`; return the output, the norm of the gradient before clipping, and the
        learning rate."""
        with one_core(self.model.twins is not None and self.model.twins.lanes > 1):
            return self._take_step(batch)

    def _take_step(self, batch: Batch[np.ndarray]) -> tuple[StepOutput, float, float]:
        config = self.config
        # Dropout depends on the seed, the step and the process, so no generator's state has to be saved.
        state = np.random.SeedSequence((config.train.seed, self.step, self.world.rank)).generate_state(1)
        torch.manual_seed(int(state[0]))
        self.model.set_quantise(config.loss.quantise and self.step >= config.loss.quantise_from)
        rate = learning_rate(self.step, config.train.steps, config.optim)
        set_learning_rate(self.optimiser, rate)
        output: StepOutput = self.wrapped(batch.to(self.device))
        torch.autograd.backward(output.loss)
        norm = float(nn.utils.clip_grad_norm_(self.trained, config.optim.clip))
        if not math.isfinite(norm):
            raise NotFiniteError(
                f"Step {self.step + 1}: the gradient is not finite (loss {float(output.loss.detach()):g}). "
                f"The last checkpoint stays. Lower optim.lr ({config.optim.lr:g}) or take fp32, in a new --out."
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return output, norm, rate

    def _random_encoder(self) -> Encoder:
        return seeded(self.config.model.encoder, self.config.train.seed)

    def _start(self) -> None:
        """Measure the random encoder, and save, so that a full disk is found before any work is done."""
        if self.evaluation is not None:
            random = self.model if self.initial is None else Embedder(self._random_encoder(), self.statistics)
            self._random = self.evaluation.measure(random.to(self.device).evaluate)
        self._save()
        self._report()

    def _evaluate(self, output: StepOutput) -> None:
        if self.evaluation is not None:
            predict = None if self.taught is None else self.model.predict_teacher
            measures = self.evaluation.measure(self.model.evaluate, predict) | self.evaluation.of_teacher
            score = selection(measures)
            better = score is not None and (self._best is None or score > self._best)
            if better:
                self._best = score
            random = {f"{name}_random": value for name, value in self._random.items()}
            row = self._record("eval", measures | random, output, best=better)
            if better:
                checkpoint.save(self.folder.best, self.model, self.optimiser, self._state())
            if better or "probe_knn" not in measures:  # without labels the last weights are exported
                self._export(self.model.encoder, row)
        self.world.barrier()

    def _export(self, encoder: Encoder, row: Row) -> None:
        measures = {key: value for key, value in row.items() if key != "kind"}
        teacher = None if self.taught is None else self.taught.teacher
        export(self.folder.exported(self.config), encoder, self.config, self.shards, self.statistics, measures, teacher)

    def _export_again(self) -> None:
        """Restore the missing weights file of a finished run."""
        encoder, rows = self.model.encoder, [row for row in self.folder.rows() if row.get("kind") == "eval"]
        if self.config.probe.labels and self.folder.best.exists():
            encoder, _ = checkpoint.read_encoder(self.folder.best, encoder.config)
            rows = [row for row in rows if row.get("best")]
        self._export(encoder, rows[-1] if rows else {})

    def _log(self, output: StepOutput, meter: Meter, more: Mapping[str, float]) -> None:
        """Record the numbers of the interval. All processes must call it, since they are gathered from all."""
        means = meter.take()
        representation = self.world.all_gather(output.representation)
        if not self.world.main:
            return
        numbers = {
            **means,
            **self._above_floor(means),
            "rank_me": rank_me(representation),
            **spread(representation),
            **more,
        }
        row = self._record("train", numbers, output)
        if row["collapsed"] and not self._collapsed:  # warn once; every row holds it too
            logger.warning(
                "Collapse: at step %d all dimensions of the projection say the same (off-diagonal RMS %.2f of 1). "
                "Raise loss.lambda, or lower optim.lr.",
                self.step,
                row["offdiag_rms"],
            )
        self._collapsed = row["collapsed"]

    def _above_floor(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return what says how much of the twin loss no encoder could avoid."""
        if self.floor is None:
            return {}
        return {
            "loss_above_floor": means["loss"] - self.config.twins * self.config.loss.off_diagonal * self.floor,
            "off_diagonal_floor": self.floor,
            "off_diagonal_above_floor": means["off_diagonal"] - self.floor,
            "offdiag_rms_chance": self.correlated**-0.5,
        }

    def _record(self, kind: str, numbers: Mapping[str, float], output: StepOutput, **more: bool) -> Row:
        """Append a row to `metrics.jsonl`."""
        row: dict[str, Any] = {"kind": kind, "step": self.step, **numbers, "collapsed": False}
        if output.correlation_rms is not None:
            rms = float(output.correlation_rms)
            row |= {"offdiag_rms": rms, "collapsed": rms > COLLAPSED}
        row |= more
        self.folder.append(row)
        self.callbacks.on_row(row)
        return row

    def _save(self) -> None:
        if self.world.main:
            checkpoint.save(self.folder.last, self.model, self.optimiser, self._state())
        self.world.barrier()

    def _report(self) -> None:
        if self.world.main:
            self.folder.write_report(report(self.folder.rows(), as_json(self.config), self._notes()))

    def _state(self) -> checkpoint.RunState:
        card, teacher = self.statistics.to_card(), self._teacher_digest
        return checkpoint.RunState(
            self.step, self.world.size, self.shards.digest, card, self._random, self._best, teacher=teacher
        )

    @property
    def _teacher_digest(self) -> str:
        return "" if self.taught is None else self.taught.digest

    def _restore(self) -> None:
        """Load the last checkpoint, if there is one."""
        last = self.folder.last
        if not last.exists():
            if self.folder.rows() or self.folder.best.exists() or self.folder.exported(self.config).exists():
                raise UsageError(
                    f"{last} is gone, but the run has begun: see what else lies in its folder. Restore it from a copy, "
                    "or choose another --out; the run does not start anew by itself."
                )
            return
        state = checkpoint.load(last, self.model, self.optimiser)
        checkpoint.check(
            state,
            path=last,
            processes=self.world.size,
            shards=self.shards.digest,
            statistics=self.statistics.to_card(),
            teacher=self._teacher_digest,
        )
        self.step, self._random, self._best = state.step, state.random, state.best
        if self.world.main:
            self.folder.truncate(self.step)
            if self.step < self.config.train.steps:
                logger.info("Going on after step %d of %d.", self.step, self.config.train.steps)
            else:
                logger.info("All %d steps are done already.", self.step)

    def _wrap(self) -> nn.Module:
        """Compile the transformers if asked, and return the module, within DDP if there are several processes."""
        if self.config.train.compile:
            for block in (*self.model.encoder.s2.blocks, *self.model.encoder.s1.blocks):
                block.compile()
        if self.world.size == 1:
            return self.model
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.model, device_ids=devices, **WITHOUT_BUFFER_SYNC)

    def _agree_to_stop(self) -> bool:
        """Return whether any process wants to stop, since a signal may reach them at different steps."""
        if self.world.size == 1:  # without waiting for the device
            return self.callbacks.should_stop()
        stop = torch.tensor([float(self.callbacks.should_stop())], device=self.device)
        return bool(self.world.all_reduce_detached(stop) > 0)

    def _log_setup(self) -> None:
        for what, text in self._notes().items():
            logger.info("%s: %s.", what, text)
        if self.floor is not None and (width := self.config.projector.width) > self.correlated:
            least = self.config.loss.off_diagonal * self.floor
            logger.log(
                logging.WARNING if least > width / 10 else logging.INFO,  # the diagonal begins near `width`
                "A batch of %d cannot fill %d dimensions of the projector: the off-diagonal sum stays above %.0f (%.1f "
                "of the loss). Logs say what is above it.",
                self.correlated,
                width,
                self.floor,
                self.config.twins * least,
            )
        if (batch := self.config.train.batch) > self.shards.pixels:
            logger.warning("A batch of %d holds some of the %d pixels more than once.", batch, self.shards.pixels)

    def _notes(self) -> dict[str, str]:
        """Return data, encoder, optimiser and device in words, for the log and the report."""
        shards, config = self.shards, self.config
        own, total = (sum(p.numel() for p in module.parameters()) for module in (self.model.encoder, self.model))
        return {
            "Data": f"{shards.pixels:,} pixels to train on and {len(shards.holdout):,} held out in {shards.path}",
            "Encoder": f"{config.model.family}, {own:,} numbers, and {total - own:,} trained beside it; weights, "
            f"gradients and moments take {total * 16 / 1e6:,.0f} MB",
            **({} if self.taught is None else {"Teacher": self.taught.described}),
            "AdamW": describe_groups(self.optimiser),
            "Device": f"{self.device}, {resolve(config.train.precision, self.device)}, processes: {self.world.size}",
        }
