"""What a worker reports of its load with its answers, for clients and proxies that balance by it.

    gRPC  the trailer `endpoint-load-metrics-bin`, with every answer to a unary inference; and by `load_streams`
    REST  the header `endpoint-load-metrics`, where `endpoint-load-metrics-format` asks for text or json

A report is made when one is needed and the last is older than `FRESH_NS`; until then answers repeat it.

Source: gRPC proposals A51, A58; xds.data.orca.v3.OrcaLoadReport; Envoy's and Triton's headers of these names.
"""

from collections.abc import Callable
from math import exp
from struct import Struct
from typing import Final, NamedTuple

from gateway.errors import CLIENT_CODES, Code
from gateway.rpc.handler import Metadata

TRAILER: Final = "endpoint-load-metrics-bin"
HEADER: Final = b"endpoint-load-metrics"
FORMAT_HEADER: Final = "endpoint-load-metrics-format"
FRESH_NS: Final = 100_000_000
_SMOOTHED_NS: Final = 1e9  # what clients weigh by changes once a second
_KEPT: Final = 4096
# Four doubles of the message, each behind its field's number and wire type.
_MESSAGE: Final = Struct("<BdBdBdBd")
_CPU: Final = 1 << 3 | 1
_RATE: Final = 6 << 3 | 1
_ERRORS: Final = 7 << 3 | 1
_UTILIZATION: Final = 9 << 3 | 1
_OK: Final = Code.OK


class Load(NamedTuple):
    """The load of a worker, smoothed over about a second.

    Units: `cpu_utilization` as a share of the CPUs that are the worker's; `application_utilization` the larger of that
           and of its admission's share in use; `rps_fractional` and `eps` per second.
    """

    cpu_utilization: float
    application_utilization: float
    rps_fractional: float
    eps: float


def smoothed(before: float, now: float, passed_ns: int) -> float:
    """Returns the mean of both, where `now` counts the more the longer it has been so."""
    return before + (now - before) * (1.0 - exp(-passed_ns / _SMOOTHED_NS))


def as_message(load: Load) -> bytes:
    """Returns the load as a serialized OrcaLoadReport."""
    return _MESSAGE.pack(
        _CPU,
        load.cpu_utilization,
        _RATE,
        load.rps_fractional,
        _ERRORS,
        load.eps,
        _UTILIZATION,
        load.application_utilization,
    )


def as_header(load: Load, form: str) -> bytes:
    """Returns the load as the header's value; b"" for a form that is not known."""
    pairs = tuple(zip(load._fields, load, strict=True))
    if form == "text":
        return ("TEXT " + ", ".join(f"{name}={value:.6g}" for name, value in pairs)).encode()
    if form == "json":
        return ("JSON {" + ", ".join(f'"{name}": {value:.6g}' for name, value in pairs) + "}").encode()
    return b""


class LoadReports:
    """The reports of one worker.

    `cpu_ns` is the CPU time that the process has used, `cpus` what is the worker's share of the host's, `admitted` the
    share in use of what it admits. Units: `now_ns` and `cpu_ns` in nanoseconds, of clocks that only go forward.
    """

    __slots__ = (
        "_admitted",
        "_answers",
        "_at_ns",
        "_cpu_ns",
        "_cpu_used_ns",
        "_cpus",
        "_errors",
        "_joined",
        "_load",
        "_now_ns",
        "_pair",
    )

    def __init__(
        self, *, now_ns: Callable[[], int], cpu_ns: Callable[[], int], cpus: float, admitted: Callable[[], float]
    ) -> None:
        self._now_ns = now_ns
        self._cpu_ns = cpu_ns
        self._cpus = cpus
        self._admitted = admitted
        self._at_ns = now_ns()
        self._cpu_used_ns = cpu_ns()
        self._answers = 0  # since the last report
        self._errors = 0
        self._load = Load(0.0, 0.0, 0.0, 0.0)
        self._pair: Metadata = ((TRAILER, as_message(self._load)),)
        # By the identity of the metadata that come before the report, which are kept beside it for that.
        self._joined: dict[int, tuple[Metadata, Metadata]] = {}

    def count(self, code: Code) -> None:
        """Counts an answer; what its client caused is no error of the worker."""
        self._answers += 1
        if code is not _OK and code not in CLIENT_CODES:
            self._errors += 1

    def with_report(self, trailers: Metadata) -> Metadata:
        """Returns the metadata with the report behind them: the same tuple for the same, as long as the report is."""
        self._refresh()
        kept = self._joined.get(id(trailers))
        if kept is None or kept[0] is not trailers:
            if len(self._joined) >= _KEPT:
                self._joined.clear()
            kept = self._joined[id(trailers)] = (trailers, (*trailers, *self._pair))
        return kept[1]

    def message(self) -> bytes:
        """Returns the report as a serialized OrcaLoadReport."""
        self._refresh()
        return as_message(self._load)

    def header(self, form: str) -> bytes:
        """Returns the value of the header in that form, in whatever case; b"" for one that is not known."""
        self._refresh()
        return as_header(self._load, form.lower())

    def _refresh(self) -> None:
        """Makes a report where the last is too old."""
        now_ns = self._now_ns()
        passed_ns = now_ns - self._at_ns
        if passed_ns < FRESH_NS:
            return
        used_ns, before = self._cpu_ns(), self._load
        cpu = smoothed(before.cpu_utilization, (used_ns - self._cpu_used_ns) / passed_ns / self._cpus, passed_ns)
        self._load = Load(
            cpu,
            max(cpu, self._admitted()),
            smoothed(before.rps_fractional, self._answers * 1e9 / passed_ns, passed_ns),
            smoothed(before.eps, self._errors * 1e9 / passed_ns, passed_ns),
        )
        self._at_ns, self._cpu_used_ns, self._answers, self._errors = now_ns, used_ns, 0, 0
        self._pair = ((TRAILER, as_message(self._load)),)
        self._joined.clear()
