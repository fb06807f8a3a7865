"""The labels of a reference profile: from a column of its file, or from the log."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from gateway.cli.extra import analysis
from gateway.cli.lake_record import lake_directory
from gateway.cli.printing import say
from gateway.errors import InvalidArgument

if TYPE_CHECKING:  # numpy and Arrow are loaded by the commands that need them
    from gateway.drift.statistics.baseline import Baseline
    from gateway.drift.statistics.column import Column
    from gateway.drift.statistics.reference_profile import Profile

_MOST_ROWS = 200_000


def baseline_of_columns(
    label: "Column", outputs: "Mapping[str, Column]", classes: Sequence[str], source: str
) -> "Baseline":
    """Returns the baseline of rows that have an answer and a label.

    Raises: InvalidArgument (no row has both, or they cannot be compared).
    """
    from numpy.random import default_rng

    from gateway.drift.statistics.answers import find_outputs, labelled_columns, sql_kind
    from gateway.drift.statistics.baseline import build_baseline

    answers = find_outputs({name: sql_kind(column) for name, column in outputs.items()})
    labelled = labelled_columns(label, outputs, answers, classes)
    if labelled is None:
        raise InvalidArgument("no row has an answer beside its label")
    return build_baseline(labelled, source, rng=default_rng(0))


def with_logged_labels(
    profile: "Profile", window: str, where: str, classes: Sequence[str], data_dir: Path, *, asked: bool
) -> "Profile":
    """Returns the profile with the labels of the version's logged rows in that window; unchanged if there are none.

    With `asked` the operator has named the window for its labels: then it is an error if there are none.
    Raises: InvalidArgument.
    """
    with analysis():
        from gateway.drift.report.lake_reader import Lake
        from gateway.drift.report.lake_selection import Selection
        from gateway.drift.report.outcome import read_labelled
    from numpy.random import default_rng

    from gateway.drift.report.span import parse_span
    from gateway.drift.statistics.answers import find_outputs
    from gateway.drift.statistics.baseline import build_baseline

    span = parse_span(window, now_us=int(time() * 1e6))
    selection = Selection(profile.model, span, versions=(profile.version,), where=where)
    try:
        with Lake(lake_directory(data_dir)) as lake:
            outputs = find_outputs(lake.columns(selection))
            labelled = read_labelled(lake, selection, outputs, classes=classes, most=_MOST_ROWS)
        if labelled is None:
            raise InvalidArgument(f"no logged row of version {profile.version!r} in {span} has an answer and a label")
    except InvalidArgument as error:
        if asked:
            raise
        say(f"the profile has no labelled rows, so performance has nothing to be compared with: {error}")
        return profile
    baseline = build_baseline(labelled, f"labels of logged rows of {span}", rng=default_rng(0))
    return replace(profile, baseline=baseline)
