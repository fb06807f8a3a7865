"""gateway results: what an A/B test or a canary has shown so far."""

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.cli.client import control
from gateway.cli.documents import read_document
from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.cli.lake_record import lake_directory
from gateway.cli.printing import Format, show
from gateway.cli.progress import progress
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DEFAULT_SERVER, DataDir, Model, Output, Server
from gateway.cli.written_file import check_place, write_file
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import Value, moment
from gateway.page.route_words import in_force_text
from gateway.pb import control_pb2, control_pb2_grpc
from gateway.routing.document.document import RouteDocument, parse

if TYPE_CHECKING:  # loaded by the command that needs them
    from gateway.rollout.results.experiment import RevisionSplit
    from gateway.rollout.results.result import ExperimentResult, MetricResult, PolicyResult

COLUMNS = ("METRIC", "ARM", "SAYS", "VALUE", "CONTROL", "DIFFERENCE", "INTERVAL", "KEYS", "")
SEGMENT_COLUMNS = ("SEGMENT", *COLUMNS)
PHASE_COLUMNS = ("REVISIONS", "FROM", "SPLIT", "REQUESTS", "KEYS", "EVIDENCE OF A BROKEN SPLIT")
_HISTORY = 200
_MOST_CUTS = 4
_TIMEOUT_S = 30


def results(
    model: Model,
    window: Annotated[
        str, typer.Option("--window", help="START..END (without END), a date, or the last 7d; all that is there.")
    ] = "",
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Cut by a column of the log, for example f.age; up to four times.")
    ] = None,
    where: Annotated[str, typer.Option("--where", help='An SQL condition on the rows, for example "f.age" > 30.')] = "",
    since: Annotated[int, typer.Option("--since", help="Leave out the revisions before this one.", min=0)] = 0,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="A document that is not applied: what its reward would have been."),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="With --policy: ARM=CONDITION, rows that go to an arm before the policy's split."),
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", help="Names of classes 0, 1, ... where labels are texts and answers numbers.")
    ] = "",
    html: Annotated[Path | None, typer.Option("--html", help="Write the results as one HTML page.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Compare the arms of an A/B test, or of a canary: numbers with intervals that hold at every look, and a verdict.

    Reads what the compactor has written to Parquet, so the newest minute is not there yet (the first note says how old
    the newest row is), and asks a gateway for the history of the route. A key counts once; arms are compared within
    each split that they had. Ends with 1 where the split is broken, because then no number means anything.
    """
    cuts = tuple(dict.fromkeys(by or ()))
    if len(cuts) > _MOST_CUTS:
        raise Failure(Exit.USAGE, f"--by is given {len(cuts)} times, at most {_MOST_CUTS} are allowed")
    check_place("--html", html)
    if rule and policy is None:
        raise Failure(Exit.USAGE, "--rule says what a policy would do: give one with --policy")
    draft = parse(msgspec.json.decode(read_document(policy).text)) if policy is not None else None
    rules = [_condition(text, draft) for text in rule or ()]
    now_us = int(time() * 1e6)
    try:
        with analysis():
            from gateway.drift.report.lake_reader import Lake
            from gateway.drift.report.span import Span, parse_span
            from gateway.rollout.results.experiment import experiment_of
            from gateway.rollout.results.results_gathering import gather_results
        span = parse_span(window, now_us=now_us) if window else Span(0, now_us + 1)
        with control(server) as stub:
            history = read_history(stub, model)
        experiment = experiment_of(model, history, since=since)
        with Lake(lake_directory(data_dir)) as lake, progress() as tell:
            made = gather_results(
                lake,
                experiment,
                span,
                generated_us=now_us,
                where=where,
                by=cuts,
                draft=draft,
                rules=rules,
                classes=[name.strip() for name in classes.split(",")] if classes else (),
                tell=tell,
            )
        if html is not None:
            with analysis():
                from gateway.rollout.results.results_page import render_results
            write_file("--html", html, render_results(made))
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except (GatewayError, OSError) as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    _show(made, output)
    broken = next((verdict.text for verdict in made.verdicts if verdict.outcome.value == "broken"), "")
    if broken:
        raise Failure(Exit.REFUSED, broken)


def read_history(stub: control_pb2_grpc.ControlStub, model: str) -> "list[RevisionSplit]":
    """Returns the revisions of a route, newest first, up to the first one of another experiment."""
    from gateway.rollout.results.experiment import RevisionSplit

    entries = stub.History(control_pb2.HistoryRequest(model=model, limit=_HISTORY), timeout=_TIMEOUT_S).entries
    history: list[RevisionSplit] = []
    newest: RevisionSplit | None = None
    for entry in entries:
        text = in_force_text(
            entry
        )  # a promotion gives an arm another version, and the applied document does not say so
        document = parse(msgspec.json.decode(text)) if text else None
        split = RevisionSplit(entry.revision, entry.committed_at_us, document)
        if split.draws:
            request = control_pb2.ShowRevisionRequest(model=model, revision=entry.revision)
            table = stub.ShowRevision(request, timeout=_TIMEOUT_S).route.table
            starts, arms = tuple(one.start for one in table), tuple(one.arm for one in table)
            split = RevisionSplit(entry.revision, entry.committed_at_us, document, starts, arms)
            newest = newest or (split if split.splits else None)
        history.append(split)
        if newest is not None and split.splits and not split.is_of(newest):
            break
    return history


def _condition(text: str, draft: RouteDocument | None) -> tuple[str, str]:
    """Returns the arm and the condition of a --rule. Raises: Failure."""
    arm, equals, condition = text.partition("=")
    arms = sorted(one.name for one in draft.arms) if draft is not None else []
    if not equals or not condition.strip() or arm.strip() not in arms:
        raise Failure(
            Exit.USAGE, f"--rule is {text!r}, expected ARM=CONDITION with an arm of the policy ({', '.join(arms)})"
        )
    return arm.strip(), condition


def _show(made: "ExperimentResult", output: Format) -> None:
    if output is not Format.TABLE:
        value: Value = made.to_value()
        show(value, output)
        return
    rows = [_row(one) for one in made.metrics]
    show(None, output, columns=COLUMNS, rows=rows)
    checks = {check.phase: check for check in made.checks}
    phases: list[Sequence[Value]] = []
    for number, one in enumerate(made.phases):
        check = checks.get(number)
        revisions = one.phase.revisions
        first, last = revisions[0], revisions[-1]
        keys = ", ".join(f"{arm} {keys}" for arm, keys in check.keys.items()) if check is not None else "none"
        phases.append(
            [
                f"{first}" if first == last else f"{first} to {last}",
                moment(one.phase.since_us),
                one.phase.told,
                one.requests,
                keys,
                (f"{check.evidence:.3g} of 1000" + (", broken" if check.mismatch else "")) if check is not None else "",
            ]
        )
    show(None, output, columns=PHASE_COLUMNS, rows=phases)
    if made.segments:
        cut = [[f"{part.column}: {part.value}", *_row(one)] for part in made.segments for one in part.metrics]
        together = f"each interval of a segment may miss with {made.segment_alpha:.2g}, so that all hold together"
        show(None, output, columns=SEGMENT_COLUMNS, rows=cut, note=together)
    if made.policy is not None:
        _show_policy(made.policy, output)
    show(None, output, note=[*made.notes, "", *(f"{verdict.arm}: {verdict.text}" for verdict in made.verdicts)])


def _show_policy(policy: "PolicyResult", output: Format) -> None:
    from gateway.rollout.results.result_verdict import number

    value = policy.value
    rows = [
        [name, number(one.value), f"{number(one.low)} to {number(one.high)}"]
        for name, one in (
            ("inverse propensity", value.propensity),
            ("self-normalised", value.normalised),
            ("doubly robust", value.robust),
            ("as it was", value.logged),
            ("more by the policy (doubly robust)", value.gain),
        )
    ]
    told = (
        f"{value.effective:.0f} effective of {value.keys} keys, {value.rows} rows with a reward ({policy.coverage:.1%})"
    )
    show(None, output, columns=("REWARD", "VALUE", "INTERVAL"), rows=rows, note=[told, f"policy: {policy.text}"])


def _row(one: "MetricResult") -> list[Value]:
    from gateway.rollout.results.result_verdict import number

    difference = one.difference
    return [
        one.label + (f", {one.unit}" if one.unit else ""),
        one.arm,
        one.says.value,
        number(one.treated.mean) if one.treated.keys else "",
        number(one.control.mean) if one.control.keys else "",
        number(difference.value) if difference is not None else "",
        f"{number(difference.low)} to {number(difference.high)}" if difference is not None else one.why,
        f"{one.treated.keys} and {one.control.keys}",
        "" if one.role.value == "shown" else one.role.value,
    ]
