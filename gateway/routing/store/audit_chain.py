"""The chain of the audit trail: what an entry's hash covers, and where a chain is broken first.

The hash of an entry is SHA-256 over its fields in their order, `name=length:value`, one a line; the last of them is the
hash of the entry before it. So nobody can change, take out, add or exchange entries without making all later ones anew,
and the newest hash is then another one: `gateway audit verify` prints it, to be noted where nobody who can write into
the store can write. chain.lua computes the same.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

KEPT: Final = 20_000  # entries, and up to 99 more until the oldest go
HEALED: Final = ("accept", "restore")  # what `heal` records


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A place in the chain: an entry's sequence and hash. Sequence 0 is before the first."""

    sequence: int = 0
    hash: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was changed: by whom, why and through what.

    `revision` is that of a route's change, else 0; `document` the SHA-256 of the route's document and table.
    `detail` says what the other fields have no place for. `unreadable` says why the store's entry is none, else "".

    Units: `at_us` since the Unix epoch, by the store's clock.
    """

    sequence: int
    operation: str
    model: str
    revision: int
    previous_revision: int
    restored_revision: int
    document: str
    actor: str
    reason: str
    source: str
    at_us: int
    detail: str
    before: str
    hash: str
    unreadable: str = ""

    @property
    def link(self) -> ChainLink:
        return ChainLink(self.sequence, self.hash)

    def computed_hash(self) -> str:
        """Returns the hash that an entry with these fields has."""
        fields: tuple[tuple[str, str | int], ...] = (
            ("sequence", self.sequence),
            ("op", self.operation),
            ("model", self.model),
            ("revision", self.revision),
            ("prev", self.previous_revision),
            ("restored", self.restored_revision),
            ("document", self.document),
            ("actor", self.actor),
            ("reason", self.reason),
            ("source", self.source),
            ("at", self.at_us),
            ("detail", self.detail),
            ("before", self.before),
        )
        lines = []
        for name, value in fields:
            encoded = str(value).encode()
            lines.append(b"%s=%d:%s" % (name.encode(), len(encoded), encoded))
        return hashlib.sha256(b"\n".join(lines)).hexdigest()


def carries_verdict(detail: str) -> bool:
    """Returns whether an entry's detail is a verdict of the judge of rollouts, which is long and for programs."""
    return detail.startswith('{"form":')


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first place at which a chain is broken."""

    sequence: int
    why: str


def first_fault(
    entries: Iterable[AuditEntry], *, anchor: ChainLink, head: ChainLink | None = None, known: ChainLink | None = None
) -> ChainFault | None:
    """Returns where the chain that follows `anchor` is broken first; None if it holds up to `head`.

    Without a `head` the chain may end anywhere (an exported part of it). `known` is an entry that was noted earlier and
    must be in the chain.
    """
    last = anchor
    seen = known is None or known == anchor
    for entry in entries:
        if entry.unreadable:
            return ChainFault(entry.sequence, f"is no entry of the gateway: {entry.unreadable}")
        if entry.sequence != last.sequence + 1:
            return ChainFault(last.sequence + 1, f"is missing: entry {entry.sequence} follows {last.sequence}")
        if entry.before != last.hash:
            return ChainFault(entry.sequence, f"does not follow entry {last.sequence}: it names another hash before it")
        if entry.hash != entry.computed_hash():
            return ChainFault(entry.sequence, "was changed: its hash is not that of its fields")
        if known is not None and entry.sequence == known.sequence:
            if entry.hash != known.hash:
                return ChainFault(entry.sequence, "is not the entry that was noted: the chain was made anew")
            seen = True
        last = entry.link
    if head is not None and last != head:
        return ChainFault(last.sequence + 1, f"is missing: the newest recorded is {head.sequence}")
    if not seen and known is not None:
        return ChainFault(known.sequence, f"was noted, but the entries are {anchor.sequence + 1} to {last.sequence}")
    return None


def cut_off(anchor: ChainLink, head: ChainLink, *, kept: int = KEPT) -> str:
    """Returns why the beginning of a trail is not what the gateway has dropped, "" if it is: as long as fewer entries
    are there than are kept, none goes."""
    entries = head.sequence - anchor.sequence
    if not anchor.sequence or entries >= kept:
        return ""
    return f"the entries up to {anchor.sequence} were taken out: {entries} are there, and the newest {kept} are kept"


@dataclass(frozen=True, slots=True)
class RouteInForce:
    """Holds the route of a model as the store has it; `document` as in `AuditEntry`."""

    model: str
    revision: int
    document: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """Compares the routes in force with a chain: `unchained` are from before it, `contradictions` are not its."""

    unchained: tuple[str, ...]
    contradictions: tuple[str, ...]


def compare(entries: Iterable[AuditEntry], routes: Iterable[RouteInForce]) -> Recorded:
    """Returns which of the routes nothing was recorded of, and which are not what was recorded.

    What was committed before the first entry that is kept has no entry; what was in the store when somebody accepted it
    was declared right by that.
    """
    committed: dict[int, AuditEntry] = {}
    declared = 0
    for entry in entries:
        if entry.operation in HEALED:
            declared = max(declared, entry.revision)
        elif entry.revision:
            committed[entry.revision] = entry
    first = min(committed, default=0 if declared else 2**63)
    unchained: list[str] = []
    contradictions: list[str] = []
    for route in routes:
        recorded = committed.get(route.revision)
        if recorded is not None and (recorded.model, recorded.document) != (route.model, route.document):
            contradictions.append(f"the route of {route.model!r} is not what entry {recorded.sequence} recorded")
        elif recorded is None and route.revision and route.revision < max(first, declared):
            unchained.append(f"revision {route.revision} of {route.model!r}")
        elif recorded is None:
            contradictions.append(
                f"no entry has recorded revision {route.revision} of {route.model!r}, its route: "
                "an older release committed it, or somebody wrote it by hand"
            )
    return Recorded(tuple(unchained), tuple(contradictions))
