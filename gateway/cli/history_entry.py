"""A committed change as every command shows it: history, audit, one revision, news."""

from collections.abc import Mapping

import msgspec

from gateway.cli.printing import Value, moment
from gateway.pb import control_pb2


def entry_value(entry: control_pb2.HistoryEntry) -> dict[str, Value]:
    """Returns the change for machines, without its document."""
    return {
        "model": entry.model,
        "revision": entry.revision,
        "previous_revision": entry.previous_revision,
        "restored_revision": entry.restored_revision,
        "operation": entry.operation,
        "actor": entry.actor,
        "source": entry.source,
        "reason": entry.reason,
        "committed_at": moment(entry.committed_at_us),
        "digest": entry.digest,
        "sequence": entry.sequence,
        "detail": entry.detail,
    }


def document_value(entry: control_pb2.HistoryEntry) -> Mapping[str, Value]:
    """Returns the document that the change made active, None of a deletion."""
    return {"document": msgspec.json.decode(entry.document_json) if entry.document_json else None}
