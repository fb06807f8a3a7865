"""A committed route: the document, its table, and where it stands in the history."""

import hashlib
from dataclasses import dataclass

from gateway.errors import InvalidArgument
from gateway.routing.decision.interval_table import Table, rebalance
from gateway.routing.document.canonical import canonical_json
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.field import Field
from gateway.routing.document.notation import read_json

ROUTE_FIELDS = ("model", "revision", "previous_revision", "committed_at_us", "document", "table")
_LARGEST = 2**63 - 1
_TEXT_LIMIT_BYTES = 4 << 20
_KNOWN = 64
_KNOWN_CHARACTERS = 64 << 10
_known: dict[str, RouteDocument] = {}  # documents by their canonical texts


@dataclass(frozen=True, slots=True)
class Route:
    """The active routing of one model since `revision`.

    Units:  `committed_at_us` since the epoch, by the store's clock; 0 in a route that is not committed yet.
    Raises: InvalidArgument where document, table and model do not belong together.
    """

    model: str
    revision: int
    document: RouteDocument
    table: Table
    committed_at_us: int
    previous_revision: int

    def __post_init__(self) -> None:
        if self.document.model != self.model:
            raise InvalidArgument(f"route: the document of model {self.document.model!r} in a route of {self.model!r}")
        wanted = {arm: weight for arm, weight in self.document.weights().items() if weight}
        if self.table.weights() != wanted:
            raise InvalidArgument(f"route: the table's weights {self.table.weights()} are not the document's {wanted}")

    @property
    def digest(self) -> str:
        """SHA-256 over model, revision, document and table, in hexadecimal: the same on every worker."""
        table = canonical_json(self.table.to_value())
        content = f'["{self.model}",{self.revision},{self.document.to_json()},{table}]'
        return hashlib.sha256(content.encode()).hexdigest()

    def to_value(self) -> dict[str, object]:
        """The route as plain data, by the names in `ROUTE_FIELDS`."""
        value: dict[str, object] = {name: getattr(self, name) for name in ROUTE_FIELDS}
        return value | {"document": self.document.to_value(), "table": self.table.to_value()}

    def to_json(self) -> str:
        """The canonical text: sorted names, no spaces; `from_json` of it is this route again."""
        return canonical_json(self.to_value())

    @classmethod
    def from_json(cls, text: str | bytes) -> "Route":
        """The route that `to_json` wrote, the order of its fields aside.

        Raises: InvalidArgument for everything else: the text comes from a store that anybody may have written to.
        """
        section = Field(read_json(text, limit_bytes=_TEXT_LIMIT_BYTES), "route").section(*ROUTE_FIELDS)
        return cls(
            model=section.required("model").text(),
            revision=section.required("revision").whole(0, _LARGEST),
            document=_document(section.required("document").value),
            table=Table.from_value(section.required("table").value),
            committed_at_us=section.required("committed_at_us").whole(0, _LARGEST),
            previous_revision=section.required("previous_revision").whole(0, _LARGEST),
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


def propose(document: RouteDocument, active: Route | None) -> Route:
    """The route to commit for this document: its table is the active one's, changed by as little as possible.

    An arm that was only renamed (its name is gone, and one new name has its version) keeps its buckets. The revision
    and the time of the commit are 0: they are the store's to give.
    """
    previous: Table | None = None
    if active is not None:
        previous = active.table.renamed(renames(active.document, document))
    table = rebalance(previous, document.weights())
    return Route(document.model, 0, document, table, 0, active.revision if active is not None else 0)


def renames(old: RouteDocument, new: RouteDocument) -> dict[str, str]:
    """New names by old ones of the arms that were only renamed: the version is the same, the old name is gone."""
    kept = {arm.name for arm in old.arms} & {arm.name for arm in new.arms}
    added = {arm.version: arm.name for arm in new.arms if arm.name not in kept}
    return {arm.name: added[arm.version] for arm in old.arms if arm.name not in kept and arm.version in added}
