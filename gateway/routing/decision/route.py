"""A committed route: the document, its status and table, and where it stands in the history."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.errors import GatewayError, InvalidArgument
from gateway.routing.decision.interval_table import Table, rebalance
from gateway.routing.document.canonical import canonical_json
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.field import Field
from gateway.routing.document.notation import read_json
from gateway.routing.document.route_status import (
    BEGINNING,
    RouteStatus,
    kept_status,
    parse_status,
    status_between,
    under,
)

ROUTE_FIELDS = ("model", "revision", "previous_revision", "committed_at_us", "document", "table")
STATUS = "status"  # beside them, where there is one
_LARGEST = 2**63 - 1
_TEXT_LIMIT_BYTES = 4 << 20
_KNOWN = 64
_KNOWN_CHARACTERS = 64 << 10
_known: dict[str, RouteDocument] = {}  # documents by their canonical texts


@dataclass(frozen=True, slots=True)
class Route:
    """The active routing of one model since `revision`.

    `document` is what is in force: the one that was applied, `spec`, under its `status`. `applied` is None where
    there is no status, and both are the same.
    Units:  `committed_at_us` since the epoch, by the store's clock; 0 in a route that is not committed yet.
    Raises: InvalidArgument where document, table and model do not belong together.
    """

    model: str
    revision: int
    document: RouteDocument
    table: Table
    committed_at_us: int
    previous_revision: int
    applied: RouteDocument | None = None
    status: RouteStatus = BEGINNING

    def __post_init__(self) -> None:
        if self.document.model != self.model:
            raise InvalidArgument(f"route: the document of model {self.document.model!r} in a route of {self.model!r}")
        wanted = {arm: weight for arm, weight in self.document.weights().items() if weight}
        if self.table.weights() != wanted:
            raise InvalidArgument(f"route: the table's weights {self.table.weights()} are not the document's {wanted}")

    @property
    def spec(self) -> RouteDocument:
        """The document as it was applied."""
        return self.document if self.applied is None else self.applied

    @property
    def digest(self) -> str:
        """SHA-256 over model, revision, document and table, in hexadecimal: the same on every worker."""
        table = canonical_json(self.table.to_value())
        content = f'["{self.model}",{self.revision},{self.document.to_json()},{table}]'
        return hashlib.sha256(content.encode()).hexdigest()

    def to_value(self) -> dict[str, object]:
        """The route as plain data, by the names in `ROUTE_FIELDS`."""
        value: dict[str, object] = {name: getattr(self, name) for name in ROUTE_FIELDS}
        value |= {"document": self.spec.to_value(), "table": self.table.to_value()}
        return value if self.status == BEGINNING else value | {STATUS: self.status.to_value()}

    def to_json(self) -> str:
        """The canonical text: sorted names, no spaces; `from_json` of it is this route again."""
        return canonical_json(self.to_value())

    @classmethod
    def from_json(cls, text: str | bytes) -> "Route":
        """The route that `to_json` wrote, the order of its fields aside.

        Raises: InvalidArgument for everything else: the text comes from a store that anybody may have written to.
        """
        section = Field(read_json(text, limit_bytes=_TEXT_LIMIT_BYTES), "route").section(*ROUTE_FIELDS, STATUS)
        spec, given = _document(section.required("document").value), section.field(STATUS)
        status = parse_status(given) if given is not None else BEGINNING
        return cls(
            model=section.required("model").text(),
            revision=section.required("revision").whole(0, _LARGEST),
            document=under(spec, status),
            table=Table.from_value(section.required("table").value),
            committed_at_us=section.required("committed_at_us").whole(0, _LARGEST),
            previous_revision=section.required("previous_revision").whole(0, _LARGEST),
            applied=spec if status != BEGINNING else None,
            status=status,
        )


def announce(text: str) -> None:
    """Parses the document of this canonical text, so that a route with it is read without parsing it again.

    Parsing is half of what a change costs a worker that follows. Raises: InvalidArgument for what is no document.
    """
    if text not in _known:
        _keep(text, parse(read_json(text, limit_bytes=_TEXT_LIMIT_BYTES)))


def _document(value: object) -> RouteDocument:
    """Returns the document of that value, parsed once: rollbacks, flips and announcements bring documents back."""
    text = canonical_json(value)
    document = _known.get(text)
    if document is None:
        document = parse(value)
        _keep(text, document)
    return document


def _keep(text: str, document: RouteDocument) -> None:
    if len(text) <= _KNOWN_CHARACTERS:
        if len(_known) >= _KNOWN:
            _known.clear()
        _known[text] = document


def propose(spec: RouteDocument, active: Route | None, status: RouteStatus | None = None) -> Route:
    """The route to commit for this document: its table is the active one's, changed by as little as possible.

    `status` is None for whoever applies a document: see `kept_status`.
    An arm that was only renamed (its name is gone, and one new name has its version) keeps its buckets. The revision
    and the time of the commit are 0: they are the store's to give.
    """
    if status is None:
        status = kept_status(active.spec, active.status, spec) if active is not None else BEGINNING
    document = under(spec, status)
    previous: Table | None = None
    if active is not None:
        previous = active.table.renamed(renames(active.document, document))
    table = rebalance(previous, document.weights())
    revision = active.revision if active is not None else 0
    return Route(document.model, 0, document, table, 0, revision, spec if status != BEGINNING else None, status)


def restated(
    active: Route, document: RouteDocument, edit: Callable[[RouteDocument], RouteDocument]
) -> tuple[RouteDocument, RouteStatus]:
    """Returns the document to apply, and its status, that put in force what an edit made of the document in force.

    1. What was applied stays as it is, where a status says all that is new.
    2. Else it is edited in the same way, and the status stays.
    3. Where that comes to something else, what is in force is the new document.
    """
    status = status_between(active.spec, document)
    if status is not None:
        return active.spec, status
    if active.status != BEGINNING:
        # A kill switch names an arm of what is in force: that of the same words in the document may be another.
        edits = (edit, lambda spec: replace(spec, kill_switch=document.kill_switch))
        for one in edits:
            try:
                spec = one(active.spec)
                if under(spec, active.status) == document:
                    return spec, active.status
            except GatewayError:
                continue  # the edit fits what is in force, and not what was applied
    return document, BEGINNING


def renames(old: RouteDocument, new: RouteDocument) -> dict[str, str]:
    """New names by old ones of the arms that were only renamed: the version is the same, the old name is gone."""
    kept = {arm.name for arm in old.arms} & {arm.name for arm in new.arms}
    added = {arm.version: arm.name for arm in new.arms if arm.name not in kept}
    return {arm.name: added[arm.version] for arm in old.arms if arm.name not in kept and arm.version in added}
