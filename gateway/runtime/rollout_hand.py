"""How the judge's decisions become commits: the control process asks a worker, which commits as for an operator."""

from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidArgument, Unavailable
from gateway.routing.store.amendment import Amendment, abort, promote, revert, weigh
from gateway.routing.store.change import JUDGE, JUDGE_SOURCE, Change
from gateway.routing.store.editor import Editor
from gateway.runtime.peers import Operation, Payload, PeerGone, Peers

OPERATION: Final = "rollout"
REWEIGH: Final = "reweigh"
_TIMEOUT_S: Final = 15.0

# Each act of the judge as an edit of the route. A stop is not refused because a version is not ready.
ACTS: Final[Mapping[str, tuple[Amendment, bool]]] = {
    "advance": (Amendment("promote", promote), True),
    "promote": (Amendment("promote", lambda document: promote(document, full=True)), True),
    "abort": (Amendment("abort", abort), False),
    "revert": (Amendment("abort", revert), False),
}


class PeerRolloutHand:
    """A `RolloutHand` in the control process: the first worker of the host that answers carries it out."""

    def __init__(self, peers: Peers, workers: int) -> None:
        self._peers = peers
        self._workers = workers

    async def advance(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._ask("advance", model, revision, reason, detail)

    async def promote(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._ask("promote", model, revision, reason, detail)

    async def abort(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._ask("abort", model, revision, reason, detail)

    async def revert(self, model: str, revision: int, reason: str, detail: str = "") -> None:
        await self._ask("revert", model, revision, reason, detail)

    async def reweigh(
        self, model: str, revision: int, weights: Mapping[str, str], reason: str, detail: str = ""
    ) -> None:
        await self._ask(REWEIGH, model, revision, reason, detail, dict(weights))

    async def _ask(
        self, act: str, model: str, revision: int, reason: str, detail: str, weights: dict[str, str] | None = None
    ) -> None:
        """Raises: Unavailable where no worker of this host answers; what the commit raises."""
        payload: Payload = {"act": act, "model": model, "revision": revision, "reason": reason, "detail": detail}
        payload |= {"weights": weights} if weights is not None else {}
        for slot in range(self._workers):
            try:
                await self._peers.ask_one(slot, OPERATION, payload, timeout_s=_TIMEOUT_S)
                return
            except PeerGone:
                continue
        raise Unavailable("no worker of this host answers")


def rollout_operation(editor: Editor) -> Operation:
    """Returns what a worker answers to the judge of its host."""

    async def carry_out(payload: Payload) -> Payload:
        act, model, revision = payload.get("act"), payload.get("model"), payload.get("revision")
        if act not in (*ACTS, REWEIGH) or not isinstance(model, str) or not isinstance(revision, int):
            raise InvalidArgument(f"act is {act!r}, allowed: {', '.join(ACTS)}, {REWEIGH}, with a model and a revision")
        amendment, check = (_reweighed(payload.get("weights")), False) if act == REWEIGH else ACTS[str(act)]
        # No idempotency key: the revision is the fence, and a key that can be guessed could be used up by others.
        reason, detail = (str(payload.get(name, "")) for name in ("reason", "detail"))
        change = Change(actor=JUDGE, reason=reason, source=JUDGE_SOURCE, detail=detail)
        result = await editor.amend(model, amendment, change=change, expected_revision=revision, check=check)
        return {"revision": result.change.revision}

    return carry_out


def _reweighed(given: object) -> Amendment:
    """Returns the change to these weights, percentages by arm. Raises: InvalidArgument."""
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in (*given, *given.values())):
        raise InvalidArgument("weights: not given as percentages by arm")
    weights = {str(arm): str(weight) for arm, weight in given.items()}
    return Amendment("weights", lambda document: weigh(document, weights))
