"""Which revisions of a route are one experiment, and which are its phases."""

from typing import Any

import pytest

from gateway.errors import FailedPrecondition
from gateway.rollout.results.experiment import Experiment, experiment_of
from tests.rollout.experiments import EVEN, MODEL, history, split_document


def phases_of(*documents: dict[str, Any]) -> Experiment:
    return experiment_of(MODEL, history(*documents))


def test_revisions_with_one_split_are_one_phase_and_other_versions_another_experiment() -> None:
    same = phases_of(split_document(EVEN), split_document(EVEN, maxDuration="2d"), split_document({"a": 20, "b": 80}))
    assert [phase.revisions for phase in same.phases] == [(1, 2), (3,)]
    assert same.phases[0].until_us == same.phases[1].since_us
    newer = split_document(EVEN)
    newer["spec"]["arms"]["b"] = {"version": "9"}
    assert [phase.revisions for phase in phases_of(split_document(EVEN), newer).phases] == [(2,)]
    salted = split_document(EVEN)
    salted["spec"]["key"]["salt"] = "again"
    assert [phase.revisions for phase in phases_of(split_document(EVEN), salted).phases] == [(2,)]
    ended = split_document(EVEN)
    ended["spec"]["strategy"] = {"pinned": {"arm": "b"}}
    over = phases_of(split_document(EVEN), ended)
    assert over.ended_by == 2
    assert [phase.revisions for phase in over.phases] == [(1,)]
    resumed = phases_of(split_document(EVEN), ended, split_document(EVEN))
    assert resumed.ended_by == 0
    assert sum(len(phase.revisions) for phase in resumed.phases) == 2
    with pytest.raises(FailedPrecondition, match="splits keys between arms"):
        phases_of(ended)
    with pytest.raises(FailedPrecondition, match="splits keys between arms"):
        phases_of(split_document({"a": 100, "b": 0}))
    with pytest.raises(FailedPrecondition, match=r"no revision from 3 on splits .* that does is 2"):
        experiment_of(MODEL, history(split_document(EVEN), split_document(EVEN)), since=3)
    # A test that everybody has left is over, and what it showed stays.
    left = phases_of(split_document(EVEN), split_document({"a": 0, "b": 100}))
    assert (left.ended_by, [phase.revisions for phase in left.phases]) == (2, [(1,)])


def test_of_very_many_splits_the_newest_are_compared_and_the_others_are_said() -> None:
    made = experiment_of(MODEL, history(*(split_document({"a": 50 - n / 10, "b": 50 + n / 10}) for n in range(70))))
    assert (len(made.phases), made.left_out, made.phases[-1].revisions) == (64, 6, (70,))


def test_a_canary_is_an_experiment_until_its_versions_change_places() -> None:
    def canary(weight: int, *versions: str) -> dict[str, Any]:
        value = split_document(EVEN)
        value["spec"]["arms"] = {arm: {"version": one} for arm, one in zip(("stable", "canary"), versions, strict=True)}
        value["spec"]["strategy"] = {"canary": {"weight": f"{weight}%"}}
        return value

    made = phases_of(canary(5, "1", "2"), canary(25, "1", "2"), canary(0, "2", "1"))
    assert [phase.shares for phase in made.phases] == [
        {"canary": 0.05, "stable": 0.95},
        {"canary": 0.25, "stable": 0.75},
    ]
    assert (made.control, made.others, made.ended_by) == ("stable", ("canary",), 3)
    assert made.versions == {"stable": "1", "canary": "2"}
    since = experiment_of(MODEL, history(split_document(EVEN), split_document({"a": 20, "b": 80})), since=2)
    assert [phase.revisions for phase in since.phases] == [(2,)]
