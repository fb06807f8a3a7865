"""The prediction log as readers follow it."""

from collections.abc import AsyncIterator
from pathlib import Path

from gateway.access.audience import Audience
from gateway.api.drain import Drain
from gateway.api.route_messages import principal_of, row_message
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.records.worker.tail import tail

MAX_TAILS = 16
MAX_BACKLOG = 10_000


class LogTails:
    """Serves TailLog to a bounded number of readers, until the worker leaves."""

    def __init__(self, log_dir: Path, drain: Drain) -> None:
        self._log_dir = log_dir
        self._drain = drain
        self._readers = Audience(MAX_TAILS, "follow the log of this worker")

    async def tail(self, request: pb.TailLogRequest, context: object) -> AsyncIterator[pb.LogRow]:
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise InvalidArgument(f"backlog is {request.backlog}, allowed: 0 to {MAX_BACKLOG}")
        principal = principal_of(context)
        self._readers.join(principal)
        try:
            rows = tail(self._log_dir, model=request.model or None, backlog=request.backlog, follow=request.follow)
            async for row in self._drain.through(rows):
                yield row_message(row)
        finally:
            self._readers.leave(principal)
