"""Which records are kept, and with which probability; every statistic weighs a row with 1 / sample_p."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

EVERY_HASH = 1 << 64


class Kept(IntEnum):
    """Why a record is in the log; kept next to its probability."""

    ALL = 0  # the rate is 1
    RATE = 1  # its request id fell below the rate
    ERROR = 2  # errors are always kept
    FIRST = 3  # among the first of its version on this worker


@dataclass(frozen=True, slots=True)
class Sampling:
    """Rates between 0 and 1: `rate` for all models, `by_model` and `by_arm` (model, arm) where they differ.

    A request with an id is kept or left out by the hash of the id alone, the same in every worker and on every host.

    Raises: ValueError (a rate outside [0, 1], or a negative count).
    """

    rate: float = 1.0
    by_model: Mapping[str, float] = field(default_factory=dict)
    by_arm: Mapping[tuple[str, str], float] = field(default_factory=dict)
    keep_errors: bool = True
    keep_first: int = 0

    def __post_init__(self) -> None:
        for name, rate in (("rate", self.rate), *self.by_model.items(), *self.by_arm.items()):
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"sampling {name} is {rate}, allowed is 0 to 1")
        if self.keep_first < 0:
            raise ValueError(f"sampling keep_first is {self.keep_first}, allowed is 0 or more")

    def rate_of(self, model: str, arm: str) -> float:
        """The rate of one arm: its own, else its model's, else the common one."""
        return self.by_arm.get((model, arm), self.by_model.get(model, self.rate))


def threshold(rate: float) -> int:
    """Hashes of 64 bits below this are kept."""
    return min(int(rate * EVERY_HASH), EVERY_HASH)
