"""CloudEvents in binary mode: a request that is one, by its `ce-` headers, is answered by one.

Source: CloudEvents 1.0, HTTP protocol binding, 3.1; KServe's names of the type and the source.
"""

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote
from uuid import uuid4

from gateway.rest.http_call import Fields

VERSION_HEADER: Final = "ce-specversion"  # which every event has
_TYPE: Final = b"io.kserve.inference.response"
_SOURCE: Final = "io.kserve.inference."


def answer_event(model: str) -> Fields:
    """Returns the header fields of an answer that is an event, each with an id of its own."""
    return (
        (b"ce-specversion", b"1.0"),
        (b"ce-id", uuid4().hex.encode()),
        (b"ce-source", (_SOURCE + quote(model, safe="")).encode()),
        (b"ce-type", _TYPE),
        (b"ce-time", datetime.now(UTC).isoformat().encode()),
    )
