"""The metadata that go with an answer: who gave it and why, the id of the request, and the token for feedback."""

from typing import Final
from urllib.parse import quote

from gateway.access.principal import ANONYMOUS, Principal
from gateway.api.feedback_token import Stamp, Tokens
from gateway.serving.call import CACHED, Call

Metadata = tuple[tuple[str, str], ...]
TOKEN: Final = "x-gateway-token"
REQUEST_ID: Final = "x-gateway-request-id"  # with every error: what the log and the prediction log call the request
STEPS: Final = "x-gateway-steps"  # of an ensemble: model, version and arm of each step
CACHE_HIT: Final = ("x-gateway-cache", "hit")
_REMEMBERED: Final = 4096


class AnswerMetadata:
    """The metadata of answers, made once for all of a kind; with `tokens`, also what makes their tokens."""

    __slots__ = ("_kept", "_tokens")

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._kept: dict[tuple[str, str, str, int, str, str, bool], tuple[Metadata, Stamp | None]] = {}

    def of(self, call: Call, principal: Principal) -> tuple[Metadata, Stamp | None]:
        """Returns the metadata that all answers of this kind have, as the caller may see them, and what makes their
        tokens.
        """
        decision, version, ran = call.decision, call.version, call.ran
        if ran and principal is not ANONYMOUS:
            ran = seen_steps(ran, principal)
        if decision is None or version is None:
            return (), None
        hit = call.cache_key == CACHED
        key = (version.model, version.name, decision.arm, decision.revision, decision.reason, ran, hit)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= _REMEMBERED:
                self._kept.clear()
            trailers: Metadata = (
                ("x-gateway-version", version.name),
                ("x-gateway-arm", decision.arm),
                ("x-gateway-revision", str(decision.revision)),
                ("x-gateway-reason", decision.reason),
            )
            if hit:
                trailers += (CACHE_HIT,)
            if ran:
                trailers += ((STEPS, ran),)
            stamp = None
            if self._tokens is not None:
                stamp = self._tokens.stamp(version.model, version.name, decision.arm, decision.revision)
            kept = self._kept[key] = trailers, stamp
        return kept


def seen_steps(ran: str, principal: Principal) -> str:
    """Returns what ran without versions and arms of the models on which the caller holds no role.

    Which models they are it may know: the configuration of the ensemble, on which it holds one, names them.
    """
    seen = []
    for entry in ran.split(","):
        place, colon, _ = entry.partition(":")
        hidden = colon and not principal.roles_on(place.rpartition("/")[2])
        seen.append(f"{place}::" if hidden else entry)
    return ",".join(seen)


def id_bytes(request_id: str) -> bytes:
    """Returns the id in ASCII, as metadata must be; other characters are percent-encoded."""
    return request_id.encode() if request_id.isascii() else quote(request_id).encode()
