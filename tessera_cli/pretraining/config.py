"""The configuration of a pretraining run: sections and keys of its TOML file, with their defaults."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tessera_cli.models.architecture import EncoderConfig, Pooling
from tessera_cli.models.families import PARTS, family_spec
from tessera_cli.models.registry import REGISTRY
from tessera_cli.models.spec import Family, HubFile
from tessera_cli.sampling import V1_1_RULE, V2_RULE, BucketedSampling

FIXED_NUMBER: tuple[Family, ...] = ("v1.0-early", "v1.0-qat")
"""Families that take a fixed number of observations, and empty frames for a missing sensor."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Base class of the sections: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_name=True, validate_by_alias=True)


class DataConfig(Section):
    """The choice of pixels for the shards, and the statistics that standardise them."""

    min_s2: Count = 10
    """Pixels with fewer clear Sentinel-2 observations are left out."""
    min_s1: Count = 10
    """Pixels with fewer Sentinel-1 observations of both orbits are left out."""
    pixels_per_tile: Count = 0
    """At most so many pixels of each tile and window; 0: all."""
    stratify: Literal["none", "greenness"] = "none"
    """How the capped pixels are chosen: at random, or evenly over classes of greenness."""
    holdout: Share = 0.05
    """Share of the ground kept from training, for the measures that need no labels."""
    holdout_block: Positive = 32
    """Side in pixels of the squares of ground that are kept from training."""
    shard_pixels: Positive = 262_144
    """About how many pixels make a shard: 0.5 GB. Building them holds one in memory, and before that two tiles."""
    statistics: str = "auto"
    """own: of the training pixels; init: of the model of --init-from; auto: init where that model has some, else own;
    or the name of a released model."""


class ViewConfig(Section):
    """The random choice of observations in the two views of a pixel."""

    lengths: Literal["fixed", "bucketed"] = "fixed"
    """fixed: n_obs of each sensor; bucketed: a random share of them, brought to the lengths that `embed` uses."""
    n_obs: Positive = 40
    share: tuple[Share, Share] = Field((0.3, 0.9), strict=False)
    """bucketed: least and largest share of a pixel's observations in a view."""
    replacement: Literal["never", "short", "always"] = "short"
    """Whether an observation may be drawn twice: never (few observations make a short sequence), where there are fewer
    than n_obs, or always (v1.0)."""
    order: Literal["day", "frames", "random"] = "frames"
    """Order of a sequence: by day; by date with ascending passes before descending ones, as in `embed`; or random, as
    v1.0 was trained. Only GRUs tell the difference."""
    drop_season: Share = 0.0
    """Probability that a view misses all observations of `season_days` days."""
    season_days: Positive = 90
    drop_orbit: Share = 0.0
    """Probability that a view misses one orbit direction, where there are two."""
    drop_s1: Share = 0.0
    """Probability that a view misses Sentinel-1."""
    drop_s2: Share = 0.0
    """Probability that a view misses Sentinel-2; never both sensors."""
    gain: Share = 0.0
    """Standard deviation of a factor per view and band, and of one per view: haze, light and soil differ by place."""
    noise: Share = 0.0
    """Standard deviation of a factor per observation shown and band."""
    shift_days: Annotated[int, Field(ge=0, le=60)] = 0
    """Most days by which a whole view is earlier or later: seasons differ by place and year."""


class TrainedModelConfig(Section):
    """The encoder to train: the family fixes its parts, the sizes are free."""

    name: str = Field("own", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Model name in the tags of files made with it."""
    family: Family = "v2-student"
    latent: Positive = 36
    """A quarter of the transformers' width."""
    layers: Positive = 2
    heads: Positive = 4
    feedforward: Positive = 384
    representation: Positive = 128
    """The length of an embedding."""
    pooling: Pooling | None = None
    """None: that of the family."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> TrainedModelConfig:
        if self.family not in PARTS:
            raise ValueError(f"family {self.family} has no network")
        if isinstance((known := REGISTRY.get(self.name, None)) and known.weights, HubFile):
            raise ValueError(f"name {self.name} is that of a released model")
        if self.encoder.unfit_heads:
            raise ValueError(f"the width 4 x {self.latent} is no multiple of {self.heads} heads")
        return self

    @property
    def encoder(self) -> EncoderConfig:
        parts = dict(PARTS[self.family]) | ({} if self.pooling is None else {"pooling": self.pooling})
        return EncoderConfig.of(
            self.latent, self.layers, self.heads, self.feedforward, representation=self.representation, **parts
        )

    @property
    def buckets(self) -> BucketedSampling:
        """Lengths and padding of bucketed sequences, as in `embed`."""
        return V1_1_RULE if self.family.startswith("v1") else V2_RULE


class ProjectorConfig(Section):
    """The network between embedding and loss, which is discarded after training."""

    width: Positive = 1024
    depth: Positive = 3
    """Number of linear maps, with batch norm and ReLU between them."""
    prefixes: tuple[Positive, ...] = Field((), strict=False)
    """Lengths of prefixes of the embedding with a projector of their own, so that `embed --dims` can store them alone;
    the whole embedding always has one."""


class TeacherConfig(Section):
    """A trained model whose embeddings the encoder learns to match."""

    model: str = ""
    """What --teacher names: a released model, a weights file, or the folder of a run; empty: none."""
    sha256: str = ""
    """Of its weights file. A run writes it down; if it is given, other weights are refused."""
    source: str = ""
    """Source of the d-pixels, where shards do not say it and the teacher's statistics depend on it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it."""
    head: Literal["linear", "identity"] = "linear"
    """linear: a linear map of each prefix predicts the teacher's embedding; identity: the embedding itself is to be
    the teacher's, value by value."""
    prefixes: tuple[Positive, ...] = Field((16, 32, 64, 128), strict=False)
    """Lengths of prefixes of the embedding that predict the whole of the teacher's; those that are longer than it do
    not count, and the whole of it always predicts."""
    cosine: Annotated[float, Field(ge=0)] = 1.0
    """Weight of 1 - the mean cosine between what is predicted and the teacher's embedding, less their mean."""
    barlow: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mean over the teacher's dimensions of (1 - correlation)^2."""


class LossConfig(Section):
    twins: Annotated[float, Field(ge=0)] | None = None
    """Weight of the twin loss; None: 1 without a teacher, 0 with one. With 0 there are no projectors."""
    off_diagonal: Annotated[float, Field(ge=0)] = Field(5e-3, alias="lambda")
    """Weight of the off-diagonal term; that of the diagonal is 1."""
    scope: Literal["global", "local"] = "global"
    """global: correlations over the joint batch of all processes; local: over each process's part (v1.0)."""
    mix: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mixing regulariser, which takes a third pass through the encoder."""
    predict: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the error with which the embedding of each view predicts the observations of the other."""
    predict_width: Positive = 128
    """Width of the network that predicts."""
    chunk: Positive = 8192
    """Rows of the correlation matrix held at once."""
    quantise: bool = False
    """Whether the projectors and a teacher's maps take the embedding as int8 would store it."""
    quantise_from: Count = 0
    """First step with `quantise`."""


class OptimiserConfig(Section):
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of matrices; biases and norms have none."""
    warmup: Share = 0.1
    """Share of the steps with a rising learning rate; then it falls to 0 along a cosine."""
    clip: Annotated[float, Field(gt=0)] = 2.0
    """Largest norm of the gradient."""


class TrainConfig(Section):
    batch: Positive = 1024
    """Pixels per step over all processes."""
    steps: Positive = 5000
    """Steps in all, unless `epochs` says it."""
    epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How often each training pixel is seen, so that steps follow from the number of pixels; 0: `steps` says it."""
    min_steps: Count = 0
    """Fewest steps that follow from `epochs`."""
    seed: Count = 0
    """Random seed of weights, batches, views and everything else that is drawn."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it. Days of year, norms, pooling and loss are always float32."""
    compile: bool = False
    """Whether to torch.compile the transformers' layers."""
    workers: Positive = 2
    """Threads that prefetch batches."""
    log_every: Positive = 50
    save_every: Positive = 500
    eval_every: Positive = 1000

    def for_pixels(self, pixels: int) -> TrainConfig:
        """Return the section with the number of steps on so many training pixels."""
        if not self.epochs:
            return self
        steps = max(1, self.min_steps, math.ceil(self.epochs * pixels / self.batch))
        return self.model_copy(update={"steps": steps, "epochs": 0.0})


class ProbeConfig(Section):
    """Measures of the trained encoder."""

    pixels: Positive = 4096
    """Largest number of holdout pixels, and of labelled ones."""
    labels: str = ""
    """Path of polygons, points, a raster or a table of samples, with classes; empty: none."""
    column: str = ""
    """Column of the classes; empty: the one called class, label, crop or name."""
    layer: str = ""
    """Layer of the polygons or points; empty: all that hold areas."""
    sample: str = ""
    """Of a table: the column of the samples' names; empty: that of --columns, or one of a usual name."""
    group: str = ""
    """Of a table: the column of what must not be split; empty: that of --columns, or none."""
    classes: tuple[str, ...] = Field((), strict=False)
    """Classes to use; empty: all."""
    block: Positive = 32
    """Side in pixels of the squares of ground that are kept in one fold."""
    folds: Annotated[int, Field(ge=2)] = 5


class PretrainConfig(Section):
    """The whole configuration; a run depends on it and its d-pixels."""

    data: DataConfig = DataConfig()
    views: ViewConfig = ViewConfig()
    model: TrainedModelConfig = TrainedModelConfig()
    projector: ProjectorConfig = ProjectorConfig()
    loss: LossConfig = LossConfig()
    teacher: TeacherConfig = TeacherConfig()
    optim: OptimiserConfig = OptimiserConfig()
    train: TrainConfig = TrainConfig()
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="after")
    def _belong_together(self) -> PretrainConfig:
        if self.train.batch < 2:
            raise ValueError("train.batch is 1: correlations take at least 2 pixels")
        if self.model.family in FIXED_NUMBER and (self.views.drop_s1 or self.views.drop_s2):
            raise ValueError(
                f"views.drop_s1 and drop_s2: where a sensor is missing, `embed` shows the family {self.model.family} "
                "frames without values, which cannot be trained for"
            )
        if self.views.share[0] > self.views.share[1]:
            raise ValueError("views.share: its first number is larger than its second")
        if self.loss.mix and (self.views.lengths, self.views.replacement) not in _RECTANGULAR:
            raise ValueError(
                "loss.mix blends sequences of equal length: it takes views.lengths fixed, and "
                "views.replacement short or always"
            )
        if self.loss.quantise and family_spec(self.model.family, "", self.model.encoder).quantiser is None:
            raise ValueError(f"loss.quantise: embeddings of family {self.model.family} are never stored as int8")
        if self.teacher.model and not self.teaches:
            raise ValueError("teacher.cosine and teacher.barlow are 0: leave the teacher out, or give one a weight")
        if not (self.twins or self.loss.predict or self.teaches):
            raise ValueError("loss.twins and loss.predict are 0 and there is no teacher: nothing is left to learn from")
        if self.loss.mix and not self.twins:
            raise ValueError(
                "loss.mix is a part of the twin loss, whose weight loss.twins is 0: set it to 0, or loss.twins to 1"
            )
        if self.projector.prefixes and not (self.twins or self.teaches):
            raise ValueError(
                "projector.prefixes are learned by the twin loss, whose weight loss.twins is 0: leave them out, or set "
                "loss.twins to 1"
            )
        if self.loss.quantise and not (self.twins or self.teaches):
            raise ValueError("loss.quantise: neither the twin loss nor a teacher takes part, which alone see int8")
        if wrong := [size for size in self.projector.prefixes if size >= self.model.representation]:
            raise ValueError(f"projector.prefixes: {wrong[0]} is not shorter than model.representation")
        return self

    @property
    def teaches(self) -> bool:
        """Whether a teacher takes part in the loss."""
        return bool(self.teacher.model) and self.teacher.cosine + self.teacher.barlow > 0

    @property
    def twins(self) -> float:
        """The weight of the twin loss."""
        if self.loss.twins is not None:
            return self.loss.twins
        return 0.0 if self.teacher.model else 1.0

    @property
    def matched(self) -> tuple[int, ...]:
        """Lengths of the prefixes that match the teacher, the whole embedding last; empty without one."""
        whole = self.model.representation
        if not self.teaches:
            return ()
        if self.teacher.head == "identity":
            return (whole,)
        return (*sorted({size for size in self.teacher.prefixes if size < whole}), whole)

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefixes of the embedding that may be stored alone, the whole last."""
        projected = self.projector.prefixes if self.twins else ()
        return tuple(sorted({*projected, *self.matched, self.model.representation}))


_RECTANGULAR = {("fixed", "short"), ("fixed", "always")}
