"""What quotas know of one call: which buckets it has drawn from, until it ends."""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final, Protocol

from gateway.access.priority import Priority, requested
from gateway.access.quota_use import QuotaUse
from gateway.errors import ResourceExhausted

NOTHING: Final[tuple[QuotaUse, ...]] = ()


class ModelRules:
    """What the rules say of one caller's calls of one model."""

    __slots__ = ("honours_request", "priority", "uses")

    def __init__(self, uses: tuple[QuotaUse, ...], priority: Priority, *, honours_request: bool) -> None:
        self.uses = uses
        self.priority = priority
        self.honours_request = honours_request


class PassRules(Protocol):
    """The rules of one caller."""

    def of_model(self, model: str) -> ModelRules: ...

    def refused(self, use: QuotaUse, limit: str, wait_ns: int) -> ResourceExhausted:
        """Counts a refusal and returns it as an error."""


class QuotaPass:
    """Lets one call in, step by step: the caller at the head, then model and size, as soon as they are known.

    Order: `release` ends what the call holds, however often it is called; nothing is taken after it.
    """

    __slots__ = ("_clock", "_held", "_model", "_released", "_rules", "_size_bytes", "priority")

    def __init__(
        self, rules: PassRules, uses: tuple[QuotaUse, ...], *, clock: Callable[[], int] = monotonic_ns
    ) -> None:
        """Enters by the quotas that do not depend on the model. Raises: ResourceExhausted; then nothing is held."""
        self._clock = clock
        self._rules = rules
        self._held: Sequence[QuotaUse] = NOTHING
        self._model: str | None = None
        self._size_bytes = 0
        self._released = False
        self.priority = int(Priority.DEFAULT)
        if uses:
            self._take(uses, 0)

    def enter_model(self, model: str, size_bytes: int) -> None:
        """Enters by the quotas of the model and by the bytes of all.

        Once more it does nothing, but for another model than a message named at its beginning, and for bytes that it
        turned out to have beside those that were told before: they are owed.

        Raises: ResourceExhausted; then nothing is held any more.
        """
        if self._released:
            return
        if self._model == model:
            if size_bytes > self._size_bytes:
                self._owe(size_bytes - self._size_bytes)
                self._size_bytes = size_bytes
            return
        counted = len(self._held) if self._model is not None else 0
        self._model = model
        self._size_bytes = size_bytes
        rules = self._rules.of_model(model)
        self.priority = int(rules.priority)
        now_ns = self._clock()
        for held in self._held[counted:]:
            wait_ns = held.bytes_wait_ns(size_bytes, now_ns)
            if wait_ns:
                self._give_back()
                raise self._rules.refused(held, "bytes", wait_ns)
        try:
            if rules.uses:
                self._take(rules.uses, size_bytes)
        except ResourceExhausted:
            self._give_back()
            raise
        for use in self._held[counted:]:
            use.admitted(size_bytes, now_ns)

    def _owe(self, size_bytes: int) -> None:
        now_ns = self._clock()
        for use in self._held:
            use.owe(size_bytes, now_ns)

    def priority_of(self, model: str, level: object) -> int:
        """Returns the class of the call as a number, `level` being what the request itself asks for."""
        rules = self._rules.of_model(model)
        if rules.honours_request and isinstance(level, int):
            return int(requested(level, rules.priority))
        return int(rules.priority)

    def release(self) -> None:
        """Ends what the call holds."""
        if not self._released:
            self._released = True
            for use in self._held:
                use.in_flight -= 1
            self._held = NOTHING

    def _take(self, uses: tuple[QuotaUse, ...], size_bytes: int) -> None:
        """Takes from all of these or from none. Raises: ResourceExhausted."""
        now_ns = self._clock()
        for use in uses:
            limit, wait_ns = use.refusal(size_bytes, now_ns)
            if limit:
                raise self._rules.refused(use, limit, wait_ns)
        for use in uses:
            use.take(now_ns)
        self._held = (*self._held, *uses)

    def _give_back(self) -> None:
        """Ends what is held, requests included: the call was refused by another quota."""
        for use in self._held:
            use.give_back()
        self._held = NOTHING
        self._released = True
