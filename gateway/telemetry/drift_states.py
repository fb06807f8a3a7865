"""States of drift as events: the report that the drift monitor publishes, and what is different from the last one."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from gateway.telemetry.event_types import EventType
from gateway.telemetry.events import Happening
from gateway.telemetry.sums import Tree

REPORT_FILE: Final = "drift.json"
_UNKNOWN: Final = "insufficient"
_TOLD_FEATURES: Final = 10
_FEATURE_FACTS: Final = ("feature", "state", "statistic", "direction", "value", "threshold", "n", "p", "output")
States = Mapping[str, str]


def observe_drift(before: States, report: Tree) -> tuple[States, list[Happening]]:
    """Returns the state of each arm and mirror now, and what happened since `before`.

    What was never told is insufficient. An arm that is no longer in the report keeps its state: it may come back.
    """
    after = dict(before)
    happenings: list[Happening] = []
    for kind, one in _listed(report):
        name = msgspec.json.encode([kind, *(str(one.get(key)) for key in ("model", "version", "arm"))]).decode()
        state, previous = str(one.get("state")), before.get(name, _UNKNOWN)
        after[name] = state
        if state != previous:
            data = {key: one.get(key) for key in ("model", "version", "arm", "state")}
            data |= {"previous": previous, "window": report.get("window"), **_facts(kind, one)}
            happenings.append(Happening(EventType(f"{kind}.state"), str(one.get("model")), data))
    return after, happenings


def _listed(report: Tree) -> Iterator[tuple[str, Tree]]:
    for kind, key in (("drift", "arms"), ("shadow", "mirrors")):
        listed = report.get(key)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, Mapping):
                yield kind, one


def _facts(kind: str, one: Tree) -> dict[str, object]:
    if kind == "shadow":
        return {key: one.get(key) for key in ("end_s", "pairs", "agreement", "interval", "mean_difference")}
    facts = {key: one.get(key) for key in ("shadow", "profile_revision", "start_s", "end_s", "rows")}
    listed = one.get("features")
    features = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    told = [item for item in features if item.get("state") in ("warn", "crit")][:_TOLD_FEATURES]
    return {**facts, "features": [{key: item.get(key) for key in _FEATURE_FACTS} for item in told]}
