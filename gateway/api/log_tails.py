"""The prediction log as readers follow it."""

from collections.abc import AsyncIterator
from pathlib import Path

from gateway.api.drain import Drain
from gateway.api.route_messages import row_message
from gateway.errors import InvalidArgument, Unavailable
from gateway.pb import control_pb2 as pb
from gateway.records.worker.tail import tail

MAX_TAILS = 16
MAX_BACKLOG = 10_000


class LogTails:
    """Serves TailLog to a bounded number of readers, until the worker leaves."""

    def __init__(self, log_dir: Path, drain: Drain) -> None:
        self._log_dir = log_dir
        self._drain = drain
        self._open = 0

    async def tail(self, request: pb.TailLogRequest, context: object) -> AsyncIterator[pb.LogRow]:
        if not 0 <= request.backlog <= MAX_BACKLOG:
            raise InvalidArgument(f"backlog is {request.backlog}, allowed: 0 to {MAX_BACKLOG}")
        if self._open >= MAX_TAILS:
            raise Unavailable(f"{self._open} readers follow the log of this worker, the limit is {MAX_TAILS}")
        self._open += 1
        try:
            rows = tail(self._log_dir, model=request.model or None, backlog=request.backlog, follow=request.follow)
            async for row in self._drain.through(rows):
                yield row_message(row)
        finally:
            self._open -= 1
