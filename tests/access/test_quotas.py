"""Quotas as values: buckets, shares, rules, and what a refused caller is told."""

from collections.abc import Mapping
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.priority import LADDER, Priority, requested
from gateway.access.quota_pass import QuotaPass
from gateway.access.quota_rules import QuotaRules, parse_rules
from gateway.access.quotas import OTHER, Quotas
from gateway.access.token_bucket import cost_ns, taken, wait_ns
from gateway.api.quota_states import summed
from gateway.errors import Code, InvalidArgument, ResourceExhausted
from gateway.telemetry.sums import branch

SECOND = 1_000_000_000


class Clock:
    """The monotonic clock of a test."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND

    def __call__(self) -> int:
        return self.now_ns


class Stage:
    """Quotas by rules, with a clock that stands still and a list of what was refused."""

    def __init__(self, document: object, *, workers: int = 1) -> None:
        self.clock = Clock()
        self.codes: list[Code] = []
        self.quotas = Quotas(
            parse_rules(document), workers=workers, refused=self.codes.append, clock=self.clock, draw=lambda: 0.0
        )

    def call(self, identity: str = "", tenant: str = "", model: str = "m", size: int = 1) -> QuotaPass:
        entered = self.quotas.enter(identity, tenant)
        entered.enter_model(model, size)
        return entered

    def refusal(self, identity: str = "", tenant: str = "", model: str = "m", size: int = 1) -> ResourceExhausted:
        with pytest.raises(ResourceExhausted) as caught:
            self.call(identity, tenant, model, size)
        return caught.value


def one_quota(**fields: object) -> Mapping[str, object]:
    return {"quotas": [{"name": "q", **fields}]}


# ---- the bucket ----


@given(
    rate=st.floats(0.01, 1e6),
    burst=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.integers(0, 10 * SECOND), st.integers(1, 2000)), max_size=60),
)
@example(rate=1.0, burst=1, steps=[])
@example(rate=1.0, burst=1, steps=[(0, 1)] * 60)
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(
    rate: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    now = full_at = SECOND
    start, given_out, largest = now, 0, 0
    room = cost_ns(burst, rate)
    for pause, amount in steps:
        now += pause
        cost = cost_ns(amount, rate)
        wait = wait_ns(full_at, now, cost, room)
        if wait:
            assert wait_ns(full_at, now + wait, cost, room) == 0  # what is told is enough,
            assert wait_ns(full_at, now + wait - 1, cost, room) == 1  # and not more than that
            continue
        full_at = taken(full_at, now, cost)
        given_out += amount
        largest = max(largest, amount)
    # A cost that is larger than the bucket leaves it in debt, at most once at a time.
    assert given_out <= burst + largest + rate * (now - start) / SECOND + 1


def test_what_never_fits_the_bucket_is_taken_from_a_full_one() -> None:
    stage = Stage(one_quota(**{"bytes-per-second": 1000}))
    stage.call(size=3000)
    assert stage.refusal(size=1).retry_after_ms == 2001  # two seconds of debt, and the byte itself
    stage.clock.now_ns += 3 * SECOND
    stage.call(size=3000)


# ---- limits ----


def test_requests_are_let_in_by_burst_and_rate() -> None:
    stage = Stage(one_quota(**{"requests-per-second": 10, "burst": 3}))
    for _ in range(3):
        stage.call()
    refused = stage.refusal()
    assert refused.retry_after_ms == 100
    assert str(refused) == (
        "quota 'q' is used up: 10 requests per second in this worker, its share of 10 over 1 worker; retry in 100 ms"
    )
    stage.clock.now_ns += SECOND // 10
    stage.call()
    stage.refusal()
    assert stage.codes == [Code.RESOURCE_EXHAUSTED] * 2


def test_concurrency_ends_with_the_call_however_often_it_is_released() -> None:
    stage = Stage(one_quota(concurrency=2))
    first, _ = stage.call(), stage.call()
    assert "2 requests at a time" in str(stage.refusal())
    first.release()
    first.release()
    stage.call()
    stage.refusal()


@pytest.mark.parametrize(("concurrency", "workers", "share"), [(1, 4, 1), (8, 4, 2), (7, 4, 1)])
def test_each_worker_has_its_share_and_at_least_one(concurrency: int, workers: int, share: int) -> None:
    stage = Stage(one_quota(concurrency=concurrency, **{"requests-per-second": 0.5}), workers=workers)
    passes = [stage.quotas.use(stage.quotas.rules.quotas[0], "", "")]
    assert passes[0].max_in_flight == share
    stage.call()  # an eighth of a request each second, and still the first one is let in
    assert f"over {workers} workers" in str(stage.refusal())


def test_a_call_that_one_quota_refuses_takes_nothing_from_the_others() -> None:
    stage = Stage(
        {
            "quotas": [
                {"name": "all", "requests-per-second": 1, "burst": 2, "concurrency": 9},
                {"name": "fraud", "models": ["fraud*"], "concurrency": 1},
            ]
        }
    )
    stage.call(model="fraud-1")
    stage.refusal(model="fraud-2")
    assert stage.quotas.in_use() == {"all": {"": 1}, "fraud": {"": 1}}
    stage.call(model="other")  # the second request of `all`, which the refused call gave back
    assert "'all'" in str(stage.refusal(model="other"))


def test_callers_share_a_bucket_or_have_one_each() -> None:
    shared = Stage(one_quota(concurrency=1, tenants=["a", "b"]))
    shared.call(tenant="a")
    shared.refusal(tenant="b")
    shared.call(tenant="c")
    each = Stage(one_quota(concurrency=1, tenants=["*"], per="tenant"))
    each.call(tenant="a")
    each.call(tenant="b")
    assert "of tenant 'a'" in str(each.refusal(tenant="a"))


def test_the_caller_is_refused_before_anything_of_the_message_is_known() -> None:
    stage = Stage(one_quota(**{"bytes-per-second": 100, "requests-per-second": 5}))
    stage.call(size=200)
    with pytest.raises(ResourceExhausted, match="bytes per second"):
        stage.quotas.enter("", "")


# ---- rules that change, and many callers ----


def test_what_is_in_flight_stays_counted_when_the_limit_changes() -> None:
    stage = Stage(one_quota(concurrency=1))
    running = stage.call()
    stage.quotas.follow(parse_rules(one_quota(concurrency=2)))
    stage.call()
    stage.refusal()
    running.release()
    stage.call()
    stage.quotas.follow(QuotaRules())
    stage.call()
    assert stage.quotas.present() == []


def test_callers_without_end_leave_no_buckets_and_no_labels() -> None:
    stage = Stage(one_quota(per="identity", identities=["known", "user-*"], **{"requests-per-second": 1}))
    for number in range(10_000):
        stage.call(identity=f"user-{number}").release()
        stage.clock.now_ns += SECOND // 1000
    stage.call(identity="known")
    assert len(stage.quotas.present(most=100_000)[0]["users"]) <= 4097  # type: ignore[arg-type]
    counts = stage.quotas.sums()["q"]
    assert isinstance(counts, dict)
    assert set(counts) == {OTHER, "known"}


@pytest.mark.parametrize("models", [{}, {"models": ["m"]}])
def test_who_shared_a_bucket_for_want_of_room_has_its_own_once_others_are_idle(models: Mapping[str, object]) -> None:
    stage = Stage(one_quota(per="identity", **{"requests-per-second": 0.01, "burst": 2}, **models))
    for number in range(4096):
        stage.call(identity=f"user-{number}").release()
    for late in ("first", "second"):
        stage.call(identity=late).release()
    assert "quota 'q' is used up" in str(stage.refusal(identity="first"))
    stage.clock.now_ns += 1000 * SECOND
    for late in ("first", "second"):
        for _ in range(2):
            stage.call(identity=late).release()
        stage.refusal(identity=late)


def test_one_tenant_with_ever_new_identities_uses_up_no_quota_of_another() -> None:
    stage = Stage(one_quota(per="identity", **{"requests-per-second": 0.01, "burst": 2}))
    for number in range(4200):
        with suppress(ResourceExhausted):
            stage.call(identity=f"user-{number}", tenant="hasty").release()
    stage.refusal(identity="new", tenant="hasty")
    for identity in ("one", "two"):
        stage.call(identity=identity, tenant="calm").release()
    stage.refusal(identity="three", tenant="calm")
    for number in range(10_000):
        with suppress(ResourceExhausted):
            stage.call(identity="one", tenant=f"tenant-{number}").release()
    assert len(stage.quotas.present(most=100_000)[0]["users"]) <= 8193  # type: ignore[arg-type]


def test_more_callers_than_there_are_buckets_cost_a_call_little() -> None:
    """In CPU time, beside callers who all have a bucket."""

    def cost_s(first: int) -> float:
        stage = Stage(one_quota(per="identity", **{"requests-per-second": 0.01, "burst": 2}))
        for number in range(4096):
            stage.call(identity=f"user-{number}").release()
        begun_s = process_time()
        for number in range(2000):
            with suppress(ResourceExhausted):
                stage.call(identity=f"user-{first + number}").release()
        return process_time() - begun_s

    assert cost_s(4096) < 20 * cost_s(0)


def test_use_is_shown_as_it_is_now() -> None:
    stage = Stage(one_quota(**{"requests-per-second": 10, "concurrency": 4}))
    for _ in range(5):
        stage.call().release()
    stage.call()
    stage.clock.now_ns += SECOND
    (shown,) = stage.quotas.present()
    assert shown["users"] == [{"who": "", "in_flight": 1, "rate": 6, "requests_left": 1.0, "bytes_left": 1.0}]
    assert (shown["concurrency"], shown["refused"]) == (4, 0)


# ---- priorities ----


def test_the_first_rule_that_fits_says_the_class() -> None:
    stage = Stage(
        {
            "priorities": [
                {"class": "critical", "tenants": ["pay*"]},
                {"class": "sheddable", "models": ["*-batch"], "request-priority": True},
            ]
        }
    )
    assert stage.call(tenant="payments", model="x-batch").priority == Priority.CRITICAL
    assert stage.call(tenant="else", model="x-batch").priority == Priority.SHEDDABLE
    plain = stage.call(tenant="else")
    assert plain.priority == Priority.DEFAULT
    assert plain.priority_of("m", 1) == Priority.DEFAULT  # a request may not raise itself
    assert plain.priority_of("x-batch", 1) == Priority.CRITICAL  # but where the file lets it
    assert plain.priority_of("x-batch", 0) == Priority.SHEDDABLE


def test_the_levels_of_requests_are_tritons() -> None:
    levels = [requested(level, Priority.DEFAULT) for level in (0, 1, 2, 3, 4, 1 << 40)]
    assert levels == [Priority.DEFAULT, *Priority, Priority.SHEDDABLE, Priority.SHEDDABLE]
    assert list(LADDER) == list(Priority)
    assert sorted(LADDER.values(), reverse=True) == list(LADDER.values())


# ---- the file's form ----


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "a mapping with quotas, priorities"),
        ({"limits": []}, "there is no 'limits'"),
        ({"quotas": {}}, "a list of at most 256 rules"),
        (one_quota(), "no limit, at least one of"),
        (one_quota(burst=3), "without requests-per-second"),
        (one_quota(concurrency=0), "concurrency is 0, allowed: a number from 1e-06"),
        (one_quota(concurrency=1.5), "concurrency is 1.5, allowed: a whole number"),
        (one_quota(concurrency=True), "concurrency is True"),
        (one_quota(concurrency=float("nan")), "concurrency is nan"),
        (one_quota(**{"requests-per-second": "5"}), "requests-per-second is '5'"),
        (one_quota(concurrency=1, per="model"), "per is 'model', allowed: identity, tenant"),
        (one_quota(concurrency=1, models=[]), "models is [], allowed: a list of 1 to 1024"),
        (one_quota(concurrency=1, tenants="a"), "tenants is 'a'"),
        (one_quota(concurrency=1, identities=["a\n"]), "identities is"),
        ({"quotas": [{"name": "a b", "concurrency": 1}]}, "quotas[0].name is 'a b'"),
        ({"quotas": [{"name": "a", "concurrency": 1}] * 2}, "quotas[1].name is 'a', which another quota has too"),
        ({"priorities": [{"class": "best"}]}, "class is 'best', allowed: critical, default, sheddable"),
        ({"priorities": [{"class": "default", "request-priority": "yes"}]}, "request-priority is 'yes'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(document: object, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_rules(document)
    assert text in str(caught.value)


def test_an_empty_file_limits_nobody() -> None:
    assert parse_rules(None) == QuotaRules()


def test_uses_of_workers_add_up_and_their_buckets_are_a_mean() -> None:
    def said(*users: tuple[str, int, float], refused: int = 0) -> Mapping[str, object]:
        shown = [
            {"who": who, "in_flight": count, "rate": count, "requests_left": left, "bytes_left": 1.0}
            for who, count, left in users
        ]
        return {"quotas": [{"name": "q", "concurrency": 4, "refused": refused, "users": shown}], "trouble": ""}

    answer = summed([said(("a", 1, 0.5), refused=2), said(("a", 2, 0.0), ("b", 1, 0.5), refused=1)])
    assert answer.workers == 2
    (quota,) = answer.quotas
    assert quota.refused == 3
    assert [(user.who, user.in_flight, user.requests_left) for user in quota.users] == [("a", 3, 0.25), ("b", 1, 0.75)]
    assert not summed([]).quotas


def test_a_request_that_names_another_model_in_the_end_is_let_in_by_the_quotas_of_both() -> None:
    """Protobuf takes the last name of a message; a long one is let in by its first."""
    stage = Stage({"quotas": [{"name": "q", "models": ["dear"], "concurrency": 1}, {"name": "all", "concurrency": 9}]})
    entered = stage.call(model="cheap")
    entered.enter_model("dear", 1)
    entered.enter_model("dear", 1)
    assert stage.quotas.in_use() == {"q": {"": 1}, "all": {"": 1}}
    refused = stage.quotas.enter("", "")
    refused.enter_model("cheap", 1)
    with pytest.raises(ResourceExhausted):
        refused.enter_model("dear", 1)
    assert stage.quotas.in_use() == {"q": {"": 1}, "all": {"": 1}}
    entered.release()
    assert stage.quotas.in_use() == {"q": {"": 0}, "all": {"": 0}}


def test_bytes_that_are_known_later_are_owed() -> None:
    stage = Stage(one_quota(**{"bytes-per-second": 100}))
    entered = stage.call(size=10)
    entered.enter_model("m", 150)  # what it was filled up to
    entered.enter_model("m", 10)
    assert branch(stage.quotas.sums(), "q", "")["bytes"] == 150
    stage.refusal(size=60)
