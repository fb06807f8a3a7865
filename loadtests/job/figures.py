"""The figures of a run, of all traffic and of each, and of its slices: what budgets and reports are made from. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.job.latencies import Latencies
from loadtests.job.tally import Moment, Tally, joined_moment

SLICES: Final = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """Holds what became of calls over `seconds`; `slices` are equal parts of that time, in their order."""

    seconds: float
    offered: int
    right: int
    failures: Counter[str]
    versions: Counter[str]
    latencies: Latencies
    received_bytes: int = 0
    slices: tuple["Figures", ...] = field(default=())

    @property
    def failed_share(self) -> float:
        return self.failures.total() / self.offered if self.offered else 0.0

    @property
    def per_second(self) -> float:
        return self.right / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "seconds": self.seconds,
            "offered": self.offered,
            "right": self.right,
            "failures": dict(self.failures),
            "versions": dict(self.versions),
            "latencies": self.latencies.as_json(),
            "received-bytes": self.received_bytes,
        }
        if self.offered:
            made["per-second"] = round(self.per_second, 3)
        if self.latencies.total:
            shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
            made["milliseconds"] = {name: round(1e3 * self.latencies.at(share), 3) for name, share in shares.items()}
        return made | ({"slices": [part.as_json() for part in self.slices]} if self.slices else {})

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Figures":
        """Raises: KeyError, TypeError, ValueError where it is none."""
        return cls(
            float(said["seconds"]),
            int(said["offered"]),
            int(said["right"]),
            Counter(said["failures"]),
            Counter(said["versions"]),
            Latencies.from_json(said["latencies"]),
            int(said["received-bytes"]),
            tuple(cls.from_json(part) for part in said.get("slices", ())),
        )


def figures_of(tally: Tally, seconds: float, traffic: str = "") -> Figures:
    """Returns the figures of one traffic, or of all; slices are of as many whole seconds as go into an eighth."""
    moments = list(tally.measured(traffic))
    length = max(1, int(seconds / SLICES))
    slices = tuple(
        _figures(joined_moment(moment for second, moment in moments if start <= second < start + length), float(length))
        for start in range(0, int(seconds) - length + 1, length)
    )
    return _figures(joined_moment(moment for _, moment in moments), seconds, slices)


def all_figures(tally: Tally, seconds: float) -> dict[str, Figures]:
    """Returns the figures by traffic, "" for all of it."""
    return {name: figures_of(tally, seconds, name) for name in ("", *tally.moments)}


def _figures(moment: Moment, seconds: float, slices: tuple[Figures, ...] = ()) -> Figures:
    return Figures(
        seconds,
        moment.offered,
        moment.right,
        moment.failures,
        moment.versions,
        moment.latencies,
        moment.received_bytes,
        slices,
    )
