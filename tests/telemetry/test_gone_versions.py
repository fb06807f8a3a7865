"""Series of versions that are gone: they end, their number is bounded, and a version that comes back has its own."""

from collections.abc import Iterable

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.telemetry.counters import OTHER_ARMS, Counters
from gateway.telemetry.gone_versions import GoneVersions, Key, is_over
from gateway.telemetry.sums import branch
from gateway.telemetry.totals import Totals


def gone(keys: Iterable[Key], *, most: int = 200, now: float = 0.0) -> GoneVersions:
    versions = GoneVersions(keep_s=1800, most=most)
    versions.look((), keys, now)
    return versions


def test_a_version_is_over_half_an_hour_after_it_went() -> None:
    versions = gone([("m", "1")], now=100.0)
    versions.look((), [("m", "1")], 1899.0)
    assert not versions.over
    versions.look((), [("m", "1")], 1900.0)
    assert versions.over == {("m", "1")}
    versions.look((), [("m", "1")], 100_000.0)
    assert versions.over == {("m", "1")}  # as long as anybody tells of it
    versions.look([("m", "1")], [("m", "1")], 100_001.0)
    assert not versions.over
    versions.look((), [("m", "1")], 100_002.0)
    assert not versions.over  # it went anew


def test_a_model_that_is_over_takes_its_versions_along() -> None:
    over = frozenset({("m", "")})
    assert [is_over(over, *labels) for labels in (("m", "1"), ("m", None), ("n", "1"), ("n", None))] == [
        *(True, True, False, False)
    ]
    assert not is_over(frozenset({("m", "1")}), "m", None)


_keys = st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "2", "3", "4"]))


@given(st.lists(st.tuples(st.sets(_keys), st.sets(_keys), st.floats(0, 4000)), max_size=20), st.integers(1, 5))
@example([], 1)
@example([(set(), {("a", "1")}, 0.0), ({("a", "1")}, {("a", "1")}, 4000.0)], 1)
def test_what_is_there_is_never_over_and_few_others_are_shown(
    looks: list[tuple[set[Key], set[Key], float]], most: int
) -> None:
    versions, now = GoneVersions(keep_s=1800, most=most), 0.0
    for present, told, passed_s in looks:
        now += passed_s
        versions.look(present, told, now)
        assert not versions.over & present
        assert versions.over <= told
        assert len(told - present - versions.over) <= most


def snapshot(*versions: str) -> dict[str, object]:
    counters = Counters()
    for version in versions:
        counters.series("m", version, "a").observe(Code.OK, 1, 2, 3)
    return counters.snapshot()


def test_totals_leave_out_what_is_over_and_keep_the_rest() -> None:
    totals = Totals(forget_after_s=10)
    totals.heard(0, "ended", snapshot("1", "2"), 0.0)
    totals.fold(100.0)
    totals.heard(0, "lives", snapshot("1", "2"), 100.0)
    assert totals.versions() == {("m", ""), ("m", "1"), ("m", "2")}
    totals.forget({("m", "1")})
    assert set(branch(totals.sums(), "series", "m")) == {"2"}
    assert set(branch(totals.kept().ended, "series", "m")) == {"2"}
    totals.forget(())  # it is back, with what the living worker counted
    assert sorted(branch(totals.sums(), "series", "m")) == ["1", "2"]
    totals.forget({("m", "")})
    assert branch(totals.sums(), "series") == {}


def test_a_worker_forgets_a_version_and_bounds_the_arms_of_one() -> None:
    counters = Counters()
    for number in range(600):
        counters.series("m", "1", f"a{number}").observe(Code.OK, 1, 2, 3)
    arms = branch(counters.snapshot(), "sums", "series", "m", "1")
    assert len(arms) == 501
    assert branch(arms, OTHER_ARMS, "codes") == {"0": 100}
    counters.forget("m", "1")
    counters.forget("m", "7")
    assert branch(counters.snapshot(), "sums", "series") == {}
