"""gateway plan, gateway routes diff and gateway routes show: what would change, what changed, what was."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

import grpc
import msgspec
import typer

from gateway.cli.applied_change import warn
from gateway.cli.client import connected, control
from gateway.cli.documents import File, read_document
from gateway.cli.exits import Exit, Failure
from gateway.cli.flows import ABSENT, FLOW_COLUMNS, flow_rows, flows_value, moved_text
from gateway.cli.plan_forecast import (
    FORECAST_COLUMNS,
    Traffic,
    bandit_notes,
    budget_notes,
    cpu_notes,
    forecast_notes,
    forecast_rows,
    forecast_value,
    measured,
)
from gateway.cli.printing import Format, say, show
from gateway.cli.shared_options import DEFAULT_SERVER, Model, Output, Server
from gateway.page.message_values import Value, document_value, entry_value
from gateway.pb import control_pb2
from gateway.rollout.forecast import forecast
from gateway.routing.document.notation import parse_json
from gateway.routing.document.strategy import Ab, Canary


def plan(
    file: File,
    requests_per_second: Annotated[
        float,
        typer.Option(
            "--requests-per-second", help="Of the model, for a canary's forecast; measured by default.", min=0
        ),
    ] = 0.0,
    error_rate: Annotated[
        str, typer.Option("--error-rate", help="Requests that fail, such as 0.5%; measured by default.")
    ] = "",
    cpus: Annotated[
        float, typer.Option("--cpus", help="CPUs of all hosts that serve: tells what runs take of them.", min=0)
    ] = 0.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Say what a document would change, who would move and what stands in its way. Nothing is committed.

    Of a canary that moves by itself also what each step can find out, and how long it takes; of a bandit what moves
    its weights.
    Ends with 1 if the server would refuse the document as things are.
    """
    document = read_document(file)
    with control(server) as stub:
        answer = stub.Plan(control_pb2.PlanRequest(document_json=document.text), timeout=30)
    canary = _driven(document.text)
    traffic = _traffic(server, answer.model, requests_per_second, _percent(error_rate)) if canary is not None else None
    steps = forecast(canary, traffic.requests_per_s, traffic.error_rate) if canary is not None and traffic else ()
    value = plan_value(answer) | {"rollout": forecast_value(steps, traffic) if traffic is not None else None}
    show(value, output, columns=("PATH", "BEFORE", "AFTER"), rows=_rows(answer.differences))
    if output is Format.TABLE:
        show(None, output, columns=FLOW_COLUMNS, rows=flow_rows(answer.flows), note=_summary(answer))
        if traffic is not None:
            notes = forecast_notes(steps, traffic)
            if canary is not None:
                notes += budget_notes(canary, steps, traffic)
                notes += cpu_notes(canary, parse_json(document.text), traffic, cpus) if cpus else []
            show(None, output, columns=FORECAST_COLUMNS, rows=forecast_rows(steps), note=notes)
        elif isinstance(test := parse_json(document.text).strategy, Ab):
            show(None, output, note=bandit_notes(test, requests_per_second))
        elif canary is not None:
            show(None, output, note="what its steps can find out is not known: give --requests-per-second")
    warn(answer.warnings, answer.model)
    if answer.obstacles:
        raise Failure(Exit.REFUSED, f"apply would be refused as things are: {'; '.join(answer.obstacles)}")
    if answer.laggards:
        say(f"gateway: these workers would not follow at once: {', '.join(answer.laggards)}")


def diff(
    model: Model,
    before: Annotated[int, typer.Argument(help="A revision of the model.", min=1)],
    after: Annotated[int, typer.Argument(help="A later one; 0 is the newest.", min=0)] = 0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print what changed from one revision of a route to another, and who moved."""
    request = control_pb2.DiffRequest(model=model, from_revision=before, to_revision=after)
    with control(server) as stub:
        answer = stub.Diff(request, timeout=10)
    value: Value = {
        "model": model,
        "from_revision": answer.from_revision,
        "to_revision": answer.to_revision,
        "differences": _differences_value(answer.differences),
        "flows": flows_value(answer.flows),
        "moved_percent": answer.moved_buckets / 10_000,
        "version_percent": answer.version_buckets / 10_000,
    }
    title = f"{model}: revision {answer.from_revision} to {answer.to_revision}"
    note = f"{title}, {moved_text(answer)}" if answer.differences else f"{title}: the same document"
    show(value, output, columns=("PATH", "BEFORE", "AFTER"), rows=_rows(answer.differences), note=note)


def show_revision(
    model: Model,
    revision: Annotated[int, typer.Argument(help="One of those that `gateway routes history` lists.", min=1)],
    server: Server = DEFAULT_SERVER,
    output: Output = Format.YAML,
) -> None:
    """Print one change of a route: who made it, when and why, and its document."""
    request = control_pb2.ShowRevisionRequest(model=model, revision=revision)
    with control(server) as stub:
        answer = stub.ShowRevision(request, timeout=10)
    entry = answer.entry
    value: dict[str, Value] = {
        **entry_value(entry),
        **document_value(entry),
        "table": [[part.start, part.end, part.arm] for part in answer.route.table],
    }
    rows = [[name, text] for name, text in value.items() if name not in ("document", "in_force", "table")]
    show(value, output, columns=("FIELD", "VALUE"), rows=rows)


def _percent(text: str) -> float:
    """Returns a percentage from text such as 0.5%; 0 where none is given. Raises: Failure."""
    try:
        value = float(text.removesuffix("%") or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 50:
        raise Failure(Exit.USAGE, f"--error-rate: {text!r} is not a percentage from 0 to 50, such as 0.5%")
    return value


def _driven(text: str) -> Canary | None:
    """Returns the canary of a document that moves by itself."""
    strategy = parse_json(text).strategy
    return strategy if isinstance(strategy, Canary) and strategy.is_driven else None


def _traffic(server: str, model: str, requests_per_s: float, error_percent: float) -> Traffic | None:
    """Returns the traffic as it was given, else as it is now; None where neither is known."""
    known: Traffic | None = None
    if not (requests_per_s and error_percent):
        try:
            with connected(server) as channel:
                known = measured(channel, model)
        except (Failure, grpc.RpcError):
            known = None  # a port for operators alone has no statistics
    if error_percent:
        rate, assumed = error_percent / 100, ""
    else:
        rate, assumed = (known.error_rate, known.assumed) if known is not None else (0.001, "assumed: none was given")
    if requests_per_s:
        if known is None:
            return Traffic(requests_per_s, rate, assumed)
        rows_per_s = known.rows_per_s * requests_per_s / known.requests_per_s
        return Traffic(requests_per_s, rate, assumed, rows_per_s, known.row_seconds)
    return replace(known, error_rate=rate, assumed=assumed) if known is not None else None


def plan_value(answer: control_pb2.PlanResponse) -> dict[str, Value]:
    """Returns a plan for machines."""
    return {
        "model": answer.model,
        "base_revision": answer.base_revision,
        "unchanged": answer.unchanged,
        "differences": _differences_value(answer.differences),
        "flows": flows_value(answer.flows),
        "moved_percent": answer.moved_buckets / 10_000,
        "version_percent": answer.version_buckets / 10_000,
        "not_ready": [{"version": v.version, "state": v.state, "reason": v.reason} for v in answer.versions],
        "obstacles": list(answer.obstacles),
        "workers": answer.workers,
        "laggards": list(answer.laggards),
        "carried": list(answer.carried),
        "warnings": list(answer.warnings),
    }


def _summary(answer: control_pb2.PlanResponse) -> list[str]:
    base = f"revision {answer.base_revision}" if answer.base_revision else "no route (the newest ready version answers)"
    if answer.unchanged:
        return [f"{answer.model}: the same as {base}, nothing would be committed"]
    lines = [f"{answer.model}: compared with {base}, {moved_text(answer)}; {answer.workers} live workers"]
    lines += [f"version {v.version} is {v.state}" + (f": {v.reason}" if v.reason else "") for v in answer.versions]
    lines.append(f"apply it with --expect-revision {answer.base_revision} to be sure that nothing came between")
    return lines


def _differences_value(differences: Iterable[control_pb2.Difference]) -> list[Value]:
    return [
        {"path": one.path, "before": _json_value(one.before_json), "after": _json_value(one.after_json)}
        for one in differences
    ]


def _json_value(text: str) -> Value:
    value: Value = msgspec.json.decode(text) if text else None
    return value


def _rows(differences: Iterable[control_pb2.Difference]) -> Sequence[Sequence[Value]]:
    return [[one.path, one.before_json or ABSENT, one.after_json or ABSENT] for one in differences]
