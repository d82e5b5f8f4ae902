"""Networks reach the ceiling where there is no noise, learn nothing from the test, and repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from tessera_cli.evaluation.segmentation import training
from tessera_cli.evaluation.segmentation.network import REACH, STEP, Segmenter, parameters
from tessera_cli.evaluation.segmentation.predict import predict, probabilities
from tessera_cli.evaluation.segmentation.scene import Draw
from tessera_cli.evaluation.segmentation.segment import segment
from tests.evaluation.segmentation.landscapes import draw, labelled_test, of_array, scene


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 4)


@pytest.mark.parametrize("kind", ["decoder", "unet"])
def test_the_ceiling_without_noise_is_reached_by_a_tenth_of_the_parcels(kind):
    made = scene(256)
    few = draw(made, test=range(0, 64, 5), share=0.1)
    assert len(few.train) == 20
    found = segment([made], few, kind, classes=4)
    assert jaccard_score(made.labels[labelled_test(made, few)], found.predicted, average="macro") > 0.98


def test_the_test_is_every_labelled_pixel_of_its_blocks(short):
    made = scene(64)
    labels = made.labels.copy()
    labels[:5] = -1
    made = replace(made, labels=labels)
    found = segment([made], draw(made, test=(0, 3)), "decoder", classes=4)
    assert len(found.predicted) == 32 * 27 + 32 * 32


def test_nothing_of_the_test_is_learned_from(short):
    """Whatever features and labels are in blocks of the test, the network that comes out is the same."""
    made = scene(64, noise=1)
    test = (1,)
    hidden = np.isin(made.blocks, test)
    features = made.read((slice(0, 64), slice(0, 64))).copy()
    features[:, hidden] = 1e6
    other = of_array(features, np.where(hidden, 3 - made.labels, made.labels), made.parcels, made.blocks)
    of_all = Draw("all", 0, np.unique(made.parcels), np.array(test))  # also the parcels of the test are offered
    one, two = (training.train([each], of_all, "decoder", classes=4, seed=0) for each in (made, other))
    assert np.array_equal(one.mean, two.mean)
    for left, right in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_seed_decides(short):
    made = scene(64, noise=2)
    first, again, other = (
        segment([made], draw(made, test=(0,)), "unet", classes=4, seed=seed).predicted for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_random_state_of_others_and_their_threads_stay(short):
    made = scene(64)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    segment([made], draw(made, test=(0,)), "decoder", classes=4, threads=2)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)


def test_what_is_predicted_does_not_depend_on_the_boxes(short):
    """A box of its own, and a part of a larger one: all that matters around it was read."""
    made = scene(128, noise=1)
    trained = training.train([made], draw(made), "unet", classes=4, seed=0)
    large = probabilities(trained, made, (slice(0, 128), slice(0, 128)))
    small = probabilities(trained, made, (slice(64, 80), slice(32, 70)))
    assert np.allclose(small, large[:, 64:80, 32:70], atol=1e-5)
    wanted = np.zeros((128, 128), bool)
    wanted[70, 10:20] = True
    assert np.array_equal(predict(trained, made, wanted), large.argmax(axis=0)[wanted])


def test_missing_features_and_a_single_label_are_no_trouble(short):
    made = scene(64)
    features = made.read((slice(0, 64), slice(0, 64))).copy()
    features[:, :, 20:30] = np.nan
    features[3] = 7
    gaps = of_array(features, made.labels, made.parcels, made.blocks)
    one = Draw("one", 0, np.array([15]), np.array([0]))
    found = segment([gaps], one, "decoder", classes=4)
    assert one.learned(gaps).sum() == 256
    assert set(found.predicted.tolist()) <= {0, 1, 2, 3}


def test_a_few_hundred_thousand_parameters():
    for kind, dims in (("decoder", 128), ("unet", 48)):
        assert 200_000 < parameters(Segmenter(dims, 20, kind)) < 500_000


@pytest.mark.parametrize("kind", ["decoder", "unet"])
def test_a_class_depends_on_nothing_beyond_the_reach(kind):
    """The boxes of `predict` read so much around them; more would be needed if the gradient went further."""
    torch.manual_seed(0)
    network = Segmenter(3, 2, kind).eval()
    side = 2 * REACH + 4 * STEP
    for at in range(REACH + STEP, REACH + 2 * STEP):
        x = torch.randn(1, 3, side, side, requires_grad=True)
        network(x)[0, :, at, at].sum().backward()
        rows, columns = torch.nonzero(x.grad[0].abs().sum(0), as_tuple=True)
        assert max((rows - at).abs().max(), (columns - at).abs().max()) <= REACH
