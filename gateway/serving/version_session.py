"""The session of a version: of its own model, or of its prepared form."""

from pathlib import Path

from gateway.serving.probe_request import ProbeRequest
from gateway.serving.session import Session
from gateway.serving.verification import ModelFacts


def session_of(
    request: ProbeRequest, facts: ModelFacts | None, *, prepared: Path | None = None, saves_to: Path | None = None
) -> Session:
    """Returns a session of the version that the request names, whose verification found these facts.

    `prepared` is the file of its prepared form, if it is to be loaded from that; `saves_to` where that is written.

    Raises: FailedPrecondition.
    """
    return Session(
        prepared or request.local.model_file(request.filename),
        intra_threads=request.intra_threads,
        inter_threads=request.inter_threads,
        options=request.options,
        without_shape=frozenset() if facts is None else facts.without_shape,
        map_keys={} if facts is None else facts.map_keys,
        prepared=prepared is not None,
        saves_to=saves_to,
    )
