"""gateway diff: files of routes held against what was applied. Where a rollout is, is no difference."""

from typing import Annotated

import msgspec
import typer

from gateway.cli.client import control
from gateway.cli.documents import Document, File, read_documents
from gateway.cli.exits import Exit, Failure
from gateway.cli.flows import ABSENT
from gateway.cli.printing import Format, counted, show
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import Value
from gateway.pb import control_pb2
from gateway.routing.document.difference import Difference, differences
from gateway.routing.document.notation import parse_json

COLUMNS = ("MODEL", "PATH", "STORE", "FILE")


def diff_files(
    file: File,
    prune: Annotated[
        bool, typer.Option("--prune", help="A route of a model that the directory has no document for differs too.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print what `gateway apply` of a file or a directory would change of the documents that were applied.

    Ends with 0 if nothing differs, with 1 if something does, with more where it could not be compared.
    """
    if prune and not file.is_dir():
        raise Failure(Exit.USAGE, f"--prune: {file} is no directory; everything else would differ")
    documents = read_documents(file)
    try:
        with control(server) as stub:
            listed = stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=10)
    except Failure as failure:  # 1 is for what differs
        code = Exit.UNREACHABLE if failure.exit_code is Exit.REFUSED else failure.exit_code
        raise Failure(code, str(failure)) from None
    if listed.stale:
        raise Failure(Exit.UNREACHABLE, "the store is away, so nobody can tell what was applied")
    applied = {route.model: route.document_json for route in listed.routes}
    apart = [(document.model, one) for document in documents for one in _apart(document, applied.get(document.model))]
    surplus = sorted(applied.keys() - {document.model for document in documents}) if prune else []
    value: dict[str, Value] = {
        "same": not apart and not surplus,
        "differences": [
            {"model": model, "path": one.path, "store": _value(one.before), "file": _value(one.after)}
            for model, one in apart
        ],
        "not_in_files": list(surplus),
    }
    rows: list[list[Value]] = [[model, one.path, one.before or ABSENT, one.after or ABSENT] for model, one in apart]
    rows += [[model, "", "a route", ABSENT] for model in surplus]
    note = "" if rows else f"{counted(len(documents), 'document')}: what was applied is what the files say"
    show(value, output, columns=COLUMNS if rows else (), rows=rows, note=note)
    if rows:
        raise typer.Exit(Exit.REFUSED)


def _apart(document: Document, applied: str | None) -> tuple[Difference, ...]:
    before = parse_json(applied) if applied is not None else None
    return differences(before, parse_json(document.text))


def _value(text: str) -> Value:
    value: Value = msgspec.json.decode(text) if text else None
    return value
