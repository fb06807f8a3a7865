"""Events: their form, the ones that are kept, and which change of states is which event."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.telemetry.event_types import EventType
from gateway.telemetry.events import KEPT, Event, EventLog, Happening, Observed, observe
from gateway.telemetry.sums import Tree


def event(number: int, kind: str = "route.applied") -> Event:
    return Event(kind, "/gateway/default", f"id-{number}", 1_700_000_000_000_001 + number, "m", {"n": number})


def worker(
    feed: str = "LIVE",
    *,
    versions: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    **breakers: str,
) -> dict[str, object]:
    """Gauges of one worker; `versions` maps versions of model m to states, `breakers` its arms."""
    return {
        "feed_state": feed,
        "rules_error": "away",
        "versions": [_version(name, state) for name, state in (versions or {}).items()],
        "refused": refused or {},
        "breakers": [{"model": "m", "arm": arm, "state": state} for arm, state in breakers.items()],
    }


def _version(name: str, state: str) -> dict[str, str]:
    return {"model": "m", "version": name, "state": state, "reason": "why"}


def child(slot: int, state: str, role: str = "worker", restarts: int = 1) -> Tree:
    return {
        "role": role,
        "slot": slot,
        "state": state,
        "pid": 7,
        "restarts": restarts,
        "recycled": 0,
        "reason": "killed",
    }


def told(*moments: Mapping[int, Tree]) -> list[list[str]]:
    """The types with their subjects that each moment after the one before brings."""
    seen, types = Observed(), []
    for gauges in moments:
        seen, happenings = observe(seen, gauges, ())
        types.append([f"{one.type} {one.subject}".strip() for one in happenings])
    return types


def test_an_event_is_cloudevents_json_on_one_line() -> None:
    line = event(1).to_json()
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["specversion"] == "1.0"
    assert (parsed["type"], parsed["source"], parsed["id"]) == ("route.applied", "/gateway/default", "id-1")
    assert (parsed["subject"], parsed["data"]) == ("m", {"n": 1})
    assert parsed["time"].endswith("Z")
    assert datetime.fromisoformat(parsed["time"]).timestamp() * 1e6 == 1_700_000_000_000_002
    assert "subject" not in json.loads(Event("rules.live", "/s", "1", 0).to_json())


def test_the_newest_events_are_kept_and_can_be_continued_from() -> None:
    events = EventLog()
    heard: list[Event] = []
    events.listen(heard.append)
    for number in range(KEPT + 5):
        events.add(event(number))
    assert len(heard) == KEPT + 5
    known, position = events.after()
    assert [one.id for one in known] == [f"id-{n}" for n in range(5, KEPT + 5)]
    assert [one.id for one in events.after(f"id-{KEPT + 2}")[0]] == [f"id-{KEPT + 3}", f"id-{KEPT + 4}"]
    assert events.after(f"id-{KEPT + 4}") == ([], position)
    assert len(events.after("id-0")[0]) == KEPT  # forgotten: all that there is
    assert events.counts == {"route.applied": KEPT + 5}
    assert events.since(position) == ([], position)
    for number in range(2):
        events.add(event(number))
    newer, further = events.since(position)
    assert [one.id for one in newer] == ["id-0", "id-1"]
    for number in range(KEPT + 2):
        events.add(event(number))
    assert [one.id for one in events.since(further)[0]] == [f"id-{n}" for n in range(2, KEPT + 2)]


def test_a_store_that_is_away_is_one_event_however_many_workers_say_so() -> None:
    live, stale, ahead = worker(), worker("STALE"), worker("AHEAD")
    moments = [{0: live, 1: live}, {0: stale, 1: live}, {0: stale, 1: stale}, {0: live, 1: stale}, {0: live, 1: live}]
    assert told(*moments) == [[], ["rules.stale"], [], [], ["rules.live"]]
    assert told({0: live}, {0: ahead, 1: stale}, {0: ahead}, {0: live}) == [[], ["rules.ahead"], [], ["rules.live"]]
    assert told({0: worker("STARTING")}, {0: live}, {}, {0: live}) == [[], [], [], []]
    _, [happened] = observe(Observed(rules="live"), {3: stale, 4: live}, ())
    assert happened == Happening(EventType("rules.stale"), "", {"workers": [3], "reason": "away"})


def serving(digest: str, state: str = "AVAILABLE") -> Tree:
    """Gauges of a worker whose version 1 of model m has this content."""
    return {"feed_state": "LIVE", "versions": [_version("1", state) | {"digest": digest}]}


def test_a_version_is_replaced_once_every_worker_serves_the_new_content() -> None:
    old, new, loading = serving("a" * 64), serving("b" * 64), serving("", "LOADING")
    steps = [{0: old, 1: old}, {0: new, 1: old}, {0: new, 1: loading}, {0: new, 1: new}, {0: new, 1: new}]
    assert told(*steps) == [["version.ready m"], [], [], ["version.replaced m"], []]
    assert told({0: old}, {}, {0: old}) == [["version.ready m"], [], []]  # a restart replaces nothing
    seen, _ = observe(Observed(), {0: old}, ())
    _, [replaced] = observe(seen, {0: new}, ())
    digests = {"digest": "b" * 64, "previous_digest": "a" * 64}
    assert replaced == Happening(EventType.VERSION_REPLACED, "m", {"model": "m", "version": "1", **digests})


def test_a_version_is_ready_once_every_worker_has_it_and_failed_once_one_cannot() -> None:
    loading, ready, failed = (worker(versions={"1": state}) for state in ("LOADING", "AVAILABLE", "FAILED"))
    assert told({0: ready, 1: loading}, {0: ready, 1: ready}, {0: ready, 1: ready}) == [[], ["version.ready m"], []]
    # A worker that starts again loads what was ready: that is no news, and neither is its absence.
    assert told({0: ready}, {0: ready, 1: loading}, {}, {1: ready}) == [["version.ready m"], [], [], []]
    assert told({0: ready}, {0: ready, 1: failed}, {0: ready, 1: ready}) == [
        ["version.ready m"],
        ["version.failed m"],
        ["version.ready m"],
    ]
    assert told({0: ready}, {0: worker(versions={"1": "END"})}) == [["version.ready m"], ["version.unloaded m"]]
    _, [happened] = observe(Observed(), {0: failed}, ())
    assert happened.data == {"model": "m", "version": "1", "reason": "why"}


def test_a_route_that_is_not_taken_is_told_once_for_each_reason() -> None:
    one, other = worker(refused={"m": "no version 9"}), worker(refused={"m": "too large"})
    assert told({0: one, 1: one}, {0: one}, {0: other}, {0: worker()}, {0: one}) == [
        ["rules.poison m"],
        [],
        ["rules.poison m"],
        [],
        ["rules.poison m"],
    ]


def test_a_breaker_is_open_while_it_is_in_any_worker() -> None:
    opened, half, closed = worker(b="open"), worker(b="half_open"), worker(b="closed")
    assert told({0: closed}, {0: opened}, {0: opened, 1: opened}, {0: half, 1: opened}, {0: closed, 1: closed}) == [
        [],
        ["breaker.open m"],
        [],
        [],
        ["breaker.closed m"],
    ]


def test_each_state_of_a_worker_is_an_event_and_no_other_process_is() -> None:
    seen, first = observe(Observed(), {}, [child(0, "READY"), child(0, "READY", "compactor")])
    assert [(one.type, one.subject) for one in first] == [("worker.state", "0")]
    _, [happened] = observe(seen, {}, [child(0, "WAITING")])
    expected = {"slot": 0, "state": "WAITING", "previous": "READY", "pid": 7, "restarts": 1, "reason": "killed"}
    assert happened.data == expected
    starting, _ = observe(Observed(), {}, [child(0, "STARTING", restarts=0)])
    _, [died] = observe(starting, {}, [child(0, "STARTING", restarts=1)])
    assert (died.data["state"], died.data["reason"]) == ("STARTING", "killed")
    _, [recycled] = observe(starting, {}, [{**child(0, "STARTING", restarts=0), "recycled": 1}])
    assert (recycled.type, recycled.subject) == ("worker.recycled", "0")
    assert recycled.data == {"slot": 0, "pid": 7, "recycled": 1, "reason": "killed"}


_states = st.sampled_from(["LIVE", "STALE", "AHEAD", "STARTING"])
_versions = st.dictionaries(st.sampled_from("123"), st.sampled_from(["LOADING", "AVAILABLE", "FAILED", "END"]))
_workers = st.builds(lambda feed, versions: worker(feed, versions=versions), _states, _versions)
_moments = st.lists(st.dictionaries(st.integers(0, 2), _workers), max_size=8)


@given(_moments)
@example([])
def test_a_moment_that_lasts_is_told_once_and_no_event_repeats_the_last(moments: list[dict[int, Tree]]) -> None:
    seen, last = Observed(), dict[str, str]()
    for gauges in moments:
        seen, happenings = observe(seen, gauges, ())
        assert observe(seen, gauges, ())[1] == []
        for one in happenings:
            name = one.type.split(".")[0] + one.subject + str(one.data.get("version"))
            assert last.get(name) != one.type
            last[name] = one.type


def shows(certificate: str, trouble: str = "") -> Tree:
    return {"feed_state": "LIVE", "tls": {"certificate": certificate, "not_after_s": 1.0, "trouble": trouble}}


def test_a_certificate_is_renewed_when_every_worker_shows_it_and_refused_when_one_refuses_it() -> None:
    state, told = observe(Observed(), {0: shows("a"), 1: shows("a")}, ())
    assert told == []
    state, told = observe(state, {0: shows("b"), 1: shows("a")}, ())
    assert told == []
    state, told = observe(state, {0: shows("b"), 1: shows("b")}, ())
    assert told == [Happening(EventType.TLS_RENEWED, "", {"certificate": "b"})]
    state, told = observe(state, {0: shows("b", "expired"), 1: shows("b")}, ())
    assert told == [Happening(EventType.TLS_REFUSED, "", {"reason": "expired"})]
    state, told = observe(state, {}, ())  # nobody answers: nothing is known to be different
    assert told == []
    state, told = observe(state, {0: shows("b", "expired"), 1: shows("b", "expired")}, ())
    assert told == []
    state, told = observe(state, {0: shows("c"), 1: shows("c")}, ())
    assert told == [Happening(EventType("tls.renewed"), "", {"certificate": "c"})]


def suspected(*, deaths: int, inputs: int, quarantined: bool = False) -> dict[int, Tree]:
    suspect = {"model": "m", "version": "1", "cause": "killed by SIGFPE", "deaths": deaths, "inputs": inputs}
    return {0: {**worker(), "quarantine": [{**suspect, "quarantined": quarantined}]}, 1: worker()}


def test_what_workers_die_of_is_told_once() -> None:
    refused, more = suspected(deaths=1, inputs=1), suspected(deaths=2, inputs=2, quarantined=True)
    released: dict[int, Tree] = {0: worker(), 1: worker()}
    assert told(refused, refused, more, more, {}, released, released) == [
        ["input.refused m"],
        [],
        ["version.quarantined m"],
        [],
        [],
        ["version.released m"],
        [],
    ]


def test_the_page_of_events_names_each_type_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    rows = re.findall(r"^\| (`[a-z.`, ]+`) \|", page, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z.]+)`", row)]
    assert sorted(named) == sorted(EventType)


def test_refused_callers_are_told_by_reason_and_broken_files_once() -> None:
    def seen(count: int, trouble: str = "") -> Tree:
        told = {"role": {"count": count, "last": "ci called /x"}} if count else {}
        return {"feed_state": "LIVE", "access": {"trouble": trouble, "told": told}}

    before, told = observe(Observed(), {0: seen(0)}, [])
    assert told == []
    before, told = observe(before, {0: seen(5)}, [])
    assert told == [Happening(EventType.ACCESS_DENIED, "", {"reason": "role", "count": 5, "last": "ci called /x"})]
    before, told = observe(before, {0: seen(7, "access-roles: oops")}, [])
    assert told == [
        Happening(EventType.ACCESS_REFUSED, "", {"reason": "access-roles: oops"}),
        Happening(EventType.ACCESS_DENIED, "", {"reason": "role", "count": 2, "last": "ci called /x"}),
    ]
    before, told = observe(before, {0: seen(7, "access-roles: oops")}, [])
    assert told == []
    _, told = observe(before, {0: seen(7)}, [], seen(3))  # at the operators' port
    assert [one.data["count"] for one in told] == [3]
    _, told = observe(before, {0: seen(1)}, [])  # another worker in its place
    assert [one.data["count"] for one in told] == [1]
