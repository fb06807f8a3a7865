"""A model's past changes, and which of them a rollback goes back to.

Rolling back goes one step further into the past each time, like undo in an editor, and never forth again:

- An apply, an edit or a delete is a step. A rollback is not: it makes the document of an earlier step active again, as
  a new revision that remembers whose document that is (`restored_revision`).
- The target is the step before the one whose document is active. After 1: A, 2: B, 3: C a rollback commits revision 4
  with B, the next one revision 5 with A, and the one after that says that there is nothing left.
- A rollout that moved by itself is one step, however many revisions the judge made of it: the target is what was there
  before it. In an incident the version that was ramped up is not wanted at its last share either. Where nothing was
  there before, it is the rollout's own beginning.
- Of a rollback whose step is older than the history, its own copy of the document is the target, and the last one.
- kubectl and Argo go to and fro between the two newest instead. Somebody who presses twice in an incident would get the
  bad version back; here forth is a revision asked for by its number.

A rolled back route brings its old table with it, so the same users return to the same arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.change import JUDGE_SOURCE, ChangeEntry

_Texts = Callable[[ChangeEntry], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of the history. `route` is None for a deletion."""

    entry: ChangeEntry
    route: Route | None


def step_before(entries: Sequence[ChangeEntry], texts: _Texts | None = None) -> ChangeEntry | None:
    """The change that a rollback makes active again, or None: see the module's rules.

    Shapes: `entries` newest first, the newest being in force; `texts` gives the documents of an entry, the one in force
            and the one that was applied, where its `route_text` has not got them.
    """
    document = _document if texts is None else lambda entry: texts(entry)[0]
    applied = _applied if texts is None else lambda entry: texts(entry)[1]
    by_revision = {entry.revision: entry for entry in entries}
    step = by_revision.get(entries[0].origin)
    active = document(entries[0])
    rolled_out = applied(step) if step is not None and step.source == JUDGE_SOURCE else ""
    beginning: ChangeEntry | None = None
    while step is not None and step.origin in by_revision:
        before = by_revision.get(step.previous_revision)
        step = by_revision.get(before.origin, before) if before is not None else None
        if step is not None and step.route_text and document(step) != active:
            if not rolled_out or applied(step) != rolled_out:
                return step
            beginning = step
    return beginning


def readable(route_text: str | None) -> Route | None:
    """The route that the store holds as this text, or None where it is none."""
    try:
        return Route.from_json(route_text) if route_text else None
    except InvalidArgument:
        return None


def route_of(entry: ChangeEntry) -> Route:
    """The route that a change made. Raises: FailedPrecondition if it made none."""
    if not entry.route_text:
        raise FailedPrecondition(f"revision {entry.revision} deleted the route of model {entry.model!r}")
    try:
        return Route.from_json(entry.route_text)
    except InvalidArgument as error:
        raise FailedPrecondition(f"revision {entry.revision} of model {entry.model!r} is damaged: {error}") from error


def _document(entry: ChangeEntry) -> str:
    route = readable(entry.route_text)
    return "" if route is None else route.document.to_json()


def _applied(entry: ChangeEntry) -> str:
    """Returns the document without what became of it since: the same throughout a rollout."""
    route = readable(entry.route_text)
    return "" if route is None else route.spec.to_json()
