"""Tells how much waits for a sink that is away."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keeping:
    """Beyond either bound the oldest is given up, and counted."""

    max_age_s: float = 7200.0
    max_bytes: int = 4 << 30
