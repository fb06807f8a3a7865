"""What one host does now, as its control process knows it (pure)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.page.traffic import ArmTraffic
from gateway.telemetry.events import Event
from gateway.telemetry.keys import Gauge, Sum
from gateway.telemetry.sums import Tree, branch, listed, whole

SHOWN_EVENTS: Final = 20
SHOWN_FEATURES: Final = 12  # of an arm, the worst first
_BREAKER_ORDER: Final = ("closed", "half_open", "open")


class HostView(msgspec.Struct, frozen=True):
    """The present of a host. Units: `at_s` since the epoch; `traffic` as its type says.

    `drift_at_s` is when the monitor of drift looked last, 0: never. `copies` says what became of the copies of each
    mirror since the start, logged or not; `mirrors` are pairs that the log has.
    """

    at_s: float
    release: str
    host: str
    traffic_known: bool
    traffic: tuple[ArmTraffic, ...]
    processes: tuple[Mapping[str, Any], ...]
    feed: tuple[Mapping[str, Any], ...]
    breakers: tuple[Mapping[str, Any], ...]
    quarantine: tuple[Mapping[str, Any], ...]
    drift_at_s: float
    drift: tuple[Mapping[str, Any], ...]
    mirrors: tuple[Mapping[str, Any], ...]
    performance: tuple[Mapping[str, Any], ...]
    log: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    troubles: tuple[str, ...]
    copies: tuple[Mapping[str, Any], ...] = ()


def host_view(
    *,
    at_s: float,
    release: str,
    host: str,
    traffic: tuple[ArmTraffic, ...] | None,
    sums: Tree,
    gauges: Mapping[int, Tree],
    processes: Sequence[Tree],
    drift: Tree,
    performance: Tree,
    events: Sequence[Event],
) -> HostView:
    """Returns the view. `traffic` is None where it was not yet looked at twice."""
    arms = listed(drift, "arms")
    return HostView(
        at_s,
        release,
        host,
        traffic is not None,
        traffic or (),
        tuple(processes),
        tuple(_feed(slot, one) for slot, one in sorted(gauges.items())),
        _breakers(gauges),
        _quarantine(gauges),
        float(drift.get("at_s", 0.0) or 0.0),  # type: ignore[arg-type]
        tuple(_with_few_features(arm) for arm in arms),
        tuple(listed(drift, "mirrors")),
        tuple(listed(performance, "arms")),
        _log(sums, gauges),
        tuple(msgspec.json.decode(event.to_json()) for event in list(events)[-SHOWN_EVENTS:][::-1]),
        _troubles(gauges),
        _copies(sums),
    )


def _feed(slot: int, gauges: Tree) -> dict[str, Any]:
    keys = (
        *(Gauge.FEED_STATE, Gauge.REVISION, Gauge.STALE_SECONDS, Gauge.READY, Gauge.IN_FLIGHT, Gauge.CONNECTIONS),
        *(Gauge.START, Gauge.RESIDENCE),
    )
    return {"worker": slot, **{str(key): gauges.get(key) for key in keys}}


def _breakers(gauges: Mapping[int, Tree]) -> tuple[Mapping[str, Any], ...]:
    """Returns the breakers by arm, each in the worst state that a worker has it in."""
    worst: dict[tuple[str, str], int] = {}
    for one in gauges.values():
        for breaker in listed(one, Gauge.BREAKERS):
            key = str(breaker.get("model")), str(breaker.get("arm"))
            worst[key] = max(worst.get(key, 0), _BREAKER_ORDER.index(str(breaker.get("state"))))
    return tuple(
        {"model": model, "arm": arm, "state": _BREAKER_ORDER[state]} for (model, arm), state in sorted(worst.items())
    )


def _copies(sums: Tree) -> tuple[Mapping[str, Any], ...]:
    """Returns by mirror how many copies agree, differ and failed, and how many were dropped, for whatever reason."""
    copies = []
    for model in sorted(branch(sums, Sum.SHADOWS)):
        for arm in sorted(branch(sums, Sum.SHADOWS, model)):
            outcomes = branch(sums, Sum.SHADOWS, model, arm, "outcomes")
            told = {outcome: whole(outcomes, outcome) for outcome in ("agree", "differ", "error")}
            dropped = sum(whole(outcomes, outcome) for outcome in outcomes if outcome not in told)
            copies.append({"model": model, "arm": arm, **told, "dropped": dropped})
    return tuple(copies)


def _quarantine(gauges: Mapping[int, Tree]) -> tuple[Mapping[str, Any], ...]:
    by_version: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in gauges.values():
        for suspect in listed(one, Gauge.QUARANTINE):
            by_version[str(suspect.get("model")), str(suspect.get("version"))] = dict(suspect)
    return tuple(by_version[key] for key in sorted(by_version))


def _with_few_features(arm: Tree) -> Mapping[str, Any]:
    features = listed(arm, "features")
    return {**arm, "features": features[:SHOWN_FEATURES], "features_in_all": len(features)}


def _log(sums: Tree, gauges: Mapping[int, Tree]) -> Mapping[str, Any]:
    records = branch(sums, Sum.LOG)
    return {
        "seen": whole(records, "seen"),
        "written": whole(records, "written"),
        "sampled_out": whole(records, "sampled_out"),
        "dropped": branch(records, "dropped"),
        "withheld": branch(records, "withheld"),
        "buffered_bytes": sum(whole(one, Gauge.LOG_BUFFER_BYTES) for one in gauges.values()),
        "scale": min((float(one[Gauge.LOG_SCALE]) for one in gauges.values() if Gauge.LOG_SCALE in one), default=None),  # type: ignore[arg-type]
        "labels": branch(sums, Sum.LABELS),
    }


def _troubles(gauges: Mapping[int, Tree]) -> tuple[str, ...]:
    """Returns what is wrong on the host, each once, in words."""
    said: dict[str, None] = {}
    for slot, one in sorted(gauges.items()):
        if one.get(Gauge.REPOSITORY_UNREADABLE):
            said["the model repository cannot be read: nothing changes until it can"] = None
        if one.get(Gauge.RULES_ERROR):
            said[f"worker {slot}: {one[Gauge.RULES_ERROR]}"] = None
        for model, reason in branch(one, Gauge.REFUSED).items():
            said[f"worker {slot} does not follow the route of {model}: {reason}"] = None
        for key, what in ((Gauge.TLS, "TLS"), (Gauge.ACCESS, "access"), (Gauge.QUOTAS, "quotas")):
            if trouble := branch(one, key).get("trouble"):
                said[f"{what}: {trouble}"] = None
    return tuple(said)
