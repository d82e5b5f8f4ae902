"""The training loop: from shards to an encoder, one readable step after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tessera_cli.errors import TesseraError, UsageError
from tessera_cli.models.encoder import Encoder, seeded
from tessera_cli.models.precision import resolve
from tessera_cli.pretrain import checkpoint as resume
from tessera_cli.pretrain.barlow_twins import Outcome, Twins
from tessera_cli.pretrain.callbacks import COLLAPSED, Row, Watch
from tessera_cli.pretrain.config import Settings
from tessera_cli.pretrain.config_file import as_json
from tessera_cli.pretrain.data.batch import Batch
from tessera_cli.pretrain.data.loader import Loader
from tessera_cli.pretrain.data.sampler import Order
from tessera_cli.pretrain.data.shards import Shards
from tessera_cli.pretrain.distributed import World
from tessera_cli.pretrain.embedder import Embedder
from tessera_cli.pretrain.evaluation.evaluate import Evaluation, selection
from tessera_cli.pretrain.export import export
from tessera_cli.pretrain.loss import rank_floor
from tessera_cli.pretrain.meter import Meter
from tessera_cli.pretrain.metrics import rank_me, spread
from tessera_cli.pretrain.optimiser import adamw, groups_text, rate
from tessera_cli.pretrain.report.page import report
from tessera_cli.pretrain.run_folder import RunFolder
from tessera_cli.sampling.statistics import Statistics

logger = logging.getLogger(__name__)


class NotFiniteError(TesseraError):
    """The loss or its gradient is NaN or infinite."""


@dataclass
class Trainer:
    """One process of a run: made ready, or brought to where the run stopped, when it is constructed; then `run`."""

    settings: Settings
    shards: Shards
    statistics: Statistics
    folder: RunFolder
    device: torch.device
    world: World = field(default_factory=World)
    initial: Encoder | None = None
    """Weights to start from; None: random ones."""
    watch: Watch = field(default_factory=Watch)
    step: int = field(default=0, init=False)
    """Finished steps."""
    _random: Mapping[str, float] = field(default_factory=dict, init=False)
    """The measures of the encoder with random weights."""
    _best: float | None = field(default=None, init=False)
    _collapsed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        settings, world = self.settings, self.world
        encoder = self._random_encoder() if self.initial is None else self.initial
        encoder.set_dropout(settings.model.dropout)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(settings.train.seed + 1)  # of the projectors; equal in all processes
            self.twins = Twins(encoder.train().requires_grad_(True), self.statistics, settings, world).to(self.device)
        if resolve(settings.train.precision, self.device) == "bf16":
            self.twins.compute_in(torch.bfloat16)
            if self.device.type == "cuda":
                torch.set_float32_matmul_precision("high")  # of what is left in float32, the correlations: TF32
        self.optimiser = adamw(self.twins, settings.optim)
        self.loader = Loader(
            shards=self.shards,
            order=Order(tuple(self.shards.sizes), settings.train.batch, settings.train.seed),
            views=settings.views,
            bins=settings.model.bins,
            seed=settings.train.seed,
            mix=settings.loss.mix > 0,
            rank=world.rank,
            size=world.size,
            workers=settings.train.workers,
        )
        self.evaluation = Evaluation.of(self.shards, settings) if world.main else None
        self._resume()
        self.wrapped = self._wrapped()
        if world.main:
            self._introduce()

    def run(self) -> bool:
        """Train to the last step; False if `watch.stop` ended it before. Either way the state is saved."""
        train = self.settings.train
        if self.step == 0:
            self._begin()
        self.watch.begin(train.steps, self.step)
        meter = Meter(self.world, self.device)
        for batch in meter.waiting(self.loader.batches(self.step, train.steps)):
            outcome, norm, lr = self._step(batch)
            self.step += 1
            meter.add(batch, outcome)
            last = self.step == train.steps
            if last or self.step % train.log_every == 0:
                self._log(outcome, norm, lr, meter)
            leave = self._agreed_to_stop()
            with meter.paused():
                if last or self.step % train.eval_every == 0:
                    self._evaluate(outcome)
                if last or leave or self.step % train.save_every == 0:
                    self._save()
            self.watch.step(self.step)
            if leave and not last:
                return False
        if self.world.main and not self.folder.exported(self.settings).exists():
            self._export_again()
        return True

    def _step(self, batch: Batch) -> tuple[Outcome, float, float]:
        settings = self.settings
        # Dropout draws from the seed, the step and the process: nothing to save, nothing shared.
        state = np.random.SeedSequence((settings.train.seed, self.step, self.world.rank)).generate_state(1)
        torch.manual_seed(int(state[0]))
        self.twins.quantise(settings.loss.quantise and self.step >= settings.loss.quantise_from)
        lr = rate(self.step, settings.train.steps, settings.optim)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        outcome: Outcome = self.wrapped(self.twins.place(batch))
        torch.autograd.backward(outcome.loss)
        norm = float(nn.utils.clip_grad_norm_(self.twins.parameters(), settings.optim.clip))
        if not math.isfinite(norm):
            raise NotFiniteError(
                f"Step {self.step + 1}: the gradient is not finite (loss {float(outcome.loss.detach()):g}). "
                f"The last checkpoint stays. Lower optim.lr ({settings.optim.lr:g}) or take fp32, in a new --out."
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return outcome, norm, lr

    def _random_encoder(self) -> Encoder:
        return seeded(self.settings.model.encoder, self.settings.train.seed)

    def _begin(self) -> None:
        """Measure the random encoder, and find out whether the disk can hold the state, before anything is spent."""
        if self.evaluation is not None:
            random = self.twins if self.initial is None else Embedder(self._random_encoder(), self.statistics)
            self._random = self.evaluation.measure(random.to(self.device).embedded)
        self._save()

    def _evaluate(self, outcome: Outcome) -> None:
        if self.evaluation is None:  # that is for the main process
            self.world.barrier()
            return
        found = self.evaluation.measure(self.twins.embedded)
        score = selection(found)
        better = score is not None and (self._best is None or score > self._best)
        if better:
            self._best = score
        rms = float(outcome.correlation_rms)
        row = {
            "kind": "eval",
            "step": self.step,
            **found,
            **{f"{name}_random": x for name, x in self._random.items()},
            "offdiag_rms": rms,
            "collapsed": rms > COLLAPSED,
            "best": better,
        }
        self._record(row)
        if better:
            resume.save(self.folder.best, self.twins, self.optimiser, self._header())
        if better or "probe_knn" not in found:  # without labels the last weights are exported
            self._export(self.twins.encoder, row)
        self.world.barrier()

    def _export(self, encoder: Encoder, row: Row) -> None:
        measures = {key: value for key, value in row.items() if key != "kind"}
        export(self.folder.exported(self.settings), encoder, self.settings, self.shards, self.statistics, measures)

    def _export_again(self) -> None:
        """Of a finished run whose weights file is gone."""
        encoder, rows = self.twins.encoder, [row for row in self.folder.rows() if row.get("kind") == "eval"]
        if self.settings.probe.labels and self.folder.best.exists():
            encoder, _ = resume.read_encoder(self.folder.best, encoder.config)
            rows = [row for row in rows if row.get("best")]
        self._export(encoder, rows[-1] if rows else {})

    def _log(self, outcome: Outcome, norm: float, lr: float, meter: Meter) -> None:
        """The numbers of the interval; every process takes part in what they are gathered from."""
        rms, measured = float(outcome.correlation_rms), meter.take()
        representation = self.world.gather(outcome.representation)
        if not self.world.main:
            return
        floor = self._floor
        self._record(
            {
                "kind": "train",
                "step": self.step,
                **measured,
                "loss_above_floor": measured["loss"] - self.settings.loss.off_diagonal * floor,
                "off_diagonal_floor": floor,
                "off_diagonal_above_floor": measured["off_diagonal"] - floor,
                "offdiag_rms": rms,
                "offdiag_rms_chance": self._correlated**-0.5,
                "collapsed": rms > COLLAPSED,
                "rank_me": rank_me(representation),
                **spread(representation),
                "gradient_norm": norm,
                "lr": lr,
            }
        )
        if rms > COLLAPSED and not self._collapsed:  # once: every row says it too
            logger.warning(
                "Collapse: at step %d all dimensions of the projection say the same (off-diagonal RMS %.2f of 1). "
                "Raise loss.lambda, or lower optim.lr.",
                self.step,
                rms,
            )
        self._collapsed = rms > COLLAPSED

    def _record(self, row: Row) -> None:
        self.folder.append(row)
        self.watch.row(row)

    def _save(self) -> None:
        if self.world.main:
            resume.save(self.folder.last, self.twins, self.optimiser, self._header())
            self.folder.write_report(report(self.folder.rows(), as_json(self.settings), self._notes()))
        self.world.barrier()

    def _header(self) -> resume.Header:
        return resume.Header(
            self.step, self.world.size, self.shards.digest, self.statistics.to_card(), self._random, self._best
        )

    def _resume(self) -> None:
        rows = self.folder.rows()
        if not self.folder.last.exists():
            if rows or self.folder.best.exists() or self.folder.exported(self.settings).exists():
                raise UsageError(
                    f"{self.folder.last} is gone, but the run has begun: see what else lies in its folder. Restore "
                    "it from a copy, or choose another --out; the run does not start anew by itself."
                )
            return
        header = resume.load(self.folder.last, self.twins, self.optimiser)
        resume.check(
            header,
            path=self.folder.last,
            processes=self.world.size,
            shards=self.shards.digest,
            statistics=self.statistics.to_card(),
        )
        self.step, self._random, self._best = header.step, header.random, header.best
        if self.world.main:
            self.folder.forget_after(self.step)
            if self.step < self.settings.train.steps:
                logger.info("Going on after step %d of %d.", self.step, self.settings.train.steps)
            else:
                logger.info("All %d steps are done already.", self.step)

    def _wrapped(self) -> nn.Module:
        if self.settings.train.compile:
            for stack in (self.twins.encoder.s2, self.twins.encoder.s1):
                for block in stack.blocks:
                    block.compile()
        if self.world.size == 1:
            return self.twins
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.twins, device_ids=devices, forward_sync_buffers=False)

    def _agreed_to_stop(self) -> bool:
        """A signal may reach processes at different steps; they leave after the same one."""
        if self.world.size == 1:
            return self.watch.stop()
        flag = torch.tensor([float(self.watch.stop())], device=self.device)
        return bool(self.world.total(flag) > 0)

    def _introduce(self) -> None:
        settings = self.settings
        for what, text in self._notes().items():
            logger.info("%s: %s.", what, text)
        if settings.projector.width > self._correlated:
            logger.warning(
                "A batch of %d cannot fill %d dimensions of the projector: the off-diagonal sum stays above %.0f (%.1f "
                "of the loss). Logs say what is above it.",
                self._correlated,
                settings.projector.width,
                self._floor,
                settings.loss.off_diagonal * self._floor,
            )
        if settings.train.batch > self.shards.pixels:
            logger.warning(
                "A batch of %d holds some of the %d pixels more than once.", settings.train.batch, self.shards.pixels
            )

    @property
    def _correlated(self) -> int:
        """The pixels over which correlations are taken."""
        batch = self.settings.train.batch
        return batch if self.settings.loss.scope == "global" else batch // self.world.size

    @property
    def _floor(self) -> float:
        return rank_floor(self.settings.projector.width, self._correlated)

    def _notes(self) -> dict[str, str]:
        """What is trained, on what, by what: for the log and the report."""
        shards, settings = self.shards, self.settings
        own, all_ = (sum(p.numel() for p in module.parameters()) for module in (self.twins.encoder, self.twins))
        return {
            "Data": f"{shards.pixels:,} pixels to train on and {len(shards.held):,} held out in {shards.path}",
            "Encoder": f"{settings.model.family}, {own:,} numbers, and {all_ - own:,} of projectors; weights, "
            f"gradients and moments take {all_ * 16 / 1e6:,.0f} MB",
            "AdamW": groups_text(self.optimiser),
            "Device": f"{self.device}, {resolve(settings.train.precision, self.device)}, processes: {self.world.size}",
        }
