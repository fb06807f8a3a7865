"""Refusals that leave together: while a worker refuses call after call, a connection gets them every few milliseconds.

A write is system calls, and wakes a client, which may share the CPUs; of either, one serves many refusals.
"""

from asyncio import AbstractEventLoop, TimerHandle
from typing import Final

from gateway.rpc.output import HELD, Output

HOLD_NS: Final = 4_000_000


class HeldRefusals:
    """The connections of a server on which nothing but refusals waits to be written.

    Order: whatever else is written on a connection takes its refusals along. One timer serves all connections.
    """

    __slots__ = ("_last_ns", "_loop", "_outputs", "_timer")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._last_ns = 0
        self._outputs: list[Output] = []
        self._timer: TimerHandle | None = None

    def take(self, output: Output, now_ns: int) -> None:
        """Has what a read of refused calls left written: at once, if none was refused for a while, or with others."""
        before_ns, self._last_ns = self._last_ns, now_ns
        if output.refusals & HELD:
            output.refusals = HELD
        elif now_ns - before_ns > HOLD_NS:
            output.flush()
        else:
            output.refusals = HELD
            self._outputs.append(output)
            if self._timer is None:
                self._timer = self._loop.call_later(HOLD_NS / 1e9, self._release)

    def _release(self) -> None:
        self._timer = None
        outputs, self._outputs = self._outputs, []
        for output in outputs:
            if not output.refusals:  # something else took them along
                continue
            try:
                output.flush()
            except Exception as error:  # a defect; the other connections' refusals leave all the same
                self._loop.call_exception_handler({"message": "refusals are not written", "exception": error})
