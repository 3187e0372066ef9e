"""For tests of programs that use this app, or call any provider: no network, no key, nothing paid.

    simulator.py    a provider in a process of its own, which says what a test told it to
    running.py      what is queued is run to its end, by the real worker
    plugin.py       both as fixtures of pytest, which finds them by itself where this app is installed

Nothing here needs Django until it is called, so that pytest may load it before the settings.
"""

from llmjobs.testing.running import HandlerFailed, JobsLeft, arun_jobs, make_client, run_jobs, seed
from llmjobs.testing.simulator import SimulatorProcess

__all__ = ["HandlerFailed", "JobsLeft", "SimulatorProcess", "arun_jobs", "make_client", "run_jobs", "seed"]
