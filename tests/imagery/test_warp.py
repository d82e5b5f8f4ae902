"""Files of other zones that end within the tile give the pixels of a warp of the whole file."""

import numpy as np
import pytest

from tests.imagery.margin_sweep import differing, draw


@pytest.mark.parametrize("seed", range(5))
def test_where_a_file_of_another_zone_ends_does_not_change_its_pixels(tmp_path, seed):
    """Where GDAL is shown 48 or 64 pixels around the tile for the whole file, one trial in eight fails."""
    rng = np.random.default_rng(seed)
    trials = [draw(rng, hard=True) for _ in range(10)]
    assert [differing(trial, tmp_path) for trial in trials] == [0] * 10


def test_the_same_for_all_latitudes_resolutions_and_resamplings(tmp_path):
    rng = np.random.default_rng(99)
    trials = [draw(rng) for _ in range(20)]
    assert [differing(trial, tmp_path) for trial in trials] == [0] * 20
