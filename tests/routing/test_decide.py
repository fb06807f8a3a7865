"""Decisions: the stages in their order, shares, stickiness, and what each answer carries."""

import math
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from gateway.errors import InvalidArgument, PermissionDenied, UnknownVersion
from gateway.routing.decision.decide import decide
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import EMPTY, Route, Snapshot, propose
from gateway.routing.document.field import Field
from gateway.routing.document.operator import OPERATORS, parse_matcher
from tests.routing.documents import AB, Request, decided, document, snapshot

KEYED = {"from": ["metadata:x-user"], "salt": "t"}
PINNED = {"pinned": {"arm": "a"}}


def user(number: int, **headers: str) -> Request:
    return Request({"x-user": f"user-{number}", **headers})


def rule(name: str, arm: str, match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "arm": arm, "match": match, **more}


def test_a_model_without_a_route_serves_its_newest_version_or_the_one_asked_for() -> None:
    empty = EMPTY.at("e", 5)
    assert decided(empty) == Decision("", "", 5, "DEFAULT")
    assert decided(empty, Request(requested_version="12")) == Decision("", "12", 5, "PIN")


def test_the_stages_come_in_their_order() -> None:
    rules = [rule("vip", "b", {"metadata": {"x-vip": {"present": True}}})]
    request = Request({"x-vip": "1"}, requested_version="14")
    spec: dict[str, Any] = {"strategy": PINNED, "rules": rules}
    kill = {"arm": "a", "reason": "incident 7"}
    assert decided(snapshot(**spec, killSwitch=kill), request) == Decision("a", "12", 0, "KILL")
    assert decided(snapshot(**spec), request) == Decision("c", "14", 0, "PIN")
    assert decided(snapshot(**spec), Request({"x-vip": "1"})) == Decision("b", "13", 0, "RULE:vip")
    assert decided(snapshot(**spec), Request()) == Decision("a", "12", 0, "DEFAULT")
    split = decided(snapshot(key=KEYED, rules=rules), user(1))
    assert (split.reason, split.bucket >= 0) == ("SPLIT", True)


def test_the_revision_is_that_of_the_route() -> None:
    proposed = propose(document(strategy=PINNED), None)
    committed = Route("m", 41, proposed.document, proposed.table, 0, 0)
    assert decided(EMPTY.with_route(committed).at("e", 99)).revision == 41


def test_the_first_rule_that_holds_decides() -> None:
    rules = [
        rule("one", "b", {"metadata": {"x-a": {"prefix": "p"}}}),
        rule("two", "c", {"metadata": {"x-a": {"exact": "pq"}}}),
        rule("three", "c", {"metadata": {"x-a": {"exact": "q"}, "x-b": {"exact": "1"}}}),
        rule("four", "b", {"metadata": {"x-a": {"not": {"exact": "z"}}}}),
    ]
    routed = snapshot(strategy=PINNED, rules=rules)

    def reason(**headers: str) -> str:
        return decided(routed, Request({f"x-{name}": value for name, value in headers.items()})).reason

    assert reason(a="pq") == "RULE:one"
    assert reason(a="q", b="1") == "RULE:three"
    assert reason(a="q", b="2") == "RULE:four"
    assert reason() == "RULE:four"
    assert reason(a="z") == "DEFAULT"


def test_every_source_can_be_matched() -> None:
    match = {
        "metadata": {"X-Channel": {"prefix": "beta-"}},
        "parameters": {"age": {"range": {"min": 18, "max": 64}}, "flag": {"exact": True}},
        "tenant": {"in": ["acme"]},
        "method": {"exact": "ModelStreamInfer"},
        "identity": {"suffix": "@acme.example"},
        "id": {"regex": "[0-9]+"},
    }
    routed = snapshot(strategy=PINNED, rules=[rule("all", "b", match)])
    fitting = {
        "headers": {"x-channel": "beta-1"},
        "parameters": {"age": 64, "flag": True},
        "tenant": "acme",
        "identity": "x@acme.example",
        "method": "ModelStreamInfer",
        "request_id": "55",
    }
    assert decided(routed, Request(**fitting)).reason == "RULE:all"  # type: ignore[arg-type]
    for name in fitting:
        without = {other: value for other, value in fitting.items() if other != name}
        assert decided(routed, Request(**without)).reason == "DEFAULT"  # type: ignore[arg-type]


def test_an_edge_that_knows_no_caller_matches_no_tenant() -> None:
    class Bare:
        request_id = ""
        requested_version = ""

        def metadata(self, name: str) -> str | None:
            return None

        def parameter(self, name: str) -> str | int | float | bool | None:
            return None

        def input_value(self, name: str) -> str | None:
            return None

    rules = [
        rule("t", "b", {"tenant": {"exact": "acme"}}),
        rule("i", "b", {"identity": {"present": True}}),
        rule("m", "b", {"method": {"exact": "ModelInfer"}}),
    ]
    assert decide(snapshot(strategy=PINNED, rules=rules), "m", Bare(), 0.5, 0.0).reason == "DEFAULT"


def test_a_rule_ends_at_its_date() -> None:
    rules = [rule("old", "b", {"id": {"exact": "x"}}, until="2026-01-01"), rule("new", "c", {"id": {"exact": "x"}})]
    routed, request = snapshot(strategy=PINNED, rules=rules), Request(request_id="x")
    assert decided(routed, request, now_s=1767225599.9).reason == "RULE:old"
    assert decided(routed, request, now_s=1767225600.0).reason == "RULE:new"


# By hand, so that an operator is tested against what it means and not against itself.
MEANING: list[tuple[dict[str, Any], list[str | None], list[str | None]]] = [
    ({"exact": "é"}, ["é"], ["e", "é ", None]),
    ({"exact": ""}, [""], [None, " "]),
    ({"exact": 5}, ["5"], ["5.0", "05"]),
    ({"prefix": "ab"}, ["ab", "abc"], ["a", "cab", None]),
    ({"suffix": "ab"}, ["ab", "cab"], ["b", "abc", None]),
    ({"in": ["a", 7, False]}, ["a", "7", "false"], ["b", "False", None]),
    ({"present": True}, ["", "x"], [None]),
    ({"present": False}, [None], ["", "x"]),
    ({"range": {"min": -1, "max": 2.5}}, ["-1", "2.5", "+2", "1e0", "0.0"], ["-1.01", "2.51", "nan", "inf", "1_0"]),
    ({"range": {"min": 0}}, ["0", "1e300", "1e9999"], ["-0.1", "", " 1", "1 ", "0x1", "１", None]),
    ({"regex": "a+"}, ["a", "aaa"], ["", "ab", "a\n", None]),
    ({"regex": "(?i)ab.*"}, ["AB", "abc"], ["xab"]),
    ({"regex": ".*"}, ["", "é"], ["\udc80", None]),
    ({"not": {"exact": "a"}}, ["b", None], ["a"]),
    ({"not": {"not": {"exact": "a"}}}, ["a"], ["b", None]),
]


def test_every_operator_has_texts_for_which_it_holds_and_fails() -> None:
    assert {name for test, _, _ in MEANING for name in test} == set(OPERATORS)


@pytest.mark.parametrize(("test", "holds", "fails"), MEANING)
def test_matchers(test: object, holds: list[str | None], fails: list[str | None]) -> None:
    matcher = parse_matcher(Field(test, "m"))
    compiled = matcher.compile()
    assert [value for value in holds if not compiled(value)] == []
    assert [value for value in fails if compiled(value)] == []
    assert parse_matcher(Field(matcher.to_value(), "m")) == matcher


def test_a_pattern_that_would_backtrack_is_matched_in_time() -> None:
    rules = [rule("r", "b", {"id": {"regex": "(a*)*b"}}), rule("s", "b", {"id": {"regex": "(a|aa)+$c"}})]
    assert decided(snapshot(strategy=PINNED, rules=rules), Request(request_id="a" * 20_000)).reason == "DEFAULT"


def test_many_values_of_one_header_are_told_apart_and_not_kept() -> None:
    """More values than a gate remembers, seen again: the answers stay the same."""
    rules = [rule(f"r{n}", "b", {"metadata": {"x-user": {"prefix": f"user-{n}"}}}) for n in (1, 2)]
    rules.append(rule("r3", "c", {"metadata": {"x-user": {"regex": "user-3\\d*"}}}))
    routed = snapshot(strategy=PINNED, rules=rules)
    for _ in range(2):
        for number in range(1000):
            first = str(number)[0]
            expected = f"RULE:r{first}" if first in "123" else "DEFAULT"
            assert decided(routed, user(number)).reason == expected


def test_patterns_that_quote_do_not_swallow_their_neighbours() -> None:
    patterns = ["\\Qa", "x\\E|b", "c", "(?i)D", "(?P<n>e)", "(?P<n>f)"]
    rules = [rule(f"r{n}", "b", {"id": {"regex": pattern}}) for n, pattern in enumerate(patterns) if n != 1]
    routed = snapshot(strategy=PINNED, rules=rules)
    reasons = [decided(routed, Request(request_id=text)).reason for text in "acDdef"]
    assert reasons == ["RULE:r0", "RULE:r2", "RULE:r3", "RULE:r3", "RULE:r4", "RULE:r5"]
    assert decided(routed, Request(request_id="C")).reason == "DEFAULT"


def test_pins_name_versions_and_labels_of_the_route() -> None:
    routed = snapshot(labels={"stable": "12", "next": "15"})
    assert decided(routed, Request(requested_version="12")) == Decision("a", "12", 0, "PIN")
    assert decided(routed, Request(requested_version="stable")) == Decision("a", "12", 0, "PIN")
    assert decided(routed, Request(requested_version="next")) == Decision("", "15", 0, "PIN")
    for unknown in ("11", "a", "../12", "x" * 10_000):
        with pytest.raises(UnknownVersion):
            decided(routed, Request(requested_version=unknown))


def test_who_may_pin_is_decided_before_what_exists() -> None:
    denied = snapshot(clientPin={"deny": True})
    tester = snapshot(clientPin={"metadata": "x-pin", "allow": {"metadata": {"x-role": {"exact": "tester"}}}})
    for version in ("12", "99"):
        with pytest.raises(PermissionDenied):
            decided(denied, Request(requested_version=version))
        with pytest.raises(PermissionDenied):
            decided(tester, Request(requested_version=version))
        with pytest.raises(PermissionDenied):
            decided(tester, Request({"x-pin": version}))
    assert decided(denied, Request()).reason == "SPLIT"
    role = {"x-role": "tester"}
    assert decided(tester, Request({**role, "x-pin": "13"})).version == "13"
    assert decided(tester, Request({**role, "x-pin": "13"}, requested_version="14")).version == "14"
    assert decided(tester, Request({**role, "x-pin": ""})).reason == "SPLIT"
    with pytest.raises(UnknownVersion):
        decided(tester, Request({**role, "x-pin": "99"}))
    assert decided(snapshot(), Request({"x-pin": "13"})).reason == "SPLIT"


def test_a_missing_key_goes_where_the_route_says() -> None:
    control = decided(snapshot(key=KEYED), Request())
    assert control == Decision("a", "12", 0, "DEFAULT")
    anyone = snapshot(key=KEYED | {"onMissing": "random"})
    low, high = decided(anyone, Request(), draw=0.1), decided(anyone, Request(), draw=0.9)
    assert low == Decision("a", "12", 0, "DEFAULT", 100_000)
    assert high == Decision("b", "13", 0, "DEFAULT", 900_000)
    with pytest.raises(InvalidArgument, match=r"no routing key \(looked in metadata:x-user\)"):
        decided(snapshot(key=KEYED | {"onMissing": "reject"}), Request({"x-user": ""}))
    assert decided(snapshot(), Request(), draw=0.9) == Decision("b", "13", 0, "SPLIT", 900_000)


def test_the_first_source_that_is_there_is_the_key() -> None:
    routed = snapshot(key={"from": ["metadata:x-user", "input:user_id", "parameter:user", "id"]})
    for request in (
        Request({"x-user": "u"}, request_id="i"),
        Request({"x-user": ""}, inputs={"user_id": "u"}),
        Request(parameters={"user": "u"}),
        Request(request_id="u"),
    ):
        assert decided(routed, request).bucket == decided(routed, Request(request_id="u")).bucket
    assert decided(routed, Request(parameters={"user": 7})).bucket == decided(routed, Request(request_id="7")).bucket
    assert (
        decided(routed, Request(parameters={"user": True})).bucket == decided(routed, Request(request_id="true")).bucket
    )


def test_shares_are_those_of_the_document_and_users_stay() -> None:
    weights = {"a": "70%", "b": "20%", "c": "10%"}
    routed = snapshot(key=KEYED, strategy={"ab": {"control": "a", "weights": weights, "holdout": "10%"}})
    count, draws = 40_000, random.Random(1)
    arms = [decided(routed, user(n), draw=draws.random()).arm for n in range(count)]
    for arm, share in {"a": 0.63, "b": 0.18, "c": 0.09, "holdout": 0.1}.items():
        assert abs(Counter(arms)[arm] - share * count) < 4 * math.sqrt(share * (1 - share) * count)
    assert arms[:500] == [decided(routed, user(n), draw=0.0).arm for n in range(500)]


def test_the_holdout_is_served_by_the_control_and_told_apart() -> None:
    routed = snapshot(key=KEYED, strategy={"ab": {"control": "b", "weights": {"a": 50, "b": 50}, "holdout": "99%"}})
    decision = next(d for n in range(100) if (d := decided(routed, user(n))).arm == "holdout")
    assert (decision.version, decision.reason) == ("13", "SPLIT")


def test_a_weight_change_moves_as_many_users_as_it_must() -> None:
    before = propose(document(key=KEYED, strategy=AB), None)
    grown = {"ab": {"control": "a", "weights": {"a": "40%", "b": "60%"}}}
    after = propose(document(key=KEYED, strategy=grown), before)
    old, new = EMPTY.with_route(before), EMPTY.with_route(after)
    changes = Counter((decided(old, user(n)).arm, decided(new, user(n)).arm) for n in range(20_000))
    assert changes["b", "a"] == 0
    assert abs(changes["a", "b"] - 2000) < 4 * math.sqrt(2000)


def test_blue_green_shows_the_preview_to_those_who_ask() -> None:
    preview = {"metadata": {"x-gateway-preview": {"exact": "1"}}}
    strategy = {"blueGreen": {"active": "a", "preview": "b", "previewMatch": preview}}
    routed = snapshot(strategy=strategy, rules=[rule("all", "c", {"metadata": {"x-t": {"exact": "x"}}})])
    assert decided(routed) == Decision("a", "12", 0, "DEFAULT")
    assert decided(routed, Request({"x-gateway-preview": "1", "x-t": "x"})) == Decision("b", "13", 0, "RULE:preview")
    assert decided(routed, Request({"x-gateway-preview": "0", "x-t": "x"})).reason == "RULE:all"


def test_fallbacks_are_the_other_arms_and_never_for_pins_or_a_kill() -> None:
    chain = {"order": ["b", "c"], "on": ["INTERNAL"], "breaker": {"consecutive": 3}}
    routed = snapshot(strategy=PINNED, fallback=chain, rules=[rule("r", "b", {"id": {"exact": "x"}})])
    default, ruled = decided(routed), decided(routed, Request(request_id="x"))
    assert default.fallbacks == (("b", "13"), ("c", "14"))
    assert default.fallback_on == {"INTERNAL", "BREAKER"}
    assert ruled.fallbacks == (("c", "14"),)
    assert decided(routed, Request(requested_version="12")).fallbacks == ()
    killed = snapshot(fallback=chain, killSwitch={"arm": "a", "reason": "x"})
    assert decided(killed) == Decision("a", "12", 0, "KILL")
    alone = decided(snapshot(strategy=PINNED, fallback={"order": ["a"]}))
    assert (alone.fallbacks, alone.fallback_on) == ((), frozenset())


def test_mirrors_take_their_share_of_every_arm_and_never_the_arm_that_serves() -> None:
    routed = snapshot(key=KEYED, mirrors=[{"arm": "c", "percent": 25}, {"arm": "b", "percent": 100}])
    decisions = [decided(routed, user(n)) for n in range(20_000)]
    for arm in ("a", "b"):
        served = [d for d in decisions if d.arm == arm]
        hit = sum(("c", "14") in d.mirrors for d in served)
        assert abs(hit - len(served) / 4) < 4 * math.sqrt(len(served) * 3 / 16)
    assert all((("b", "13") in d.mirrors) == (d.arm == "a") for d in decisions)
    killed = snapshot(mirrors=[{"arm": "b", "percent": 100}], killSwitch={"arm": "a", "reason": "x"})
    assert decided(killed).mirrors == ()
    assert decided(routed, Request(requested_version="12")).mirrors == ()


def test_mirrors_without_a_key_are_drawn_independently_of_the_split() -> None:
    routed = snapshot(mirrors=[{"arm": "c", "percent": 50}])
    draws = random.Random(4)
    counts = Counter((d.arm, bool(d.mirrors)) for d in (decided(routed, draw=draws.random()) for _ in range(20_000)))
    for count in counts.values():
        assert abs(count - 5000) < 4 * math.sqrt(20_000 * 3 / 16)


def test_mirrors_of_rules_and_of_the_default_too() -> None:
    mirrors = [{"arm": "c", "percent": 100}]
    routed = snapshot(strategy=PINNED, mirrors=mirrors, rules=[rule("r", "b", {"id": {"exact": "x"}})])
    assert decided(routed).mirrors == (("c", "14"),)
    assert decided(routed, Request(request_id="x")).mirrors == (("c", "14"),)
    keyed = snapshot(key=KEYED, mirrors=mirrors)
    assert decided(keyed) == Decision("a", "12", 0, "DEFAULT", mirrors=(("c", "14"),))


def test_another_process_decides_the_same() -> None:
    """With hash randomisation on: nothing of the decision may hang on the order of a set or a dictionary."""
    program = (
        "from tests.routing.test_decide import *\n"
        "routed = snapshot(key=KEYED, mirrors=[{'arm': 'c', 'percent': 25}])\n"
        "print([(d.arm, d.bucket, d.mirrors) for d in (decided(routed, user(n)) for n in range(50))])\n"
        "print(routed.digest)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    routed = snapshot(key=KEYED, mirrors=[{"arm": "c", "percent": 25}])
    here = [(d.arm, d.bucket, d.mirrors) for d in (decided(routed, user(n)) for n in range(50))]
    assert outputs == {f"{here}\n{routed.digest}\n"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_eight_processes_give_a_million_keys_the_arms_that_one_gives_them() -> None:
    """And a change of the weights moves the share of the keys that it needs, and no key the other way."""
    keys = 1_000_000
    one, eight, after = arms_by(1, keys, 50), arms_by(8, keys, 50), arms_by(8, keys, 60)
    assert eight == one
    assert set(one) == set(b"ab")
    sigma = math.sqrt(keys * 0.25)
    assert abs(one.count(b"b") - keys * 0.5) <= 4 * sigma
    moves = Counter(zip(one, after, strict=True))
    assert (moves[ord("b"), ord("a")], moves[ord("a"), ord("b")]) == (0, after.count(b"b") - one.count(b"b"))
    assert abs(moves[ord("a"), ord("b")] - keys * 0.1) <= 4 * math.sqrt(keys * 0.09)


def arms_by(processes: int, keys: int, share_of_b: int) -> bytes:
    """The arm of each key, a byte each, as so many processes decide that share the keys out among them."""
    program = (
        "import sys\n"
        "from tests.routing.test_decide import *\n"
        "weights = {'a': f'{100 - int(sys.argv[1])}%', 'b': f'{sys.argv[1]}%'}\n"
        "routed = snapshot(key=KEYED, strategy={'ab': {'control': 'a', 'weights': weights}})\n"
        "numbers = range(*map(int, sys.argv[2:]))\n"
        "sys.stdout.write(''.join(decided(routed, user(number)).arm for number in numbers))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(share_of_b), str(first), str(keys), str(processes)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for first in range(processes)
    ]
    arms = bytearray(keys)
    for first, process in enumerate(started):
        said, _ = process.communicate()
        assert process.returncode == 0
        arms[first::processes] = said
    return bytes(arms)


def test_routes_do_not_see_each_other() -> None:
    many = Snapshot.of("e", 1, [propose(document(f"m{n}", strategy=PINNED), None) for n in range(50)])
    one = propose(document("m", key=KEYED), None)
    assert decided(many.with_route(one), user(3)) == decided(EMPTY.with_route(one), user(3))
