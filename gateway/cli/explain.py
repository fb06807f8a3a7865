"""gateway explain and gateway simulate: why a request is answered as it is, and what a draft would make of keys."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import grpc
import typer

from gateway.cli.client import control
from gateway.cli.documents import File, read_document
from gateway.cli.exits import Exit, Failure
from gateway.cli.flows import FLOW_COLUMNS, flow_rows, flows_value
from gateway.cli.lake_record import lake_record
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DEFAULT_SERVER, DataDir, Model, Output, Server
from gateway.page.message_values import Value, moment
from gateway.pb import control_pb2, control_pb2_grpc

KEYS_PER_CALL = 20_000
KEY_BYTES_PER_CALL = 512 << 10
STEP_COLUMNS = ("STAGE", "OUTCOME", "WHY")


def explain(
    model: Model,
    key: Annotated[str, typer.Option("--key", help="The key, put where the route looks for it first.")] = "",
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="NAME=VALUE, as often as needed.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", help="NAME=VALUE; true, false and numbers are taken as such.")
    ] = None,
    tensor: Annotated[list[str] | None, typer.Option("--input", help="TENSOR=FIRST ELEMENT.")] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", help="A request that was served: looked up in the log of the server's host.")
    ] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    own_id: Annotated[str, typer.Option("--id", help="The id that a request would have.")] = "",
    version: Annotated[str, typer.Option("--version", help="The version that a request would ask for.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant that a request would be of.")] = "",
    identity: Annotated[str, typer.Option("--identity", help="The identity that a request would have.")] = "",
    method: Annotated[
        str, typer.Option("--method", help="ModelInfer or ModelStreamInfer; ModelInfer where it is left out.")
    ] = "",
    bucket: Annotated[
        int | None, typer.Option("--bucket", help="Where there is no key: this bucket, not a random one.", min=0)
    ] = None,
    revision: Annotated[int, typer.Option("--revision", help="By an earlier revision; 0 is the active one.")] = 0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print step by step why a request is answered as it is.

    With --request-id: why it was, and whether the revision of then gives what was served; ends with 1 if not. A record
    that is in Parquet already is read there, on the gateway's own host.
    """
    request = control_pb2.ExplainRequest(
        model=model,
        request_id=request_id,
        key=key,
        metadata=_pairs("--metadata", metadata),
        parameters={name: _parameter(text) for name, text in _pairs("--parameter", parameter).items()},
        inputs=_pairs("--input", tensor),
        id=own_id,
        requested_version=version,
        tenant=tenant,
        identity=identity,
        method=method,
        bucket=bucket,
        revision=revision,
    )
    with control(server) as stub:
        answer = _ask(stub, request, data_dir)
    rows = [[step.stage, step.outcome, step.detail] for step in answer.steps]
    show(_explained(answer), output, columns=STEP_COLUMNS, rows=rows, note=_note(answer))
    if answer.HasField("served") and not answer.agrees:
        raise Failure(Exit.REFUSED, "what was served is not what the rules give, decided again")


def _ask(
    stub: control_pb2_grpc.ControlStub, request: control_pb2.ExplainRequest, data_dir: Path
) -> control_pb2.ExplainResponse:
    """Returns the explanation; a record that has left the write-ahead log is read from Parquet. Raises: Failure."""
    try:
        answer: control_pb2.ExplainResponse = stub.Explain(request, timeout=60)
    except grpc.RpcError as error:
        if not request.request_id or not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        searched = error.details() or ""
    else:
        return answer
    try:
        record = lake_record(data_dir, request.model, request.request_id)
    except Failure as failure:
        raise Failure(failure.exit_code, f"{searched}; {failure}") from None
    if record is None:
        raise Failure(Exit.REFUSED, f"{searched}; nor in the Parquet files of {data_dir}")
    answer = stub.Explain(control_pb2.ExplainRequest(model=request.model, record=record), timeout=60)
    answer.searched.append(f"the Parquet files of {data_dir}")
    return answer


def simulate(
    file: File,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="A file with one key a line; - reads standard input.")
    ] = None,
    logged: Annotated[
        int, typer.Option("--logged", help="Without --keys: so many of the newest logged requests.", min=1)
    ] = 100_000,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Say what a draft would make of real keys: how many move, and each arm's share. Nothing is committed."""
    document = read_document(file)
    with control(server) as stub:
        if keys is None:
            request = control_pb2.SimulateRequest(document_json=document.text, logged=logged)
            answer = stub.Simulate(request, timeout=120)
        else:
            answer = _simulate_keys(stub, document.text, keys)
    after = Counter[str]()
    for flow in answer.flows:
        after[flow.to_arm] += flow.size
    total = max(answer.counted, 1)
    value: Value = {
        "model": answer.model,
        "base_revision": answer.base_revision,
        "counted": answer.counted,
        "moved": answer.moved,
        "other_version": answer.other_version,
        "left_out": answer.left_out,
        "shares": {arm: size / total for arm, size in sorted(after.items())},
        "flows": flows_value(answer.flows),
        "searched": list(answer.searched),
    }
    show(value, output, columns=FLOW_COLUMNS, rows=flow_rows(answer.flows, total), note=_simulated(answer, after))


def _simulate_keys(stub: control_pb2_grpc.ControlStub, text: str, file: Path) -> control_pb2.SimulateResponse:
    """Returns the sum over calls with as many keys as one takes. Raises: Failure if the route changed between them."""
    total: control_pb2.SimulateResponse | None = None
    sizes: dict[tuple[str, str, str, str], int] = {}
    for chunk in _chunks(file):
        request = control_pb2.SimulateRequest(document_json=text, keys=chunk)
        part: control_pb2.SimulateResponse = stub.Simulate(request, timeout=60)
        if total is not None and total.base_revision != part.base_revision:
            raise Failure(Exit.REFUSED, f"{part.model}: the route changed during the simulation; ask again")
        for flow in part.flows:
            ends = (flow.from_arm, flow.from_version, flow.to_arm, flow.to_version)
            sizes[ends] = sizes.get(ends, 0) + flow.size
        if total is None:
            total = part
        else:
            total.counted += part.counted
            total.moved += part.moved
            total.other_version += part.other_version
    if total is None:
        raise Failure(Exit.USAGE, f"{file}: no key in it")
    del total.flows[:]
    for ends, size in sorted(sizes.items(), key=lambda item: -item[1]):
        total.flows.add(from_arm=ends[0], from_version=ends[1], to_arm=ends[2], to_version=ends[3], size=size)
    return total


def _chunks(file: Path) -> Iterator[list[str]]:
    """Yields the keys of the file, empty lines left out, in chunks that one call takes."""
    chunk: list[str] = []
    size_bytes = 0
    try:
        with sys.stdin if str(file) == "-" else file.open() as lines:
            for line in lines:
                if key := line.rstrip("\r\n"):
                    chunk.append(key)
                    size_bytes += len(key.encode())
                if len(chunk) == KEYS_PER_CALL or size_bytes >= KEY_BYTES_PER_CALL:
                    yield chunk
                    chunk, size_bytes = [], 0
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {getattr(error, 'strerror', error)}") from None
    if chunk:
        yield chunk


def _simulated(answer: control_pb2.SimulateResponse, after: Counter[str]) -> list[str]:
    total = max(answer.counted, 1)
    shares = ", ".join(f"{arm} {100 * size / total:.2f} %" for arm, size in after.most_common())
    lines = [
        f"{answer.model}: {answer.counted} keys against revision {answer.base_revision or 'none'}: "
        f"{answer.moved} ({100 * answer.moved / total:.2f} %) change their arm, "
        f"{answer.other_version} ({100 * answer.other_version / total:.2f} %) their version",
        f"then: {shares or 'nobody'}",
    ]
    if answer.left_out:
        lines.append(f"{answer.left_out} logged requests left out: without a bucket, or of another salt")
    lines += [f"searched: {place}" for place in answer.searched]
    return lines


def _explained(answer: control_pb2.ExplainResponse) -> dict[str, Value]:
    value: dict[str, Value] = {
        "steps": [{"stage": s.stage, "outcome": s.outcome, "detail": s.detail} for s in answer.steps],
        "decision": _outcome(answer.decision) if answer.HasField("decision") else None,
        "error": {"code": answer.error_code, "text": answer.error} if answer.error else None,
    }
    if answer.HasField("served"):
        value["served"] = _outcome(answer.served) | {"at": moment(answer.row.ts_us), "code": answer.row.code}
        value["agrees"] = answer.agrees
        value["searched"] = list(answer.searched)
    return value


def _outcome(outcome: control_pb2.Outcome) -> dict[str, Value]:
    return {
        "arm": outcome.arm,
        "version": outcome.version,
        "revision": outcome.revision,
        "reason": outcome.reason,
        "bucket": outcome.bucket,
        "fallbacks": list(outcome.fallbacks),
        "mirrors": list(outcome.mirrors),
    }


def _note(answer: control_pb2.ExplainResponse) -> list[str]:
    lines = []
    if answer.HasField("served"):
        lines.append(f"served at {moment(answer.row.ts_us)}: {_line(answer.served)}, {answer.row.code}")
        replayed = _line(answer.decision) if answer.HasField("decision") else "nothing"
        lines.append(f"decided again: {replayed}: {'the same' if answer.agrees else 'NOT what was served'}")
    elif answer.error:
        lines.append(f"refused: {answer.error_code}: {answer.error}")
    else:
        lines.append(f"decision: {_line(answer.decision)}")
    return lines


def _line(outcome: control_pb2.Outcome) -> str:
    arm = f"arm {outcome.arm}, " if outcome.arm else ""
    return f"{arm}version {outcome.version or '(newest ready)'}, revision {outcome.revision}, {outcome.reason}"


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise Failure(Exit.USAGE, f"{option}: {text!r} is not NAME=VALUE")
        if name in pairs:
            raise Failure(Exit.USAGE, f"{option}: {name!r} is given twice")
        pairs[name] = value
    return pairs


def _parameter(text: str) -> control_pb2.Parameter:
    """Returns the parameter as a client would most likely send it."""
    if text in ("true", "false"):
        return control_pb2.Parameter(flag=text == "true")
    try:
        whole = int(text)
        if -(2**63) <= whole < 2**63:
            return control_pb2.Parameter(whole=whole)
    except ValueError:
        pass
    try:
        return control_pb2.Parameter(number=float(text))
    except ValueError:
        return control_pb2.Parameter(text=text)
