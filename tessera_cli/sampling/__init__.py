"""Which of a pixel's observations an encoder sees, family by family."""

from tessera_cli.sampling.buckets import V1_1_RULE, V2_RULE, BucketedSampling
from tessera_cli.sampling.draws import LARGEST_LEGACY_SEED, RandomSampling
from tessera_cli.sampling.observations import Group, ObservationRule, Observations, Sampler
from tessera_cli.sampling.series import BAND_COUNTS, Modality, SensorSeries, SensorSeriesByModality, sensor_series

__all__ = [
    "BAND_COUNTS",
    "LARGEST_LEGACY_SEED",
    "V1_1_RULE",
    "V2_RULE",
    "BucketedSampling",
    "Group",
    "Modality",
    "ObservationRule",
    "Observations",
    "RandomSampling",
    "Sampler",
    "SensorSeries",
    "SensorSeriesByModality",
    "sensor_series",
]
