"""The prediction of a view's observations from the embedding of another."""

from __future__ import annotations

import numpy as np
import torch

from tessera_cli.models.parts import day_of_year_table
from tessera_cli.pretraining.data.batch import MISSING
from tests.pretraining.test_barlow_twins import CPU, a_batch, a_config, a_twins, gradients


def huber(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, 0.5 * x**2, np.abs(x) - 0.5)


def test_it_is_the_mean_error_over_all_observed_values() -> None:
    """Against numpy, observation by observation."""
    trainee = a_twins(a_config(loss={"predict": 3.0, "predict_width": 12})).double()
    batch = a_batch(0, 8).to(CPU)
    missing = batch.second["s1"][0]
    missing.streams[:3] = MISSING
    days = day_of_year_table(12).astype(np.float64)
    total, count = 0.0, 0
    embeddings = torch.randn(8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for modality, decoder in trainee.prediction.decoders.items():  # type: ignore[union-attr]
        weights = {name: p.detach().numpy() for name, p in decoder.named_parameters()}
        (part,) = batch.second[modality]  # type: ignore[index]
        bands = trainee._bands(modality, part).numpy()  # type: ignore[arg-type]
        for row, member in enumerate(part.members.tolist()):
            for step in range(part.doy.shape[1]):
                if part.streams[row, step] == MISSING:
                    continue
                x = weights["of_embedding.weight"] @ embeddings[member].numpy() + weights["of_embedding.bias"]
                day = days[int(part.doy[row, step])]
                factors = np.maximum(weights["of_day.weight"] @ day + weights["of_day.bias"], 0)
                x = x * (weights["factors.weight"] @ factors + weights["factors.bias"])
                error = weights["out.weight"] @ x + weights["out.bias"] - bands[row, step]
                total, count = total + huber(error).sum(), count + error.size
    found = trainee._predict(embeddings, batch.second)
    np.testing.assert_allclose(found.item(), total / count, rtol=1e-6)


def test_each_view_predicts_the_other_and_the_loss_says_so() -> None:
    plain, more = (a_twins(a_config(loss={"predict": weight, "predict_width": 16})) for weight in (0.0, 3.0))
    more.load_state_dict(plain.state_dict(), strict=False)
    batch = a_batch(5, 16).to(CPU)
    one, other = plain(batch), more(batch)
    first, second = more.embed(batch.first), more.embed(batch.second)
    expected = (more._predict(first, batch.second) + more._predict(second, batch.first)) / 2
    torch.testing.assert_close(other.terms["prediction"], expected.detach())
    torch.testing.assert_close(other.loss, one.loss + 3 * expected)
    other.loss.backward()
    assert all(grad.isfinite().all() for grad in gradients(more).values())
    assert set(gradients(more)) == {name for name, _ in more.named_parameters()}


def test_it_can_be_learned() -> None:
    """The error falls to a small part of what the mean predicts: the embedding says which of two kinds a pixel is."""
    trainee = a_twins(a_config(loss={"predict": 1.0, "predict_width": 32}))
    batch = a_batch(1, 32).to(CPU)
    for part in batch.second["s2"]:
        part.values[::2], part.values[1::2] = 500, 5000
    embeddings = torch.tensor([[1.0, -1.0][i % 2] for i in range(32)])[:, None].expand(32, 12)
    decoder = trainee.prediction.decoders["s2"]  # type: ignore[union-attr]
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    (part,) = batch.second["s2"]
    errors = []
    for _ in range(80):
        error, count = trainee.prediction(  # type: ignore[misc]
            "s2", embeddings[part.members], part.doy.long(), trainee._bands("s2", part), part.streams != MISSING
        )
        errors.append((error / count).item())
        optimiser.zero_grad()
        (error / count).backward()
        optimiser.step()
    assert errors[-1] < 0.1 * errors[0]
