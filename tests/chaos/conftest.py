"""The simulator, a client and a pool of tests/simulated.py."""

from tests.simulated import client, pool, running_simulator, simulator

__all__ = ["client", "pool", "running_simulator", "simulator"]
