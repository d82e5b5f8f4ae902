"""d-pixels -> embeddings: right, and the same whatever else is encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tessera_cli.encode
from tessera_cli.dpixel import DPixels
from tessera_cli.encode import encode
from tessera_cli.models import REGISTRY, EncoderConfig, Model, load_model
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.engine import CPU_FUSED, CPU_TOKENS, Engine
from tessera_cli.models.spec import MEDIUM, NANO, ModelSpec
from tests import reference
from tests.tiles import dpixels, made_up


def random_model(config: EncoderConfig, seed: int = 0) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(config).eval().requires_grad_(False)
    return Model(ModelSpec("random", "v2-student", config), encoder, "")


def student(tmp_path: Path, **sizes: object) -> tuple[dict[str, object], dict[str, np.ndarray], Model]:
    config, tensors = reference.random_weights("v2_student", 7, **sizes)  # type: ignore[arg-type]
    file = tmp_path / "student.pt"
    torch.save(reference.official_payload("v2_student", config, tensors), file)
    return config, tensors, load_model(weights=file, device="cpu")


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
        [5, 4, 4], [8, 4, 5], [9, 8, 8], [63, 30, 30], [64, 31, 33], [65, 1, 64],
        [255, 128, 127], [256, 128, 128], [257, 128, 129], [295, 150, 145], [300, 100, 211],
    ]
)  # fmt: skip


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


@pytest.mark.parametrize("qk_norm", [False, True])
def test_company_order_and_threads_do_not_change_a_bit(qk_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 600
    pixels = made_up(mixed(2, count), seed=5, shape=(20, 30))
    model = random_model(EncoderConfig(latent=9, layers=2, heads=4, feedforward=56, qk_norm=qk_norm))
    whole = encode(pixels, model, all_of(pixels)).values

    for threads in (2, 3):
        np.testing.assert_array_equal(encode(pixels, model, all_of(pixels), threads=threads).values, whole)

    order = np.random.default_rng(6).permutation(count)
    moved = rearranged(pixels, order, (30, 20))
    np.testing.assert_array_equal(encode(moved, model, all_of(moved), threads=2).values, whole[order])

    for share in (0.7, 0.05):
        some = np.random.default_rng(7).random((20, 30)) < share
        np.testing.assert_array_equal(encode(pixels, model, some, threads=2).values, whole[some.ravel()])

    monkeypatch.setattr(tessera_cli.encode, "CHUNK", 77)
    np.testing.assert_array_equal(encode(pixels, model, all_of(pixels), threads=2).values, whole)


@pytest.mark.parametrize(
    ("config", "bins"),
    [(NANO, range(8, 257, 8)), (MEDIUM, (24, 256))],
    ids=["nano", "medium"],
)
def test_position_in_a_micro_batch_does_not_change_a_bit(config: EncoderConfig, bins: tuple[int, ...]) -> None:
    """Products of the released widths, in every bin: each pixel meets other company at another row."""
    model = random_model(config)
    for bin in bins:
        size = CPU_TOKENS // bin
        count = size + max(1, size // 3)  # one full micro-batch and one that is padded
        sensor = 0 if bin % 16 else 1
        counts = np.zeros((count, 3), int)
        counts[:, sensor] = bin
        pixels = made_up(counts, seed=bin)
        moved = rearranged(pixels, np.arange(count)[::-1], (1, count))
        whole = encode(pixels, model, all_of(pixels), threads=2).values
        np.testing.assert_array_equal(
            encode(moved, model, all_of(moved), threads=2).values[::-1], whole, err_msg=str(bin)
        )


def test_every_product_has_the_same_shape_threads_and_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the bits independent on any machine, also where this one would forgive a deviation."""
    model = random_model(EncoderConfig(latent=4, layers=1, heads=4, feedforward=16))
    calls = []

    def spy(name: str) -> None:
        original = getattr(Encoder, name)

        def wrapper(self: Encoder, *args: object) -> torch.Tensor:
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            calls.append((name, tensors[0].shape, torch.get_num_threads(), {t.data_ptr() % 64 for t in tensors}))
            result: torch.Tensor = original(self, *args)
            return result

        monkeypatch.setattr(Encoder, name, wrapper)

    spy("encode_modality")
    spy("fuse")
    pixels = made_up(mixed(8, 300), seed=1)
    encode(pixels, model, all_of(pixels), threads=2)
    assert len(calls) > 20
    for name, shape, threads, misaligned in calls:
        assert threads == 1
        assert misaligned == {0}
        if name == "fuse":
            assert shape[0] == CPU_FUSED
        elif shape[1] > 1:  # length 1: the constant of a missing sensor
            assert shape[0] == CPU_TOKENS // shape[1]


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
    monkeypatch.setattr(tessera_cli.encode, "CHUNK", 100)
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

    def broken(self: Engine, batch: object) -> int:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Engine, "_vectors", broken)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="out of luck"):
        encode(pixels, model, all_of(pixels), threads=2)
    assert torch.get_num_threads() == before


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
