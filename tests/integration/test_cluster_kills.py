"""A short form of `python -m tests.runs.cluster_kills`."""

import pytest

from tests.runs.cluster_kills import measure

pytest.importorskip("distributed")


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["shards", "pool", "dask"])
def test_runs_of_many_processes_whose_processes_are_killed(tmp_path, kind):
    found = measure(tmp_path / "kills", count=4, seed=16, kinds=(kind,))
    assert found["failures"] == []
    assert found["killed"] >= 4
