"""gateway drift: whether what a version is asked, and what it answers, is still what it was made for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.cli.lake_record import lake_directory
from gateway.cli.printing import Format, say, show
from gateway.cli.progress import progress
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DEFAULT_SERVER, DataDir, Model, Server
from gateway.cli.written_file import check_place, write_file
from gateway.errors import FailedPrecondition, GatewayError, InvalidArgument

if TYPE_CHECKING:  # loaded by the command that needs them
    from gateway.drift.report.gathering import Question, Tell
    from gateway.drift.report.lake_reader import Lake
    from gateway.drift.report.lake_selection import Selection
    from gateway.drift.report.reference import Reference
    from gateway.drift.report.report import Report

app = typer.Typer(no_args_is_help=True, help="Compare what is asked and answered with a reference.")
_SHOWN = 20


@app.command(
    epilog="Example: gateway drift report flights --reference profile --window 2026-11-01..2026-11-08 --out report.html"
)
def report(
    model: Model,
    reference: Annotated[
        str,
        typer.Option("--reference", help="profile, profile:REVISION, a window (START..END), or a file of rows."),
    ] = "profile",
    window: Annotated[str, typer.Option("--window", help="START..END (without END), a date, or the last 7d.")] = "7d",
    versions: Annotated[str, typer.Option("--versions", help="Only these; of two, B against A is added: a,b.")] = "",
    arms: Annotated[str, typer.Option("--arms", help="Only the rows of these arms.")] = "",
    where: Annotated[str, typer.Option("--where", help='An SQL condition on the rows, for example "f.age" > 30.')] = "",
    every: Annotated[str, typer.Option("--every", help="Length of the time blocks of the trend, for example 6h.")] = "",
    labelled: Annotated[
        str, typer.Option("--labelled", help="The window whose labels performance is compared with.")
    ] = "",
    label: Annotated[str, typer.Option("--label", help="The column of labels in a reference file.")] = "label",
    classes: Annotated[str, typer.Option("--classes", help="Names of classes 0, 1, ... where labels are texts.")] = "",
    split: Annotated[str, typer.Option("--split", help="The split that was meant, to be tested: a=90,b=10.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Write the report as one HTML file.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON.")] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="End with 1 where the report is warn or crit, or worse.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers: the same seed, the same report.")] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Report on a window of the prediction log: features by severity, whole rows, performance, A against B.

    Any past window and any version, against a stored profile, another window of the log, or a .csv, .parquet or .npz
    file of rows. Reads what the compactor has written to Parquet; a gateway need not run. Features have the names of
    the model's configuration, which the log has, or of its profiles.
    """
    if fail_on not in ("", "warn", "crit"):
        raise Failure(Exit.USAGE, f"--fail-on is {fail_on!r}, allowed are warn and crit")
    for name, path in (("--out", out), ("--json", json_out)):
        check_place(name, path)
    now_us = -(-int(time()) // 60) * 60_000_000  # rows are counted by the minute
    try:
        with analysis():
            from gateway.drift.report.gathering import Question, gather
            from gateway.drift.report.lake_reader import Lake
            from gateway.drift.report.lake_selection import Selection
            from gateway.drift.report.span import parse_length_us, parse_span
        question = Question(
            Selection(model, parse_span(window, now_us=now_us), _names(versions), _names(arms), where),
            seed=seed,
            generated_us=now_us,
            every_us=parse_length_us(every) if every else None,
            split=_shares(split) if split else None,
            classes=_names(classes),
        )
        with Lake(lake_directory(data_dir)) as lake, progress() as tell:
            against = _reference(lake, question, reference, labelled, label, data_dir, server, tell)
            if reference.partition(":")[0] == "profile" and not versions:
                only = replace(question.selection, versions=(against.profile.version,))  # whose profile it is
                question = replace(question, selection=only)
            made = gather(question, lake, against, tell=tell)
        _write(made, out, json_out)
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except (GatewayError, OSError) as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    _show(made, out)
    if fail_on and made.state.name.lower() in ("crit", fail_on):
        raise Failure(Exit.REFUSED, f"the report on {model} is {made.state.name}")


def _reference(
    lake: "Lake", question: "Question", text: str, labelled: str, label: str, data_dir: Path, server: str, tell: "Tell"
) -> "Reference":
    """Returns the reference that the text of --reference names.

    Raises: GatewayError.
    """
    from numpy.random import default_rng

    from gateway.cli.served_contract import configured_names
    from gateway.drift.profile_files import ProfileFiles
    from gateway.drift.report.outcome import read_labelled
    from gateway.drift.report.reference import (
        Reference,
        feature_names,
        reference_file,
        reference_selection,
        reference_window,
    )
    from gateway.drift.report.span import is_span, parse_span
    from gateway.drift.statistics.answers import find_outputs

    selection, now_us = question.selection, question.generated_us
    files = ProfileFiles(data_dir)
    older = feature_names([files.load(*key) for key in files.versions(selection.model)])
    names = {**older, **lake.feature_names(selection)}
    if not names:  # nobody has built a profile, and the log does not say
        names = configured_names(server, selection.model, selection.versions[0] if selection.versions else "")
    tell("reading the reference", 0, 1)
    if text == "profile" or text.startswith("profile:"):
        version = _profiled_version(lake, selection, files.versions(selection.model))
        revision = text.partition(":")[2]
        if revision and not revision.isdecimal():
            raise InvalidArgument(f"--reference is {text!r}, expected profile:REVISION with a whole number")
        profile = files.load(selection.model, version, int(revision) if revision else None)
        made = Reference(profile, f"the profile of version {version}, revision {profile.revision} ({profile.source})")
    elif is_span(text):
        span = parse_span(text, now_us=now_us)
        base = reference_selection(lake, selection, span)
        made = reference_window(
            lake, base, rng=default_rng(question.seed), created_at=now_us / 1e6, names=names,
            progress=lambda rows: tell("counting the reference", 0, 1),
        )  # fmt: skip
        labelled = labelled or text
    else:
        kinds = lake.columns(selection)
        made = reference_file(
            Path(text), kinds, model=selection.model, created_at=now_us / 1e6, names=names, label=label,
            classes=question.classes,
        )  # fmt: skip
    if labelled:
        base = reference_selection(lake, selection, parse_span(labelled, now_us=now_us))
        outputs = find_outputs(lake.columns(base))
        made = replace(made, labelled=read_labelled(lake, base, outputs, classes=question.classes))
    return made


def _profiled_version(lake: "Lake", selection: "Selection", known: list[tuple[str, str]]) -> str:
    """Returns the version whose profile to use: the first one named, else the one with most rows that has a profile.

    Raises: FailedPrecondition (none has one).
    """
    if selection.versions:
        return selection.versions[0]
    with_profile = [version for _, version in known]
    if not with_profile:
        raise FailedPrecondition(
            f"model {selection.model!r} has no reference profile: `gateway profile build` makes one, "
            "or --reference START..END compares with a window of the log"
        )
    census = lake.census(selection)
    rows = {version: int(census.rows[census.versions == version].sum()) for version in with_profile}
    return max(rows, key=lambda version: (rows[version], version))


def _write(report: "Report", out: Path | None, json_out: Path | None) -> None:
    if json_out is not None:
        write_file("--json", json_out, report.to_json())
    if out is not None:
        with analysis():
            from gateway.drift.report.page import render
        write_file("--out", out, render(report))


def _show(report: "Report", out: Path | None) -> None:
    with analysis():
        from gateway.drift.report.page import headlines, number, said
    rows = [
        (
            feature.state.name, feature.name, said(feature), number(feature.verdict.value),
            number(feature.verdict.threshold), feature.verdict.direction, f"{feature.verdict.n:.0f}",
        )
        for feature in report.features[:_SHOWN]
    ]  # fmt: skip
    columns = ("STATE", "FEATURE", "DECIDED BY", "VALUE", "THRESHOLD", "DIRECTION", "N")
    lines = [f"{state.name}: {line}" for state, line in headlines(report)]
    show(None, Format.TABLE, columns=columns, rows=rows, note=["", *lines])
    if len(report.features) > _SHOWN:
        say(f"{len(report.features) - _SHOWN} more features; --out and --json have all of them")
    if out is None:
        say("--out report.html writes the page with figures, whole rows and performance")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shares(text: str) -> Mapping[str, float]:
    shares = {}
    for part in text.split(","):
        version, equals, share = part.partition("=")
        try:
            shares[version.strip()] = float(share.strip().removesuffix("%"))
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidArgument(f"--split is {text!r}, expected shares of versions such as 1=90,2=10")
    return shares
