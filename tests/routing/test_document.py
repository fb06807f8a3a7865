"""Documents: what is taken, its one canonical form, and refusals that name path, value and what is allowed."""

import copy
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.field import Field
from gateway.routing.document.quantity import duration_ms, duration_text, instant_s, instant_text, percent, percent_text
from gateway.routing.document.strategy import Ab, Canary
from tests.routing.documents import Plain, ab, changed, document, documents, plain, refused, weights


@settings(max_examples=80, deadline=None)
@given(documents)
def test_the_canonical_text_is_the_document_again(value: Plain) -> None:
    parsed = parse(value)
    text = parsed.to_json()
    again = parse(json.loads(text))
    assert again == parsed
    assert hash(again) == hash(parsed)
    assert again.to_json() == text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sum(parsed.weights().values()) == BUCKETS


def test_documents_that_mean_the_same_are_equal() -> None:
    left = plain(
        arms={"b": {"version": 13}, "a": {"version": "12"}},
        strategy=ab(b=50.0, a="50.0000%", holdout=0),
        key={"from": ["metadata:X-User"], "onMissing": "control"},
        rules=[{"name": "r", "match": {"id": {"in": ["y", "x", "y"]}}, "arm": "b", "until": "2027-01-01"}],
    )
    right = plain(
        arms={"a": {"version": "12"}, "b": {"version": "13"}},
        strategy=ab(a="50%", b=50),
        key={"from": ["metadata:x-user"]},
        rules=[{"name": "r", "match": {"id": {"in": ["x", "y"]}}, "arm": "b", "until": "2027-01-01T01:00:00+01:00"}],
    )
    assert parse(left) == parse(right)
    assert parse(left).to_json() == parse(right).to_json()


def test_a_document_names_its_versions() -> None:
    route = document(
        arms={"a": {"label": "stable"}, "b": {"version": "13"}},
        labels={"stable": "12", "next": "14"},
        strategy=ab(a="100%"),
    )
    assert route.versions() == {"12", "13", "14"}
    assert route.version_of("a") == "12"
    assert route.version_of("holdout") == "12"
    with pytest.raises(InvalidArgument, match="no arm 'z'"):
        route.version_of("z")


@settings(max_examples=60, deadline=None)
@given(weights(["a", "b", "c"]), st.integers(0, BUCKETS - 1))
@example({"a": BUCKETS, "b": 0, "c": 0}, 0)
@example({"a": 0, "b": 0, "c": BUCKETS}, BUCKETS - 1)
def test_a_holdout_scales_the_arms_by_less_than_a_bucket(shares: dict[str, int], holdout: int) -> None:
    strategy = Ab("a", tuple(sorted(shares.items())), holdout)
    scaled = strategy.table_weights()
    assert sum(scaled.values()) == BUCKETS
    assert scaled.get("holdout", 0) == holdout
    for arm, share in shares.items():
        assert abs(scaled[arm] - share * (BUCKETS - holdout) / BUCKETS) < 1
        assert share or not scaled[arm]


def test_the_canary_share_is_the_weight_else_the_step() -> None:
    steps = [{"weight": "1%"}, {"weight": 5, "hold": "10m"}]

    def share(**more: object) -> int:
        strategy = document(arms=_PAIR, strategy={"canary": more}).strategy
        assert isinstance(strategy, Canary)
        return strategy.active_weight

    assert share(steps=steps) == 10_000
    assert share(steps=steps, step=1) == 50_000
    assert share(steps=steps, step=1, weight="2.5%") == 25_000
    assert share(weight=0) == 0


_PAIR = {"stable": {"version": "1"}, "canary": {"version": "2"}}


def test_fields_for_the_rollout_are_kept_and_named() -> None:
    canary = {
        "stable": "stable",
        "canary": "canary",
        "steps": [{"weight": "1%", "hold": "2m", "minEvents": 500}, {"weight": "5%", "approval": ["ml-oncall"]}],
        "analysis": {"onFail": "hold", "guardrails": [{"kind": "errors", "tolerance": 1.3}]},
    }
    route = document(arms=_PAIR, strategy={"canary": canary})
    assert json.loads(route.to_json())["spec"]["strategy"]["canary"] == canary
    green = {"active": "stable", "preview": "canary", "keepWarm": "30m", "promote": "manual"}
    kept = document(arms=_PAIR, strategy={"blueGreen": green})
    assert json.loads(kept.to_json())["spec"]["strategy"]["blueGreen"] == green


@pytest.mark.parametrize(
    "weight",
    [float("nan"), -0.1, 100.0001, 0.00001, "50 apples", "", "%", "50", "1e2%", "-1%", "101%", "٥%", "50%%", " 50%",
     "50.00001%", True, None, [], {}, 10**400, "0." + "0" * 17 + "%"],
)  # fmt: skip
def test_weights_that_are_no_percentage_are_refused(weight: object) -> None:
    text = refused(plain(strategy=ab(a=weight, b="50%")))
    assert "finite number" in text or (
        text.startswith("spec.strategy.ab.weights.a: ")
        and text.endswith(" is not a percentage from 0 to 100 with at most four decimals")
    )
    assert len(text) < 300


@pytest.mark.parametrize(
    ("shares", "total"),
    [({"a": "50%", "b": "49.5%"}, "99.5"), ({"a": 0, "b": 0}, "0"), ({}, "0"), ({"a": 100, "b": 0.0001}, "100.0001")],
)
def test_weights_that_do_not_sum_are_refused_naming_the_sum(shares: Plain, total: str) -> None:
    assert refused(plain(strategy=ab(**shares))) == (
        f"spec.strategy.ab.weights: weights sum to {total} %, they must sum to exactly 100 %"
    )


def test_sums_are_exact_where_binary_fractions_are_not() -> None:
    assert 33.3 + 33.3 + 33.4 != 33.4 + 33.3 + 33.3 or 0.1 + 0.2 != 0.3
    shares = {"a": 0.1, "b": 0.2, "c": 99.7}
    assert document(strategy=ab(**shares)).weights() == {"a": 1000, "b": 2000, "c": 997_000}


def test_more_than_32_arms_are_refused() -> None:
    arms = {f"a{n}": {"version": str(n)} for n in range(33)}
    assert refused(plain(arms=arms)) == "spec.arms: 33 arms, at most 32 are allowed"


@pytest.mark.parametrize("value", [None, 5, "text", [], b"bytes", {"spec": {}}, {5: 6}, {"apiVersion": "gateway/v1"}])
def test_what_is_no_document_is_refused(value: object) -> None:
    assert refused(value)


def test_depth_size_and_cycles_are_bounded() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = {"not": deep}
    rule = {"name": "r", "match": {"id": deep}, "arm": "a"}
    assert refused(plain(rules=[rule])) == "document: nested deeper than 32 levels"
    loop: dict[str, Any] = {}
    loop["spec"] = loop
    assert refused(loop) == "document: nested deeper than 32 levels"
    shared: Any = "x"
    for _ in range(20):
        shared = [shared] * 20
    assert "more than 100000 values" in refused({"spec": shared})
    texts = [f"{n:04d}" + "x" * 1000 for n in range(1000)]
    rules = [{"name": f"r{n}", "match": {"id": {"in": texts[:600]}}, "arm": "a"} for n in range(2)]
    assert "bytes, at most 1048576 are allowed" in refused(plain(rules=rules))


def test_half_a_surrogate_pair_is_refused_everywhere() -> None:
    assert "not Unicode text" in refused(changed("metadata.description", "\ud800"))
    assert "not Unicode text" in refused(changed("spec.strategy.ab.metrics", [{"\ud800": 1}]))


def test_nothing_but_plain_data_is_carried() -> None:
    assert "not plain data" in refused(changed("spec.strategy.ab.metrics", [object()]))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(documents, st.data())
def test_a_wrong_value_anywhere_is_refused_or_taken_and_nothing_else(value: Plain, data: st.DataObject) -> None:
    whole = copy.deepcopy(value)
    at: Any = whole
    while True:
        names = list(at) if isinstance(at, dict) else list(range(len(at)))
        name = data.draw(st.sampled_from(names))
        if isinstance(at[name], dict | list) and at[name] and data.draw(st.booleans()):
            at = at[name]
            continue
        at[name] = data.draw(_JSON)
        break
    try:
        parsed = parse(whole)
    except InvalidArgument as error:
        text = str(error)
    else:
        text = ""
        assert parse(json.loads(parsed.to_json())) == parsed
    assert "\n" not in text
    assert len(text) < 600


def test_documents_cannot_be_changed() -> None:
    route = document()
    with pytest.raises(AttributeError):
        route.model = "other"  # type: ignore[misc]
    assert isinstance(route, RouteDocument)


@given(st.integers(0, BUCKETS))
@example(0)
@example(1)
@example(BUCKETS)
def test_percentages_survive_their_text(buckets: int) -> None:
    assert percent(Field(percent_text(buckets), "p")) == buckets
    assert percent(Field(buckets / 10_000, "p")) == buckets


@given(st.integers(0, 10 * 365 * 86_400_000))
@example(0)
@example(1)
def test_durations_survive_their_text(length_ms: int) -> None:
    text = duration_text(length_ms)
    if len(text) <= 11:
        assert duration_ms(Field(text, "d")) == length_ms


@given(st.integers(0, 4_000_000_000))
@example(0)
def test_dates_survive_their_text(second: int) -> None:
    assert instant_s(Field(instant_text(second), "t")) == second
