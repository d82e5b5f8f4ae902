"""Simulated landscapes: imagery, labels and a catalogue for the demo, the tests and the benchmarks."""

from tessera_cli.simulate.simulation import Simulation, simulate

__all__ = ["Simulation", "simulate"]
