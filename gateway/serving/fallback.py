"""Fallback: a call that its arm cannot serve goes down the chain of its decision, within budget and breakers.

1. Where the decided version is not there, or its breaker is open, the call begins on the next arm of the chain that
   can take it. A version that was tried and failed hands the call on in the same way, its tensors as they were decoded.
2. Each arm is tried at most once. An arm is passed over if its version is not loaded, has another contract than the
   one that the request was decoded for, or has an open breaker.
3. A request is charged to the budget once, however many arms it tries. Beyond the budget it ends as it would without
   a chain.
4. An open breaker alone refuses nobody: where no other arm takes the call, the decided one is tried all the same.
   Inputs that make a model fail would else let one client shut a route.
"""

import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import Literal, NamedTuple

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
    VersionNotReady,
)
from gateway.routing.decision.decision import FALLBACK, Decision
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.safeguard import BREAKER_OPEN, Cause, Fallback
from gateway.routing.document.strategy import HOLDOUT
from gateway.serving.breaker import Admittance, BreakerState, CircuitBreaker
from gateway.serving.budget import Budget
from gateway.serving.call import Call, Receiver
from gateway.serving.substitute import same_contract, takes
from gateway.serving.version import Version

logger = logging.getLogger(__name__)

Chain = tuple[tuple[str, str], ...]
Find = Callable[[str, str], Version]  # by model and version; raises GatewayError
# Whether a call that failed by that cause is on its way through its next arm.
HandOn = Callable[["ChainReceiver", Call, str], bool]


class Retry(NamedTuple):
    """Holds where a call goes on: the arm, its version, and what follows it in the chain."""

    arm: str
    version: Version
    rest: Chain


class Guard:
    """Holds what one worker remembers of one route."""

    __slots__ = ("breakers", "budget")

    def __init__(self) -> None:
        self.budget = Budget()
        self.breakers: dict[str, tuple[str, CircuitBreaker]] = {}  # by arm, with the version that it is about

    def breaker(self, arm: str, version: str) -> CircuitBreaker:
        """Returns the arm's breaker; another version under the same name gets a new one."""
        kept = self.breakers.get(arm)
        if kept is None or kept[0] != version:
            kept = self.breakers[arm] = (version, CircuitBreaker())
        return kept[1]


class ChainReceiver:
    """The receiver of a call of a route with a chain; it tells the edge's receiver the outcome of the last arm.

    The call belongs to one arm at a time; `breaker` is that arm's, None where the route has none.
    """

    __slots__ = ("begun_ns", "breaker", "charged", "edge", "guard", "hand_on", "probe", "settings", "waited_for")

    def __init__(
        self,
        settings: Fallback,
        guard: Guard,
        edge: Receiver,
        hand_on: HandOn,
        begun_ns: int,
    ) -> None:
        self.begun_ns = begun_ns
        self.settings = settings
        self.guard = guard
        self.edge = edge
        self.hand_on = hand_on
        self.breaker: CircuitBreaker | None = None
        self.probe = False
        self.charged = False
        self.waited_for = False  # whether an outcome says something of the arm, and another arm may follow

    def submitted(self, call: Call) -> None:
        self.waited_for = True
        self.edge.submitted(call)

    def answered(self, call: Call) -> None:
        """Counts the outcome with the arm's breaker; the call goes to its next arm, or back to its edge."""
        error = call.error
        cause = "" if error is None or not self.waited_for else cause_of(error, call, monotonic_ns())
        self._tell_breaker(call, cause)
        if cause and cause in self.settings.causes and self.hand_on(self, call, cause):
            return
        self.edge.answered(call)

    def withdrawn(self, call: Call) -> None:
        """Nobody waits for another arm's answer: what comes next is the outcome, and says nothing of the arm."""
        self.waited_for = False
        self.edge.withdrawn(call)

    def admitted(self, arm: str, version: str, now_ns: int) -> bool:
        """Returns whether the arm's breaker lets the call pass; from then on its outcome is that arm's."""
        self.probe = False
        self.breaker = None
        settings = self.settings.breaker
        if settings is None:
            return True
        breaker = self.guard.breaker(arm, version)
        admittance = breaker.admit(settings, now_ns)
        if admittance is Admittance.REFUSE:
            return False
        self.breaker = breaker
        self.probe = admittance is Admittance.PROBE
        return True

    def _tell_breaker(self, call: Call, cause: str) -> None:
        breaker, settings, probe = self.breaker, self.settings.breaker, self.probe
        if breaker is None or settings is None:
            return
        self.breaker, self.probe = None, False
        if cause:
            if breaker.failed(settings, monotonic_ns(), probe=probe):
                _note(call, "opened", cause)
        elif call.error is not None or not self.waited_for:
            breaker.abandoned(probe=probe)
        elif breaker.succeeded(probe=probe):
            _note(call, "closed", "the probe was answered")


class Fallbacks:
    """The budgets and breakers of a worker, and the counts of fallbacks. Used on the loop only."""

    __slots__ = ("_counts", "_find", "_guards")

    def __init__(self, find: Find) -> None:
        self._find = find
        self._guards: dict[str, Guard] = {}
        self._counts: dict[str, dict[str, dict[str, int]]] = {}

    def begin(self, call: Call, decision: Decision, snapshot: Snapshot, hand_on: HandOn) -> Version:
        """Returns the version that serves a call whose decision has a chain; sets the call's decision and receiver.

        Raises: GatewayError, if neither the decided version nor any of the chain can; nothing is held then.
        """
        settings = snapshot.routes[call.model].route.document.fallback
        if settings is None:
            raise ValueError(f"a decision of model {call.model!r} has a chain, its route has none")
        guard = self._guards.get(call.model)
        if guard is None:
            guard = self._guards[call.model] = Guard()
        now_ns = monotonic_ns()
        guard.budget.request(now_ns)
        receiver = ChainReceiver(settings, guard, call.receiver, hand_on, now_ns)
        arm = decision.arm
        try:
            decided = self._find(call.model, decision.version)
        except (NotFound, Unavailable, VersionNotReady) as error:
            cause: str = _absence(error, settings)
            retry = self.next(receiver, call, decision.fallbacks, now_ns) if cause else None
            if retry is None:
                raise
        else:
            cause = BREAKER_OPEN
            itself = Retry(arm, decided, decision.fallbacks)
            if receiver.admitted(arm, decision.version, now_ns):
                retry = itself
            else:
                retry = self.next(receiver, call, decision.fallbacks, now_ns) or itself
        call.receiver = receiver
        call.decision = decision
        if retry.arm != arm:
            self.left(call, retry, cause)
        return retry.version

    def next(self, receiver: ChainReceiver, call: Call, chain: Chain, now_ns: int) -> Retry | None:
        """Returns the first arm of the chain that takes the call, charged to the budget; None if there is none."""
        for place, (arm, name) in enumerate(chain, 1):
            try:
                version = self._find(call.model, name)
            except GatewayError:
                continue
            if call.version is not None and not (same_contract(call.version, version) and takes(version, call.rows)):
                continue
            budget, begun_ns = receiver.guard.budget, receiver.begun_ns
            if not (receiver.charged or budget.allows(receiver.settings.budget, begun_ns, now_ns)):
                return None
            if receiver.admitted(arm, name, now_ns):
                if not receiver.charged:
                    receiver.charged = True
                    budget.charge(begun_ns, now_ns)
                return Retry(arm, version, chain[place:])
        return None

    def left(self, call: Call, retry: Retry, cause: str) -> None:
        """Notes in the call's decision, and counts, that it left its arm for another."""
        decision = call.decision
        if decision is None:
            raise ValueError("a call without a decision has no arm to leave")
        whys = self._counts.setdefault(call.model, {}).setdefault(decision.arm, {})
        whys[cause] = whys.get(cause, 0) + 1
        # The reason stays that of the first arm: why the one that was decided did not serve.
        reason = decision.reason if decision.reason.startswith(FALLBACK) else FALLBACK + cause
        call.decision = Decision(
            retry.arm, retry.version.name, decision.revision, reason, decision.bucket,
            retry.rest, decision.fallback_on, decision.mirrors,
        )  # fmt: skip

    def counts(self) -> dict[str, object]:
        """Returns the calls that left an arm, by model, arm and cause."""
        return {model: {arm: dict(whys) for arm, whys in arms.items()} for model, arms in self._counts.items()}

    def states(self, snapshot: Snapshot, now_ns: int) -> list[dict[str, str]]:
        """Returns the state of every breaker of the active routes, and forgets those of arms that are gone."""
        shown: list[dict[str, str]] = []
        for model in list(self._guards):
            compiled = snapshot.routes.get(model)
            fallback = compiled.route.document.fallback if compiled is not None else None
            if compiled is None or fallback is None:
                del self._guards[model]
                continue
            versions = {arm.name: arm.version for arm in compiled.route.document.arms}
            versions[HOLDOUT] = compiled.default.version
            breakers = self._guards[model].breakers
            for arm, (version, breaker) in list(breakers.items()):
                if versions.get(arm) != version or fallback.breaker is None:
                    del breakers[arm]
                else:
                    shown.append({"model": model, "arm": arm, "state": _shown(breaker.state(fallback.breaker, now_ns))})
        return shown


def cause_of(error: GatewayError, call: Call, now_ns: int) -> Cause | Literal[""]:
    """Returns why a version could not answer, in the words of a route; "" if that is not its fault.

    What the client sent, its leaving and its own deadline are never the version's fault.
    """
    if isinstance(error, DeadlineExceeded):
        return "DEADLINE" if not call.deadline_ns or now_ns < call.deadline_ns else ""
    if isinstance(error, ResourceExhausted):
        return "RESOURCE_EXHAUSTED"
    if isinstance(error, Unavailable):
        return "UNAVAILABLE"
    if isinstance(error, VersionNotReady):  # quarantined since it was decided
        return "NOT_LOADED"
    return "INTERNAL" if isinstance(error, Internal) else ""


def _absence(error: GatewayError, settings: Fallback) -> Cause | Literal[""]:
    """Returns the cause that lets a call leave a version that is not there; "" if none does."""
    if "NOT_LOADED" in settings.causes:
        return "NOT_LOADED"
    return "UNAVAILABLE" if isinstance(error, Unavailable) and "UNAVAILABLE" in settings.causes else ""


def _shown(state: BreakerState) -> str:
    return str((BreakerState.HALF_OPEN if state is BreakerState.PROBING else state).value)


def _note(call: Call, what: str, why: str) -> None:
    decision = call.decision
    if decision is not None:
        logger.warning(
            "breaker %s: model=%s arm=%s version=%s: %s", what, call.model, decision.arm, decision.version, why
        )
