"""What else the machine has to do while tests run on it: limits of time are longer then."""

import os

import pytest

MOST_TIMES = 3.0


def as_loaded(seconds: float) -> float:
    """The limit that a promise of so many seconds has on this machine now: longer while more runs than it has CPUs.

    Tests that run beside these are known at once, the rest by the load of the last minute.
    """
    return seconds * times()


def times() -> float:
    """How many times as long as alone everything takes on this machine now, 1 at least."""
    beside = float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return max(1.0, beside, os.getloadavg()[0] / (os.cpu_count() or 1))


def assert_kept(took_s: float, promised_s: float, load: float) -> None:
    """Fails if it took longer than was promised, or than it may at this load of the machine (see `times`).

    A load excuses three times as long at most. What took longer at a greater load tells nothing of the promise, and the
    test is skipped: it is not green. To be called last, for nothing after it is looked at then.
    """
    if took_s > MOST_TIMES * promised_s and load > MOST_TIMES:
        pytest.skip(f"took {took_s:.1f} s, promised {promised_s:g} s, at {load:.1f} times the work of the CPUs")
    assert took_s <= promised_s * min(load, MOST_TIMES)
