"""`tessera bench pretrain`: the plain step is the same step, and the work is counted right. Speed is no test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tessera_cli.bench import pretrain as bench
from tessera_cli.bench.plain_step import PlainStep
from tessera_cli.errors import UsageError
from tessera_cli.models import precision
from tessera_cli.models.layout import official_names
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.batch import MISSING
from tessera_cli.pretraining.trainee import Trainee
from tests.pretraining.test_barlow_twins import CPU, a_batch, a_config, a_twins, in_float64

SMALL = {"representation": 12, "latent": 4, "layers": 2, "heads": 2, "feedforward": 24}


def both(config: PretrainConfig) -> tuple[Trainee, PlainStep]:
    trainee = a_twins(config)
    plain = PlainStep(trainee, config, CPU)
    trainee.fit_to_cpu(2)
    return trainee, plain


def by_our_names(plain: PlainStep, trainee: Trainee) -> dict[str, Tensor | None]:
    """Gradients of the plain form, by the names that the same parameters have in ours."""
    theirs = dict(plain.encoder.named_parameters())
    config = trainee.encoder.config
    found = {
        f"encoder.{name}": theirs[official_names(name, config)[0]].grad
        for name, _ in trainee.encoder.named_parameters()
    }
    twins: Any = trainee.twins
    for kind, offset in (("linears", 0), ("norms", 1)):
        for i, _ in enumerate(getattr(twins.projectors[0], kind)):
            for name, parameter in plain.projector[3 * i + offset].named_parameters():
                found[f"twins.projectors.0.{kind}.{i}.{name}"] = parameter.grad
    return found


def gradients_agree(trainee: Trainee, plain: PlainStep, *, loss: float, gradient: float) -> None:
    batch = a_batch(0, 40)
    for view in (batch.first, batch.second):  # a missing sensor, which ours encodes once
        (part,) = view["s1"]
        part.values[3:7], part.doy[3:7], part.streams[3:7] = 0, 0, MISSING
    ours, theirs = trainee(batch.to(CPU)).loss, plain.loss(batch.to(CPU))
    assert ours.item() == pytest.approx(theirs.item(), rel=loss)
    ours.backward()
    theirs.backward()
    expected = by_our_names(plain, trainee)
    assert set(expected) == {name for name, _ in trainee.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in expected.values() if grad is not None)
    for name, parameter in trainee.named_parameters():
        grad = expected[name]
        assert grad is not None
        assert parameter.grad is not None
        scale = max(float(grad.abs().max()), 1e-3 * largest)
        assert float((parameter.grad - grad).abs().max()) <= gradient * scale, name


def test_the_plain_step_has_the_same_loss_and_gradients() -> None:
    gradients_agree(*both(a_config(model=SMALL)), loss=1e-5, gradient=2e-3)


def test_and_in_float64_to_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    trainee, plain = both(a_config(model=SMALL))
    bands = plain._bands
    monkeypatch.setattr(plain, "_bands", lambda *given: bands(*given).double())
    plain.encoder.double(), plain.projector.double()
    # Sinusoids are in float32 in both, from a table or not.
    gradients_agree(in_float64(trainee), plain, loss=1e-6, gradient=1e-5)


@pytest.mark.parametrize(
    "overrides",
    ["loss.mix=1", "loss.predict=1", "projector.prefixes=[16]", "views.lengths=bucketed", "model.dropout=0.1"],
)
def test_what_has_no_plain_form(overrides: str) -> None:
    config = load_config(preset_name="tiny", overrides=[overrides])
    with pytest.raises(UsageError, match="--baseline plain"):
        bench.check(config)


@pytest.mark.parametrize("preset", ["tiny", "nano"])
def test_work_is_that_of_the_plain_forward_pass_three_times(preset: str) -> None:
    config = load_config(preset_name=preset, overrides=["train.batch=32"])
    with bench._trainer(config, CPU) as trainer:
        drawn = [trainer.loader.batch(step) for step in range(2)]
        plain = PlainStep(trainer.model, config, CPU)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            for batch in drawn:
                plain.loss(batch.to(CPU))
    official, needed = bench.gflop_per_step(config, drawn)
    assert official == pytest.approx(3 * counter.get_total_flops() / len(drawn) / 1e9, rel=0.01)
    if preset == "tiny":
        assert needed == official
    else:  # a tenth of the views has no radar, which is half of the work
        assert 0.85 < needed / official < 0.999


def test_mixing_is_a_third_pass_and_two_more_products() -> None:
    found = {}
    for mix in (0, 1):
        config = load_config(preset_name="tiny", overrides=["train.batch=32", f"loss.mix={mix}"])
        with bench._trainer(config, CPU) as trainer:
            found[mix], _ = bench.gflop_per_step(config, [trainer.loader.batch(0)])
    correlation = 3 * 2 * 32 * 256**2 / 1e9
    assert (found[1] - 3 * correlation) / (found[0] - correlation) == pytest.approx(1.5)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(precision, "MATMUL_SECONDS", 0.01)


@pytest.mark.usefixtures("_short")
def test_what_is_told(tessera: Callable[..., Any]) -> None:
    code, out, _ = tessera(
        "bench",
        "pretrain",
        "--preset",
        "tiny",
        "--pixels",
        "24",
        "--baseline",
        "plain",
        "--rounds",
        "2",
        "--threads",
        "1",
        "--json",
    )
    assert code == 0
    found = json.loads(out)
    assert found["what"] == "pretrain"
    assert found["agreement"]["against"] == "plain"
    assert found["agreement"]["max_relative_difference"] < 1e-5
    assert found["pixels_per_second"] == pytest.approx(24 * found["steps_per_second"])
    assert found["speedup_over_plain"] == pytest.approx(found["steps_per_second"] / found["plain_steps_per_second"])
    best = max(found["matmul_gflops"], found["packed_gflops"])
    assert found["floor_seconds"] == pytest.approx(found["gflop_per_step_needed"] / best)
    assert found["floor_share"] == pytest.approx(found["floor_seconds"] * found["steps_per_second"])
    assert len(found["rounds"]) == 2
    assert found["workload"]["pixels_per_step"] == 24


@pytest.mark.usefixtures("_short")
def test_bf16_is_compared_with_float32() -> None:
    found = bench.measure("tiny", threads=1, precision="bf16", pixels=24, rounds=1)
    assert found["agreement"]["against"] == "fp32"
    assert 1e-6 < found["agreement"]["max_relative_difference"] < 0.1
    assert found["conditions"]["precision"] == "bf16"
    assert found["speedup_over_plain"] is None
    assert bench.measure("tiny", threads=1, pixels=24, rounds=1)["agreement"] is None


def test_a_made_up_pixel_is_found_again() -> None:
    one, same, other = (bench.made_up(20, seed).train[0] for seed in (1, 1, 2))
    assert len(one) == 20
    assert (one.s2.values == same.s2.values).all()
    assert one.s2.values.shape != other.s2.values.shape or (one.s2.values != other.s2.values).any()
    assert set(one.s1.counts) == {60}
