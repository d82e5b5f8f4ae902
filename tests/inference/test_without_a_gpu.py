"""The engine for GPUs where there is none: the same operations, on a device that is pretended."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tessera_cli.inference.gpu import GpuEngine
from tessera_cli.models import EncoderConfig
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import family_spec
from tessera_cli.models.parts import relu_linear
from tessera_cli.models.precision import Precision, prepare
from tessera_cli.models.registry import LARGE_CONFIG, MEDIUM_CONFIG, NANO_CONFIG, V1_1_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import BAND_COUNTS, BucketedSampling
from tessera_cli.sampling.statistics import V1_1_STATISTICS, V2_STUDENT_STATISTICS
from tests.helpers.pretended_gpu import Watch, move, pretended_gpu
from tests.helpers.tiles import made_up

PIXELS = 4096


class Run(NamedTuple):
    precision: str
    seen: Watch
    float32_products: str
    """`torch.get_float32_matmul_precision` while it ran."""
    planned: int
    """Bytes"""


MODELS: dict[str, tuple[Family, EncoderConfig, Precision, int]] = {
    "nano": ("v2-student", NANO_CONFIG, "bf16", 700),
    "medium": ("v2-student", MEDIUM_CONFIG, "bf16", 1000),
    "large": ("v2-student", LARGE_CONFIG, "bf16", 1000),
    "medium fp32": ("v2-student", MEDIUM_CONFIG, "fp32", 900),
    "v1.1": ("v1.1", V1_1_CONFIG, "bf16", 4200),
}
"""Family, sizes, precision, and how many operations a chunk may take at most, however many pixels it has."""


@pytest.fixture(scope="module", params=MODELS)
def run(request: pytest.FixtureRequest) -> Run:
    return run_of(request.param, np.random.default_rng(3).integers([0, 20, 20], [46, 31, 31], (PIXELS, 3)))


def run_of(name: str, counts: np.ndarray) -> Run:
    """Embed pixels with so many observations, int (N, 3)."""
    family, config, precision, _ = MODELS[name]
    pixels = made_up(counts, seed=2, shape=(64, PIXELS // 64))
    rule = family_spec(family, "random", config, source="mpc" if family == "v1.1" else None).observations
    assert isinstance(rule, BucketedSampling)
    statistics = V1_1_STATISTICS["mpc"] if family == "v1.1" else V2_STUDENT_STATISTICS
    sampler = rule.sampler(pixels, statistics, np.arange(PIXELS), seed=0)
    found = {modality: sampler(modality, slice(0, PIXELS), 0) for modality in BAND_COUNTS}
    longest = max(group.length for each in found.values() for group in each.by_bin())
    observations = sum(len(each.doy) for each in found.values()) / PIXELS
    with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch):
        encoder = Encoder(config).eval().requires_grad_(False)
        move(encoder)
        prepare(encoder, precision)
        with GpuEngine(encoder) as engine, Watch() as seen:
            chunk = engine.to_device(found)
            embeddings = engine.embed(chunk, lambda _: None)
            engine.finish(embeddings, "v2")
            assert embeddings.shape == (PIXELS, config.representation)
            assert embeddings.device.type == "cuda"
            planned = engine.peak_bytes(PIXELS, observations, longest)
            products = torch.get_float32_matmul_precision()
    return Run(precision, seen, products, planned)


def test_no_operation_mixes_devices(run: Run) -> None:
    """One that waits for the device, since its result depends on values, is an error of the fake tensors."""
    assert run.seen.mixed == []


def test_attention_takes_its_quickest_kernel(run: Run) -> None:
    """That of flash attention: no mask, and heads of a multiple of 8 values; fewer sequences than 65,536."""
    assert run.seen.attention
    for shape, masked in run.seen.attention:
        assert not masked
        assert shape[-1] % 8 == 0
        assert shape[0] < 1 << 16


def test_launches_are_few(run: Run, request: pytest.FixtureRequest) -> None:
    """They follow from lengths and layers; a loop over pixels would show."""
    assert sum(run.seen.launches.values()) < MODELS[request.node.callspec.params["run"]][3]


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_as_planned(name: str) -> None:
    """Of pixels with equally many observations, which are encoded all at once, nearly all that is planned."""
    found = run_of(name, np.full((PIXELS, 3), [40, 20, 20]))
    assert 0.9 * found.planned <= found.seen.peak <= 1.02 * found.planned


def test_no_relu_is_a_pass_of_its_own(run: Run) -> None:
    """All but the reducer's, which comes after a norm, are within their products."""
    assert run.seen.launches["aten._addmm_activation.default"] > 0
    assert run.seen.launches["aten.relu_.default"] <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_relu_within_the_product_is_the_same(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(3, 5, 7), torch.randn(11, 7), torch.randn(11)
    lower = dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", dtype) if lower else nullcontext():
        found = relu_linear(x, weight.to(dtype), bias.to(dtype))
        due = torch.relu(torch.nn.functional.linear(x, weight, bias))
    assert found.dtype == due.dtype == dtype
    torch.testing.assert_close(found, due, rtol=1e-2 if lower else 1e-5, atol=1e-2 if lower else 1e-5)


def test_memory_is_not_more_than_planned(run: Run) -> None:
    assert run.seen.peak <= 1.02 * run.planned


def test_float32_is_exact_unless_bf16_is_asked_for(run: Run) -> None:
    """TF32's error is an eighth of bfloat16's, so that beside it it costs nothing; alone it would."""
    assert run.float32_products == ("high" if run.precision == "bf16" else "highest")
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_stand_in_tells() -> None:
    """Devices mixed, a value waited for, a mask."""
    with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch), Watch() as seen:
        there = torch.zeros(4, 8, device="cuda:0")
        with pytest.raises(RuntimeError, match="device"):
            torch.add(there, torch.zeros(4, 8))
        with pytest.raises(Exception, match="_local_scalar_dense"):
            there.sum().item()
        q = torch.zeros(1, 2, 3, 8, device="cuda:0")
        with torch.inference_mode():  # as the engine: else it shows as its parts
            torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=torch.zeros(3, 3, device="cuda:0"))
        assert seen.attention == [((1, 2, 3, 8), True)]
        assert seen.peak >= there.untyped_storage().nbytes()
