"""What the decision rule finds and what it does not, measured on real distributions; written into docs/drift.md.

    python -m tests.drift.power [--windows 400] [--write]

The census of 2015 is the reference; live windows are drawn from the same year, with and without a change that is made
to one feature. Prints the tables, and with --write puts them between the marks in the page.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.column import as_column
from gateway.drift.statistics.reference_profile import FeatureProfile, Profile
from gateway.drift.statistics.significance import chi2_test
from gateway.drift.statistics.verdict import DriftRule, DriftState, Verdict, confirm, judge
from tests.drift.reference_data import census, rows
from tests.drift.test_proof import census_features, profile_of

PAGE = Path(__file__).parents[2] / "docs" / "drift.md"
BEGIN, END = "<!-- power: begin -->", "<!-- power: end -->"
RULE = DriftRule()
SIZES = (200, 500, 1000, 5000, 20_000)
Change = Callable[[npt.NDArray[np.float64], np.random.Generator], npt.NDArray[np.float64]]


def shifted(sds: float, sd: float) -> Change:
    return lambda values, _: values + sds * sd


def moved(share: float, source: float, target: float) -> Change:
    """A share of all rows goes from one category to another."""

    def change(values: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        chance = share / float((values == source).mean())
        return np.where((values == source) & (rng.uniform(size=len(values)) < chance), target, values)

    return change


def lost(share: float) -> Change:
    return lambda values, rng: np.where(rng.uniform(size=len(values)) < share, np.nan, values)


def alarm_shares(
    feature: FeatureProfile, values: npt.NDArray[np.float64], size: int, change: Change, trials: int
) -> tuple[int, int]:
    """Percent of single windows, and of three windows in a row, in which the change is an alarm."""
    rng = np.random.default_rng(size)
    single = confirmed = 0
    for _ in range(trials):
        three: list[Verdict] = []
        for _ in range(RULE.confirmations):
            window = change(rng.choice(values, size), rng)
            three += judge([feature], {feature.name: feature.bins.count(window)}, RULE)
        single += three[0].state >= DriftState.WARN
        confirmed += confirm(three, RULE).state >= DriftState.WARN
    return round(100 * single / trials), round(100 * confirmed / trials)


def power_table(
    title: str,
    feature: FeatureProfile,
    values: npt.NDArray[np.float64],
    changes: Sequence[tuple[str, Change]],
    trials: int,
) -> str:
    """Rows are changes, columns sizes of the window; "a / b": one window, three in a row."""
    lines = [f"| {title} | " + " | ".join(f"n = {size:,}" for size in SIZES) + " |", "|---" * (len(SIZES) + 1) + "|"]
    for name, change in changes:
        cells = ["{} / {}".format(*alarm_shares(feature, values, size, change, trials)) for size in SIZES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def false_alarms(profile: Profile, trials: int) -> str:
    """Percent of windows without any change in which some of all features is an alarm."""
    coded = {name: as_column(name, census("reference")[name]) for name in census_features()}
    uncalibrated = [replace(feature, calibration=()) for feature in profile.features]
    total = len(coded["AGEP"])
    lines = [
        "| rows | raw PSI ≥ 0.1 | p < 0.05 | p < 0.01, BH | rule, not calibrated, one window | rule, one window |",
        "|---|---|---|---|---|---|",
    ]
    for size in (100, *SIZES):
        rng = np.random.default_rng(size)
        counted = np.zeros(5)
        for _ in range(trials):
            chosen = rng.integers(0, total, size)
            counts = {one.name: one.bins.count(coded[one.name].rows(chosen)) for one in profile.features}
            pairs = [(one.folded, one.bins.fold(counts[one.name])) for one in profile.features]
            p = np.array([chi2_test(*pair).p for pair in pairs])
            adjusted = np.sort(p) * len(p) / np.arange(1, len(p) + 1)
            counted += [
                max(float(statistics.psi(*pair)) for pair in pairs) >= 0.1,
                p.min() < 0.05,
                adjusted.min() < 0.01,
                _alarms(judge(uncalibrated, counts, RULE)),
                _alarms(judge(profile.features, counts, RULE)),
            ]
        lines.append(f"| {size:,} | " + " | ".join(f"{100 * share / trials:.1f} %" for share in counted) + " |")
    return "\n".join(lines)


def later_years(profile: Profile, trials: int) -> str:
    """Percent of windows of a later year in which some of all features is an alarm / is one for three windows."""
    sizes = SIZES[:-1]
    lines = ["| year | " + " | ".join(f"n = {size:,}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for year in (2016, 2017, 2018):
        table = rows(census("analysis"), census("analysis")["year"] == year)
        coded = {name: as_column(name, table[name]) for name in census_features()}
        cells = []
        for size in sizes:
            rng = np.random.default_rng(size)
            judged: list[tuple[Verdict, ...]] = []
            for _ in range(trials):
                chosen = rng.integers(0, len(table["AGEP"]), size)
                counts = {one.name: one.bins.count(coded[one.name].rows(chosen)) for one in profile.features}
                judged.append(judge(profile.features, counts, RULE))
            confirmed = [
                _alarms([confirm(of_feature, RULE) for of_feature in zip(*judged[last - 3 : last], strict=True)])
                for last in range(3, trials + 1)
            ]
            cells.append(f"{100 * sum(map(_alarms, judged)) / trials:.1f} / {100 * sum(confirmed) / trials:.1f}")
        lines.append(f"| {year} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(trials: int) -> str:
    """All tables, as the page has them."""
    order = np.random.default_rng(0).permutation(len(census("reference")["AGEP"]))
    profile = profile_of(rows(census("reference"), order), census_features())
    features = {feature.name: feature for feature in profile.features}
    age, relation = features["AGEP"], features["RELP"]
    ages = census("reference")["AGEP"].astype(np.float64)
    relations = census("reference")["RELP"].astype(np.float64)
    known, counts = np.unique(relations, return_counts=True)
    ranked = known[np.argsort(-counts)]
    relation = replace(relation, bins=replace(relation.bins, numeric=True))  # type: ignore[arg-type]  # the same codes
    shifts = [(f"{sds}", shifted(sds, age.sd)) for sds in (0.1, 0.2, 0.3, 0.5, 0.8)]
    moves = [(f"{share:.0%}", moved(share, ranked[0], ranked[2])) for share in (0.02, 0.05, 0.1, 0.2)]
    losses = [(f"{share:.0%}", lost(share)) for share in (0.01, 0.02, 0.05, 0.1)]
    parts = [
        f"False alarms: windows of the same year, 18 features, {trials} windows of each size.",
        false_alarms(profile, trials),
        f"Small real changes: windows of later years, 18 features, percent of {trials} windows / after confirmation.",
        later_years(profile, trials),
        f"Power: percent of {trials} windows / of three windows in a row that are an alarm.",
        power_table("mean of age moves by so many standard deviations", age, ages, shifts, trials),
        power_table("share that moves between two categories", relation, relations, moves, trials),
        power_table("share that goes missing", age, ages, losses, trials),
    ]
    return "\n\n".join(parts)


def _alarms(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.state >= DriftState.WARN for verdict in verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=400)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/drift.md")
    options = parser.parse_args()
    text = tables(options.windows)
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
