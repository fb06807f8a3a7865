"""Tells which records are kept, and with which probability; every statistic weighs a row with 1 / sample_p."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import floor

EVERY_HASH = 1 << 64
LEAST_SCALE = 2.0**-16
# The `reason` of a copy that a mirror ran and that is in the log because it differs or failed (`log: diffs`). Such rows
# are a choice and no sample: nothing can be estimated from them.
CHOSEN_COPY = "SHADOW:DIFFS"
_FULL, _ROOMY = 0.8, 0.5  # of the buffer
_DISK_STEP = 0.05


class Kept(IntEnum):
    """Why a record is in the log; kept next to its probability."""

    ALL = 0  # the rate is 1
    RATE = 1  # its request id fell below the rate
    ERROR = 2  # errors are kept
    FIRST = 3  # among the first of its version on this worker
    LOW_CONFIDENCE = 4  # a score of it is low, or no number
    DISAGREEMENT = 5  # a mirror gave another answer
    PRESSURE = 6  # as RATE, where the buffer or the disk was so full that the rate was lowered


# Of a record whose score is not known yet: IN is kept whatever the score is, for a reason above; OUT is kept only if
# the score is low. Neither is ever written.
UNDECIDED_IN = 0x80
UNDECIDED_OUT = 0xFF


@dataclass(frozen=True, slots=True)
class Sampling:
    """Of one model: its rate between 0 and 1, those of arms that have their own, and what is kept beside them.

    A request with an id is kept or left out by the hash of the id alone, the same in every worker and on every host.
    What a rule keeps has the probability 1, also where the hash would have kept it: it could not have been left out.
    `keep_score_below` None: no score is low.

    Raises: ValueError (a rate outside [0, 1], or a negative count).
    """

    rate: float = 1.0
    by_arm: Mapping[str, float] = field(default_factory=dict)
    keep_errors: bool = True
    keep_first: int = 0
    keep_score_below: float | None = None
    keep_disagreement: bool = False

    def __post_init__(self) -> None:
        for name, rate in (("rate", self.rate), *self.by_arm.items()):
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"sampling {name} is {rate}, allowed is 0 to 1")
        if self.keep_first < 0:
            raise ValueError(f"sampling keep_first is {self.keep_first}, allowed is 0 or more")

    def rate_of(self, arm: str) -> float:
        """Returns the rate of one arm: its own, else the model's."""
        return self.by_arm.get(arm, self.rate)


def threshold(rate: float) -> int:
    """Returns the bound below which hashes of 64 bits are kept."""
    return min(int(rate * EVERY_HASH), EVERY_HASH)


def relieved(scale: float, fill: float) -> float:
    """Returns the next factor of all rates, for a buffer that is `fill` full: half of it over 80 %, twice of it below
    50 %, so that the buffer does not overflow."""
    if fill > _FULL:
        return max(scale / 2, LEAST_SCALE)
    return min(scale * 2, 1.0) if fill < _ROOMY else scale


def disk_scale(used: float, above: float) -> float:
    """Returns the factor of all rates on a disk that is so full: 1/2 over `above`, 1/4 five points on, 1/8, ..."""
    return 0.5 ** (1 + floor((used - above) / _DISK_STEP + 1e-9)) if used > above else 1.0
