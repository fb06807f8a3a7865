"""gateway models: what is loaded, and in which state."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import Value, moment, version_value, worker_value
from gateway.pb import control_pb2

_ORIGIN: Final = ("ROUTED", "SOURCE", "MIB", "WEIGHTS", "TRIAL MIB", "RUN us", "SIGNATURE", "PUBLISHED", "LINEAGE")
_SHOWN: Final = 20  # of the models that there are


class ModelsFormat(StrEnum):
    """The choices of -o: a table, one with more columns, or what programs read."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


ModelsOutput = Annotated[
    ModelsFormat, typer.Option("-o", "--output", help="table or wide for people, json or yaml for programs.")
]


def models(
    model: Annotated[str, typer.Argument(help="Only this model.")] = "",
    server: Server = DEFAULT_SERVER,
    output: ModelsOutput = ModelsFormat.TABLE,
) -> None:
    """Print every model version with its state, and what else lies in the repository and why it does not serve.

    -o wide says as well how many rows are merged at most, whether requests are merged or why not, and where a version
    comes from: its repository, size, whether the workers of the host share its weights or why not, memory that its
    trial needed, measured time of a run, signature, who published it when, and its lineage.
    """
    with control(server) as stub:
        answer = stub.Models(control_pb2.ModelsRequest(model=model), timeout=10)
        if model and not (answer.versions or answer.passed_over):
            every = stub.Models(control_pb2.ModelsRequest(), timeout=10)
            raise Failure(Exit.REFUSED, _unknown(model, sorted({version.model for version in every.versions})))
    value: list[Value] = [version_value(version) for version in answer.versions]
    value += [_passed_over_value(passed) for passed in answer.passed_over]
    if answer.trouble:
        unreadable = control_pb2.ModelVersionState(state="UNREADABLE", reason=answer.trouble)
        value.append({**_entry(unreadable), "trouble": True})
    wide = output is ModelsFormat.WIDE
    rows = [
        [
            *(v.model, v.version + (" *" if v.newest_ready else ""), v.state, v.in_flight, v.digest[:12]),
            *((v.max_batch_size, v.merging, *_origin(v)) if wide else ()),
            _reason(v),
        ]
        for v in answer.versions
    ]
    notes = ["* the newest ready version: it answers where no route says otherwise" if rows else "no models"]
    if answer.trouble:
        notes.append(f"models stay as they are: {answer.trouble}")
    notes += [f"passed over: {passed.path}: {passed.reason}" for passed in answer.passed_over]
    show(
        value,
        Format.TABLE if wide else Format(output.value),
        columns=(
            *("MODEL", "VERSION", "STATE", "IN FLIGHT", "DIGEST"),
            *(("MAX BATCH SIZE", "MERGED", *_ORIGIN) if wide else ()),
            "REASON",
        ),
        rows=rows,
        note=notes,
    )


def _unknown(model: str, known: list[str]) -> str:
    """Returns that there is no such model, and which there are."""
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there is no model {model!r}; there are: {', '.join(known[:_SHOWN]) or 'none'}{more}"


def _passed_over_value(passed: control_pb2.PassedOver) -> Value:
    """Returns what cannot serve as an entry of the same list, so that programs that read versions go on working."""
    model, _, version = passed.path.partition("/")
    state = control_pb2.ModelVersionState(model=model, version=version, state="PASSED_OVER", reason=passed.reason)
    return {**_entry(state), "passed_over": passed.path}


def _entry(state: control_pb2.ModelVersionState) -> dict[str, Value]:
    value = version_value(state)
    assert isinstance(value, dict)
    return value


def _origin(version: control_pb2.ModelVersionState) -> tuple[Value, ...]:
    """Returns the columns of _ORIGIN."""
    when = moment(int(version.published_at * 1e6)) if version.published_at else ""
    return (
        "yes" if version.routed else "",
        version.source,
        f"{version.size_bytes / 2**20:.1f}" if version.size_bytes else "",
        version.weights,
        f"{version.trial_memory_bytes / 2**20:.1f}" if version.trial_memory_bytes else "",
        f"{version.run_us:.0f}" if version.run_us else "",
        version.signature,
        " ".join(part for part in (when, version.publisher) if part),
        ", ".join(f"{name}={value}" for name, value in sorted(version.lineage.items())),
    )


def _reason(version: control_pb2.ModelVersionState) -> str:
    elsewhere = ", ".join(f"{worker}: {state}" for worker, state in sorted(version.workers.items()))
    return "; ".join(part for part in (version.reason, elsewhere) if part)


def workers(server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Print the live workers of every host and the revision each of them serves."""
    with control(server) as stub:
        answer = stub.Workers(control_pb2.WorkersRequest(), timeout=10)
    value: list[Value] = [worker_value(worker) for worker in answer.workers]
    rows = [[w.id, w.state, w.revision, w.pid, f"{w.seen_ms_ago / 1000:.1f} s ago", w.error] for w in answer.workers]
    show(
        value,
        output,
        columns=("WORKER", "STATE", "REVISION", "PID", "SEEN", "ERROR"),
        rows=rows,
        note=f"the store is at revision {answer.revision}",
    )
