"""gateway export and gateway import: all routes as documents, out of one gateway and into another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml

from gateway.cli.apply import commit
from gateway.cli.change_options import CHANGING
from gateway.cli.client import control
from gateway.cli.documents import File, write_whole
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, counted, say, to_json
from gateway.cli.shared_options import DEFAULT_SERVER, Server
from gateway.page.route_words import in_force_text
from gateway.pb import control_pb2

READABLE_BYTES = 1 << 20


def export(
    file: Annotated[
        Path, typer.Option("-f", "--file", help="Where to; a directory gets one file a model; - is standard output.")
    ] = Path("-"),
    server: Server = DEFAULT_SERVER,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="yaml, or json (one document a line).")
    ] = Format.YAML,
) -> None:
    """Write every route as the document that `gateway import` and `gateway routes apply` read."""
    if output is Format.TABLE:
        raise Failure(Exit.USAGE, "-o table: documents are written as yaml or json")
    with control(server) as stub:
        listed = stub.ListRoutes(control_pb2.ListRoutesRequest(), timeout=30)
    routes = sorted(listed.routes, key=lambda route: route.model)
    if listed.stale:
        say("gateway: the store is away: these are the rules that the answering worker serves by")
    if file.is_dir():
        for route in routes:
            write_whole(file / f"{route.model}.{output.value}", _text([route], output))
        say(f"gateway: {counted(len(routes), 'route')} written to {file}")
        return
    text = _text(routes, output)
    if len(text.encode()) > READABLE_BYTES:
        raise Failure(
            Exit.USAGE,
            f"{len(routes)} routes are {len(text.encode())} bytes, a file that is read may have {READABLE_BYTES}: "
            "name a directory with -f",
        )
    if str(file) == "-":
        typer.echo(text, nl=False)
    else:
        write_whole(file, text)
        say(f"gateway: {counted(len(routes), 'route')} written to {file}")


def import_routes(file: File) -> None:
    """Commit every route of a file or directory: all are checked before the first is committed.

    The same as `gateway routes apply`, which can delete the routes of other models too.
    """
    commit(file, CHANGING.get(), wait=True, reason="import")


def _text(routes: Sequence[control_pb2.Route], form: Format) -> str:
    # What is in force: elsewhere nobody knows how far its rollout is.
    documents = [msgspec.json.decode(in_force_text(route)) for route in routes]
    if form is Format.JSON and len(documents) == 1:
        return to_json(documents[0], indent=2) + "\n"
    if form is Format.JSON:
        # YAML's separators between JSON documents: what is read back is a stream of YAML.
        return "".join(f"---\n{to_json(document)}\n" for document in documents)
    return "".join(f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}" for document in documents)
