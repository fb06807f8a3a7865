"""Events as CloudEvents: the form of an event, the last ones of this host, and how states become events.

Source: CloudEvents 1.0.2, JSON event format.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from gateway.telemetry.event_types import EventType
from gateway.telemetry.keys import Gauge
from gateway.telemetry.sums import Tree, branch, listed

KEPT: Final = 1000
CONTENT_TYPE: Final = "application/cloudevents+json"
LINES_TYPE: Final = "application/x-ndjson"
_OWN: Final = -1  # the slot of no worker
_NOTHING: Final[Tree] = {}


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `source` and `id` together name it: who is told the same one twice can tell by them.

    Units: `at_us` since the Unix epoch.
    """

    type: str
    source: str
    id: str
    at_us: int
    subject: str = ""
    data: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the event as one line of JSON."""
        at = datetime.fromtimestamp(self.at_us / 1e6, UTC).isoformat(timespec="microseconds")
        attributes: dict[str, object] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": at.replace("+00:00", "Z"),
            "datacontenttype": "application/json",
        }
        if self.subject:
            attributes["subject"] = self.subject
        return msgspec.json.encode({**attributes, "data": self.data}).decode()


class EventLog:
    """The newest events, at most `KEPT`, and how many of each type there were; everyone who `listens` is told each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._count = 0
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tells `listener` each event from now on; it must return at once."""
        self._listeners.append(listener)

    def add(self, event: Event) -> None:
        self.counts[event.type] += 1
        self._count += 1
        self._events.append(event)
        for listener in self._listeners:
            listener(event)

    def after(self, event_id: str = "") -> tuple[list[Event], int]:
        """Returns the events that followed this one, oldest first, and the place to go on from with `since`.

        All that are kept if it is none of them.
        """
        events = list(self._events)
        ids = [event.id for event in events]
        return events[ids.index(event_id) + 1 :] if event_id in ids else events, self._count

    def since(self, position: int) -> tuple[list[Event], int]:
        """Returns what was added from a place on, as far as it is kept, and the place to go on from."""
        missing = min(self._count - position, len(self._events))
        return [self._events[index - missing] for index in range(missing)], self._count


@dataclass(frozen=True, slots=True)
class Happening:
    """Holds what a change of states means; an event without its circumstances."""

    type: EventType
    subject: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Observed:
    """The states of one host at a moment, each as the fact that is told about: a word, by what it is the state of.

    `workers`, `restarts` and `recycled` by slot, `rules` the state of the host's rules, `versions` by "model/version",
    `digests` of the content that all workers serve under such a name, `refused`
    the reason by model, `breakers` by "model/arm", `quarantine` how many deaths by "model/version", "held" before it
    while the version does not run, `certificate` the one that new connections are shown, `tls` what is wrong with its
    files, `access` what is wrong with those that say who may call, `denied` how many callers were refused by
    "slot/reason".
    """

    workers: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[str, str] = field(default_factory=dict)
    recycled: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    breakers: Mapping[str, str] = field(default_factory=dict)
    quarantine: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""
    tls: str = ""
    access: str = ""
    denied: Mapping[str, str] = field(default_factory=dict)


def observe(
    before: Observed, gauges: Mapping[int, Tree], children: Iterable[Tree], own: Tree = _NOTHING
) -> tuple[Observed, list[Happening]]:
    """Returns the states now, and what happened since `before`.

    `gauges` are those of the workers that answer, by slot, `own` those of the process at the operators' port, which has
    callers as they have; `children` is the supervisor's list of processes. A fact
    about the host holds as soon as one worker says the worse, or all of them say the better: N workers that lose the
    store are one event.
    """
    workers = {str(child.get("slot")): child for child in children if child.get("role") == "worker"}
    versions, reasons = _versions(before.versions, gauges)
    suspects = _quarantine(gauges)
    denied = _denied({**gauges, _OWN: own})
    after = Observed(
        workers={slot: str(child.get("state")) for slot, child in workers.items()},
        restarts={slot: str(child.get("restarts")) for slot, child in workers.items()},
        recycled={slot: str(child.get("recycled", 0)) for slot, child in workers.items()},
        rules=_rules(before.rules, gauges),
        versions=versions,
        digests={name: text for name, text in (before.digests | _digests(gauges)).items() if name in versions},
        refused=_refused(gauges) if gauges else before.refused,
        breakers=_breakers(gauges) if gauges else before.breakers,
        quarantine={name: fact for name, (fact, _) in suspects.items()} if gauges else before.quarantine,
        certificate=_certificate(before.certificate, gauges),
        tls=_trouble(gauges, Gauge.TLS) if gauges else before.tls,
        access=_trouble({**gauges, _OWN: own}, Gauge.ACCESS) if gauges else before.access,
        denied={name: str(told.get("count")) for name, told in denied.items()} if gauges else before.denied,
    )
    happenings = [*_worker_happenings(before, after, workers), *_rule_happenings(before, after, gauges)]
    if after.tls not in ("", before.tls):
        happenings.append(Happening(EventType.TLS_REFUSED, "", {"reason": after.tls}))
    happenings += _access_happenings(before, after, denied)
    if after.certificate != before.certificate and before.certificate:
        happenings.append(Happening(EventType.TLS_RENEWED, "", {"certificate": after.certificate}))
    for name in sorted(versions.keys() | before.versions.keys()):
        state = versions.get(name, "unloaded")
        if state != before.versions.get(name, "unloaded"):
            model, _, version = name.partition("/")
            data = {"model": model, "version": version, "reason": reasons.get(name, "")}
            happenings.append(Happening(EventType(f"version.{state}"), model, data))
    for name, digest in sorted(after.digests.items()):
        if before.digests.get(name, digest) != digest:
            model, _, version = name.partition("/")
            data = {"model": model, "version": version, "digest": digest, "previous_digest": before.digests[name]}
            happenings.append(Happening(EventType.VERSION_REPLACED, model, data))
    for name in sorted(after.breakers.keys() | before.breakers.keys()):
        state = after.breakers.get(name, "closed")
        if state != before.breakers.get(name, "closed"):
            model, _, arm = name.partition("/")
            happenings.append(Happening(EventType(f"breaker.{state}"), model, {"model": model, "arm": arm}))
    for name in sorted(after.quarantine.keys() | before.quarantine.keys()):
        was, now = before.quarantine.get(name, ""), after.quarantine.get(name, "")
        happenings += _quarantine_happenings(name, was, now, suspects)
    return after, happenings


def _quarantine(gauges: Mapping[int, Tree]) -> dict[str, tuple[str, Tree]]:
    """Returns what is held against versions: as a fact, and as a worker says it."""
    suspects: dict[str, tuple[str, Tree]] = {}
    for values in gauges.values():
        for suspect in listed(values, Gauge.QUARANTINE):
            held = "held " if suspect.get("quarantined") else ""
            name = f"{suspect.get('model')}/{suspect.get('version')}"
            fact = f"{held}{suspect.get('deaths')} deaths, {suspect.get('inputs')} inputs"
            suspects[name] = max(suspects.get(name, ("", suspect)), (fact, suspect), key=lambda one: one[0])
    return suspects


def _quarantine_happenings(
    name: str, before: str, after: str, suspects: Mapping[str, tuple[str, Tree]]
) -> Iterable[Happening]:
    model, _, version = name.partition("/")
    data: dict[str, object] = {"model": model, "version": version}
    if name in suspects:
        data |= {key: suspects[name][1].get(key) for key in ("cause", "deaths", "inputs")}
    held, was_held = after.startswith("held "), before.startswith("held ")
    if held and not was_held:
        yield Happening(EventType.VERSION_QUARANTINED, model, data)
    elif was_held and not held:
        yield Happening(EventType.VERSION_RELEASED, model, data)
    elif after not in ("", before):
        yield Happening(EventType.INPUT_REFUSED, model, data)


def _worker_happenings(before: Observed, after: Observed, workers: Mapping[str, Tree]) -> Iterable[Happening]:
    for slot, state in after.workers.items():
        # Between two looks a worker may die and be on its way again: the state is as it was, yet something happened.
        died = after.restarts[slot] != before.restarts.get(slot, after.restarts[slot])
        if state != before.workers.get(slot, "") or died:
            child = workers[slot]
            data: dict[str, object] = {"slot": int(slot), "state": state, "previous": before.workers.get(slot, "")}
            data |= {key: child.get(key) for key in ("pid", "restarts", "reason")}
            yield Happening(
                EventType.WORKER_STATE, slot, data | {key: child.get(key) for key in ("pid", "restarts", "reason")}
            )
    for slot, recycled in after.recycled.items():
        if recycled != before.recycled.get(slot, recycled):
            told = {key: workers[slot].get(key) for key in ("pid", "recycled", "reason")}
            yield Happening(EventType.WORKER_RECYCLED, slot, {"slot": int(slot)} | told)


def _rule_happenings(before: Observed, after: Observed, gauges: Mapping[int, Tree]) -> Iterable[Happening]:
    if after.rules != before.rules and (after.rules, before.rules) != ("live", ""):
        slots = [slot for slot, values in gauges.items() if str(values.get(Gauge.FEED_STATE)).lower() == after.rules]
        told = {str(gauges[slot].get(Gauge.RULES_ERROR) or "") for slot in slots} - {""}
        yield Happening(EventType(f"rules.{after.rules}"), "", {"workers": slots, "reason": "; ".join(sorted(told))})
    for model, reason in sorted(after.refused.items()):
        if before.refused.get(model) != reason:
            yield Happening(EventType.RULES_POISON, model, {"model": model, "reason": reason})


def _rules(before: str, gauges: Mapping[int, Tree]) -> str:
    states = {str(values.get(Gauge.FEED_STATE)) for values in gauges.values()}
    for worse in ("AHEAD", "STALE"):
        if worse in states:
            return worse.lower()
    return "live" if states == {"LIVE"} else before


def _digests(gauges: Mapping[int, Tree]) -> dict[str, str]:
    """Returns the digest of each version that every worker serves with the same content."""
    digests: dict[str, set[str]] = {}
    for values in gauges.values():
        for version in listed(values, Gauge.VERSIONS):
            serves = version.get("state") == "AVAILABLE"
            name = f"{version.get('model')}/{version.get('version')}"
            digests.setdefault(name, set()).add(str(version.get("digest")) if serves else "")
    return {name: min(seen) for name, seen in digests.items() if len(seen) == 1 and min(seen) not in ("", "None")}


def _versions(before: Mapping[str, str], gauges: Mapping[int, Tree]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns state and reason by version: failed in any worker, ready in all that have it, else as before."""
    if not gauges:
        return dict(before), {}
    states: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    for values in gauges.values():
        for version in listed(values, Gauge.VERSIONS):
            name = f"{version.get('model')}/{version.get('version')}"
            states.setdefault(name, set()).add(str(version.get("state")))
            if version.get("state") == "FAILED":
                reasons[name] = str(version.get("reason"))
    states_now = {}
    for name, of_workers in states.items():
        if "FAILED" in of_workers:
            states_now[name] = "failed"
        elif of_workers == {"AVAILABLE"}:
            states_now[name] = "ready"
        elif name in before and of_workers != {"END"}:
            states_now[name] = before[name]
    return states_now, reasons


def _refused(gauges: Mapping[int, Tree]) -> dict[str, str]:
    refused: dict[str, str] = {}
    for values in gauges.values():
        told = values.get(Gauge.REFUSED)
        for model, reason in told.items() if isinstance(told, Mapping) else ():
            refused.setdefault(str(model), str(reason))
    return refused


def _breakers(gauges: Mapping[int, Tree]) -> dict[str, str]:
    """Returns the breakers that are open in some worker."""
    return {
        f"{breaker.get('model')}/{breaker.get('arm')}": "open"
        for values in gauges.values()
        for breaker in listed(values, Gauge.BREAKERS)
        if breaker.get("state") == "open"
    }


def _certificate(before: str, gauges: Mapping[int, Tree]) -> str:
    """Returns the certificate that every worker shows, else the one before."""
    shown = {str(branch(values, Gauge.TLS).get("certificate") or "") for values in gauges.values()}
    return shown.pop() if len(shown) == 1 else before


def _trouble(gauges: Mapping[int, Tree], part: Gauge) -> str:
    return max((str(branch(values, part).get("trouble") or "") for values in gauges.values()), default="")


def _denied(gauges: Mapping[int, Tree]) -> dict[str, Tree]:
    """Returns what workers tell of callers that they refused, by "slot/reason"."""
    return {
        f"{slot}/{reason}": branch(values, Gauge.ACCESS, "told", reason)
        for slot, values in gauges.items()
        for reason in branch(values, Gauge.ACCESS, "told")
    }


def _access_happenings(before: Observed, after: Observed, told: Mapping[str, Tree]) -> Iterator[Happening]:
    """Yields one event for each worker and reason that refused somebody since; workers tell now and then only."""
    if after.access not in ("", before.access):
        yield Happening(EventType.ACCESS_REFUSED, "", {"reason": after.access})
    for name, count in sorted(after.denied.items()):
        was = before.denied.get(name, "0")
        if count != was:
            more = int(count) - int(was) if int(count) > int(was) else int(count)  # fewer: of another worker
            data = {"reason": name.partition("/")[2], "count": more, "last": str(told[name].get("last"))}
            yield Happening(EventType.ACCESS_DENIED, "", data)
