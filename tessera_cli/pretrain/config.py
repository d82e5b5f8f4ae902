"""What a run of `pretrain` is told: the sections and keys of its TOML, with their defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tessera_cli.models.architecture import EncoderConfig, Pooling
from tessera_cli.models.families import PARTS, family_spec
from tessera_cli.models.registry import REGISTRY
from tessera_cli.models.spec import Family, HubFile
from tessera_cli.sampling import V1_1_RULE, V2_RULE, BucketedSampling

FIXED_NUMBER: tuple[Family, ...] = ("v1.0-early", "v1.0-qat")
"""Families to which `embed` shows a fixed number of observations, and frames without values for a missing sensor."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_name=True, validate_by_alias=True)


class DataSettings(Section):
    """Which pixels go into the shards, and how they are standardised."""

    min_s2: Count = 10
    """Pixels with fewer clear Sentinel-2 observations are left out."""
    min_s1: Count = 10
    """Pixels with fewer Sentinel-1 observations of both orbits are left out."""
    pixels_per_tile: Count = 0
    """At most so many of each tile and window; 0: all."""
    stratify: Literal["none", "greenness"] = "none"
    """How the pixels of a tile are chosen under the cap: evenly at random, or evenly over classes of greenness."""
    holdout: Share = 0.05
    """Share of the ground that is kept from training, for the measures that need no labels."""
    holdout_block: Positive = 32
    """Side in pixels of the squares that are kept from training as a whole."""
    shard_pixels: Positive = 262_144
    """About how many pixels make a shard: 0.5 GB. Building them holds one in memory, and before that two tiles."""
    statistics: str = "own"
    """own: those of the training pixels; init: those of the model of --init-from; or the name of a released model."""


class ViewSettings(Section):
    """How the two views of a pixel are drawn."""

    lengths: Literal["fixed", "bucketed"] = "fixed"
    """fixed: n_obs of each sensor; bucketed: a random share of them, brought to the lengths that `embed` uses."""
    n_obs: Positive = 40
    share: tuple[Share, Share] = Field((0.3, 0.9), strict=False)
    """bucketed: between which shares of its observations a pixel shows."""
    replacement: Literal["never", "short", "always"] = "short"
    """Whether an observation may be drawn twice: never (few observations make a short sequence), where there are fewer
    than n_obs, or always (v1.0)."""
    order: Literal["day", "frames", "random"] = "frames"
    """Of the observations in a sequence: by day; by date, ascending passes before descending ones, as `embed` gives
    them; or random, as v1.0 was trained. Only GRUs tell the difference."""
    drop_season: Share = 0.0
    """Probability that a view misses all observations of `season_days` days."""
    season_days: Positive = 90
    drop_orbit: Share = 0.0
    """Probability that a view misses one orbit direction, where there are two."""
    drop_s1: Share = 0.0
    """Probability that a view misses Sentinel-1."""
    drop_s2: Share = 0.0
    """Probability that a view misses Sentinel-2; never both sensors."""


class ModelSettings(Section):
    """The encoder: a family says how it is put together, the sizes are free."""

    name: str = Field("own", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What files made with it are tagged with."""
    family: Family = "v2-student"
    latent: Positive = 36
    """A quarter of the transformers' width."""
    layers: Positive = 2
    heads: Positive = 4
    feedforward: Positive = 384
    representation: Positive = 128
    """The length of an embedding."""
    pooling: Pooling | None = None
    """None: the family's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> ModelSettings:
        if self.family not in PARTS:
            raise ValueError(f"family {self.family} has no network")
        if isinstance((known := REGISTRY.get(self.name, None)) and known.weights, HubFile):
            raise ValueError(f"name {self.name} is that of a released model")
        if 4 * self.latent % self.heads:
            raise ValueError(f"the width 4 x {self.latent} is no multiple of {self.heads} heads")
        return self

    @property
    def encoder(self) -> EncoderConfig:
        parts = dict(PARTS[self.family]) | ({} if self.pooling is None else {"pooling": self.pooling})
        return EncoderConfig.of(
            self.latent, self.layers, self.heads, self.feedforward, representation=self.representation, **parts
        )

    @property
    def bins(self) -> BucketedSampling:
        """The lengths of bucketed sequences and what fills them, as `embed` has them."""
        return V1_1_RULE if self.family.startswith("v1") else V2_RULE


class ProjectorSettings(Section):
    """The network between embedding and loss, which is thrown away."""

    width: Positive = 1024
    depth: Positive = 3
    """Linear maps; between them batch norm and ReLU."""
    prefixes: tuple[Positive, ...] = Field((), strict=False)
    """Prefixes of the embedding that have a projector of their own, so that they can be stored alone; the whole
    embedding always has one."""


class LossSettings(Section):
    off_diagonal: Annotated[float, Field(ge=0)] = Field(5e-3, alias="lambda")
    """Weight of the off-diagonal terms against those of the diagonal."""
    scope: Literal["global", "local"] = "global"
    """Whether correlations are those of the joint batch of all processes, or of each process's own (v1.0)."""
    mix: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mixing regulariser; it takes a third pass through the encoder."""
    chunk: Positive = 8192
    """Rows of the correlation matrix that are held at once."""
    quantise: bool = False
    """The projector sees the embedding as int8 would store it."""
    quantise_from: Count = 0
    """The first step at which it does."""


class OptimSettings(Section):
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of matrices; biases and norms have none."""
    warmup: Share = 0.1
    """Share of the steps in which the rate rises; then it falls to 0 along a cosine."""
    clip: Annotated[float, Field(gt=0)] = 2.0
    """Largest norm of the gradient."""


class TrainSettings(Section):
    batch: Positive = 1024
    """Pixels per step, of all processes together."""
    steps: Positive = 5000
    seed: Count = 0
    """Of the weights, the order, the views and everything else that is drawn."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it. Days of year, norms, pooling and loss are always float32."""
    compile: bool = False
    """torch.compile for the transformers' layers."""
    workers: Positive = 2
    """Threads that draw views ahead."""
    log_every: Positive = 50
    save_every: Positive = 500
    eval_every: Positive = 1000


class ProbeSettings(Section):
    """The measures of what was learned."""

    pixels: Positive = 4096
    """At most so many held-out pixels, and so many labelled ones."""
    labels: str = ""
    """File of polygons or a raster of classes; empty: none."""
    column: str = ""
    """Of the polygons' classes; empty: the one called class, label, crop or name."""
    classes: tuple[str, ...] = Field((), strict=False)
    """Of the labels, only these; empty: all."""
    block: Positive = 32
    """Side in pixels of the squares that keep neighbouring parcels together when labels are split."""
    folds: Annotated[int, Field(ge=2)] = 5


class Settings(Section):
    """Everything that a run depends on besides its d-pixels."""

    data: DataSettings = DataSettings()
    views: ViewSettings = ViewSettings()
    model: ModelSettings = ModelSettings()
    projector: ProjectorSettings = ProjectorSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    probe: ProbeSettings = ProbeSettings()

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
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
        if wrong := [size for size in self.projector.prefixes if size >= self.model.representation]:
            raise ValueError(f"projector.prefixes: {wrong[0]} is not shorter than model.representation")
        return self


_RECTANGULAR = {("fixed", "short"), ("fixed", "always")}
