"""xds.service.orca.v3.OpenRcaService: the worker's load, told again and again to clients that balance by it.

A stream belongs to the connection it is on, and so tells the load of the worker that answers that connection's calls.

Source: gRPC proposal A51; xds/service/orca/v3/orca.proto.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from gateway.api.load_reports import LoadReports
from gateway.errors import ResourceExhausted, Unimplemented
from gateway.pb import orca_service_pb2 as pb
from gateway.pb.orca_service_pb2_grpc import OpenRcaServiceServicer

MIN_INTERVAL_S: Final = 1.0
MAX_INTERVAL_S: Final = 3600.0
MAX_STREAMS: Final = 1024


class LoadStreams(OpenRcaServiceServicer):
    """Serves the reports; None where the worker tells no load. Units: `min_interval_s` is the shortest between two."""

    def __init__(
        self,
        reports: LoadReports | None,
        *,
        min_interval_s: float = MIN_INTERVAL_S,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._reports = reports
        self._min_interval_s = min_interval_s
        self._max_streams = max_streams
        self._draining = asyncio.Event()
        self.open_streams = 0

    def drain(self) -> None:
        """Ends the streams: their clients go elsewhere."""
        self._draining.set()

    async def StreamCoreMetrics(self, request: pb.OrcaLoadReportRequest, context: object) -> AsyncIterator[bytes]:
        """Yields a report at once, then one in each interval that is asked for.

        Raises: Unimplemented (the worker tells no load), ResourceExhausted (too many streams).
        """
        reports = self._reports
        if reports is None:
            raise Unimplemented("the load is not told here: it is with --load-reports")
        if self.open_streams >= self._max_streams:
            raise ResourceExhausted(f"{self.open_streams} streams of load are open, the limit is {self._max_streams}")
        asked = request.report_interval
        interval_s = min(max(asked.seconds + asked.nanos / 1e9, self._min_interval_s), MAX_INTERVAL_S)
        self.open_streams += 1
        try:
            while not self._draining.is_set():
                yield reports.message()
                try:
                    async with asyncio.timeout(interval_s):
                        await self._draining.wait()
                except TimeoutError:
                    continue
        finally:
            self.open_streams -= 1
