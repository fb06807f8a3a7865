"""What became of calls: counted by traffic and by the second in which they were to begin."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loadtests.job.latencies import Latencies

Sighting = tuple[str, str, float, float]  # model, version, when the call was sent and answered: seconds since the epoch


@dataclass(slots=True)
class Moment:
    """The calls that were to begin within a second.

    `latencies` are of right answers and of calls without an answer (they took at least their deadline), from the moment
    at which the call was to begin. Calls that were refused are not among them: a refusal is quick, and no answer.
    """

    offered: int = 0
    right: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    received_bytes: int = 0

    @property
    def failed(self) -> int:
        return self.failures.total()

    def merge(self, other: "Moment") -> None:
        self.offered += other.offered
        self.right += other.right
        self.failures.update(other.failures)
        self.versions.update(other.versions)
        self.latencies.merge(other.latencies)
        self.received_bytes += other.received_bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "offered": self.offered,
            "right": self.right,
            "failures": dict(self.failures),
            "versions": dict(self.versions),
            "latencies": self.latencies.as_json(),
            "received-bytes": self.received_bytes,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Moment":
        return cls(
            said["offered"],
            said["right"],
            Counter(said["failures"]),
            Counter(said["versions"]),
            Latencies.from_json(said["latencies"]),
            said["received-bytes"],
        )


@dataclass(slots=True)
class Tally:
    """Holds the moments of each traffic by second (below 0: of the warm-up), and what is known of the senders.

    `lags` is by how much measured calls were sent after their time: the senders' part. `waited` counts
    calls for which no connection was free. `busy_s` are the seconds of CPU used, of `senders_s` in all.
    """

    moments: dict[str, dict[int, Moment]] = field(default_factory=dict)
    lags: Latencies = field(default_factory=Latencies)
    waited: int = 0
    busy_s: float = 0.0
    senders_s: float = 0.0
    sightings: list[Sighting] = field(default_factory=list)

    def moment(self, traffic: str, second: int) -> Moment:
        """Returns the place where calls of that second are counted."""
        by_second = self.moments.setdefault(traffic, {})
        if (moment := by_second.get(second)) is None:
            moment = by_second[second] = Moment()
        return moment

    def merge(self, other: "Tally") -> None:
        for traffic, moments in other.moments.items():
            for second, moment in moments.items():
                self.moment(traffic, second).merge(moment)
        self.lags.merge(other.lags)
        self.waited += other.waited
        self.busy_s += other.busy_s
        self.senders_s += other.senders_s
        self.sightings += other.sightings

    def measured(self, traffic: str = "") -> Iterator[tuple[int, Moment]]:
        """Yields (second, calls) after the warm-up, of one traffic or of all."""
        for name, moments in self.moments.items():
            if not traffic or name == traffic:
                yield from ((second, moment) for second, moment in moments.items() if second >= 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "moments": {
                traffic: {str(second): moment.as_json() for second, moment in sorted(moments.items())}
                for traffic, moments in self.moments.items()
            },
            "lags": self.lags.as_json(),
            "waited": self.waited,
            "busy-s": self.busy_s,
            "senders-s": self.senders_s,
            "sightings": self.sightings,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Tally":
        moments = {
            traffic: {int(second): Moment.from_json(one) for second, one in by_second.items()}
            for traffic, by_second in said["moments"].items()
        }
        return cls(
            moments,
            Latencies.from_json(said["lags"]),
            said["waited"],
            said["busy-s"],
            said["senders-s"],
            [(model, version, sent, received) for model, version, sent, received in said["sightings"]],
        )


def joined_moment(moments: Iterable[Moment]) -> Moment:
    """Returns the calls of all of them."""
    whole = Moment()
    for moment in moments:
        whole.merge(moment)
    return whole
