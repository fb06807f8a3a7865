"""What else the machine has to do while tests run on it: limits of time are longer then."""

import os


def as_loaded(seconds: float) -> float:
    """The limit that a promise of so many seconds has on this machine now: longer while more runs than it has CPUs.

    Tests that run beside these are known at once, the rest by the load of the last minute.
    """
    beside = float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return seconds * max(1.0, beside, os.getloadavg()[0] / (os.cpu_count() or 1))
