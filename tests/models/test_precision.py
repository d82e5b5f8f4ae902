"""Arithmetic: what bf16 and int8 guarantee, and where they stay away."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels
from tessera_cli.errors import UsageError
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.imagery.sentinel1 import scale
from tessera_cli.imagery.sentinel2 import clear
from tessera_cli.inference.encode import encode
from tessera_cli.models import EncoderConfig, Model, load_model
from tessera_cli.models.families import PARTS
from tessera_cli.models.parts import QK_NORM_EPS, Block
from tessera_cli.models.precision import (
    PRECISIONS,
    Int8FeedForward,
    Int8Linear,
    Precision,
    PrepackedLinear,
    prepare,
    resolve,
)
from tessera_cli.models.registry import NANO_CONFIG
from tessera_cli.models.spec import Family
from tessera_cli.sampling import BAND_COUNTS
from tessera_cli.simulate import sentinel1, sentinel2
from tessera_cli.simulate.area import area
from tessera_cli.simulate.landscape import landscape
from tessera_cli.simulate.surface import backscatter
from tests.helpers.encoders import published, random_model
from tests.helpers.tiles import dpixels, made_up

needs_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="int8 needs a CPU with VNNI")
LOWER = ["bf16", pytest.param("int8", marks=needs_vnni)]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

FAMILIES: dict[str, tuple[Family, dict[str, Any]]] = {
    "student": ("v2-student", {}),
    "qk_norm": ("v2-student", {"qk_norm": True}),
    "teacher": ("v2-teacher", PARTS["v2-teacher"]),
    "v1.1": ("v1.1", PARTS["v1.1"]),
    "v1.0": ("v1.0-early", PARTS["v1.0-early"]),
    "v1.0-qat": ("v1.0-qat", PARTS["v1.0-qat"]),
}


def small(name: str, precision: Precision = "fp32") -> Model:
    family, parts = FAMILIES[name]
    return random_model(EncoderConfig.of(8, 2, 4, 48, **parts), family, precision=precision)


def demo(precision: Precision) -> Model:
    return load_model("demo", device="cpu", precision=precision)


def all_of(pixels: DPixels) -> np.ndarray:
    return np.ones(pixels.requested.shape, bool)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows, float64 (N,)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_guaranteed(model: Callable[[Precision], Model], pixels: DPixels, some: np.ndarray | None = None) -> None:
    some = all_of(pixels) if some is None else some
    exact = encode(pixels, model("fp32"), some).values
    bf16 = cosines(exact, encode(pixels, model("bf16"), some).values)
    assert 0.9999 <= bf16.min() < 1 - 1e-12  # not fp32 under another name
    if torch.cpu._is_vnni_supported():
        int8 = cosines(exact, encode(pixels, model("int8"), some).values)
        assert int8.mean() >= 0.999
        assert int8.min() >= 0.995
        assert int8.min() < 1 - 1e-12


# --- how near to fp32 -------------------------------------------------------------------------------------------------


def simulated(size: int) -> DPixels:
    """A year over a simulated landscape, straight from what its sensors see."""
    ground = landscape(area(size), np.random.default_rng(1))
    rng = np.random.default_rng(2)
    frames, masks, days = [], [], []
    for overpass, cover in sentinel2.passes(0, 2023, 0.5):
        seen = sentinel2.observe(ground, overpass.day, cover, rng)
        height, width = ground.grid.shape
        at_10_m = [
            seen[band].repeat(height // len(seen[band]), 0).repeat(width // len(seen[band][0]), 1)
            for band in (*S2_BANDS, "SCL")
        ]
        frames.append(np.rint(10000 * np.stack(at_10_m[:-1], axis=-1)).clip(1, 65535).astype(np.uint16))
        masks.append(clear(at_10_m[-1]))
        days.append(overpass.day)
    radar: dict[str, list[tuple[np.ndarray, int]]] = {"ascending": [], "descending": []}
    for overpass, _ in sentinel1.passes(2023):
        power = [p * sentinel1.speckle(rng, p.shape) for p in backscatter(ground, overpass.day)]
        radar[overpass.state].append((scale(np.stack(power, axis=-1)), overpass.day))
    orbits = [(np.stack([f for f, _ in found]), np.array([d for _, d in found])) for found in radar.values()]
    return dpixels(np.stack(frames), np.stack(masks).astype(np.uint8), np.array(days), *orbits[0], *orbits[1])


def test_demo_on_a_simulated_landscape() -> None:
    pixels = simulated(8)
    assert pixels.requested.size > 1000
    assert (pixels.counts.max(axis=(1, 2)) > [40, 20, 10]).all()
    some = np.random.default_rng(3).random(pixels.requested.shape) < 0.3
    assert_guaranteed(demo, pixels, some)


def test_demo_on_any_observations() -> None:
    counts = np.random.default_rng(1).integers([1, 0, 0], [60, 30, 30], (200, 3))
    assert_guaranteed(demo, made_up(counts, seed=2))


RELEASED: dict[str, tuple[str, dict[str, int]]] = {
    "v2-nano": ("v2_student", {"latent": 36, "layers": 2, "heads": 4, "feedforward": 384}),
    "v2-medium": ("v2_student", {"latent": 110, "layers": 4, "heads": 4, "feedforward": 1792}),
    "v1.1": ("v1_1", {"latent": 192, "layers": 4, "heads": 4, "feedforward": 2048}),
    "v1.0-qat": ("v1_0_qat", {"latent": 128, "layers": 4, "heads": 4, "feedforward": 4096}),
}


@pytest.mark.parametrize("name", RELEASED)
def test_random_weights_of_released_sizes(name: str, tmp_path: Path) -> None:
    """These are harder than trained ones: attention and pooling hang on few observations."""
    family, sizes = RELEASED[name]
    rng = np.random.default_rng(3)
    # Few lengths, since each costs a whole micro-batch.
    counts = np.stack([rng.integers(17, 25, 40), rng.integers(5, 9, 40), rng.integers(4, 9, 40)], axis=1)
    counts[:4] = [[1, 0, 9], [2, 9, 0], [3, 16, 0], [4, 5, 4]]

    def model(precision: Precision) -> Model:
        return published(tmp_path, family, 11, source="mpc", precision=precision, **sizes)[2]

    assert_guaranteed(model, made_up(counts, seed=4))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_at_a_small_width(name: str) -> None:
    """Fewer values to average over, but the same order."""
    counts = np.random.default_rng(5).integers(1, [60, 30, 30], (100, 3))
    pixels = made_up(counts, seed=6)
    exact = encode(pixels, small(name), all_of(pixels)).values
    lower: list[Precision] = ["bf16", "int8"] if torch.cpu._is_vnni_supported() else ["bf16"]
    for precision in lower:
        assert cosines(exact, encode(pixels, small(name, precision), all_of(pixels)).values).min() > 0.999


# --- what stays in float32 --------------------------------------------------------------------------------------------


def seeing_days_alone(config: EncoderConfig, precision: Precision) -> Model:
    """Bands become nothing: what is left is the sinusoids."""
    model = random_model(config, precision=None)
    assert model.encoder
    for backbone in (model.encoder.s2, model.encoder.s1):
        assert isinstance(backbone.embed.out, torch.nn.Linear)
        backbone.embed.out.weight.zero_()
        backbone.embed.out.bias.zero_()
    prepare(model.encoder, precision)
    return model


@pytest.mark.parametrize("precision", LOWER)
def test_days_of_year_are_never_rounded(precision: Precision) -> None:
    """bfloat16 has no 257, 301 or 365: days would fall together."""
    model, lower = seeing_days_alone(NANO_CONFIG, "fp32"), seeing_days_alone(NANO_CONFIG, precision)
    days = torch.tensor([[256], [257], [300], [301], [364], [365]])
    for modality, bands in BAND_COUNTS.items():
        exact, found = (
            m.encoder.encode_modality(modality, torch.zeros(6, 1, bands), days).numpy()  # type: ignore[union-attr]
            for m in (model, lower)
        )
        error = np.abs(found - exact).max()
        for i in (0, 2, 4):
            difference, due = found[i + 1] - found[i], exact[i + 1] - exact[i]
            assert np.abs(due).max() > 5 * error
            assert float(cosines(difference[None], due[None])[0]) > 0.99


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("name", FAMILIES)
def test_sinusoids_fusion_and_pooling_stay_float32(name: str, precision: Precision) -> None:
    model = small(name, precision)
    encoder = model.encoder
    assert encoder
    seen: dict[str, list[torch.Tensor]] = {}

    def watch(what: str, module: torch.nn.Module, *, inputs: bool) -> None:
        def hook(_: torch.nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            seen.setdefault(what, []).append(given[0] if inputs else result)

        module.register_forward_hook(hook)

    for backbone in (encoder.s2, encoder.s1):
        watch("bands and sinusoids", backbone.blocks[0], inputs=True)
        watch("transformer's sums", backbone.blocks[-1], inputs=False)
        watch("pooled", backbone.pool, inputs=True)
        watch("pooled", backbone.pool, inputs=False)
    for part in (encoder.fusion, *(encoder.fusion.blocks if encoder.fusion else ()), encoder.reducer):
        if part is not None:
            watch("fused", part, inputs=True)
            watch("fused", part, inputs=False)
    for part in (encoder.reducer.up, encoder.reducer.down):
        if part is not None:
            watch("fused", part, inputs=False)
    pixels = made_up(np.full((5, 3), 9), seed=1)
    values = encode(pixels, model, all_of(pixels)).values
    assert values.dtype == np.float32
    assert set(seen) == {"bands and sinusoids", "transformer's sums", "pooled", "fused"}
    for what, tensors in seen.items():
        assert {tensor.dtype for tensor in tensors} == {torch.float32}, what
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert encoder.days.dtype == torch.float32
    # The fusion and the reducer give what they would have given to fp32.
    exact = small(name).encoder
    assert exact
    vectors = torch.randn(7, model.config.width, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    torch.testing.assert_close(encoder.fuse(vectors, -vectors), exact.fuse(vectors, -vectors), rtol=0, atol=5e-6)


def test_sinusoids_reach_the_transformer_unrounded() -> None:
    model = seeing_days_alone(NANO_CONFIG, "bf16")
    assert model.encoder
    given: list[torch.Tensor] = []
    model.encoder.s1.blocks[0].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    days = torch.arange(367).reshape(1, 367)
    model.encoder.encode_modality("s1", torch.ones(1, 367, 2), days)
    assert torch.equal(given[0][0], model.encoder.days)


def test_bf16_is_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and attention, in every layer."""
    encoder = small("qk_norm", "bf16").encoder
    assert encoder
    products: dict[str, torch.dtype] = {}
    attended = []
    attend = F.scaled_dot_product_attention

    def attention(*arguments: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        attended.append((result := attend(*arguments, **more)).dtype)
        return result

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    for name, part in encoder.s2.named_modules():
        if isinstance(part, (PrepackedLinear, torch.nn.Linear)):
            note = functools.partial(lambda name, _, given, out: products.update({name: out.dtype}), name)
            part.register_forward_hook(note)
    bands = torch.randn(2, 9, 10), torch.arange(18).reshape(2, 9)
    encoder.encode_modality("s2", *bands)
    assert attended == [torch.bfloat16] * len(encoder.s2.blocks)
    for name, dtype in products.items():
        summed = name.endswith(("out_proj", "down"))  # to what came before, which is float32
        assert dtype == (torch.bfloat16 if "blocks" in name and not summed else torch.float32), name
    for block in encoder.s2.blocks:
        assert isinstance(block, Block)
        for part in (block.attention.out_proj, block.down):
            assert getattr(part, "dtype", part.weight.dtype) == torch.bfloat16
    assert len(products) == 4 * len(encoder.s2.blocks) + 3
    assert encoder.s2.blocks[0].attention.q_norm.eps == QK_NORM_EPS  # type: ignore[union-attr]


# --- int8 -------------------------------------------------------------------------------------------------------------


def quantised(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, K) -> codes int64 (N, K), scales float32 (N, 1)."""
    scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-12)) / np.float32(127)
    return np.rint(rows / scales).astype(np.int64), scales


@needs_vnni
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 16, 16), (8, 144, 432), (40, 36, 20), (104, 441, 7), (1024, 4096, 24)]
)
def test_int8_products_are_exact(rows: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(inputs)
    linear = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    weight = rng.normal(size=(outputs, inputs)).astype(np.float32)
    weight[0] = np.where(weight[0] > 0, 1, -1)  # the largest sums there are: nothing may overflow on the way
    weight[-1] = 0
    linear.weight.copy_(torch.from_numpy(weight))
    x = (rng.normal(size=(rows, inputs)) * 10.0 ** rng.integers(-5, 5, (rows, 1))).astype(np.float32)
    x[0] = 0
    x[-1] = weight[0]
    codes_x, scales_x = quantised(x)
    codes_w, scales_w = quantised(weight)
    assert np.abs(codes_x).max() == np.abs(codes_w).max() == 127
    sums = codes_x @ codes_w.T
    assert sums[-1, 0] == 127 * 127 * inputs

    layer = Int8Linear(linear)
    exact = sums.astype(np.float64) * scales_x * scales_w.T + linear.bias.numpy()
    found = layer(torch.from_numpy(x)).numpy()
    assert found.dtype == np.float32
    magnitude = np.abs(sums) * scales_x * scales_w.T + np.abs(linear.bias.numpy())
    halves = np.abs(np.abs(x / scales_x) % 1 - 0.5) < 3e-5  # may be rounded to either side
    either = (halves.astype(float) @ np.abs(codes_w.T)) * scales_x * scales_w.T
    assert (np.abs(found - exact) <= 4e-7 * magnitude + either).all()
    assert (either == 0).mean() > 0.5
    np.testing.assert_array_equal(layer(torch.from_numpy(x[None])).numpy()[0], found)  # (B, T, K) as well


@needs_vnni
@pytest.mark.parametrize("rows", [8, 72, 1000])
def test_int8_feed_forward_is_two_maps_with_a_relu_between(rows: int) -> None:
    torch.manual_seed(rows)
    up, down = (torch.nn.Linear(*sizes).requires_grad_(False) for sizes in ((40, 1792), (1792, 40)))
    x, add = torch.randn(rows, 40), torch.randn(rows, 40)
    found = Int8FeedForward(up, down)(x[None], add[None])[0]
    hidden = Int8Linear(up)(x, relu=True).numpy().astype(np.float64)
    scales = np.maximum(hidden.max(axis=1, keepdims=True), 1e-12) / 255
    codes, scales_w = quantised(down.weight.numpy())
    exact = np.rint(hidden / scales) @ codes.T * scales * scales_w.T + down.bias.numpy() + add.numpy()
    assert np.abs(found.numpy() - exact).max() < 1e-3 * np.abs(exact).max()  # halves may fall to either side
    assert np.median(np.abs(found.numpy() - exact)) < 1e-6
    for few in (8, 16, rows):  # a row depends on itself alone, however many are taken at once
        assert torch.equal(Int8FeedForward(up, down)(x[None, :few], add[None, :few])[0], found[:few])


@needs_vnni
def test_int8_takes_each_token_on_its_own_scale() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(torch.nn.Linear(64, 24).requires_grad_(False))
    x = torch.randn(16, 64)
    alone = layer(x)
    louder = x.clone()
    louder[1::2] *= 1000
    assert torch.equal(layer(louder)[::2], alone[::2])


@needs_vnni
def test_int8_replaces_the_large_products() -> None:
    encoder = small("v1.1", "int8").encoder
    assert encoder
    names = {name for name, module in encoder.named_modules() if isinstance(module, Int8Linear)}
    large = ["embed.out"]
    for i in range(2):
        large += [
            f"blocks.{i}.{part}" for part in ("attention.in_proj", "attention.out_proj", "fused.up", "fused.down")
        ]
    assert names == {f"{sensor}.{name}" for sensor in ("s2", "s1") for name in large}


# --- which one --------------------------------------------------------------------------------------------------------


def test_auto_is_bf16_on_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("auto", CPU) == "fp32"
    for native, expected in ((True, "bf16"), (False, "fp32")):  # emulated bf16 is slower than fp32
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, n=native: n or including_emulation
        )
        assert resolve("auto", CUDA) == expected
    assert resolve("auto", CPU) == "fp32"
    assert (resolve("fp32", CUDA), resolve("bf16", CUDA), resolve("bf16", CPU)) == ("fp32", "bf16", "bf16")


def test_int8_is_for_cpus_with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--precision int8 needs a CPU with VNNI.*Choose --precision fp32"):
        resolve("int8", CUDA)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(UsageError, match="--precision int8 needs a CPU with VNNI"):
        resolve("int8", CPU)
    with pytest.raises(UsageError, match="--precision int8 needs a CPU with VNNI"):
        load_model("demo", device="cpu", precision="int8")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    assert resolve("int8", CPU) == "int8"


def test_unknown_precisions_are_refused() -> None:
    for word in ("fp16", "float32", ""):
        with pytest.raises(UsageError, match=r"choose one of auto, fp32, bf16, int8"):
            resolve(word, CPU)
    assert PRECISIONS == ("auto", "fp32", "bf16", "int8")


@pytest.mark.parametrize("precision", ["auto", "fp32", *LOWER])
def test_precision_is_part_of_the_identity(precision: str) -> None:
    model = load_model("demo", device="cpu", precision=precision)
    assert model.precision == ("fp32" if precision == "auto" else precision)
    assert EmbedSettings.checked(model, "mpc").identity()["precision"] == model.precision


def test_a_model_without_a_network_has_no_choice() -> None:
    assert load_model("null", precision="bf16").precision == "fp32"
