"""The rule on real data whose answer is known. Its parameters are those that every model gets."""

import numpy as np
import numpy.typing as npt
import pytest

from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.column import Column, as_column
from gateway.drift.statistics.reference_profile import Profile
from gateway.drift.statistics.verdict import DriftRule, DriftState, Verdict, confirm, judge
from tests.drift.reference_data import FLIGHT_FEATURES, Table, census, days, flights, rows

RULE = DriftRule()


def profile_of(table: Table, names: tuple[str, ...]) -> Profile:
    return build_profile("m", "1", {name: table[name] for name in names}, {}, created_at=0.0, source="test")


def verdicts_of(profile: Profile, table: "Table | dict[str, Column]") -> tuple[Verdict, ...]:
    return judge(profile.features, {one.name: one.bins.count(table[one.name]) for one in profile.features}, RULE)


def flight_states() -> dict[str, dict[str, Verdict]]:
    """Each feature's verdict of each day from February on, against January."""
    dates = flights()["DATE"]
    profile = profile_of(rows(flights(), dates < "2015-02-01"), FLIGHT_FEATURES)
    seen: dict[str, list[Verdict]] = {name: [] for name in FLIGHT_FEATURES}
    states: dict[str, dict[str, Verdict]] = {name: {} for name in FLIGHT_FEATURES}
    for day, table in days(flights(), "2015-02-01", "2016-01-01"):
        for verdict in verdicts_of(profile, table):
            seen[verdict.feature].append(verdict)
            states[verdict.feature][day] = confirm(seen[verdict.feature], RULE)
    return states


def test_the_airline_that_vanished_is_found_in_three_days_and_nothing_else_is() -> None:
    """US Airways flew last on 2015-06-30. Storms, holidays and the summer are in the other features, and no alarm."""
    states = flight_states()
    alarms = {day: verdict for day, verdict in states["AIRLINE"].items() if verdict.state >= DriftState.WARN}
    assert min(alarms) == "2015-07-03"
    assert alarms["2015-07-03"].state is DriftState.CRIT
    gone = next(one for one in alarms["2015-07-03"].evidence if one.statistic == "vanished")
    assert gone.direction == "US"
    assert gone.value == pytest.approx(0.07, abs=0.01)
    assert set(alarms) == {day for day in states["AIRLINE"] if day >= "2015-07-03"}
    for name in set(FLIGHT_FEATURES) - {"AIRLINE"}:
        assert not [day for day, verdict in states[name].items() if verdict.state >= DriftState.WARN], name


def test_months_of_flights_have_the_same_answer() -> None:
    dates = flights()["DATE"]
    profile = profile_of(rows(flights(), dates < "2015-02-01"), FLIGHT_FEATURES)
    for month in range(2, 13):
        table = rows(flights(), np.char.startswith(dates, f"2015-{month:02}"))
        alarms = {one.feature for one in verdicts_of(profile, table) if one.state >= DriftState.WARN}
        assert alarms == ({"AIRLINE"} if month >= 7 else set())


def census_features() -> tuple[str, ...]:
    return tuple(name for name in census("reference") if name not in ("id", "year", "employed"))


@pytest.fixture(scope="module")
def census_profile() -> Profile:
    """Of 2015, shuffled: within a year the rows are in an order that means nothing."""
    order = np.random.default_rng(0).permutation(len(census("reference")["AGEP"]))
    return profile_of(rows(census("reference"), order), census_features())


@pytest.mark.parametrize("year", [2016, 2017, 2018])
def test_no_year_of_the_census_is_an_alarm_though_chance_alone_explains_none(
    year: int, census_profile: Profile
) -> None:
    table = rows(census("analysis"), census("analysis")["year"] == year)
    verdicts = verdicts_of(census_profile, table)
    assert [verdict.feature for verdict in verdicts if verdict.state is not DriftState.OK] == []
    assert max(one.value for verdict in verdicts for one in verdict.evidence if one.statistic == "psi") < 0.02
    if year == 2018:
        assert sum(one.p < 0.01 for verdict in verdicts for one in verdict.evidence) >= 5


@pytest.mark.parametrize("size", [100, 200, 500, 1000, 5000])
def test_resampled_windows_without_change_give_at_most_one_alarm_in_a_hundred(
    size: int, census_profile: Profile
) -> None:
    """Any of 18 features in any window, before confirmation by other windows."""
    coded = {name: as_column(name, census("reference")[name]) for name in census_features()}
    rng = np.random.default_rng(size)
    alarms = 0
    for _ in range(200):
        chosen: npt.NDArray[np.int64] = rng.integers(0, len(coded["AGEP"]), size)
        verdicts = verdicts_of(census_profile, {name: column.rows(chosen) for name, column in coded.items()})
        alarms += any(verdict.state >= DriftState.WARN for verdict in verdicts)
    assert alarms <= 2


def test_ages_above_those_of_the_reference_are_a_real_change_and_a_small_one(census_profile: Profile) -> None:
    """The census gives the oldest one age for all: 94 in 2015 and 2016, 95 in 2017 and 2018. So 0.75 % of the rows are
    out of the reference's range, certainly and by less than the percentage point that warns."""
    ages, years = census("analysis")["AGEP"], census("analysis")["year"]
    assert census("reference")["AGEP"].max() == 94
    for year, share in ((2016, 0.0), (2017, 0.0076), (2018, 0.0075)):
        own = ages[years == year]
        assert (own > 94).mean() == pytest.approx(share, abs=5e-5)
        assert set(own[own > 94].tolist()) <= {95}
        verdicts = verdicts_of(census_profile, rows(census("analysis"), years == year))
        age = next(verdict for verdict in verdicts if verdict.feature == "AGEP")
        outside = next(one for one in age.evidence if one.statistic == "out_of_range")
        assert outside.state is DriftState.OK
        assert (outside.p < 1e-6) == (share > 0)


@pytest.mark.parametrize("size", [200, 1000, 5000])
def test_windows_of_a_year_with_small_real_changes_are_quiet(size: int, census_profile: Profile) -> None:
    """Any of 18 features in any window of 2018, before confirmation; after it there is none."""
    table = rows(census("analysis"), census("analysis")["year"] == 2018)
    coded = {name: as_column(name, table[name]) for name in census_features()}
    rng = np.random.default_rng(size)
    judged: list[tuple[Verdict, ...]] = []
    for _ in range(200):
        chosen = rng.integers(0, len(table["AGEP"]), size)
        judged.append(verdicts_of(census_profile, {name: column.rows(chosen) for name, column in coded.items()}))
    assert sum(any(verdict.state >= DriftState.WARN for verdict in window) for window in judged) <= 5
    for last in range(RULE.confirmations, len(judged) + 1):
        of_feature = zip(*judged[last - RULE.confirmations : last], strict=True)
        assert all(confirm(windows, RULE).state <= DriftState.OK for windows in of_feature)
