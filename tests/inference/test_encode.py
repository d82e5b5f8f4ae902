"""d-pixels -> embeddings: right, and the same whatever else is encoded."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tessera_cli.inference.encode
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.inference import cpu
from tessera_cli.inference.cpu import FUSED, TOKENS, pixels_of
from tessera_cli.inference.encode import encode
from tessera_cli.inference.gpu import GpuEngine
from tessera_cli.models import REGISTRY, EncoderConfig, Model, load_model
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import PARTS
from tessera_cli.models.pooling import CustomGruPool
from tessera_cli.models.registry import MEDIUM_CONFIG, NANO_CONFIG, V1_0_CONFIG, V1_0_QAT_CONFIG, V1_1_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import BucketedSampling, ObservationRule, RandomSampling
from tests import reference
from tests.helpers.encoders import published, random_model
from tests.helpers.tiles import dpixels, made_up


def student(tmp_path: Path, **sizes: Any) -> tuple[dict[str, Any], dict[str, np.ndarray], Model]:
    return published(tmp_path, "v2_student", 7, **sizes)


def all_of(pixels: DPixels) -> np.ndarray:
    return np.ones(pixels.requested.shape, bool)


def rearranged(pixels: DPixels, order: np.ndarray, shape: tuple[int, int]) -> DPixels:
    """The same pixels at other places."""

    def moved(frames: np.ndarray) -> np.ndarray:
        flat = frames.reshape(len(frames), pixels.requested.size, *frames.shape[3:])
        return flat[:, order].reshape(len(frames), *shape, *frames.shape[3:])

    return dpixels(
        moved(pixels.s2),
        moved(pixels.s2_mask),
        pixels.s2_doy,
        moved(pixels.s1_asc),
        pixels.s1_asc_doy,
        moved(pixels.s1_desc),
        pixels.s1_desc_doy,
    )


EDGES = np.array(
    [
        *([n, 0, 0] for n in (1, 2, 3, 4, 7, 8, 9, 16, 17)),
        *([0, n, 0] for n in (1, 2, 3, 8, 9)),
        *([0, 0, n] for n in (1, 2, 3, 8, 9)),
        [5, 4, 4],
        [8, 4, 5],
        [9, 8, 8],
        [63, 30, 30],
        [64, 31, 33],
        [65, 1, 64],
        [255, 128, 127],
        [256, 128, 128],
        [257, 128, 129],
        [295, 150, 145],
        [300, 100, 211],
    ]
)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"qk_norm": True},
        {"latent": 9, "feedforward": 56, "layers": 1},
        {"latent": 3, "heads": 2, "qk_norm": True, "layers": 3},
        {"latent": 4, "heads": 1, "representation": 150},
    ],
    ids=str,
)
def test_edge_cases_agree_with_the_float64_reference(tmp_path: Path, sizes: dict[str, object]) -> None:
    config, tensors, model = student(tmp_path, **sizes)
    pixels = made_up(EDGES, seed=11, shape=(5, 6))
    values = encode(pixels, model, all_of(pixels), threads=2).values
    expected, _ = reference.embed_tile("v2_student", config, tensors, reference.arrays_of(pixels))
    assert np.abs(values - expected.reshape(values.shape)).max() < 5e-5


FAMILY_EDGES = np.array(
    [
        [0, 0, 0],
        *([n, 0, 0] for n in (1, 2, 3, 7, 8, 9, 40, 41, 255, 256, 257, 295, 300)),
        *([0, n, 0] for n in (1, 3, 7, 8, 9, 40, 41, 300)),
        *([0, 0, n] for n in (1, 2, 7, 8, 9, 40, 41, 257)),
        *([n, n // 2, n - n // 2] for n in (1, 2, 3, 7, 8, 9, 40, 41, 255, 256, 257, 295, 300)),
        [300, 300, 300],
        [2, 0, 300],
    ]
)
OTHER_FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str | None]] = {
    "v1.1-mpc": ("v1_1", {"representation": 144}, {}, "mpc"),
    "v1.1-aws": ("v1_1", {"latent": 5, "heads": 2, "s1_layers": 1, "s1_heads": 4, "s1_feedforward": 16}, {}, "aws"),
    "v1.1 odd bins": ("v1_1", {}, {"num_obs_checkpoints": [37, 5, 0, 12, 5, -3]}, "mpc"),
    "v1.1 long bins": ("v1_1", {"layers": 1}, {"num_obs_checkpoints": [1, 7, 300]}, "mpc"),
    "v1.1 without ascending": ("v1_1", {}, {"disable_s1_ascending": True}, "aws"),
    "v1.1 sum": ("v1_1", {"fusion": "sum"}, {}, "mpc"),
    "teacher": ("v2_teacher", {}, {}, None),
    "teacher without final norm": ("v2_teacher", {"latent": 5, "heads": 2, "final_layernorm": False}, {}, None),
}


@pytest.mark.parametrize("name", OTHER_FAMILIES)
def test_families_agree_with_the_float64_reference(name: str, tmp_path: Path) -> None:
    family, sizes, options, source = OTHER_FAMILIES[name]
    config, tensors, model = published(tmp_path, family, 8, options=options, source=source, **sizes)
    pixels = made_up(FAMILY_EDGES, seed=12, shape=(5, 9))
    expected, defined = reference.embed_tile(family, config, tensors, reference.arrays_of(pixels), source=source)
    np.testing.assert_array_equal(model.spec.observations.valid_pixels(pixels), defined)
    values = encode(pixels, model, defined, threads=2).values
    assert np.abs(values - expected[defined]).max() < 5e-5
    if not model.spec.use_ascending:  # whoever left them out beforehand gets the same
        np.testing.assert_array_equal(encode(pixels.without_ascending(), model, defined).values, values)
        assert encode(pixels, without(model, "use_ascending"), defined).tokens > encode(pixels, model, defined).tokens


def without(model: Model, deviation: str) -> Model:
    """The model with the default of a field of its spec."""
    default = {field.name: field.default for field in dataclasses.fields(model.spec)}[deviation]
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, **{deviation: default}))


def test_tokens_are_counted_without_padding(tmp_path: Path) -> None:
    pixels = made_up(np.array([[1, 0, 0], [9, 4, 5], [300, 0, 1]]), seed=1)
    _, _, model = student(tmp_path)
    embeddings = encode(pixels, model, all_of(pixels))
    assert embeddings.tokens == (8 + 1) + (16 + 16) + (256 + 8)
    assert embeddings.values.dtype == np.float32
    assert embeddings.values.shape == (3, 128)


def mixed(seed: int, count: int) -> np.ndarray:
    """Counts such as clouds leave behind, with a few pixels that one sensor never saw."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, [60, 30, 30], (count, 3))
    counts[::17, 0] = 0
    counts[5::19, 1:] = 0
    counts[counts.sum(axis=1) == 0] = 1
    return counts


SMALL_CONFIG: dict[str, tuple[Family, dict[str, Any], ObservationRule | None]] = {
    "student": ("v2-student", {}, None),
    "qk_norm": ("v2-student", {"qk_norm": True}, None),
    "teacher": ("v2-teacher", PARTS["v2-teacher"], None),
    "v1.1": ("v1.1", PARTS["v1.1"] | {"representation": 24}, None),
    "v1.1 sum": ("v1.1", PARTS["v1.1"] | {"fusion": "sum"}, None),
    "v1.1 odd bins": ("v1.1", PARTS["v1.1"], BucketedSampling("v1.1", (5, 11, 37), encode_empty=True)),
    "v1.0": ("v1.0-early", PARTS["v1.0-early"], None),
    "v1.0 odd sizes": ("v1.0-early", PARTS["v1.0-early"], RandomSampling(s2=7, s1=13, repeats=2)),
    "v1.0-qat": ("v1.0-qat", PARTS["v1.0-qat"], None),
    "v1.0-qat odd sizes": ("v1.0-qat", PARTS["v1.0-qat"], RandomSampling(s2=13, s1=7, repeats=3, dummies=True)),
}
"""Every family at a small width: name -> family, parts, choice of observations if it is not the family's own."""


def small(name: str, precision: str = "fp32", latent: int = 9, layers: int = 2) -> Model:
    family, parts, rule = SMALL_CONFIG[name]
    config = EncoderConfig.of(latent, layers, 4, 56, **parts)
    return random_model(config, family, observations=rule, precision=precision)  # type: ignore[arg-type]


def precisions() -> list[Any]:
    vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="int8 needs a CPU with VNNI")
    return ["fp32", "bf16", pytest.param("int8", marks=vnni)]


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("name", SMALL_CONFIG)
def test_other_pixels_order_and_threads_do_not_change_a_bit(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 600 if name == "student" and precision == "fp32" else 200
    pixels = made_up(mixed(2, count), seed=5, shape=(20, count // 20))
    model = small(name, precision)
    whole = encode(pixels, model, all_of(pixels), seed=3).values
    assert len(np.unique(whole, axis=0)) == count

    for threads in (2, 3):
        np.testing.assert_array_equal(encode(pixels, model, all_of(pixels), seed=3, threads=threads).values, whole)

    for share in (0.7, 0.05):
        some = np.random.default_rng(7).random(pixels.requested.shape) < share
        np.testing.assert_array_equal(encode(pixels, model, some, seed=3, threads=2).values, whole[some.ravel()])

    with monkeypatch.context() as patch:
        patch.setattr(cpu, "CHUNK", 77)
        np.testing.assert_array_equal(encode(pixels, model, all_of(pixels), seed=3, threads=2).values, whole)

    if isinstance(
        model.spec.observations, RandomSampling
    ):  # a place decides what is drawn, unless one outcome alone can be
        pixels = made_up(certain(model.spec.observations, count), seed=5, shape=(20, count // 20))
        whole = encode(pixels, model, all_of(pixels), seed=3).values
    order = np.random.default_rng(6).permutation(count)
    moved = rearranged(pixels, order, (count // 20, 20))
    np.testing.assert_array_equal(encode(moved, model, all_of(moved), seed=3, threads=2).values, whole[order])


def certain(rule: RandomSampling, count: int) -> np.ndarray:
    """Numbers of observations with which every draw has one outcome: 1, or as many as are drawn."""
    rng = np.random.default_rng(9)
    s2, s1 = (rng.choice([1, size], count) for size in (rule.s2, rule.s1))
    ascending = s1 // 2 * (rng.random(count) < 0.8).astype(int)
    return np.stack([s2, ascending, s1 - ascending], axis=1)


def assert_position_does_not_matter(model: Model, bins: Iterable[int], column: int | None = None) -> None:
    """A full micro-batch and one that is padded, then both in reverse: each pixel meets other pixels elsewhere.

    `column` of the counts, else it changes from bin to bin.
    """
    for bin in bins:
        count = pixels_of(bin) + max(3, pixels_of(bin) // 3)
        sensor = (0 if bin % 16 else 1) if column is None else column
        counts = np.zeros((count, 3), int)
        counts[:, sensor] = bin
        if isinstance(model.spec.observations, RandomSampling):
            counts[:, 0] = np.maximum(counts[:, 0], 1)  # Sentinel-2 is what tells that a pixel is there
            counts[:, 1 - sensor] = 1
        pixels = made_up(counts, seed=bin)
        moved = rearranged(pixels, np.arange(count)[::-1], (1, count))
        whole = encode(pixels, model, all_of(pixels), threads=2).values
        assert len(np.unique(whole, axis=0)) == count
        np.testing.assert_array_equal(
            encode(moved, model, all_of(moved), threads=2).values[::-1], whole, err_msg=str(bin)
        )


ALL_BINS = range(8, 257, 8)


@pytest.mark.parametrize(
    ("config", "bins"),
    [(NANO_CONFIG, ALL_BINS), (MEDIUM_CONFIG, (24, 256))],
    ids=["nano", "medium"],
)
def test_position_in_a_micro_batch_does_not_change_a_bit(config: EncoderConfig, bins: Iterable[int]) -> None:
    """Products of the released widths, in every bin."""
    assert_position_does_not_matter(random_model(config), bins)


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("name", ["v1.1", "teacher"])
def test_position_does_not_change_a_bit_in_any_bin(name: str, precision: str) -> None:
    bins = ALL_BINS if precision == "fp32" else (8, 24, 40, 72, 200)
    assert_position_does_not_matter(small(name, precision, layers=1), bins)


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("bin", [1, 3, 5, 7, 11, 13, 25, 37, 101])
def test_position_does_not_change_a_bit_in_odd_bins(bin: int, precision: str) -> None:
    for name in ("v1.1 odd bins", "v1.0", "v1.0-qat"):
        model = small(name, precision, latent=12, layers=1)
        rule = (
            RandomSampling(bin, bin)
            if isinstance(model.spec.observations, RandomSampling)
            else BucketedSampling("v1.1", (bin,), encode_empty=True)
        )
        model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=rule))
        assert_position_does_not_matter(model, [bin], 0)


@pytest.mark.parametrize(
    ("family", "config", "bins"),
    [
        ("v1.1", V1_1_CONFIG, (5, 40, 256)),
        ("v1.0-qat", V1_0_QAT_CONFIG, (7, 40)),
        ("v1.0-early", V1_0_CONFIG, (13, 40)),
    ],
    ids=["v1.1", "v1.0-qat", "v1.0"],
)
def test_position_does_not_change_a_bit_at_released_widths(
    family: Family, config: EncoderConfig, bins: tuple[int, ...]
) -> None:
    """One layer: all have the same shapes."""
    one = dataclasses.replace(config.s2, layers=1)
    model = random_model(dataclasses.replace(config, s2=one, s1=one), family)
    for bin in bins:
        rule = BucketedSampling("v1.1", (bin,), encode_empty=True) if family == "v1.1" else RandomSampling(bin, bin)
        sized = dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=rule))
        assert_position_does_not_matter(sized, [bin], 0)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", ["student", "v1.1 odd bins", "v1.0-qat odd sizes"])
def test_every_product_has_the_same_shape_threads_and_alignment(
    name: str, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the bits independent on any machine, also where this one would forgive a deviation.

    Products of packed weights may have fewer rows.
    """
    if fixed:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = small(name, latent=4, layers=1)
    calls = []

    def spy(name: str) -> None:
        original = getattr(Encoder, name)

        def wrapper(self: Encoder, *args: object) -> torch.Tensor:
            tensors = [a for a in args if isinstance(a, torch.Tensor)][:2]
            calls.append((name, tensors[0].shape, torch.get_num_threads(), {t.data_ptr() % 64 for t in tensors}))
            result: torch.Tensor = original(self, *args)
            return result

        monkeypatch.setattr(Encoder, name, wrapper)

    spy("encode_modality")
    spy("fuse")
    pixels = made_up(mixed(8, 300), seed=1)
    encode(pixels, model, all_of(pixels), threads=2)
    assert len(calls) > 10
    for name, shape, threads, misaligned in calls:
        assert threads == 1
        assert misaligned == {0}
        if name == "fuse":
            assert shape[0] == FUSED
        elif shape[1] > 1:  # length 1: the constant of a missing sensor
            full = 8 * max(1, round(TOKENS / shape[1] / 8))
            assert shape[0] == full if fixed else (shape[0] <= full and shape[0] % 8 == 0)


def test_a_sensor_without_observations_is_one_constant(tmp_path: Path) -> None:
    """No radar at all equals radar frames that are all zero."""
    _, _, model = student(tmp_path)
    pixels = made_up(np.array([[5, 0, 0], [12, 0, 0]]), seed=1)
    assert len(pixels.s1_asc) == 0
    zeros = np.zeros((4, 1, 2, 2), np.int16)
    empty = dpixels(pixels.s2, pixels.s2_mask, pixels.s2_doy, zeros, np.arange(1, 5), zeros, np.arange(1, 5))
    a, b = (encode(p, model, all_of(p)).values for p in (pixels, empty))
    np.testing.assert_array_equal(a, b)


def test_progress_counts_every_pixel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK", 100)
    monkeypatch.setattr(tessera_cli.inference.encode, "_CHUNK", 100)
    pixels = made_up(mixed(3, 250), seed=2)
    _, _, encoder = student(tmp_path)
    for model in (encoder, load_model("null")):
        steps: list[int] = []
        encode(pixels, model, all_of(pixels), threads=2, progress=steps.append)
        assert sum(steps) == 250
        assert min(steps) >= 0


def test_nothing_to_do(tmp_path: Path) -> None:
    pixels = made_up(np.array([[3, 1, 1]]), seed=1)
    _, _, model = student(tmp_path)
    for chosen in (model, load_model("null")):
        embeddings = encode(pixels, chosen, np.zeros((1, 1), bool))
        assert embeddings.values.shape == (0, 128)
        assert embeddings.tokens == 0


@pytest.mark.parametrize("name", ["student", "null"])
def test_pixels_without_any_observation_are_the_callers_business(name: str, tmp_path: Path) -> None:
    pixels = made_up(np.array([[3, 1, 1], [0, 0, 0]]), seed=1)
    model = load_model("null") if name == "null" else student(tmp_path)[2]
    with pytest.raises(ValueError, match="1 of the pixels"):
        encode(pixels, model, all_of(pixels))
    assert len(encode(pixels, model, np.array([[True, False]])).values) == 1
    with pytest.raises(ValueError, match="bool"):
        encode(pixels, model, np.ones((1, 2), np.uint8))


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    pixels = made_up(np.array([[3, 1, 1]]), seed=1)
    _, _, model = student(tmp_path)
    threads, precision, random_state = (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.get_rng_state(),
    )
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    try:
        encode(pixels, model, all_of(pixels))
        assert torch.get_num_threads() == 2
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.equal(torch.get_rng_state(), random_state)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def test_an_error_in_a_micro_batch_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = made_up(mixed(4, 50), seed=1)
    _, _, model = student(tmp_path)

    def broken(self: Encoder, *arguments: object) -> torch.Tensor:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Encoder, "fuse", broken)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="out of luck"):
        encode(pixels, model, all_of(pixels), threads=2)
    assert torch.get_num_threads() == before


def test_an_error_in_pooling_surfaces_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official code answers any error here with the plain mean."""
    pixels = made_up(mixed(4, 50), seed=1)

    def broken(self: CustomGruPool, x_BTD: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("the GRU is broken")

    monkeypatch.setattr(CustomGruPool, "states", broken)
    with pytest.raises(ArithmeticError, match=r"^the GRU is broken$"):
        encode(pixels, small("v1.1"), all_of(pixels), threads=2)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The CPU in the guise of a GPU, which holds as much as it is told."""
    monkeypatch.setattr("tessera_cli.inference.encode.get_engine", lambda encoder, threads: GpuEngine(encoder))
    return monkeypatch


def holding(monkeypatch: pytest.MonkeyPatch, *, tokens: float = math.inf, pixels: float = math.inf) -> list[int]:
    """From now on the device is full above so many; returns the list of token numbers that were tried."""
    tried: list[int] = []
    encode_modality, fuse = Encoder.encode_modality, Encoder.fuse

    def limited_encode(
        self: Encoder,
        modality: Any,
        x_BTC: torch.Tensor,
        doy_BT: torch.Tensor,
        repeat_index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        tried.append(doy_BT.numel())
        if doy_BT.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode_modality(self, modality, x_BTC, doy_BT, repeat_index)

    def limited_fuse(self: Encoder, s2_BD: torch.Tensor, s1_BD: torch.Tensor) -> torch.Tensor:
        if len(s2_BD) > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fuse(self, s2_BD, s1_BD)

    monkeypatch.setattr(Encoder, "encode_modality", limited_encode)
    monkeypatch.setattr(Encoder, "fuse", limited_fuse)
    return tried


@pytest.mark.parametrize("limits", [{"tokens": 500}, {"pixels": 33}, {"tokens": 64, "pixels": 1}], ids=str)
def test_out_of_memory_halves_the_batch_and_says_so_once(
    limits: dict[str, int], gpu: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = made_up(mixed(3, 60), seed=2)
    model = small("v1.1")
    whole = encode(pixels, model, all_of(pixels))
    assert not caplog.records
    tried = holding(gpu, **limits)
    steps: list[int] = []
    for tile in range(2):
        found = encode(pixels, model, all_of(pixels), progress=steps.append)
        np.testing.assert_allclose(found.values, whole.values, rtol=0, atol=5e-6)
        assert found.tokens == whole.tokens
        if tile == 1:
            assert max(tried) <= limits.get("tokens", math.inf)  # what was learned is remembered
        tried.clear()
    assert (sum(steps), min(steps) >= 0) == (120, True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "cpu is out of memory: encoding goes on in smaller batches"


def test_halving_keeps_batches_large(gpu: pytest.MonkeyPatch) -> None:
    pixels = made_up(np.full((100, 3), 4), seed=2)  # 800 tokens of either sensor
    tried = holding(gpu, tokens=500)
    encode(pixels, small("student"), all_of(pixels))
    assert tried[2:] == [800, 400, 400, 400, 400]  # the first two are of missing sensors


@pytest.mark.parametrize("limits", [{"tokens": 63}, {"pixels": 0}], ids=str)
def test_a_pixel_that_does_not_fit_is_an_error(limits: dict[str, int], gpu: pytest.MonkeyPatch) -> None:
    pixels = made_up(np.full((10, 3), 60), seed=2)
    holding(gpu, **limits)
    with pytest.raises(MemoryError, match="cpu cannot hold one pixel"):
        encode(pixels, small("student"), all_of(pixels))


def test_out_of_memory_elsewhere_is_not_hidden(gpu: pytest.MonkeyPatch) -> None:
    """Only torch's own word for it means that smaller batches help."""
    pixels = made_up(np.full((10, 3), 6), seed=2)

    def broken(self: Encoder, *arguments: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    gpu.setattr(Encoder, "encode_modality", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        encode(pixels, small("student"), all_of(pixels))


def test_a_machine_without_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises a bare RuntimeError there, which would end the whole run as a bug."""
    pixels = made_up(mixed(4, 50), seed=1)
    _, _, model = student(tmp_path)

    def broken(self: Encoder, *arguments: object) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(Encoder, "encode_modality", broken)
    with pytest.raises(MemoryError, match="the encoder needs more"):
        encode(pixels, model, all_of(pixels), threads=2)


def test_null_gives_band_means() -> None:
    pixels = made_up(np.array([[4, 2, 3], [0, 1, 0], [2, 0, 0]]), seed=9)
    values = encode(pixels, load_model("null"), all_of(pixels)).values
    for i, value in enumerate(values):
        s2, s1 = mean_observations(pixels, i)
        np.testing.assert_allclose(value[:12], np.concatenate([s2, s1]), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(value, np.resize(value[:12], 128))
    assert REGISTRY["null"].hidden


def mean_observations(pixels: DPixels, column: int) -> list[np.ndarray]:
    """Means of the valid standardised observations of a pixel of row 0, before anything is repeated."""
    sequences = reference.tokens("v2_student", {}, reference.arrays_of(pixels), 0, column)
    s2, ascending, descending = (int(n) for n in pixels.counts[:, 0, column])
    counts = (s2, ascending + descending)
    return [sequence[: max(n, 1), :-1].mean(axis=0) for sequence, n in zip(sequences, counts, strict=True)]
