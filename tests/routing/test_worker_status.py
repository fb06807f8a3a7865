"""An acknowledgement never claims more than is true, however much of it has to be left out."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.routing.store.worker_status import MODELS_TOLD, Unapplied, WorkerStatus, parse_status

HEAD = 400


def status(waiting: dict[str, Unapplied]) -> WorkerStatus:
    oldest = min((route.revisions[0] for route in waiting.values()), default=HEAD + 1)
    return WorkerStatus("w0", "LIVE", epoch="e", head=HEAD, revision=oldest - 1, unapplied=waiting)


def told(full: WorkerStatus) -> WorkerStatus:
    return parse_status([word.encode() for pair in full.to_fields().items() for word in pair])


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, HEAD), max_size=3 * MODELS_TOLD))
@example(set())
@example({1})
@example({HEAD})
def test_what_is_told_is_true(revisions: set[int]) -> None:
    full = status({f"m{revision}": Unapplied((revision,), "why") for revision in revisions})
    read = told(full)
    for revision in range(1, HEAD + 2):
        assert full.applied(revision, "e") == (revision <= HEAD and revision not in revisions)
        assert not read.applied(revision, "e") or full.applied(revision, "e")
        assert not read.applied(revision, "another")
    newest = sorted(revisions)[-MODELS_TOLD:]
    assert all(read.refusal_of(revision, "e") == "why" for revision in newest)
    if len(revisions) <= MODELS_TOLD:
        assert all(read.applied(r, "e") == full.applied(r, "e") for r in range(1, HEAD + 1))


@pytest.mark.parametrize("fields", [[], [b"id"], [b"id", b"w", b"unapplied", b"{}"], [b"\xff", b"\xff"]])
def test_anything_else_is_refused(fields: list[bytes]) -> None:
    with pytest.raises(InvalidArgument):
        parse_status(fields)
