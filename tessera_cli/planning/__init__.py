"""Before a run: the scenes of an area, what tiles will cost, which of them a process takes."""
