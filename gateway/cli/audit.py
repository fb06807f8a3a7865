"""gateway audit: who changed what over all models, the proof that nobody changed that, and the trail as a file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from gateway.cli.client import control
from gateway.cli.documents import write_whole
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, say, show
from gateway.cli.rejudged import VERDICT_COLUMNS, rejudge
from gateway.cli.shared_options import DEFAULT_SERVER, Output, Server
from gateway.page.message_values import Value, entry_value, moment
from gateway.pb import control_pb2
from gateway.routing.store.audit_chain import (
    AuditEntry,
    ChainFault,
    ChainLink,
    RouteInForce,
    compare,
    cut_off,
    first_fault,
)

PAGE = 200  # an entry with a verdict has about 8 KB


class _Audit(TyperGroup):
    """A group whose command is `list` where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["list", *args])


app = typer.Typer(
    cls=_Audit, help="Who changed what, over all models; whether the record is whole; the record as a file."
)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The whole audit trail: what it follows, its entries, its newest, and the routes in force."""

    anchor: ChainLink
    entries: Sequence[AuditEntry]
    head: ChainLink
    routes: Sequence[RouteInForce]
    noted: ChainLink = field(default_factory=ChainLink)  # what the answering worker has seen


@app.command("list", epilog="Example: gateway audit list --limit 20")
def list_(
    limit: Annotated[int, typer.Option("--limit", help="How many, newest first.", min=1, max=1000)] = 50,
    model: Annotated[str, typer.Option("--model", help="Only changes of this model.")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Only changes by this person.")] = "",
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print who changed what, when, by what and why, over all models; newest first (the same as `gateway audit`)."""
    with control(server) as stub:
        answer = stub.Audit(control_pb2.AuditRequest(limit=limit, model=model, actor=actor), timeout=10)
    value: list[Value] = [entry_value(entry) for entry in answer.entries]
    rows = [
        [
            *(e.sequence or "", moment(e.committed_at_us), e.revision or "", e.model, e.operation),
            *(e.actor, e.source, e.reason, e.detail),
        ]
        for e in answer.entries
    ]
    show(
        value,
        output,
        columns=("ENTRY", "COMMITTED", "REVISION", "MODEL", "OPERATION", "ACTOR", "SOURCE", "REASON", "DETAIL"),
        rows=rows,
        note="" if rows else "no change",
    )


@app.command(epilog="Example: gateway audit verify --file audit.jsonl")
def verify(
    file: Annotated[Path | None, typer.Option("-f", "--file", help="An exported trail; else the server's.")] = None,
    anchor: Annotated[
        str, typer.Option("--anchor", help="ENTRY:HASH that was noted earlier, and must still be in the trail.")
    ] = "",
    verdict: Annotated[
        int, typer.Option("--verdict", help="The number of an entry of the judge, to be judged again.", min=0)
    ] = 0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Check that no entry of the audit trail was changed, taken out or added, and that the routes are what it recorded.

    With --verdict, also that the counters and the evidence in this entry give what the judge of rollouts made of them:
    each number that is another one is named. Ends with exit code 1 and the first broken entry where that is not so.
    """
    known = _noted(anchor)
    chain = _read(file) if file is not None else _ask(server)
    fault = first_fault(chain.entries, anchor=chain.anchor, head=chain.head, known=known)
    routes = compare(chain.entries, chain.routes)
    wrong = [f"entry {fault.sequence} {fault.why}"] if fault is not None else [*routes.contradictions]
    wrong += [why] if (why := cut_off(chain.anchor, chain.head)) else []
    if fault is None and chain.noted.sequence > chain.anchor.sequence:
        unseen = first_fault(chain.entries, anchor=chain.anchor, known=chain.noted)
        wrong += [f"entry {unseen.sequence}, which the gateway has seen, {unseen.why}"] if unseen is not None else []
    judged = rejudge(chain.entries, verdict) if verdict else None
    wrong += judged.faults if judged is not None else ()
    value: dict[str, Value] = {
        "entries": len(chain.entries),
        "first": chain.anchor.sequence + 1,
        "head": f"{chain.head.sequence}:{chain.head.hash}",
        "unchained": list(routes.unchained),
        "wrong": wrong,
    }
    if judged is not None:
        value["verdict"] = judged.value
    if judged is not None and output is Format.TABLE:
        show(None, output, columns=VERDICT_COLUMNS, rows=judged.rows, note=judged.notes)
    show(value, output, note=[*wrong, *_account(chain, routes.unchained, fault)])
    if wrong:
        raise Failure(Exit.REFUSED, "the verdict is not what follows" if not fault else "the audit trail is broken")


@app.command(epilog="Example: gateway audit export --file audit.jsonl")
def export(
    file: Annotated[Path, typer.Option("-f", "--file", help="Where to; - is standard output.")] = Path("-"),
    server: Server = DEFAULT_SERVER,
    output: Annotated[Format, typer.Option("-o", "--output", help="json: one entry a line.")] = Format.JSON,
) -> None:
    """Write the whole audit trail to a file that `gateway audit verify --file` checks without any server."""
    if output is not Format.JSON:
        raise Failure(Exit.USAGE, f"-o {output.value}: the trail is written as json, one entry a line")
    chain = _ask(server)
    lines: list[object] = [{"anchor": chain.anchor, "head": chain.head}, *chain.entries]
    text = "".join(msgspec.json.encode(line).decode() + "\n" for line in lines)
    if str(file) == "-":
        typer.echo(text, nl=False)
    else:
        write_whole(file, text)
        say(f"gateway: {len(chain.entries)} entries are in {file}; the newest is {_link(chain.head)}")


def _account(chain: _Chain, unchained: Sequence[str], fault: ChainFault | None) -> Iterator[str]:
    if fault is None:
        yield (
            f"entries {chain.anchor.sequence + 1} to {chain.head.sequence} are a chain; "
            f"note the newest where nobody can change it: {_link(chain.head)}"
            if chain.entries
            else "nothing was recorded yet"
        )
    if chain.anchor.sequence:
        yield f"older entries are no longer kept; the newest of them is {_link(chain.anchor)}"
    if unchained:
        yield f"unchained, from before what is kept began: {', '.join(unchained)}"


def _ask(server: str) -> _Chain:
    entries: list[AuditEntry] = []
    first: control_pb2.AuditChainResponse | None = None
    with control(server) as stub:
        while True:
            after = entries[-1].sequence if entries else 0
            page = stub.AuditChain(control_pb2.AuditChainRequest(after=after, limit=PAGE), timeout=30)
            first = first or page
            entries += [_entry(entry) for entry in page.entries]
            if len(page.entries) < PAGE:
                break
    return _Chain(
        # What is dropped while the rest is read was read before.
        ChainLink(first.trimmed_sequence, first.trimmed_hash),
        entries,
        ChainLink(page.head_sequence, page.head_hash),
        [RouteInForce(route.model, route.revision, route.document) for route in page.routes],
        ChainLink(first.noted_sequence, first.noted_hash),
    )


def _entry(entry: control_pb2.ChainedEntry) -> AuditEntry:
    return AuditEntry(**{field.name: getattr(entry, field.name) for field in entry.DESCRIPTOR.fields})


def _read(file: Path) -> _Chain:
    """Raises: Failure for a file that is no exported trail."""
    try:
        first, *others = file.read_bytes().splitlines() or [b""]
        ends = msgspec.json.decode(first, type=dict[str, ChainLink])
        entries = [msgspec.json.decode(other, type=AuditEntry) for other in others]
        return _Chain(ends["anchor"], entries, ends["head"], ())
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise Failure(Exit.USAGE, f"{file} is no exported audit trail: {error}") from None


def _noted(anchor: str) -> ChainLink | None:
    sequence, colon, hash_ = anchor.partition(":")
    if not anchor:
        return None
    if not (colon and sequence.isascii() and sequence.isdecimal() and re.fullmatch("[0-9a-f]{64}", hash_)):
        raise Failure(Exit.USAGE, f"--anchor {anchor!r} is not NUMBER:HASH, with all 64 digits of the hash")
    return ChainLink(int(sequence), hash_)


def _link(link: ChainLink) -> str:
    return f"{link.sequence}:{link.hash}"
