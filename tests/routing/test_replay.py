"""Records decided again: what fits gives what was served, and what does not is seen."""

import pytest

from gateway.routing.decision.record_replay import Logged, replay
from gateway.routing.decision.snapshot import Route, propose
from gateway.routing.document.document import RouteDocument
from tests.api.routes import ab, blue_green, canary, pinned

BETA = {"name": "beta", "match": {"id": {"exact": "1"}}, "arm": "b"}
CHAIN = {"order": ["b"], "on": ["NOT_LOADED", "DEADLINE"]}


def route(document: RouteDocument) -> Route:
    return propose(document, None)


@pytest.mark.parametrize(
    ("document", "logged", "agrees"),
    [
        (ab(90, 10), Logged("1", "a", 0, "SPLIT", 899_999), True),
        (ab(90, 10), Logged("1", "a", 0, "SPLIT", 900_000), False),
        (ab(90, 10), Logged("2", "b", 0, "SPLIT", 900_000), True),
        (ab(90, 10), Logged("3", "b", 0, "SPLIT", 900_000), False),
        (ab(90, 10), Logged("1", "a", 0, "DEFAULT", -1), True),
        (ab(rules=[BETA]), Logged("2", "b", 0, "RULE:beta", -1), True),
        (ab(rules=[BETA]), Logged("1", "a", 0, "RULE:beta", -1), False),
        (ab(), Logged("2", "b", 0, "RULE:beta", -1), False),
        (blue_green(), Logged("1", "blue", 0, "DEFAULT", -1), True),
        (pinned(), Logged("2", "canary", 0, "PIN", -1), True),
        (pinned(), Logged("9", "", 0, "PIN", -1), False),
        (pinned(killSwitch={"arm": "canary", "reason": "x"}), Logged("2", "canary", 0, "KILL", -1), True),
        (pinned(killSwitch={"arm": "canary", "reason": "x"}), Logged("1", "stable", 0, "DEFAULT", -1), False),
        (ab(90, 10, fallback=CHAIN), Logged("2", "b", 0, "FALLBACK:NOT_LOADED", 5), True),
        (ab(90, 10, fallback=CHAIN), Logged("2", "b", 0, "FALLBACK:INTERNAL", 5), False),
        (ab(90, 10, fallback=CHAIN), Logged("2", "b", 0, "FALLBACK:NOT_LOADED", 950_000), False),
        (ab(90, 10, fallback=CHAIN), Logged("2", "b", 0, "FALLBACK:DEADLINE", -1), True),
        (canary(), Logged("1", "stable", 0, "NONSENSE", -1), False),
    ],
)
def test_a_record_fits_its_route_or_does_not(document: RouteDocument, logged: Logged, agrees: bool) -> None:
    explained = replay(route(document), logged)
    assert logged.agrees(explained.decision) is agrees, explained
    assert explained.steps[-1].outcome == ("taken" if explained.decision is not None else "refused")


def test_without_a_route_the_newest_version_answers() -> None:
    logged = Logged("7", "", 3, "DEFAULT", -1)
    assert logged.agrees(replay(None, logged).decision)
    pinned_by_client = Logged("7", "", 3, "PIN", -1)
    assert pinned_by_client.agrees(replay(None, pinned_by_client).decision)
    assert not logged.agrees(replay(None, Logged("7", "", 3, "PIN", -1)).decision)
