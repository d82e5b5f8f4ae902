"""What is kept is read once, and never more than fits."""

from __future__ import annotations

import numpy as np

from tessera_cli.evaluation.segmentation.kept import Kept


def test_the_last_ones_that_fit_are_kept():
    read = []

    def reader(key):
        def made():
            read.append(key)
            return (np.zeros(100, np.uint8),)

        return made

    kept = Kept(250)
    for key in "abacab":
        kept.get(key, reader(key))
    assert "".join(read) == "abcb"
    kept.get("d", lambda: (np.zeros(1000, np.uint8),))  # larger than all: kept alone
    assert list(kept._held) == ["d"]
