"""How an encoder is run: each observation once, in batches that memory allows, on raw integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tessera_cli.inference import gpu, memory
from tessera_cli.inference.batch import DeviceBatch
from tessera_cli.inference.encode import encode
from tessera_cli.inference.gpu import GpuEngine
from tessera_cli.models import EncoderConfig, Model
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import PARTS
from tessera_cli.models.parts import Block
from tessera_cli.models.quantise import quantise
from tessera_cli.models.registry import MEDIUM_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import BAND_COUNTS, V1_1_RULE, V2_RULE, BucketedSampling, Observations
from tessera_cli.sampling.statistics import V1_1_STATISTICS, V2_STUDENT_STATISTICS
from tessera_cli.timing import StageTimer
from tests.helpers.encoders import random_model
from tests.helpers.tiles import made_up

FAMILIES: tuple[Family, ...] = ("v1.0-early", "v1.0-qat", "v1.1", "v2-student", "v2-teacher")


def config(family: Family, latent: int = 8) -> EncoderConfig:
    return EncoderConfig.of(latent, 2, 4, 48, **PARTS[family])


def every(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, bool)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_observations_can_be_encoded_once(family: Family) -> None:
    """Against the same encoder that sees every copy."""
    model = random_model(config(family), family, precision=None).encoder
    assert model
    generator = torch.Generator().manual_seed(1)
    repeat_index = torch.tensor([0, 1, 2, 3, 4, 2, 2, 0])
    for modality, bands in BAND_COUNTS.items():
        x = torch.randn(3, 5, bands, generator=generator)
        doy = torch.randint(1, 367, (3, 5), generator=generator)
        whole = model.encode_modality(modality, x[:, repeat_index], doy[:, repeat_index])
        once = model.encode_modality(modality, x, doy, repeat_index)
        torch.testing.assert_close(once, whole, rtol=0, atol=3e-6)
        assert (model.encode_modality(modality, x, doy) - whole).abs().max() > 1e-3  # the repeat_index do count


@pytest.mark.parametrize("rule", [V1_1_RULE, V2_RULE, BucketedSampling("v2", (5, 37))], ids=str)
def test_both_ways_to_group_hold_the_same_observations(rule: BucketedSampling) -> None:
    counts = np.array([[n, n // 2, n // 3] for n in (0, 1, 2, 3, 7, 8, 9, 40, 41, 255, 256, 257, 300)])
    pixels = made_up(counts, seed=2)
    statistics = V2_STUDENT_STATISTICS if rule.padding == "v2" else V1_1_STATISTICS["mpc"]
    sampler = rule.sampler(pixels, statistics, np.arange(len(counts)), seed=0)
    for modality in BAND_COUNTS:
        seen = sampler(modality, slice(0, len(counts)), 0)
        whole, once = rows(seen, by_length=False), rows(seen, by_length=True)
        assert whole.keys() == once.keys() == set(range(len(counts))) - set(seen.missing_sensor().tolist())
        for member, found in once.items():
            np.testing.assert_array_equal(found, whole[member])
        lengths = [group.length for group in seen.by_length()]
        assert lengths == sorted(set(lengths), reverse=True)


def rows(seen: Observations, *, by_length: bool) -> dict[int, np.ndarray]:
    """Pixel -> the rows of its sequence, with repeat_index."""
    found = {}
    for group in seen.by_length() if by_length else seen.by_bin():
        assert group.patterns.shape[1] == group.length
        for member, which in zip(group.members.tolist(), group.which, strict=True):
            sequence = seen.starts[member] + group.patterns[which]
            if by_length:
                assert len(set(sequence.tolist())) == group.length
            found[member] = sequence if group.repeat_index is None else sequence[group.repeat_index]
            assert len(found[member]) == seen.bins[member]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_large_batches_give_the_same_embeddings(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of GPUs, on a CPU: bins instead of lengths, chunks of another size, no padding."""
    pixels = made_up(np.random.default_rng(3).integers([1, 0, 0], [60, 30, 30], (90, 3)), seed=2, shape=(9, 10))
    model = random_model(config(family), family)
    small = encode(pixels, model, every((9, 10)), threads=2)
    monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    monkeypatch.setattr(memory, "MOST_TOKENS", 777)
    large = encode(pixels, model, every((9, 10)), threads=2)
    np.testing.assert_allclose(large.values, small.values, rtol=0, atol=1e-5)
    assert large.tokens == small.tokens


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("rule", ["v1", "v2"])
def test_codes_are_those_of_the_stored_prefix(rule: Any, on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_gpu:
        monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    pixels = made_up(np.random.default_rng(4).integers(1, 9, (40, 3)), seed=2, shape=(4, 10))
    for model in (random_model(config("v2-student")), null()):
        values = encode(pixels, model, every((4, 10))).values
        for dims in (16, 128):
            found = encode(pixels, model, every((4, 10)), dims=dims, quantiser=rule)
            codes, scales = quantise(values[:, :dims], rule)
            np.testing.assert_array_equal(found.values, codes)
            np.testing.assert_array_equal(found.scales, scales)
            assert found.values.dtype == np.int8


def null() -> Model:
    from tessera_cli.models import load_model

    return load_model("null")


def test_stages_are_timed() -> None:
    pixels = made_up(np.full((4, 3), 5), seed=1)
    stages = StageTimer()
    encode(pixels, random_model(config("v2-student")), every((1, 4)), stages=stages)
    assert set(stages.seconds) == {"choose", "encode"}
    assert min(stages.seconds.values()) > 0


def test_padded_heads_change_nothing() -> None:
    """As on GPUs."""
    for family, latent in (("v2-student", 9), ("v2-teacher", 9)):
        sizes = EncoderConfig.of(latent, 2, 4, 48, **PARTS[family])  # type: ignore[index]
        encoder = random_model(sizes, family, precision=None).encoder  # type: ignore[arg-type]
        assert encoder
        x, doy = torch.randn(3, 7, 10), torch.randint(1, 367, (3, 7))
        before = encoder.encode_modality("s2", x, doy)
        for block in encoder.s2.blocks:
            assert isinstance(block, Block)
            for _ in range(2):
                block.attention.pad_heads(8)
            assert len(block.attention.in_proj.weight) == (3 * 36 if sizes.qk_norm else 3 * 4 * 16)
        torch.testing.assert_close(encoder.encode_modality("s2", x, doy), before, rtol=0, atol=2e-6)


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[Model, list[int]]:
    """A model, and the numbers of pixels per batch as it will be given them."""
    model, sizes = random_model(config("v2-student")), []
    assert model.encoder
    encode_modality = model.encoder.encode_modality

    def noting(modality: Any, x_BTC: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.append(len(x_BTC))
        return encode_modality(modality, x_BTC, *more)

    monkeypatch.setattr(model.encoder, "encode_modality", noting)
    return model, sizes


def test_a_batch_has_fewer_sequences_than_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    monkeypatch.setattr(gpu, "MOST_SEQUENCES", 7)
    model, sizes = watched(monkeypatch)
    encode(made_up(np.full((30, 3), 4), seed=1, shape=(3, 10)), model, every((3, 10)))
    assert max(sizes) == 7


def test_a_batch_moves_to_its_device_as_a_whole() -> None:
    pixels = made_up(np.array([[3, 1, 1], [0, 2, 0], [9, 0, 4]]), seed=1)
    sampler = V2_RULE.sampler(pixels, V2_STUDENT_STATISTICS, np.arange(3), seed=0)
    for modality in BAND_COUNTS:
        here = DeviceBatch.of(sampler(modality, slice(0, 3), 0), padded=False)
        there = here.to(torch.device("meta"))
        found: list[tuple[Any, Any]] = [(vars(here), vars(there))]
        found += [(vars(a), vars(b)) for a, b in zip(here.groups, there.groups, strict=True)]
        moved = 0
        for before, after in found:
            for name, value in before.items():
                if isinstance(value, torch.Tensor):
                    assert (after[name].device.type, after[name].shape) == ("meta", value.shape), name
                    moved += 1
                elif name != "groups":
                    assert after[name] == value, name
        assert moved >= 6 + 4 * len(here.groups)  # of a group: members, patterns, which, repeat_index


def test_a_device_without_room_for_a_chunk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DeviceBatch, device: torch.device) -> DeviceBatch:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    monkeypatch.setattr(DeviceBatch, "to", full)
    with pytest.raises(MemoryError, match="cpu cannot hold a chunk of"):
        encode(made_up(np.full((3, 3), 4), seed=1), random_model(config("v2-student")), every((1, 3)))


def test_small_areas_are_not_padded_to_full_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = watched(monkeypatch)
    encode(made_up(np.full((3, 3), 4), seed=1), model, every((1, 3)))
    assert max(sizes) == 8


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(encoder: Encoder, tokens: int, length: int) -> int:
    """Bytes that torch has allocated at once, at most, while it encodes."""
    x, doy = torch.randn(tokens // length, length, 10), torch.randint(1, 366, (tokens // length, length))
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        encoder.encode_modality("s2", x, doy)
    assert found.profiler
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.max())


@pytest.mark.parametrize("matmul_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["v2-student", "v1.1", "v1.0-early"])
def test_memory_is_predicted(family: Family, matmul_dtype: torch.dtype) -> None:
    sizes = EncoderConfig.of(36, 2, 4, 384, **PARTS[family])
    encoder = random_model(sizes, family, precision=None).encoder
    assert encoder
    encoder.s2.matmul_dtype = matmul_dtype
    ratio = memory.token_bytes(sizes, "s2", matmul_dtype) * 4096 / peak(encoder, 4096, 64)
    assert 0.8 < ratio < 1.2  # a CPU makes one more copy for sums of bfloat16 and float32 than a GPU


def test_batches_fit_the_free_memory() -> None:
    each = memory.token_bytes(MEDIUM_CONFIG, "s2", torch.bfloat16)
    assert memory.plan(MEDIUM_CONFIG, torch.bfloat16, None, 1000) == (1000, memory.MOST_TOKENS)
    for gib in (1, 2, 4, 8, 24, 80):
        pixels, tokens = memory.plan(MEDIUM_CONFIG, torch.bfloat16, gib << 30, 1 << 16)
        needed = tokens * each + memory.CHUNKS * memory.chunk_bytes(MEDIUM_CONFIG, pixels)
        assert needed < 0.81 * (gib << 30)
        assert tokens == memory.MOST_TOKENS or needed > 0.75 * (gib << 30)
        assert tokens > 10_000
    assert memory.plan(MEDIUM_CONFIG, torch.bfloat16, 1 << 20, 1 << 16)[1] >= 1
