"""Which of a pixel's observations an encoder sees, family by family."""

from tessera_cli.sampling.bins import V1_1_RULE, V2_RULE, Binned
from tessera_cli.sampling.draws import LARGEST_LEGACY_SEED, Drawn
from tessera_cli.sampling.observations import Group, ObservationRule, Observations, Sampler
from tessera_cli.sampling.streams import BANDS, Modality, Stream, Streams, streams

__all__ = [
    "BANDS",
    "LARGEST_LEGACY_SEED",
    "V1_1_RULE",
    "V2_RULE",
    "Binned",
    "Drawn",
    "Group",
    "Modality",
    "ObservationRule",
    "Observations",
    "Sampler",
    "Stream",
    "Streams",
    "streams",
]
